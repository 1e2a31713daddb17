package snapshot

import "github.com/cespare/xxhash/v2"

// fileTable is what is known of the files of one directory, by name. It is a map
// in as little memory as can be, since a build may have half a million files: 56
// bytes and the name's for each, and nothing in it for the garbage collector to
// follow. The zero value is empty.
type fileTable struct {
	// names are all names, one after the other.
	names   []byte
	entries []packedEntry
	// slots are indexes into entries, from 1, at the hash of the name or the next
	// free place: a power of two of them, at most three quarters in use. Nil
	// while a look at each entry is as fast.
	slots []uint32
	// rare is what few files have, by index.
	rare map[uint32]rareEntry
	live int
}

// packedEntry is a fileEntry but for what is rare.
type packedEntry struct {
	ino                uint64
	size, mtime, ctime int64
	sum                uint64
	uid, gid           uint32
	name               uint32
	// mode is st_mode, which has 16 bits.
	mode   uint16
	length uint8 // of the name: NAME_MAX is 255
	flags  uint8
}

const (
	entryHasSum = 1 << iota
	entryGone
	entryRare
)

type rareEntry struct{ rdev, caps uint64 }

// few is how many entries are looked at one by one.
const few = 8

func (t *fileTable) len() int { return t.live }

// reserve makes room for so many entries of an empty table.
func (t *fileTable) reserve(n int) {
	t.entries = make([]packedEntry, 0, n)
	if n > few {
		size := 4 * few
		for 4*n > 3*size {
			size *= 2
		}
		t.slots = make([]uint32, size)
	}
}

func (t *fileTable) name(i int) []byte {
	e := &t.entries[i]
	return t.names[e.name : e.name+uint32(e.length)]
}

// index is where a name is, gone or not; -1 where it never was.
func (t *fileTable) index(name string) int {
	if t.slots == nil {
		for i := range t.entries {
			if string(t.name(i)) == name {
				return i
			}
		}
		return -1
	}
	mask := len(t.slots) - 1
	for at := int(xxhash.Sum64String(name)) & mask; t.slots[at] != 0; at = (at + 1) & mask { //nolint:gosec // only some bits are wanted
		if i := int(t.slots[at] - 1); string(t.name(i)) == name {
			return i
		}
	}
	return -1
}

// get gives what is known of a name.
func (t *fileTable) get(name string) (fileEntry, bool) {
	i := t.index(name)
	if i < 0 || t.entries[i].flags&entryGone != 0 {
		return fileEntry{}, false
	}
	p := &t.entries[i]
	e := fileEntry{ino: p.ino, size: p.size, mtime: p.mtime, ctime: p.ctime, sum: p.sum, mode: uint32(p.mode), uid: p.uid, gid: p.gid, hasSum: p.flags&entryHasSum != 0}
	if p.flags&entryRare != 0 {
		r := t.rare[uint32(i)] //nolint:gosec // slots have 32 bits
		e.rdev, e.caps = r.rdev, r.caps
	}
	return e, true
}

// has says whether something is known of a name.
func (t *fileTable) has(name string) bool {
	i := t.index(name)
	return i >= 0 && t.entries[i].flags&entryGone == 0
}

// set replaces what is known of a name.
func (t *fileTable) set(name string, e fileEntry) {
	i := t.index(name)
	if i < 0 {
		i = t.add(name)
	} else if t.entries[i].flags&entryGone != 0 {
		t.live++
	}
	p := &t.entries[i]
	*p = packedEntry{ino: e.ino, size: e.size, mtime: e.mtime, ctime: e.ctime, sum: e.sum, uid: e.uid, gid: e.gid, mode: uint16(e.mode), name: p.name, length: p.length} //nolint:gosec // st_mode has 16 bits
	if e.hasSum {
		p.flags |= entryHasSum
	}
	delete(t.rare, uint32(i)) //nolint:gosec // slots have 32 bits
	if e.rdev != 0 || e.caps != 0 {
		p.flags |= entryRare
		if t.rare == nil {
			t.rare = map[uint32]rareEntry{}
		}
		t.rare[uint32(i)] = rareEntry{e.rdev, e.caps} //nolint:gosec // slots have 32 bits
	}
}

// add makes a place for a name that never was.
func (t *fileTable) add(name string) int {
	i := len(t.entries)
	t.entries = append(t.entries, packedEntry{name: uint32(len(t.names)), length: uint8(len(name))}) //nolint:gosec // NAME_MAX is 255
	t.names = append(t.names, name...)
	t.live++
	switch {
	case t.slots == nil && i < few:
	case t.slots == nil || 4*len(t.entries) > 3*len(t.slots):
		t.slots = make([]uint32, max(4*few, 2*len(t.slots)))
		for i := range t.entries {
			t.place(i)
		}
	default:
		t.place(i)
	}
	return i
}

func (t *fileTable) place(i int) {
	mask := len(t.slots) - 1
	at := int(xxhash.Sum64(t.name(i))) & mask //nolint:gosec // only some bits are wanted
	for t.slots[at] != 0 {
		at = (at + 1) & mask
	}
	t.slots[at] = uint32(i + 1) //nolint:gosec // more files than that no directory has
}

// remove forgets a name. Its place is kept for when it comes again.
func (t *fileTable) remove(name string) {
	if i := t.index(name); i >= 0 && t.entries[i].flags&entryGone == 0 {
		t.entries[i].flags |= entryGone
		t.live--
	}
}

// all are the names that something is known of.
func (t *fileTable) all(yield func(name string) bool) {
	for i := range t.entries {
		if t.entries[i].flags&entryGone == 0 && !yield(string(t.name(i))) {
			return
		}
	}
}
