package sandbox

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	cfs "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// placedJournal is the file in a step's scratch directory that says what was
// put into the tree, so that it can be taken out again after a crash.
const placedJournal = "placed.json"

// placement is everything that was put into one tree where nothing can be
// mounted. Each entry is written down before it is made.
type placement struct {
	// Root is the tree; Scratch keeps what was in the way.
	Root, Scratch string
	Entries       []*placedEntry
}

// placedEntry is one thing put into the tree.
type placedEntry struct {
	// Target is the resolved path, inside of Root.
	Target string
	// Aside is where what was at Target is kept; empty where nothing was.
	Aside string
	// Home is where the thing came from and is renamed back to; empty where
	// it was made or copied and is removed.
	Home string
	// WriteBack is where a copied cache is copied back to.
	WriteBack string
	// Wipe is set for a file with a secret: overwritten before it is removed.
	Wipe bool
	// Stubs are the parents that were made, outermost first.
	Stubs []string
	// Parent is the first directory that was there before, Before and After
	// its times (ns) before and after our change; After is 0 until it is made.
	Parent        string
	Atime, Before int64
	After         int64
}

// placedMount is a Mount or something of our own that goes into a tree: data
// (hosts, resolv.conf) or what make makes at its target.
type placedMount struct {
	Mount
	make func(target string) error
	// optional things are left out where they cannot be made.
	optional bool
}

// placeMounts puts a step's mounts into the tree at root where nothing can be
// mounted: a bind's or cache's Source is renamed to its target (copied where
// that is on another filesystem), secrets are written, sockets linked. What was
// there is kept in scratch, which must be on root's filesystem. Undo takes all
// of it out again; recoverPlacement does so after a crash. On an error nothing
// is left in the tree. No process may run in the tree meanwhile.
//
// A cache that is shared at the same time by a second step is an error: its
// directory is in one tree only.
func placeMounts(root, scratch string, mounts []Mount) (*placement, error) {
	list := make([]placedMount, 0, len(mounts))
	for _, m := range sortMounts(mounts) {
		list = append(list, placedMount{Mount: m})
	}
	return place(root, scratch, list)
}

func place(root, scratch string, mounts []placedMount) (*placement, error) {
	p := &placement{Root: root, Scratch: scratch}
	for _, m := range mounts {
		if err := p.add(m); err != nil {
			if last := len(p.Entries) - 1; m.optional && last >= 0 {
				if undo := p.Entries[last].takeOut(); undo == nil {
					p.Entries = p.Entries[:last]
					continue
				}
			}
			err = fmt.Errorf("mount %s: %w", m.Target, err)
			return nil, errors.Join(err, p.Undo())
		}
	}
	return p, nil
}

// RecoverScratch puts right what a step has left whose builder and supervising
// process were both killed: everything that was put into its tree is taken out,
// secrets are erased. To be called for every scratch directory that is found in
// the store at a start, when no process of that step lives any more.
func RecoverScratch(scratch string) error { return recoverPlacement(scratch) }

// recoverPlacement takes out of a tree what a step whose supervisor died has
// left in it, by the journal in its scratch directory; without one there is
// nothing to do.
func recoverPlacement(scratch string) error {
	data, err := os.ReadFile(filepath.Join(scratch, placedJournal))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read journal of mounts: %w", err)
	}
	var p placement
	if err := json.Unmarshal(data, &p); err != nil {
		return fmt.Errorf("read journal of mounts: %w", err)
	}
	return p.Undo()
}

// Suspect are the paths whose ctime placing and taking out has changed,
// relative to the root.
func (p *placement) Suspect() []string {
	seen := map[string]bool{}
	var list []string
	note := func(abs string) {
		if rel, err := filepath.Rel(p.Root, abs); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") && !seen[rel] {
			seen[rel] = true
			list = append(list, rel)
		}
	}
	for _, e := range p.Entries {
		note(e.Parent)
		if e.Aside != "" {
			note(e.Target)
		}
	}
	return list
}

func (p *placement) add(m placedMount) error {
	target, err := cfs.RootPath(p.Root, m.Target)
	if err != nil {
		return fault.New(fault.User, "resolve path: %w", err)
	}
	if target == p.Root {
		return fault.New(fault.User, "the root cannot be mounted over")
	}
	e := &placedEntry{Target: target}
	if _, err := os.Lstat(target); err == nil {
		e.Aside = filepath.Join(p.Scratch, "aside-"+strconv.Itoa(len(p.Entries)))
	}
	e.Parent, e.Stubs = missingParents(target)
	if st, err := os.Lstat(e.Parent); err == nil {
		e.Before = st.ModTime().UnixNano()
		e.Atime = atime(st.Sys())
	}
	moves := (m.Kind == Bind || m.Kind == Cache && !m.ReadOnly) && m.make == nil && renames(m.Source, p.Scratch)
	switch {
	case moves:
		e.Home = m.Source
	case m.Kind == Cache && !m.ReadOnly:
		e.WriteBack = m.Source
	}
	e.Wipe = m.Kind == Secret
	p.Entries = append(p.Entries, e)
	if err := p.save(); err != nil {
		return err
	}
	if err := e.put(m); err != nil {
		return err
	}
	if st, err := os.Lstat(e.Parent); err == nil {
		e.After = st.ModTime().UnixNano()
	}
	return p.save()
}

// put makes the entry that is already in the journal.
func (e *placedEntry) put(m placedMount) error {
	for _, dir := range e.Stubs {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if e.Aside != "" {
		if err := os.Rename(e.Target, e.Aside); err != nil {
			return fmt.Errorf("set aside what is there: %w", cause(err))
		}
	}
	switch {
	case m.make != nil:
		return m.make(e.Target)
	case e.Home != "":
		return os.Rename(e.Home, e.Target)
	case m.Kind == Secret:
		return writeOwned(e.Target, m.Data, m.UID, m.GID, m.Mode)
	case m.Kind == SSHAgent:
		if err := os.Link(m.Source, e.Target); err != nil {
			return fault.New(fault.Environment, "link agent socket: %w", err)
		}
		return setOwner(e.Target, m.UID, m.GID, m.Mode)
	case m.Kind == Tmpfs:
		if err := os.Mkdir(e.Target, 0o755); err != nil {
			return err
		}
		mode := 0o777 | fs.ModeSticky
		if st, err := os.Stat(e.Aside); err == nil && st.IsDir() {
			mode = st.Mode()
		}
		return os.Chmod(e.Target, mode)
	default:
		return copyInto(m.Source, e.Target)
	}
}

// Undo takes everything out of the tree again, the last thing first. It can be
// called again after it failed, or after a crash in the midst of it.
func (p *placement) Undo() error {
	var errs []error
	for _, e := range slices.Backward(p.Entries) {
		if err := e.takeOut(); err != nil {
			errs = append(errs, fmt.Errorf("take %s out: %w", e.Target, err))
		}
	}
	if len(errs) == 0 {
		if err := os.Remove(filepath.Join(p.Scratch, placedJournal)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (e *placedEntry) takeOut() error {
	parentNow := e.parentTimes()
	if e.Aside != "" && !exists(e.Aside) {
		// Still, or again, at its place.
		return e.removeStubs(parentNow)
	}
	var err error
	switch {
	case e.Home != "":
		err = e.sendHome()
	case e.WriteBack != "" && e.After != 0 && exists(e.Target):
		err = replaceTree(e.Target, e.WriteBack)
		fallthrough
	default:
		if e.Wipe {
			wipe(e.Target)
		}
		err = errors.Join(err, removeAll(e.Target))
	}
	if err == nil && e.Aside != "" {
		err = os.Rename(e.Aside, e.Target)
	}
	return errors.Join(err, e.removeStubs(parentNow))
}

// sendHome renames a bind's or cache's directory back.
func (e *placedEntry) sendHome() error {
	if exists(e.Home) { // was never moved, or is back
		return nil
	}
	err := os.Rename(e.Target, e.Home)
	if errors.Is(err, fs.ErrNotExist) { // the step has removed it
		return os.MkdirAll(e.Home, 0o755)
	}
	return err
}

// parentTimes are the times that the parent is to have in the end: those from
// before where the step did not change it, else those that it has now.
func (e *placedEntry) parentTimes() [2]unix.Timespec {
	before := [2]unix.Timespec{unix.NsecToTimespec(e.Atime), unix.NsecToTimespec(e.Before)}
	st, err := os.Lstat(e.Parent)
	if err != nil || e.After == 0 || st.ModTime().UnixNano() == e.After {
		return before
	}
	return [2]unix.Timespec{unix.NsecToTimespec(atime(st.Sys())), unix.NsecToTimespec(st.ModTime().UnixNano())}
}

// removeStubs removes the parents that were made, unless the step has put
// something into them, and gives the parent before them its times.
func (e *placedEntry) removeStubs(times [2]unix.Timespec) error {
	for _, dir := range slices.Backward(e.Stubs) {
		if err := os.Remove(dir); err != nil {
			break
		}
	}
	err := unix.UtimesNanoAt(unix.AT_FDCWD, e.Parent, times[:], unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (p *placement) save() error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	tmp := filepath.Join(p.Scratch, placedJournal+".new")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write journal of mounts: %w", err)
	}
	return os.Rename(tmp, filepath.Join(p.Scratch, placedJournal))
}

// sortMounts orders mounts so that a target comes after the one it lies in. Of
// several with the same target only the last counts, as in BuildKit.
func sortMounts(mounts []Mount) []Mount {
	list := make([]Mount, 0, len(mounts))
	for i, m := range mounts {
		m.Target = path.Join("/", m.Target)
		if !slices.ContainsFunc(mounts[i+1:], func(o Mount) bool { return path.Join("/", o.Target) == m.Target }) {
			list = append(list, m)
		}
	}
	slices.SortStableFunc(list, func(a, b Mount) int { return cmp.Compare(a.Target, b.Target) })
	return list
}

// missingParents gives the first parent of target that is there, and those
// beneath it that are not, outermost first.
func missingParents(target string) (parent string, missing []string) {
	parent = filepath.Dir(target)
	for !exists(parent) {
		missing = append(missing, parent)
		parent = filepath.Dir(parent)
	}
	slices.Reverse(missing)
	return parent, missing
}

func exists(p string) bool {
	_, err := os.Lstat(p)
	return err == nil
}

// renames says whether source can be renamed into a directory: it is on the
// same filesystem and mount.
func renames(source, dir string) bool {
	var a, b unix.Statx_t
	const mask = unix.STATX_TYPE | unix.STATX_MNT_ID
	if unix.Statx(unix.AT_FDCWD, source, unix.AT_SYMLINK_NOFOLLOW, mask, &a) != nil ||
		unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, mask, &b) != nil {
		return false
	}
	return a.Dev_major == b.Dev_major && a.Dev_minor == b.Dev_minor && a.Mnt_id == b.Mnt_id &&
		a.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 && a.Mode&unix.S_IFMT != unix.S_IFLNK
}

func atime(sys any) int64 {
	if st, ok := sys.(*unixStat); ok {
		return time.Unix(st.Atim.Unix()).UnixNano()
	}
	return 0
}
