package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// CollisionError is a mount of the container that stays where it is, on a path
// that the image has too: a step would see and change the mount. Nearly the same
// is a directory that stays because a process of the job works in it, where the
// image has no directory.
type CollisionError struct {
	// Mount is what stays, Path the image's path, both absolute.
	Mount, Path string
}

func (e *CollisionError) Error() string {
	if e.Mount == e.Path {
		return fmt.Sprintf("the container's %s cannot be set aside (a mount, or a job's process works there), and the image has this path too", e.Mount)
	}
	return fmt.Sprintf("the container's %s cannot be set aside, and the image's %s is no directory", e.Mount, e.Path)
}

// exchange puts the entries of a tree at the place of a root's own, by renaming,
// and back. It works on any two directories of one filesystem. Paths are
// relative to the root and to the tree; "" is the directory itself.
//
// Whatever happens, at every moment the journal's phase says whose the entries
// at the root are: so back works after a failure and after a crash alike.
type exchange struct {
	journalBegin
	journal *journal
	ops     exchangeOps

	phase   phase
	merged  map[string]*mergedDir
	fixed   map[string]fixedEntry
	content []mountedContent
	devices []deviceDir
	// suspect are paths of the tree whose ctime was changed.
	suspect map[string]bool
	// gone are merged directories that the step has moved away; the value is
	// where what it has put there is kept, or empty.
	gone map[string]string
}

// exchangeOps are what tests replace.
type exchangeOps struct {
	rename func(oldpath, newpath string) error
	// mounts are the mount points beneath the root.
	mounts func() ([]mountPoint, error)
	// held says whether a process works in this directory, so that it must
	// not be removed and made anew.
	held func(dir string) bool
}

// runtimeDirs are the kernel's: they stay, and those of a tree stay unseen.
var runtimeDirs = []string{"proc", "sys", "dev"}

// mountedFiles are mounted into every container; those of a tree stay unseen.
var mountedFiles = []string{"etc/hostname", "etc/hosts", "etc/resolv.conf"}

func newExchange(begin journalBegin, j *journal, ops exchangeOps) (*exchange, error) {
	x := emptyExchange(j, ops)
	if err := x.note(journalRecord{Begin: &begin}); err != nil {
		return nil, err
	}
	return x, nil
}

func emptyExchange(j *journal, ops exchangeOps) *exchange {
	return &exchange{journal: j, ops: ops, merged: map[string]*mergedDir{}, fixed: map[string]fixedEntry{},
		suspect: map[string]bool{}, gone: map[string]string{}}
}

// resumeExchange continues with what a journal says.
func resumeExchange(j *journal, records []journalRecord, ops exchangeOps) *exchange {
	x := emptyExchange(j, ops)
	for _, r := range records {
		x.learn(r)
	}
	return x
}

// forgetLife leaves out what the journal says of a life of the root that is over.
// Mounts are then found by their paths, where the runtime has made them again.
// Mounted files and devices have been made anew when the container was started.
func (x *exchange) forgetLife(now rootLife) {
	if x.Life == now {
		return
	}
	for p, f := range x.fixed {
		f.Mount = 0
		x.fixed[p] = f
	}
	if x.Life.Init != now.Init {
		x.content, x.devices = nil, nil
	}
}

// note writes a record and takes it over.
func (x *exchange) note(r journalRecord) error {
	if err := x.journal.write(r); err != nil {
		return err
	}
	x.learn(r)
	return nil
}

func (x *exchange) learn(r journalRecord) {
	switch {
	case r.Begin != nil:
		x.journalBegin = *r.Begin
		x.phase = asidePhase
	case r.Merge != nil:
		x.merged[r.Merge.Path] = r.Merge
	case r.Lifted != "":
		delete(x.merged, r.Lifted)
	case r.Fixed != nil:
		x.fixed[r.Fixed.Path] = *r.Fixed
	case r.Content != nil:
		x.content = append(x.content, *r.Content)
	case r.Devices != nil:
		x.devices = append(x.devices, *r.Devices)
	case r.Phase != "":
		x.phase = r.Phase
	}
}

// in gives the absolute path of rel in one of the directories.
func in(dir, rel string) string { return filepath.Join(dir, rel) }

// forth puts the tree's entries at the root. After an error, back undoes what
// was done.
func (x *exchange) forth() error {
	mounts, err := x.ops.mounts()
	if err != nil {
		return err
	}
	if err := x.foresee(mounts); err != nil {
		return err
	}
	if err := os.MkdirAll(x.Aside, 0o700); err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	if _, err := x.merge("", mounts); err != nil {
		return err
	}
	if err := x.checkFixed(); err != nil {
		return err
	}
	if err := x.note(journalRecord{Phase: inPhase}); err != nil {
		return err
	}
	if err := x.moveIn(""); err != nil {
		return err
	}
	return x.note(journalRecord{Phase: runPhase})
}

// foresee finds, before anything is moved, mounts that cannot be moved on paths
// that the tree has: those at the root itself and in /etc. What lies deeper
// mostly moves with its directory; checkFixed sees the rest.
func (x *exchange) foresee(mounts []mountPoint) error {
	for _, m := range mounts {
		dir := path.Dir(m.Path)
		if (dir == "." || dir == "etc") && !x.stays(m.Path) {
			if err := x.collides(m.Path, m.Path); err != nil {
				return err
			}
		}
	}
	return nil
}

// stays says whether the root's path is ours or the kernel's.
func (x *exchange) stays(rel string) bool {
	return slices.Contains(runtimeDirs, rel) || slices.Contains(x.Keep, rel)
}

// visible are the mounts, absolute, that stay and are neither ours nor of every
// container.
func (x *exchange) visible() (list []string) {
	for p, f := range x.fixed {
		if f.Mount != 0 && !x.stays(p) && !slices.Contains(mountedFiles, p) {
			list = append(list, "/"+p)
		}
	}
	slices.Sort(list)
	return list
}

// leadsToOurs says whether something of ours lies beneath the path.
func (x *exchange) leadsToOurs(rel string) bool {
	return slices.ContainsFunc(x.Keep, func(k string) bool { return strings.HasPrefix(k, rel+"/") })
}

// collides says whether the tree has something where the root's fixed path is,
// or something that is no directory on the way there.
func (x *exchange) collides(fixed, mount string) error {
	if slices.Contains(mountedFiles, fixed) {
		fixed = path.Dir(fixed)
	} else if exists(in(x.Tree, fixed)) && parentsAreDirs(x.Tree, fixed) {
		return &CollisionError{Mount: "/" + mount, Path: "/" + fixed}
	} else {
		fixed = path.Dir(fixed)
	}
	for dir := fixed; dir != "."; dir = path.Dir(dir) {
		if st, err := os.Lstat(in(x.Tree, dir)); err == nil && !st.IsDir() && parentsAreDirs(x.Tree, dir) {
			return &CollisionError{Mount: "/" + mount, Path: "/" + dir}
		}
	}
	return nil
}

// parentsAreDirs says whether no parent of rel, within dir, is a link.
func parentsAreDirs(dir, rel string) bool {
	for p := path.Dir(rel); p != "."; p = path.Dir(p) {
		if st, err := os.Lstat(in(dir, p)); err != nil || !st.IsDir() {
			return false
		}
	}
	return true
}

// checkFixed compares all that could not be moved with the tree.
func (x *exchange) checkFixed() error {
	for p := range x.fixed {
		if !x.stays(p) {
			if err := x.collides(p, p); err != nil {
				return err
			}
		}
	}
	for p := range x.merged {
		if st, err := os.Lstat(in(x.Tree, p)); err == nil && !st.IsDir() && parentsAreDirs(x.Tree, p) && !x.leadsToOurs(p) {
			return &CollisionError{Mount: "/" + p, Path: "/" + p}
		}
	}
	return nil
}

// merge sets the entries of the root's directory rel aside. It returns whether
// any had to stay.
func (x *exchange) merge(rel string, mounts []mountPoint) (remains bool, err error) {
	m := &mergedDir{Path: rel}
	if m.Own, err = readAttrs(in(x.Root, rel)); err != nil {
		return false, err
	}
	if st, err := os.Lstat(in(x.Tree, rel)); err == nil && st.IsDir() && parentsAreDirs(x.Tree, rel) {
		a, err := readAttrs(in(x.Tree, rel))
		if err != nil {
			return false, err
		}
		m.Tree = &a
	}
	if err := x.note(journalRecord{Merge: m}); err != nil {
		return false, err
	}
	entries, err := os.ReadDir(in(x.Root, rel))
	if err != nil {
		return false, fmt.Errorf("read directory: %w", err)
	}
	for _, e := range entries {
		stayed, err := x.setAside(path.Join(rel, e.Name()), e, mounts)
		if err != nil {
			return false, err
		}
		remains = remains || stayed
	}
	return remains, nil
}

// setAside moves one entry of the root aside, and says whether it stays instead,
// or something in it.
func (x *exchange) setAside(rel string, e fs.DirEntry, mounts []mountPoint) (stayed bool, err error) {
	if x.stays(rel) {
		return true, x.note(journalRecord{Fixed: &fixedEntry{Path: rel, Mount: mountAt(mounts, rel)}})
	}
	if !x.leadsToOurs(rel) && !(rel == "etc" && mountWithin(mounts, rel)) {
		err := x.ops.rename(in(x.Root, rel), in(x.Aside, rel))
		switch {
		case err == nil:
			return false, nil
		case errors.Is(err, unix.EBUSY):
			return true, x.note(journalRecord{Fixed: &fixedEntry{Path: rel, Mount: mountAt(mounts, rel)}})
		case !errors.Is(err, unix.EXDEV) || !e.IsDir():
			return false, fmt.Errorf("set /%s aside: %w", rel, linkCause(err))
		}
	}
	// A directory of the container's own image (overlayfs cannot rename it),
	// or one with something that stays.
	if err := os.Mkdir(in(x.Aside, rel), 0o700); err != nil {
		return false, fmt.Errorf("create directory: %w", err)
	}
	remains, err := x.merge(rel, mounts)
	if err != nil || remains || x.ops.held(in(x.Root, rel)) {
		return true, err
	}
	// It is empty: make it anew where it can be renamed. From now on it is
	// an ordinary directory also for the next exchange.
	if err := x.merged[rel].Own.apply(in(x.Aside, rel)); err != nil {
		return false, err
	}
	if err := x.note(journalRecord{Lifted: rel}); err != nil {
		return false, err
	}
	if err := os.Remove(in(x.Root, rel)); err != nil {
		return false, fmt.Errorf("set /%s aside: %w", rel, cause(err))
	}
	return false, nil
}

// moveIn moves the tree's entries of rel to the root, but those whose place is
// taken by what stays there.
func (x *exchange) moveIn(rel string) error {
	m := x.merged[rel]
	if m.Tree == nil {
		return nil
	}
	entries, err := os.ReadDir(in(x.Tree, rel))
	if err != nil {
		return fmt.Errorf("read directory: %w", err)
	}
	for _, e := range entries {
		p := path.Join(rel, e.Name())
		if _, ok := x.fixed[p]; ok {
			continue
		}
		if sub := x.merged[p]; sub != nil {
			if sub.Tree != nil {
				if err := x.moveIn(p); err != nil {
					return err
				}
			}
			continue
		}
		if err := x.ops.rename(in(x.Tree, p), in(x.Root, p)); err != nil {
			return fmt.Errorf("move /%s into place: %w", p, linkCause(err))
		}
		x.suspect[p] = true
	}
	x.suspect[path.Join(".", rel)] = true
	return m.Tree.apply(in(x.Root, rel))
}

// linkCause takes our paths off a rename's error.
func linkCause(err error) error {
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err
	}
	return err
}
