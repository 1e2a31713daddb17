package layer

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// maxHandles bounds the directories that are kept open: a hostile path can be
// 2,000 levels deep.
const maxHandles = 128

// dirs is a position in a tree: the open directories from the root down to the
// last one that was entered. Names are only ever looked up one component at a
// time, relative to an open directory, and a symbolic link is never followed by
// the kernel: whoever uses dirs decides about links. So a position cannot leave
// its root, whatever the tree holds, and a path may be longer than PATH_MAX.
//
// Levels below the current depth stay open for the next path that passes
// through them; whoever removes or replaces a directory calls forget.
type dirs struct {
	levels []level
}

type level struct {
	name string
	// fd is -1 where the handle was given up; at opens it again.
	fd int
}

// openDirs starts a position at root, an existing directory.
func openDirs(root string) (*dirs, error) {
	fd, err := retryInt(func() (int, error) {
		return unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	return &dirs{levels: []level{{fd: fd}}}, nil
}

func (d *dirs) close() {
	for _, l := range d.levels {
		if l.fd >= 0 {
			_ = unix.Close(l.fd) // O_PATH: nothing is written through it
		}
	}
	d.levels = nil
}

// at is the handle of the directory at a depth; 0 is the root. It is valid
// until the next call of a method of d.
func (d *dirs) at(depth int) (int, error) {
	l := &d.levels[depth]
	if l.fd >= 0 {
		return l.fd, nil
	}
	parent, err := d.at(depth - 1)
	if err != nil {
		return -1, err
	}
	if l.fd, err = openDir(parent, l.name); err != nil {
		return -1, err
	}
	d.limit(depth)
	return l.fd, nil
}

// knows says whether the directory name below depth is open already.
func (d *dirs) knows(depth int, name string) bool {
	return depth+1 < len(d.levels) && d.levels[depth+1].name == name
}

// enter opens the directory name below depth and makes it the level below. It
// answers ENOENT, or ENOTDIR for anything that is not a directory, links
// included.
func (d *dirs) enter(depth int, name string) error {
	if d.knows(depth, name) {
		return nil
	}
	parent, err := d.at(depth)
	if err != nil {
		return err
	}
	fd, err := openDir(parent, name)
	if err != nil {
		return err
	}
	d.cut(depth + 1)
	d.levels = append(d.levels, level{name: name, fd: fd})
	d.limit(depth + 1)
	return nil
}

// forget drops what is open at and below the entry name of the directory at
// depth.
func (d *dirs) forget(depth int, name string) {
	if d.knows(depth, name) {
		d.cut(depth + 1)
	}
}

// cut keeps the first n levels.
func (d *dirs) cut(n int) {
	for i := n; i < len(d.levels); i++ {
		if d.levels[i].fd >= 0 {
			_ = unix.Close(d.levels[i].fd)
		}
	}
	d.levels = d.levels[:n]
}

// limit gives up a handle far above depth, but never the root's.
func (d *dirs) limit(depth int) {
	if i := depth - maxHandles; i > 0 && d.levels[i].fd >= 0 {
		_ = unix.Close(d.levels[i].fd)
		d.levels[i].fd = -1
	}
}

func openDir(parent int, name string) (int, error) {
	fd, err := retryInt(func() (int, error) {
		return unix.Openat(parent, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if errors.Is(err, unix.ELOOP) {
		err = unix.ENOTDIR
	}
	return fd, err
}

func lstatAt(fd int, name string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return &st, err
}

func readlinkAt(fd int, name string) (string, error) {
	for size := 256; ; size *= 2 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(fd, name, buf)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// removeAllAt removes name and all below it, without following links. It is no
// error if it is not there.
func removeAllAt(parent int, name string) error {
	err := retry(func() error { return unix.Unlinkat(parent, name, 0) })
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return err
	}
	if st, serr := lstatAt(parent, name); serr != nil || !isDir(st) {
		return err
	}
	if err := eachAt(parent, name, removeAllAt); err != nil {
		return err
	}
	return retry(func() error { return unix.Unlinkat(parent, name, unix.AT_REMOVEDIR) })
}

// eachAt calls f with every entry of a directory. f may remove the entry.
func eachAt(parent int, name string, f func(fd int, entry string) error) (err error) {
	fd, err := retryInt(func() (int, error) {
		return unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), name)
	defer func() { err = errors.Join(err, dir.Close()) }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := f(fd, n); err != nil {
			return err
		}
	}
	return nil
}

func isDir(st *unix.Stat_t) bool  { return st.Mode&unix.S_IFMT == unix.S_IFDIR }
func isLink(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFLNK }

// retry repeats a system call that a signal interrupted.
func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func retryInt(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
