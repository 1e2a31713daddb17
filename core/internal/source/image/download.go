package image

import (
	"context"
	"sync"

	"github.com/layerwright/layerwright/core/internal/follow"
)

// download is one blob on its way into a file. Any number of readers follow.
type download struct {
	remote     Remote
	part, path string
	file       *follow.File

	once   sync.Once     // starts it
	done   chan struct{} // closed when it has ended
	ready  func()        // closes opened
	opened chan struct{} // closed when there is a file to open, or it has ended
}

func newDownload(r Remote, path string) *download {
	d := &download{remote: r, part: path + ".part", path: path, file: follow.New(), done: make(chan struct{}), opened: make(chan struct{})}
	d.ready = sync.OnceFunc(func() { close(d.opened) })
	return d
}

func (d *download) begun() bool {
	select {
	case <-d.opened:
		return d.result() == nil
	default:
		return false
	}
}

func (d *download) finish(err error) {
	d.file.End(err)
	d.ready()
	close(d.done)
}

// result is the error of a download that has ended; nil while it runs.
func (d *download) result() error {
	_, err := d.file.Result()
	return err
}

// open gives a reader of its own from the start of the blob. It waits until
// the registry has answered, or ctx ends.
func (d *download) open(ctx context.Context) (*follow.Reader, error) {
	select {
	case <-d.opened:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if err := d.result(); err != nil {
		return nil, err
	}
	r, err := d.file.Open(d.part, d.path) // it may be renamed between the two
	if err != nil {
		if rerr := d.result(); rerr != nil {
			return nil, rerr
		}
		return nil, onDisk("open blob", err)
	}
	return r, nil
}
