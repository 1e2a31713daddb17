package sandbox

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// attrs are what a directory has besides its entries.
type attrs struct {
	Mode     uint32
	UID, GID int
	// Atime and Mtime are in nanoseconds since 1970.
	Atime, Mtime int64
	Xattrs       map[string][]byte `json:",omitempty"`
}

// readAttrs reads the attributes of a directory.
func readAttrs(dir string) (attrs, error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return attrs{}, fmt.Errorf("read attributes of %s: %w", dir, err)
	}
	a := attrs{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), Atime: st.Atim.Nano(), Mtime: st.Mtim.Nano()}
	names, err := listXattrs(dir)
	if err != nil {
		return attrs{}, fmt.Errorf("read attributes of %s: %w", dir, err)
	}
	for _, name := range names {
		value := make([]byte, 64<<10) // the kernel's limit for one
		n, err := unix.Lgetxattr(dir, name, value)
		if err != nil {
			continue // not readable for us, and so not ours to exchange
		}
		if a.Xattrs == nil {
			a.Xattrs = map[string][]byte{}
		}
		a.Xattrs[name] = bytes.Clone(value[:n])
	}
	return a, nil
}

func listXattrs(name string) ([]string, error) {
	buf := make([]byte, 64<<10) // the kernel's limit for the list
	n, err := unix.Llistxattr(name, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for part := range bytes.SplitSeq(buf[:n], []byte{0}) {
		if len(part) > 0 {
			names = append(names, string(part))
		}
	}
	return names, nil
}

// apply gives them to a directory: its times last, since the rest changes none
// of them but adding entries does.
func (a attrs) apply(dir string) error {
	now, err := readAttrs(dir)
	if err != nil {
		return err
	}
	var errs []error
	if now.UID != a.UID || now.GID != a.GID {
		errs = append(errs, unix.Lchown(dir, a.UID, a.GID))
	}
	for name := range now.Xattrs {
		if _, ok := a.Xattrs[name]; !ok {
			errs = append(errs, unix.Lremovexattr(dir, name))
		}
	}
	for name, value := range a.Xattrs {
		if !bytes.Equal(now.Xattrs[name], value) {
			errs = append(errs, unix.Lsetxattr(dir, name, value, 0))
		}
	}
	// After the ACLs, which are xattrs and change the mode.
	errs = append(errs, unix.Chmod(dir, a.Mode), a.applyTimes(dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("set attributes of %s: %w", dir, err)
	}
	return nil
}

func (a attrs) applyTimes(dir string) error {
	ts := []unix.Timespec{unix.NsecToTimespec(a.Atime), unix.NsecToTimespec(a.Mtime)}
	return unix.UtimesNanoAt(unix.AT_FDCWD, dir, ts, unix.AT_SYMLINK_NOFOLLOW)
}
