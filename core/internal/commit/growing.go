package commit

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// grownEnough is the size from which a blob is worth sending before it is complete:
// below it the requests cost more than the time that is saved.
const grownEnough = 8 << 20

// Growing is a blob file that is still being written.
type Growing struct {
	path, head string

	mu sync.Mutex
	// more is closed, and made anew, whenever something below changes.
	more   chan struct{}
	size   int64
	ended  bool
	err    error
	digest v1.Hash
}

// Open reads the blob from its beginning, as fast as it grows. The end of what is
// read is the end of the blob; what ends its making, or ctx, is an error.
func (g *Growing) Open(ctx context.Context) (io.ReadCloser, error) {
	f, err := os.Open(g.path)
	if err != nil {
		return nil, err
	}
	return &growingReader{g: g, ctx: ctx, f: f}, nil
}

// Head identifies the blob's first bytes: two that have it in common are probably the
// same.
func (g *Growing) Head() string { return g.head }

// Digest is known once the blob is complete.
func (g *Growing) Digest() (h v1.Hash, complete bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.digest, g.ended && g.err == nil
}

// change lets readers look again.
func (g *Growing) change(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	close(g.more)
	g.more = make(chan struct{})
}

// wrote is told of the file's size.
func (g *Growing) wrote(size int64) { g.change(func() { g.size = size }) }

// end is told how the writing has ended.
func (g *Growing) end(digest v1.Hash, err error) {
	g.change(func() { g.ended, g.digest, g.err = true, digest, err })
}

type growingReader struct {
	g   *Growing
	ctx context.Context //nolint:containedctx // lives as long as one reading
	f   *os.File
	n   int64
}

func (r *growingReader) Close() error { return r.f.Close() }

func (r *growingReader) Read(p []byte) (int, error) {
	for {
		r.g.mu.Lock()
		size, ended, err, more := r.g.size, r.g.ended, r.g.err, r.g.more
		r.g.mu.Unlock()
		switch {
		case err != nil:
			return 0, err
		case r.n < size:
			n, err := r.f.ReadAt(p[:min(int64(len(p)), size-r.n)], r.n)
			r.n += int64(n)
			if n > 0 && errors.Is(err, io.EOF) {
				err = nil
			}
			return n, err
		case ended:
			return 0, io.EOF
		}
		select {
		case <-more:
		case <-r.ctx.Done():
			return 0, context.Cause(r.ctx)
		}
	}
}
