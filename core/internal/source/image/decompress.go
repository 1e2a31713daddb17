package image

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow is the largest zstd window that is accepted (zstd --long=27): a
// frame must not make us allocate what its header asks for.
const maxWindow = 128 << 20

// decompress looks at the first bytes and picks the format. Closing the result
// does not close r.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 256<<10)
	magic, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("read gzip header: %w", err)
		}
		return z, nil
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18}): // skippable frame first
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("read zstd header: %w", err)
		}
		return z.IOReadCloser(), nil
	default:
		return io.NopCloser(br), nil
	}
}

// readAhead decompresses in a goroutine of its own, a few buffers ahead of
// whoever reads.
func readAhead(src io.ReadCloser) io.ReadCloser {
	const buffers, size = 4, 256 << 10
	a := &ahead{src: src, full: make(chan chunk, buffers), free: make(chan []byte, buffers), stop: make(chan struct{})}
	for range buffers {
		a.free <- make([]byte, size)
	}
	a.running.Go(a.run)
	return a
}

type chunk struct {
	buf, data []byte
	err       error
}

type ahead struct {
	src     io.ReadCloser
	full    chan chunk
	free    chan []byte
	stop    chan struct{}
	once    sync.Once
	running sync.WaitGroup
	cur     chunk
}

func (a *ahead) run() {
	defer close(a.full)
	for {
		select {
		case <-a.stop:
			return
		case buf := <-a.free:
			n, err := 0, error(nil)
			for n < len(buf) && err == nil { // not io.ReadFull: it hides which end it was
				var m int
				m, err = a.src.Read(buf[n:])
				n += m
			}
			a.full <- chunk{buf, buf[:n], err} // never blocks: as many buffers as room
			if err != nil {
				return
			}
		}
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.cur.data) == 0 {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		if a.cur.buf != nil {
			a.free <- a.cur.buf
		}
		next, ok := <-a.full
		if !ok {
			return 0, io.ErrClosedPipe
		}
		a.cur = next
	}
	n := copy(p, a.cur.data)
	a.cur.data = a.cur.data[n:]
	return n, nil
}

// Close waits for the goroutine: whoever closes must first end a source that
// may block.
func (a *ahead) Close() error {
	var err error
	a.once.Do(func() {
		close(a.stop)
		a.running.Wait()
		err = a.src.Close()
	})
	return err
}
