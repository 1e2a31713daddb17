package export

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// Paths of this package are absolute and valid while it works: core hands over
// /proc/self/fd/N/name where the root of the file system may be exchanged.

// onDisk classifies an error of writing an output; nil stays nil.
func onDisk(op string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := fault.As(err); ok {
		return err
	}
	f := fault.New(fault.Environment, "%s: %w", op, err)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return f.With("The disk is full: free space, or write the output elsewhere.")
	case errors.Is(err, fs.ErrNotExist):
		return f.With("Create the directory that the output goes to.")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return f.With("Make the output's directory writable for this user.")
	}
	return f
}

// readError is an error of what is being exported: it is not the disk's.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

// writeAtomic makes a file: it appears under its name when write has returned
// without error. A name that is a device, a pipe or a mounted file is written
// to directly, since nothing can be renamed onto it.
func writeAtomic(path string, mode os.FileMode, write func(io.Writer) error) (err error) {
	if st, serr := os.Stat(path); serr == nil && !st.Mode().IsRegular() {
		if st.IsDir() {
			return fault.New(fault.Usage, "write %s: it is a directory", filepath.Base(path)).With("Name a file.")
		}
		return writeDirect(path, write)
	}
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text()[:8]+".tmp")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return onDisk("create "+filepath.Base(path), err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp)
		}
	}()
	err = write(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return writeErr(path, err)
	}
	err = os.Rename(temp, path)
	if errors.Is(err, syscall.EBUSY) { // a file that is mounted there
		_ = os.Remove(temp)
		return writeDirect(path, write)
	}
	return onDisk("write "+filepath.Base(path), err)
}

func writeDirect(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return onDisk("open "+filepath.Base(path), err)
	}
	err = write(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return writeErr(path, err)
}

func writeErr(path string, err error) error {
	var r readError
	if errors.As(err, &r) {
		return r.error
	}
	return onDisk("write "+filepath.Base(path), err)
}

// copyBlob writes a blob and verifies that it is what its descriptor says.
func copyBlob(w io.Writer, want v1.Hash, size int64, open func() (io.ReadCloser, error)) error {
	rc, err := open()
	if err != nil {
		return readError{fmt.Errorf("open blob %s: %w", want, err)}
	}
	defer func() { _ = rc.Close() }()
	h := sha256.New()
	src := &marking{r: rc}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(w, h)}, src, make([]byte, 256<<10))
	switch {
	case src.err != nil:
		return readError{fmt.Errorf("read blob %s: %w", want, src.err)}
	case err != nil:
		return err
	case n != size || hex.EncodeToString(h.Sum(nil)) != want.Hex:
		return readError{fmt.Errorf("blob %s: content does not match its descriptor (%d of %d bytes)", want, n, size)}
	}
	return nil
}

// marking remembers errors of the reading side.
type marking struct {
	r   io.Reader
	err error
}

func (m *marking) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		m.err = err
	}
	return n, err
}

// File writes data to a file, which appears when it is complete.
func File(path string, data []byte) error {
	return writeAtomic(path, 0o644, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// Digest writes the artifact's digest, and nothing else, to a file.
func Digest(path string, a Artifact) error {
	d, err := a.Digest()
	if err != nil {
		return fmt.Errorf("digest: %w", err)
	}
	return writeAtomic(path, 0o644, func(w io.Writer) error {
		_, err := io.WriteString(w, d.String())
		return err
	})
}
