// Package follow owns reading a file that is still being written: readers follow, as
// fast as it grows, and end with it. It refuses to know who writes, and what.
package follow

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
)

// File is what readers know of a file that is being written. Safe for concurrent use.
type File struct {
	mu    sync.Mutex
	more  *sync.Cond
	size  int64
	ended bool
	err   error
}

// New makes a File of which nothing is written yet.
func New() *File {
	f := &File{}
	f.more = sync.NewCond(&f.mu)
	return f
}

// Grow says that the first size bytes are there and stay what they are.
func (f *File) Grow(size int64) { f.change(func() { f.size = size }) }

// End says that nothing more comes: the file is complete, or broken where err is not
// nil, which readers get in place of what is missing.
func (f *File) End(err error) { f.change(func() { f.ended, f.err = true, err }) }

// Result says whether the file has ended, and how.
func (f *File) Result() (ended bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended, f.err
}

func (f *File) change(set func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	set()
	f.more.Broadcast()
}

// Open reads from the beginning the first of names that there is: a file that is
// written under one name may be given another one meanwhile.
func (f *File) Open(names ...string) (*Reader, error) {
	var err error
	for _, name := range names {
		var file *os.File
		if file, err = os.Open(name); err == nil {
			return &Reader{of: f, file: file}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return nil, err
}

// Reader reads a File from its beginning; io.EOF comes when it is complete. It is for
// one goroutine, but Close and Stop may come from others.
type Reader struct {
	of     *File
	file   *os.File
	offset int64
	// stopped ends waiting; guarded by of.mu.
	stopped error
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	f := r.of
	f.mu.Lock()
	for r.offset >= f.size && !f.ended && r.stopped == nil {
		f.more.Wait()
	}
	left, err, stopped := f.size-r.offset, f.err, r.stopped
	f.mu.Unlock()
	switch {
	case stopped != nil:
		return 0, stopped
	case left > 0:
		n, err := r.file.ReadAt(p[:min(int64(len(p)), left)], r.offset)
		r.offset += int64(n)
		if n > 0 {
			err = nil
		}
		return n, err
	case err != nil:
		return 0, err
	}
	return 0, io.EOF
}

// Stop ends Read with err, also one that waits.
func (r *Reader) Stop(err error) {
	r.of.change(func() {
		if r.stopped == nil {
			r.stopped = err
		}
	})
}

// Close implements io.Closer: it ends Read with fs.ErrClosed, also one that waits.
func (r *Reader) Close() error {
	r.Stop(fs.ErrClosed)
	if err := r.file.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}
