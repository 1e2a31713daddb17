package fileop

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	cfs "github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/solver/pb"
	copy "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/filecopy"
)

// worthMoving is the size from which a single file is moved: to copy a smaller one
// costs less.
const worthMoving = 256 << 10

// move is a copy out of a source that nobody will look at again (Op.Taken): what the
// target does not have yet is moved there, with what the copy would have made of it,
// and rest, which is fsutil's copy, does all the rest, with its own rules for what is
// there already.
func move(op Op, from, to string, a *pb.FileActionCopy, owner copy.Chowner, rest func() error, t *tracker) error {
	src, err := sourcePath(op.Source, from, a.FollowSymlink)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(src, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: src, Err: err}
	}
	m := &mover{op: op, owner: owner, t: t, aside: op.Source + ".moved"}
	switch {
	case isRegular(&st) && st.Nlink == 1 && st.Size >= worthMoving:
		return m.file(src, &st, rest)
	case isDirectory(&st) && asItIs(a):
		return m.directory(src, to, rest)
	}
	return rest()
}

// asItIs says that files are copied with all that they are but their owner, and all
// of them.
func asItIs(a *pb.FileActionCopy) bool {
	return a.DirCopyContents && len(a.IncludePatterns) == 0 && len(a.ExcludePatterns) == 0 && a.ModeStr == "" && a.Mode == -1 && a.Timestamp == -1
}

type mover struct {
	op    Op
	owner copy.Chowner
	t     *tracker
	// aside is a name for what is on its way, on the source's file system and
	// outside of its tree.
	aside string
}

// file moves one file: an empty one is copied in its place, with its attributes, and
// then replaced by it.
func (m *mover) file(src string, st *unix.Stat_t, rest func() error) error {
	if err := os.Rename(src, m.aside); err != nil {
		return err
	}
	f, err := os.OpenFile(src, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := filecopy.Attributes(m.aside, src, st); err != nil {
		return err
	}
	m.t.last = ""
	if err := rest(); err != nil || m.t.last == "" {
		return err // or a pattern leaves it out
	}
	return m.replace(m.t.last, m.aside)
}

// replace puts the file by in the place of at, with all that at is.
func (m *mover) replace(at, by string) error {
	var st unix.Stat_t
	if err := unix.Lstat(at, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: at, Err: err}
	}
	return keepingTime(filepath.Dir(at), func() error {
		if err := filecopy.Attributes(at, by, &st); err != nil {
			return err
		}
		// ext4 writes a file to the disk, and lets everybody wait, that a rename
		// puts in another one's place (auto_da_alloc).
		if err := os.Remove(at); err != nil {
			return err
		}
		return os.Rename(by, at)
	})
}

// directory moves what is in a directory.
func (m *mover) directory(src, to string, rest func() error) error {
	dst, err := cfs.RootPath(m.op.Root, filepath.Clean(to))
	if err != nil {
		return err
	}
	fi, err := os.Lstat(dst)
	var moved []string
	switch {
	case err == nil && fi.IsDir():
		moved, err = m.into(src, dst, rest)
	case errors.Is(err, fs.ErrNotExist):
		moved, err = m.anew(src, dst, rest)
	default:
		return rest() // says what is wrong
	}
	if err != nil {
		return err
	}
	return m.finish(moved)
}

// anew moves all that is in src to dst, which the copy of the empty directory makes,
// with those above it.
func (m *mover) anew(src, dst string, rest func() error) (moved []string, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(src, &st); err != nil {
		return nil, &os.PathError{Op: "lstat", Path: src, Err: err}
	}
	if err := os.Mkdir(m.aside, 0o700); err != nil {
		return nil, err
	}
	if moved, err = m.all(src, m.aside); err != nil {
		return nil, err
	}
	if err := setTime(src, &st); err != nil {
		return nil, err
	}
	if err := rest(); err != nil {
		return nil, err
	}
	err = keepingTime(dst, func() error {
		for i, p := range moved {
			moved[i] = filepath.Join(dst, filepath.Base(p))
			if err := os.Rename(p, moved[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return moved, errors.Join(err, os.Remove(m.aside))
}

// all moves the entries of one directory into another, empty one, those that another
// file system holds excepted.
func (m *mover) all(src, dst string) (moved []string, err error) {
	entries, err := os.ReadDir(src)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		ok, err := rename(filepath.Join(src, e.Name()), filepath.Join(dst, e.Name()))
		if err != nil {
			return nil, err
		}
		if ok {
			moved = append(moved, filepath.Join(dst, e.Name()))
		}
	}
	return moved, nil
}

// into moves what dst, a directory that is there, does not have, and leaves the
// others to the copy.
func (m *mover) into(src, dst string, rest func() error) (moved []string, err error) {
	p := &merge{}
	if err := p.look(src, dst); err != nil {
		return nil, err
	}
	if p.linked {
		return nil, rest() // names of one file stay names of one file
	}
	for _, pair := range p.moves {
		ok, err := rename(pair.from, pair.to)
		if err != nil {
			return nil, err
		}
		if ok {
			moved = append(moved, pair.to)
		}
	}
	for _, d := range p.dirs { // the copy gives the targets their times
		if err := setTime(d.path, &d.st); err != nil {
			return nil, err
		}
	}
	return moved, rest()
}

// merge is what can be moved from one directory into another that is there.
type merge struct {
	moves []struct{ from, to string }
	// dirs are the directories of the source that both have.
	dirs []sourceDir
	// linked says that a file that has to be copied has several names.
	linked bool
}

type sourceDir struct {
	path string
	st   unix.Stat_t
}

func (p *merge) look(src, dst string) error {
	d := sourceDir{path: src}
	if err := unix.Lstat(src, &d.st); err != nil {
		return &os.PathError{Op: "lstat", Path: src, Err: err}
	}
	p.dirs = append(p.dirs, d)
	entries, err := os.ReadDir(src)
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, to := filepath.Join(src, e.Name()), filepath.Join(dst, e.Name())
		there, err := os.Lstat(to)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			p.moves = append(p.moves, struct{ from, to string }{from, to})
		case err != nil:
			return err
		case e.IsDir() && there.IsDir():
			if err := p.look(from, to); err != nil {
				return err
			}
		default:
			if err := p.several(from); err != nil {
				return err
			}
		}
	}
	return nil
}

// several finds out whether a file at or below a path has further names.
func (p *merge) several(at string) error {
	return filepath.WalkDir(at, func(at string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || p.linked {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(at, &st); err != nil {
			return &os.PathError{Op: "lstat", Path: at, Err: err}
		}
		p.linked = st.Nlink > 1
		return nil
	})
}

// finish tracks what was moved, gives it its owner, and parts it from names that were
// not moved with it.
func (m *mover) finish(moved []string) error {
	names := map[uint64][]string{}
	links := map[uint64]uint64{}
	for _, top := range moved {
		err := filepath.WalkDir(top, func(p string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			m.t.add(p)
			var st unix.Stat_t
			if err := unix.Lstat(p, &st); err != nil {
				return &os.PathError{Op: "lstat", Path: p, Err: err}
			}
			if isRegular(&st) && st.Nlink > 1 {
				names[st.Ino], links[st.Ino] = append(names[st.Ino], p), uint64(st.Nlink)
			}
			return m.chown(p, &st)
		})
		if err != nil {
			return err
		}
	}
	for ino, list := range names {
		if uint64(len(list)) == links[ino] {
			continue
		}
		if err := m.part(list); err != nil {
			return err
		}
	}
	return nil
}

// part makes names of one file names of a copy of it.
func (m *mover) part(names []string) error {
	if err := filecopy.Clone(names[0], m.aside); err != nil {
		return err
	}
	if err := m.replace(names[0], m.aside); err != nil {
		return err
	}
	for _, n := range names[1:] {
		err := keepingTime(filepath.Dir(n), func() error { return errors.Join(os.Remove(n), os.Link(names[0], n)) })
		if err != nil {
			return err
		}
	}
	return nil
}

// chown gives a file the owner that the copy would have given it.
func (m *mover) chown(at string, st *unix.Stat_t) error {
	old := &copy.User{UID: int(st.Uid), GID: int(st.Gid)}
	to, err := m.owner(old)
	if err != nil || to.UID == old.UID && to.GID == old.GID {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return os.Lchown(at, to.UID, to.GID)
	}
	// The kernel takes such rights from what changes its owner.
	caps := make([]byte, 256)
	n, err := unix.Lgetxattr(at, "security.capability", caps)
	hasCaps := err == nil
	if err := os.Lchown(at, to.UID, to.GID); err != nil {
		return err
	}
	if st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		if err := unix.Chmod(at, st.Mode&0o7777); err != nil {
			return &os.PathError{Op: "chmod", Path: at, Err: err}
		}
	}
	if hasCaps {
		// As the copy: an attribute that the target cannot hold is left out.
		_ = unix.Lsetxattr(at, "security.capability", caps[:n], 0)
	}
	return nil
}

// rename moves a file or directory, whose time stays; ok is false where the target
// is on another file system.
func rename(from, to string) (ok bool, err error) {
	switch err := os.Rename(from, to); {
	case errors.Is(err, syscall.EXDEV):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, nil
}

// keepingTime runs f, which changes what is in a directory, and gives the directory
// its time back.
func keepingTime(dir string, f func() error) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	return errors.Join(f(), setTime(dir, &st))
}

func setTime(at string, st *unix.Stat_t) error {
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, at, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimes", Path: at, Err: err}
	}
	return nil
}

func isRegular(st *unix.Stat_t) bool   { return st.Mode&unix.S_IFMT == unix.S_IFREG }
func isDirectory(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }
