package buildkit

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// layoutStore gives an engine the blobs of an OCI layout, which it can only read:
// containerd's own store tries what the directory allows by writing there.
type layoutStore string

var _ content.Store = layoutStore("")

func (s layoutStore) path(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	return filepath.Join(string(s), "blobs", d.Algorithm().String(), d.Encoded()), nil
}

// Info implements content.Store.
func (s layoutStore) Info(_ context.Context, d digest.Digest) (content.Info, error) {
	path, err := s.path(d)
	if err != nil {
		return content.Info{}, err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return content.Info{}, notThere(d, err)
	}
	return content.Info{Digest: d, Size: fi.Size(), CreatedAt: fi.ModTime(), UpdatedAt: fi.ModTime()}, nil
}

// ReaderAt implements content.Store.
func (s layoutStore) ReaderAt(_ context.Context, desc ocispecs.Descriptor) (content.ReaderAt, error) {
	path, err := s.path(desc.Digest)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, notThere(desc.Digest, err)
	}
	fi, err := f.Stat()
	if err != nil {
		_ = f.Close() // only read
		return nil, err
	}
	return blob{f, fi.Size()}, nil
}

type blob struct {
	*os.File
	size int64
}

// Size implements content.ReaderAt.
func (b blob) Size() int64 { return b.size }

func notThere(d digest.Digest, err error) error {
	if os.IsNotExist(err) {
		return fmt.Errorf("blob %s: %w", d, errdefs.ErrNotFound)
	}
	return err
}

// What would change the layout.

func readOnly() error {
	return fmt.Errorf("an OCI layout as a context: %w", errdefs.ErrPermissionDenied)
}

func (layoutStore) Update(context.Context, content.Info, ...string) (content.Info, error) {
	return content.Info{}, readOnly()
}
func (layoutStore) Walk(context.Context, content.WalkFunc, ...string) error { return readOnly() }
func (layoutStore) Delete(context.Context, digest.Digest) error             { return readOnly() }
func (layoutStore) Status(context.Context, string) (content.Status, error) {
	return content.Status{}, readOnly()
}
func (layoutStore) ListStatuses(context.Context, ...string) ([]content.Status, error) {
	return nil, readOnly()
}
func (layoutStore) Abort(context.Context, string) error { return readOnly() }
func (layoutStore) Writer(context.Context, ...content.WriterOpt) (content.Writer, error) {
	return nil, readOnly()
}
