package commit

import (
	"context"
	"io"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/layerwright/layerwright/core/internal/follow"
)

// grownEnough is the size from which a blob is worth sending before it is complete:
// below it the requests cost more than the time that is saved.
const grownEnough = 8 << 20

// Growing is a blob file that is still being written.
type Growing struct {
	path, head string
	file       *follow.File

	mu     sync.Mutex
	digest v1.Hash
}

// Open reads the blob from its beginning, as fast as it grows. The end of what is
// read is the end of the blob; what ends its making, or ctx, is an error.
func (g *Growing) Open(ctx context.Context) (io.ReadCloser, error) {
	r, err := g.file.Open(g.path)
	if err != nil {
		return nil, err
	}
	return &growingReader{r, context.AfterFunc(ctx, func() { r.Stop(context.Cause(ctx)) })}, nil
}

type growingReader struct {
	*follow.Reader
	stop func() bool
}

func (r *growingReader) Close() error {
	r.stop()
	return r.Reader.Close()
}

// Head identifies the blob's first bytes: two that have it in common are probably the
// same.
func (g *Growing) Head() string { return g.head }

// Digest is known once the blob is complete.
func (g *Growing) Digest() (h v1.Hash, complete bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.digest, g.digest != v1.Hash{}
}

// end is told how the writing has ended.
func (g *Growing) end(digest v1.Hash, err error) {
	g.mu.Lock()
	g.digest = digest
	g.mu.Unlock()
	g.file.End(err)
}
