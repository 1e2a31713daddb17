// Package filecopy owns copying one file: its content into a new file, sharing the
// blocks where the file system can, and its attributes. It knows nothing of trees.
package filecopy

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Clone copies the regular file from to the new file to, which has mode 0600 and
// must not exist. Neither name is followed if it is a link.
func Clone(from, to string) (err error) {
	in, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	return From(in, to)
}

// From is Clone from an open file, from its current position on.
func From(in *os.File, to string) (err error) {
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		return nil
	}
	_, err = io.Copy(out, in) // copy_file_range
	return err
}

// Attributes gives to the owner, mode, extended attributes and time of from, which st
// describes. Neither name is followed if it is a link.
func Attributes(from, to string, st *unix.Stat_t) error {
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
			return &os.PathError{Op: "chmod", Path: to, Err: err}
		}
	}
	if err := cloneXattrs(from, to); err != nil {
		return err
	}
	ts := []unix.Timespec{st.Mtim, st.Mtim}
	return unix.UtimesNanoAt(unix.AT_FDCWD, to, ts, unix.AT_SYMLINK_NOFOLLOW)
}

func cloneXattrs(from, to string) error {
	n, err := unix.Llistxattr(from, nil)
	if err != nil || n == 0 {
		return nil // none, or the file system has no such thing
	}
	list := make([]byte, n+256)
	if n, err = unix.Llistxattr(from, list); err != nil {
		return nil
	}
	for _, name := range splitNul(list[:n]) {
		size, err := unix.Lgetxattr(from, name, nil)
		if err != nil {
			continue
		}
		value := make([]byte, size)
		if size, err = unix.Lgetxattr(from, name, value); err != nil {
			continue
		}
		if err := unix.Lsetxattr(to, name, value[:size], 0); err != nil && name == "security.capability" {
			return fmt.Errorf("set attribute %s of %s: %w", name, to, err)
		}
	}
	return nil
}

func splitNul(b []byte) []string {
	var out []string
	start := 0
	for i, c := range b {
		if c == 0 {
			if i > start {
				out = append(out, string(b[start:i]))
			}
			start = i + 1
		}
	}
	return out
}
