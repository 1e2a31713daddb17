package commit

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/zeebo/blake3"
)

// blockSize is how much of a tar is compared and handed on at once. Layers that are
// smaller are not compared: to make them costs less than to remember them.
const blockSize = 1 << 20

// blockSum is the BLAKE3 hash of a block: collisions are as hard to find as with
// SHA-256, and where a processor has no instructions for that it takes a sixth of the
// time.
type blockSum [32]byte

// stored are the layers of a writer, by their first block. What differs later (a file
// that one of two layers has more) is found when it comes; one of them is remembered.
type stored struct {
	mu     sync.Mutex
	layers map[blockSum]*original
}

// original is a layer that others may repeat.
type original struct {
	// done is closed when sums are complete and blob is set, or stays nil because
	// there is none.
	done chan struct{}
	sums []blockSum
	blob *blob
}

// find gives the complete layer that begins with a block, which may be in the making
// for a while, or remembers mine as the one.
func (s *stored) find(ctx context.Context, first blockSum, mine *original) (*original, error) {
	for {
		s.mu.Lock()
		o := s.layers[first]
		if o == nil {
			s.layers[first] = mine
			s.mu.Unlock()
			return nil, nil
		}
		s.mu.Unlock()
		select {
		case <-o.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if o.blob != nil {
			return o, nil
		}
		s.mu.Lock()
		if s.layers[first] == o {
			delete(s.layers, first)
		}
		s.mu.Unlock()
	}
}

// errDiffers says that a layer is not the one that it seemed to repeat.
var errDiffers = errors.New("the layer differs from the one with the same beginning")

// target is where one layer's tar goes: into a new blob, or, as long as it is what
// another layer has, nowhere.
type target struct {
	w *Writer
	//nolint:containedctx // lives as long as one layer
	ctx     context.Context
	growing func(context.Context, *Growing)
	// looks says that the layer is compared with others.
	looks bool

	blocks int
	making *making
	// mine is what others compare theirs with, same what this one repeats so far.
	mine, same *original
}

// take has the layer written and gives its blob. errDiffers wants another target.
func (t *target) take(write func(ctx context.Context, w io.Writer) error) (b *blob, err error) {
	defer func() {
		if err != nil && t.making != nil {
			t.making.abandon(err)
		}
		if t.mine != nil {
			t.mine.blob = b // nil if it failed
			close(t.mine.done)
		}
	}()
	tar := &blockWriter{next: t.block}
	if err := t.w.write(t.ctx, tar, write); err != nil {
		return nil, err
	}
	if err := tar.flush(); err != nil {
		return nil, err
	}
	if t.same != nil {
		if t.blocks != len(t.same.sums) {
			return nil, errDiffers
		}
		again := *t.same.blob // a layer of its own, in the same file
		return &again, nil
	}
	if err := t.begin(); err != nil {
		return nil, err
	}
	return t.making.finish()
}

func (t *target) begin() (err error) {
	if t.making == nil {
		t.making, err = t.w.begin(t.ctx, t.growing)
	}
	return err
}

// block takes the next block. It ends a layer in the middle of a file, however large.
func (t *target) block(p []byte) error {
	if t.ctx.Err() != nil {
		return context.Cause(t.ctx)
	}
	i := t.blocks
	t.blocks++
	if t.looks && (i > 0 || len(p) == blockSize) {
		if err := t.compare(i, blake3.Sum256(p)); err != nil || t.same != nil {
			return err
		}
	}
	if err := t.begin(); err != nil {
		return err
	}
	_, err := t.making.blocks.Write(p)
	return err
}

func (t *target) compare(i int, sum blockSum) (err error) {
	switch {
	case t.same != nil:
		if i >= len(t.same.sums) || t.same.sums[i] != sum {
			return errDiffers
		}
		return nil
	case i == 0:
		mine := &original{done: make(chan struct{})}
		if t.same, err = t.w.stored.find(t.ctx, sum, mine); err != nil || t.same != nil {
			return err
		}
		t.mine = mine
	}
	t.mine.sums = append(t.mine.sums, sum)
	return nil
}

// blockWriter cuts what is written into blocks of blockSize; the last one, which flush
// hands on, is what is left.
type blockWriter struct {
	buf  []byte
	next func(block []byte) error
}

func (w *blockWriter) Write(p []byte) (int, error) {
	if w.buf == nil {
		w.buf = make([]byte, 0, blockSize)
	}
	n := len(p)
	for len(p) > 0 {
		k := min(len(p), blockSize-len(w.buf))
		w.buf, p = append(w.buf, p[:k]...), p[k:]
		if len(w.buf) == blockSize {
			if err := w.flush(); err != nil {
				return n - len(p), err
			}
		}
	}
	return n, nil
}

func (w *blockWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	err := w.next(w.buf)
	w.buf = w.buf[:0]
	return err
}
