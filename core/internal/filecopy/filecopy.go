// Package filecopy owns copying a file's content into a new file, sharing the
// blocks where the file system can. It knows nothing of attributes and trees.
package filecopy

import (
	"errors"
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
