package layer

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"
)

// hollowFrom is the size in bytes from which a file of a hollow tree holds no
// content; smaller ones cost no more with it.
const hollowFrom = 16 << 10

// hollowMark begins a hollow file, followed by the hash of what it would
// contain. It is random, so that no file of an image has it.
var hollowMark = func() (mark [16]byte) {
	_, _ = rand.Read(mark[:]) // never fails
	return mark
}()

// ErrHollow is in the chain of an error about content that a hollow tree lacks.
var ErrHollow = errors.New("the content was left out, since nobody was to read it")

// hollow writes, in place of what is left of r, the mark and the content's hash;
// the rest is a hole.
func (a *applier) hollow(ctx context.Context, fd int, name string, r io.Reader, size int64) (uint64, error) {
	d := xxhash.New()
	for {
		n, err := r.Read(a.buf)
		_, _ = d.Write(a.buf[:n]) // never fails
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("read layer: %w", err)
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
	}
	head := binary.LittleEndian.AppendUint64(hollowMark[:], d.Sum64())
	if n, err := retryInt(func() (int, error) { return unix.Pwrite(fd, head, 0) }); err != nil {
		return 0, pathError("write", name, err)
	} else if n < len(head) {
		return 0, pathError("write", name, unix.ENOSPC)
	}
	if err := retry(func() error { return unix.Ftruncate(fd, size) }); err != nil {
		return 0, pathError("truncate", name, err)
	}
	return d.Sum64(), nil
}

// HollowSum says whether a file of this size that begins with head is a hollow
// one, and the hash (xxhash64) of what it would contain.
func HollowSum(head []byte, size int64) (sum uint64, ok bool) {
	n := len(hollowMark)
	if size < hollowFrom || len(head) < n+8 || !bytes.Equal(head[:n], hollowMark[:]) {
		return 0, false
	}
	return binary.LittleEndian.Uint64(head[n:]), true
}
