// Package hostview owns the job's own files: directories and files that a user
// has named, opened before "/" is ever exchanged for a step's tree (isolation
// inplace), since their paths mean something else while it is. It refuses to
// resolve a path later than that.
package hostview

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Dir is a directory that stays what it was.
type Dir struct {
	f *os.File
	// Name is the path as the user gave it, abs leads there from "/".
	Name, abs string
}

// OpenDir opens a directory.
func OpenDir(name string) (*Dir, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	fd, err := openDir(name, name)
	if err != nil {
		return nil, err
	}
	return &Dir{f: os.NewFile(uintptr(fd), name), Name: name, abs: abs}, nil
}

func openDir(path, name string) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// Renew opens what is at the directory's place now: it was made anew with all that
// was in it. What Path has given stays valid, and means the new one.
func (d *Dir) Renew() error {
	fd, err := openDir(d.abs, d.Name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Dup3(fd, int(d.f.Fd()), unix.O_CLOEXEC); err != nil {
		return &fs.PathError{Op: "open", Path: d.Name, Err: err}
	}
	return nil
}

// Path is a path of the directory that is valid whatever "/" is, for libraries
// that want a string.
func (d *Dir) Path() string { return "/proc/self/fd/" + strconv.Itoa(int(d.f.Fd())) }

// Close lets the directory go.
func (d *Dir) Close() error { return d.f.Close() }

// Output prepares writing a file or directory called name later: its parent is
// opened now, and made if it is missing. path is where to write.
func Output(name string) (path string, parent *Dir, err error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", nil, err
	}
	dir := filepath.Dir(abs)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, fmt.Errorf("make the directory of %s: %w", name, err)
	}
	if parent, err = OpenDir(dir); err != nil {
		return "", nil, err
	}
	return filepath.Join(parent.Path(), filepath.Base(abs)), parent, nil
}

// Preload reads what the standard library would read from "/" only when it is
// first needed: certificates and the time zone.
func Preload() error {
	_, err := x509.SystemCertPool()
	_ = time.Now().Local().String()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
