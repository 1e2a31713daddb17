package emulation

import (
	"debug/elf"
	"encoding/binary"
)

// program does nothing but end with 0, by one call of the kernel.
type program struct {
	machine elf.Machine
	class   elf.Class
	order   binary.AppendByteOrder
	// flags are those of the ELF header, where an architecture wants some.
	flags uint32
	// words are instructions of four bytes, code are those of other lengths.
	words []uint32
	code  []byte
}

// programs are exit(0) for each architecture, by the calling conventions of Linux
// (syscall(2)).
func programs() map[string]program {
	le, be := binary.AppendByteOrder(binary.LittleEndian), binary.AppendByteOrder(binary.BigEndian)
	return map[string]program{
		"386":      {machine: elf.EM_386, class: elf.ELFCLASS32, order: le, code: []byte{0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80}},
		"amd64":    {machine: elf.EM_X86_64, class: elf.ELFCLASS64, order: le, code: []byte{0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05}},
		"arm":      {machine: elf.EM_ARM, class: elf.ELFCLASS32, order: le, flags: 0x05000000, words: []uint32{0xe3a00000, 0xe3a07001, 0xef000000}},
		"arm64":    {machine: elf.EM_AARCH64, class: elf.ELFCLASS64, order: le, words: []uint32{0xd2800000, 0xd2800ba8, 0xd4000001}},
		"loong64":  {machine: elf.EM_LOONGARCH, class: elf.ELFCLASS64, order: le, flags: 0x43, words: []uint32{0x02800004, 0x0281740b, 0x002b0000}},
		"mips64le": {machine: elf.EM_MIPS, class: elf.ELFCLASS64, order: le, flags: 0x80000007, words: []uint32{0x24040000, 0x240213c2, 0x0000000c}},
		"ppc64le":  {machine: elf.EM_PPC64, class: elf.ELFCLASS64, order: le, flags: 2, words: []uint32{0x38600000, 0x38000001, 0x44000002}},
		"riscv64":  {machine: elf.EM_RISCV, class: elf.ELFCLASS64, order: le, words: []uint32{0x00000513, 0x05d00893, 0x00000073}},
		"s390x":    {machine: elf.EM_S390, class: elf.ELFCLASS64, order: be, code: []byte{0xa7, 0x29, 0, 0, 0x0a, 0x01}},
	}
}

// address is where the file is loaded, a multiple of every page size.
const address = 0x400000

// elf is the program as a file: the header, one segment, the code.
func (p program) elf() []byte {
	code := p.code
	for _, w := range p.words {
		code = p.order.AppendUint32(code, w)
	}
	word, header, segment := func(b []byte, v uint64) []byte { return p.order.AppendUint64(b, v) }, 64, 56
	if p.class == elf.ELFCLASS32 {
		word, header, segment = func(b []byte, v uint64) []byte { return p.order.AppendUint32(b, uint32(v)) }, 52, 32
	}
	data := elf.ELFDATA2LSB
	if p.order == binary.AppendByteOrder(binary.BigEndian) {
		data = elf.ELFDATA2MSB
	}
	start := uint64(header + segment)
	size := start + uint64(len(code))

	b := append([]byte(elf.ELFMAG), byte(p.class), byte(data), byte(elf.EV_CURRENT), 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = p.order.AppendUint16(b, uint16(elf.ET_EXEC))
	b = p.order.AppendUint16(b, uint16(p.machine))
	b = p.order.AppendUint32(b, uint32(elf.EV_CURRENT))
	b = word(b, address+start)  // entry
	b = word(b, uint64(header)) // segments
	b = word(b, 0)              // sections
	b = p.order.AppendUint32(b, p.flags)
	for _, v := range []int{header, segment, 1, 0, 0, 0} {
		b = p.order.AppendUint16(b, uint16(v))
	}
	b = p.order.AppendUint32(b, uint32(elf.PT_LOAD))
	readable := uint32(elf.PF_R | elf.PF_X)
	if p.class == elf.ELFCLASS64 {
		b = p.order.AppendUint32(b, readable)
	}
	for _, v := range []uint64{0, address, address, size, size} { // offset, addresses, sizes
		b = word(b, v)
	}
	if p.class == elf.ELFCLASS32 {
		b = p.order.AppendUint32(b, readable)
	}
	return append(word(b, 0x10000), code...) // alignment
}
