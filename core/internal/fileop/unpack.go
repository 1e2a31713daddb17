package fileop

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	cfs "github.com/containerd/continuity/fs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	copy "github.com/tonistiigi/fsutil/copy"
	"github.com/ulikunitz/xz"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/layer"
	"github.com/layerwright/layerwright/core/internal/room"
)

// unpack unpacks from into the directory to if from is a tar archive, plain or
// compressed by gzip, bzip2, xz or zstd, whatever its name. No external program
// is used.
func unpack(ctx context.Context, op Op, from, to string, owner copy.Chowner, tm *time.Time, t *tracker) (bool, error) {
	at, err := cfs.RootPath(op.Source, from)
	if err != nil {
		return false, err
	}
	if ok, err := isArchive(at); !ok || err != nil {
		return false, err
	}
	dest, err := cfs.RootPath(op.Root, to)
	if err != nil {
		return false, err
	}
	made, err := copy.MkdirAll(dest, 0o755, owner, tm)
	if err != nil {
		return false, err
	}
	for _, d := range made {
		t.add(d)
	}
	t.add(dest)
	f, err := os.Open(at)
	if err != nil {
		return false, err
	}
	defer f.Close()
	r, err := decompress(f)
	if err != nil {
		return false, err
	}
	limit := op.Limit
	if limit == (room.Limit{}) {
		limit = room.Of(op.Root)
	}
	opts := layer.ApplyOptions{Literal: true, Limit: limit.Bytes, Observe: func(o layer.Observed) { t.add(filepath.Join(dest, o.Path)) }}
	if u, err := owner(nil); err != nil {
		return false, err
	} else if u != nil {
		opts.Owner = &layer.Owner{UID: u.UID, GID: u.GID}
	}
	err = layer.Apply(ctx, dest, r, opts)
	if errors.Is(err, layer.ErrEscape) {
		return true, fault.New(fault.User, "%s: %w", from, layer.ErrEscape).With("The archive has names that lead out of the directory it is unpacked to; make it again without them.")
	}
	if errors.Is(err, layer.ErrTooLarge) {
		return true, limit.Exceeded("unpacked, " + from)
	}
	if _, ok := fault.As(err); err != nil && !ok && ctx.Err() == nil {
		err = fault.New(fault.User, "archive %s: %w", from, err).With("The archive is damaged, or has entries that do not fit where it is unpacked to.")
	}
	return true, err
}

// isArchive says whether the file is a tar, under whichever compression.
func isArchive(at string) (bool, error) {
	fi, err := os.Lstat(at)
	if err != nil || !fi.Mode().IsRegular() {
		return false, nil // the copy itself says what is wrong
	}
	f, err := os.Open(at)
	if err != nil {
		return false, err
	}
	defer f.Close()
	r, err := decompress(f)
	if err != nil {
		return false, nil
	}
	_, err = tar.NewReader(r).Next()
	return err == nil, nil
}

func decompress(f io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(f, 1<<18)
	magic, err := b.Peek(8)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b, 8}):
		return gzip.NewReader(b)
	case bytes.HasPrefix(magic, []byte("BZh")):
		return bzip2.NewReader(b), nil
	case bytes.HasPrefix(magic, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return xz.NewReader(b)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(magic) == 8 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:4], []byte{0x2a, 0x4d, 0x18}):
		// The second is a skippable frame (RFC 8878, section 3.1.2), which
		// pzstd begins with.
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return b, nil
}
