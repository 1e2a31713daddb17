package image

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
)

// download is one blob on its way into a file. Any number of readers follow.
type download struct {
	remote     Remote
	part, path string

	once   sync.Once     // starts it
	done   chan struct{} // closed when it has ended
	opened chan struct{} // closed when there is a file to open, or it has ended

	mu      sync.Mutex
	more    *sync.Cond
	started bool
	ended   bool
	n       int64
	err     error
}

func newDownload(r Remote, path string) *download {
	d := &download{remote: r, part: path + ".part", path: path, done: make(chan struct{}), opened: make(chan struct{})}
	d.more = sync.NewCond(&d.mu)
	return d
}

// ready says that the file exists.
func (d *download) ready() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.started {
		d.started = true
		close(d.opened)
	}
}

func (d *download) begun() bool {
	select {
	case <-d.opened:
		return d.result() == nil
	default:
		return false
	}
}

func (d *download) grow(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n = n
	d.more.Broadcast()
}

func (d *download) finish(err error) {
	d.ready()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended, d.err = true, err
	close(d.done)
	d.more.Broadcast()
}

// result is the error of a download that has ended; nil while it runs.
func (d *download) result() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// open gives a reader of its own from the start of the blob. It waits until
// the registry has answered.
func (d *download) open() (io.ReadCloser, error) {
	<-d.opened
	if err := d.result(); err != nil {
		return nil, err
	}
	// The file may be renamed between the two.
	f, err := os.Open(d.part)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(d.path)
	}
	if err != nil {
		if rerr := d.result(); rerr != nil {
			return nil, rerr
		}
		return nil, onDisk("open blob", err)
	}
	return &follower{d: d, f: f}, nil
}

// follower reads a file that another goroutine still writes.
type follower struct {
	d      *download
	f      *os.File
	off    int64
	closed bool // guarded by d.mu
}

func (r *follower) Read(p []byte) (int, error) {
	d := r.d
	d.mu.Lock()
	for r.off >= d.n && !d.ended && !r.closed {
		d.more.Wait()
	}
	n, ended, err, closed := d.n, d.ended, d.err, r.closed
	d.mu.Unlock()
	switch {
	case closed:
		return 0, fs.ErrClosed
	case r.off < n:
		if left := n - r.off; int64(len(p)) > left {
			p = p[:left]
		}
		got, rerr := r.f.ReadAt(p, r.off)
		r.off += int64(got)
		if got > 0 {
			return got, nil
		}
		if rerr == nil {
			return 0, nil
		}
		return 0, onDisk("read blob", rerr)
	case ended && err != nil:
		return 0, err
	}
	return 0, io.EOF
}

func (r *follower) Close() error {
	r.d.mu.Lock()
	if r.closed {
		r.d.mu.Unlock()
		return nil
	}
	r.closed = true
	r.d.more.Broadcast()
	r.d.mu.Unlock()
	return r.f.Close()
}
