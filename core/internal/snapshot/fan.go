package snapshot

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

const (
	// chunkSize is how much of a stream is handed on at a time.
	chunkSize = 256 << 10
	// chunksAhead is how far a reader may be behind the stream, in chunks.
	chunksAhead = 8
)

// chunk is a piece of a stream that several readers use.
type chunk struct {
	data []byte
	// users counts the readers that still need it.
	users atomic.Int32
}

// fan reads r once and calls use for n readers of it at the same time. The
// first error ends all of them and is returned.
func fan(ctx context.Context, r io.Reader, n int, use func(ctx context.Context, i int, r io.Reader) error) error {
	group, ctx := errgroup.WithContext(ctx)
	free := make(chan *chunk, chunksAhead)
	for range chunksAhead {
		free <- &chunk{data: make([]byte, chunkSize)}
	}
	readers := make([]*fanReader, n)
	for i := range readers {
		readers[i] = &fanReader{ctx: ctx, chunks: make(chan *chunk, chunksAhead), free: free}
		group.Go(func() error { return use(ctx, i, readers[i]) })
	}
	group.Go(func() error {
		err := spread(ctx, r, free, readers)
		for _, to := range readers {
			to.end = err
			close(to.chunks)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	})
	return group.Wait()
}

// spread reads r to its end, which is the error it returns.
func spread(ctx context.Context, r io.Reader, free chan *chunk, readers []*fanReader) error {
	for {
		var c *chunk
		select {
		case c = <-free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		err := c.fill(r)
		c.users.Store(int32(len(readers)))
		for _, to := range readers {
			to.chunks <- c // never blocks: there are no more chunks than it can hold
		}
		if err != nil {
			return err
		}
	}
}

// fill reads until the chunk is full or r has ended. Not io.ReadFull: that one's
// word for a short end is also a decompressor's for a stream that was cut off.
func (c *chunk) fill(r io.Reader) error {
	n := 0
	for n < chunkSize {
		m, err := r.Read(c.data[n:chunkSize])
		n += m
		if err != nil {
			c.data = c.data[:n]
			return err
		}
	}
	c.data = c.data[:n]
	return nil
}

// fanReader is one of the readers of a fan.
type fanReader struct {
	ctx    context.Context //nolint:containedctx // lives as long as one fan
	chunks chan *chunk
	free   chan *chunk
	// now is the chunk in use, rest what is left of it.
	now  *chunk
	rest []byte
	// end is why there are no more chunks; set before they are closed.
	end error
}

// Read implements io.Reader.
func (f *fanReader) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		f.release()
		select {
		case c, ok := <-f.chunks:
			if !ok {
				return 0, f.end
			}
			f.now, f.rest = c, c.data
		case <-f.ctx.Done():
			return 0, context.Cause(f.ctx)
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// release gives the chunk in use back when nobody else needs it.
func (f *fanReader) release() {
	if f.now != nil && f.now.users.Add(-1) == 0 {
		f.free <- f.now
	}
	f.now = nil
}
