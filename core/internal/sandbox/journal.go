package sandbox

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// phase is how far an exchange has come. What is at the root, and not fixed
// there, is the container's in asidePhase and backPhase, the tree's otherwise.
type phase string

const (
	// asidePhase: the container's entries go from the root aside, or, when
	// the exchange failed, back.
	asidePhase phase = "aside"
	// inPhase: the tree's entries go to the root.
	inPhase phase = "in"
	// runPhase: the step runs.
	runPhase phase = "run"
	// outPhase: what is at the root goes to the tree.
	outPhase phase = "out"
	// backPhase: the container's entries go back to the root.
	backPhase phase = "back"
)

// journalRecord is one line of the journal: exactly one field is set. Each line
// is written before what it announces is done.
type journalRecord struct {
	Begin   *journalBegin   `json:",omitempty"`
	Merge   *mergedDir      `json:",omitempty"`
	Lifted  string          `json:",omitempty"`
	Fixed   *fixedEntry     `json:",omitempty"`
	Content *mountedContent `json:",omitempty"`
	Devices *deviceDir      `json:",omitempty"`
	Phase   phase           `json:",omitempty"`
}

// journalBegin is the journal's first line.
type journalBegin struct {
	Root, Tree, Aside string
	// Scratch is where the step's mounts keep their own journal.
	Scratch string
	// Keep are the paths, relative to Root, that are ours and stay.
	Keep []string
	// Processes are those that must have ended before anything is put back.
	Processes []processRef
	// Life is where the mounts' ids mean something.
	Life rootLife
	// Durable says that the journal must outlive the machine, and not only us.
	Durable bool `json:",omitempty"`
}

// rootLife names one life of a container's "/": when the container is started
// again the kernel gives the ids of its mounts, and of its processes, to others.
type rootLife struct {
	// MountNS is the mount namespace, as /proc/self/ns/mnt reads.
	MountNS string
	Init    processRef
}

func currentLife() rootLife {
	ns, _ := os.Readlink("/proc/self/ns/mnt")
	init, _ := refProcess(1)
	return rootLife{MountNS: ns, Init: init}
}

// mergedDir is a directory that cannot be moved as a whole: its entries are.
type mergedDir struct {
	Path string
	// Own are the container's attributes, Tree those of the tree's directory
	// of that path; nil where it has none.
	Own  attrs
	Tree *attrs `json:",omitempty"`
}

// fixedEntry is what stays at the root: a mount point, or something of ours.
type fixedEntry struct {
	Path string
	// Mount is the mount's id; 0 where it is not a mount.
	Mount int
}

// mountedContent is a file that is mounted into the container, which a step
// sees and may change.
type mountedContent struct {
	Path string
	Data []byte
	Own  attrs
}

// processRef names a process for good: ids are used again, but not with the
// same start time.
type processRef struct {
	PID int
	// Start is in clock ticks since boot (proc(5), field 22 of stat).
	Start uint64
}

// refProcess reads the start time of a process; ok is false where there is none.
func refProcess(pid int) (ref processRef, ok bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return processRef{}, false
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	const startField = 22 - 3 // the third is the first after the name
	if len(fields) <= startField {
		return processRef{}, false
	}
	start, err := strconv.ParseUint(fields[startField], 10, 64)
	return processRef{PID: pid, Start: start}, err == nil && fields[0] != "Z" && fields[0] != "X"
}

// journal is an append-only file of records.
type journal struct {
	file *os.File
	path string
	// durable is journalBegin's.
	durable bool
}

// createJournal begins a new one; there must be none.
func createJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	return &journal{file: f, path: path}, nil
}

// openJournal opens one for continuing it and gives its records; nil where
// there is none. A last line that was not completed announces nothing that has
// been done.
func openJournal(path string) (*journal, []journalRecord, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open journal: %w", err)
	}
	var list []journalRecord
	var whole int64
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			break
		}
		var r journalRecord
		if err := json.Unmarshal(line, &r); err != nil {
			f.Close()
			return nil, nil, fmt.Errorf("read journal %s: %w", path, err)
		}
		list = append(list, r)
		whole += int64(len(line))
	}
	if err := f.Truncate(whole); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("open journal: %w", err)
	}
	durable := len(list) > 0 && list[0].Begin != nil && list[0].Begin.Durable
	return &journal{file: f, path: path, durable: durable}, list, nil
}

// write appends a record. Where the journal is to be durable, those from which follows
// whose the entries at the root are are synced, and all before them with them. Else a
// crash of the machine leaves "/" as it was at that moment; whoever syncs waits for all
// that others write to the same disk, which was seen to take a second for each step.
func (j *journal) write(r journalRecord) error {
	if r.Begin != nil {
		j.durable = r.Begin.Durable
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if j.durable && (r.Begin != nil || r.Phase == inPhase || r.Phase == backPhase) {
		if err := j.file.Sync(); err != nil {
			return fmt.Errorf("write journal: %w", err)
		}
	}
	return nil
}

// remove ends the journal: everything is at its place again.
func (j *journal) remove() error {
	return errors.Join(j.file.Close(), os.Remove(j.path))
}
