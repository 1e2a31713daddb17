package git

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/layerwright/layerwright/core/internal/room"
)

// store is a clone's objects as they were when it was opened.
type store struct {
	*filesystem.Storage
	dir string
}

// largeObject is from what size on files are read piece by piece.
const largeObject = 8 << 20

func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	at := osfs.New(dir, osfs.WithBoundOS())
	return &store{filesystem.NewStorageWithOptions(at, cache.NewObjectLRUDefault(), filesystem.Options{LargeObjectThreshold: largeObject}), dir}, nil
}

func (s *store) has(hash string) bool {
	return s.HasEncodedObject(plumbing.NewHash(hash)) == nil
}

// unpack stores what a server sends; objects get the names that their content
// has.
func (s *store) unpack(pack io.Reader) error {
	limit := room.Of(s.dir)
	in := &limited{r: pack, left: limit.Bytes}
	err := packfile.UpdateObjectStorage(s, in)
	switch {
	case in.err != nil && !errors.Is(in.err, errTooMuch):
		return fmt.Errorf("fetch: %w", in.err)
	case in.err != nil:
		return limit.Exceeded("a git repository")
	case errors.Is(err, packfile.ErrEmptyPackfile):
		return nil
	case err != nil:
		return fmt.Errorf("store objects: %w", err)
	}
	return nil
}

var errTooMuch = errors.New("too much")

// limited reads at most left bytes, and keeps the error that reading ended with.
type limited struct {
	r    io.Reader
	left int64
	err  error
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		n, err = 0, errTooMuch
	}
	if err != nil && !errors.Is(err, io.EOF) {
		l.err = err
	}
	return n, err
}

// peel gives the commit behind a hash, and whether a tag is in between.
func (s *store) peel(h plumbing.Hash) (_ *object.Commit, tag bool, err error) {
	for range 16 { // tags of tags
		o, err := object.GetObject(s, h)
		if err != nil {
			return nil, false, err
		}
		switch o := o.(type) {
		case *object.Commit:
			return o, tag, nil
		case *object.Tag:
			h, tag = o.Target, true
		default:
			return nil, false, fmt.Errorf("it is a %s", o.Type())
		}
	}
	return nil, false, errors.New("too many tags of tags")
}

// rawCommit is a commit's content.
func (s *store) rawCommit(h plumbing.Hash) ([]byte, error) {
	o, err := s.EncodedObject(plumbing.CommitObject, h)
	if err != nil {
		return nil, err
	}
	return content(o)
}

func content(o plumbing.EncodedObject) (_ []byte, err error) {
	r, err := o.Reader()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}

// blob gives a file's content, with at most limit bytes.
func (s *store) blob(h plumbing.Hash, limit int64) ([]byte, error) {
	o, err := s.EncodedObject(plumbing.BlobObject, h)
	if err != nil {
		return nil, err
	}
	if o.Size() > limit {
		return nil, fmt.Errorf("larger than %d bytes", limit)
	}
	return content(o)
}
