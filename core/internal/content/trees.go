package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// Dir is the tree in a directory, read as it is asked for.
func Dir(root string) Tree { return dir(root) }

type dir string

func (d dir) at(p string) string { return filepath.Join(string(d), p) }

func (d dir) Stat(p string) (*types.Stat, error) {
	fi, err := os.Lstat(d.at(p))
	if err != nil {
		return nil, relative(err, p)
	}
	st, err := fsutil.Stat(d.at(p))
	if err != nil {
		return nil, relative(err, p)
	}
	if fi.Mode()&fs.ModeSocket != 0 {
		st.Mode |= uint32(fs.ModeSocket) // a layer has none: not an empty file
	}
	return st, nil
}

func (d dir) Names(p string) ([]string, error) {
	f, err := os.Open(d.at(p))
	if err != nil {
		return nil, relative(err, p)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, relative(err, p)
}

func (d dir) Sum(p string) ([]byte, error) { return sum(d.at(p), p) }

// relative takes our own directory out of an error.
func relative(err error, p string) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return &fs.PathError{Op: pe.Op, Path: p, Err: pe.Err}
	}
	return err
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

// sum is BLAKE3: collisions are as hard to find as with SHA-256, and where a processor
// has no instructions for that it is several times as fast. Nobody but the cache's keys
// sees it.
func sum(at, name string) ([]byte, error) {
	f, err := os.Open(at)
	if err != nil {
		if errors.Is(err, unix.ENXIO) {
			return nil, nil // a socket: empty, as it is copied
		}
		return nil, relative(err, name)
	}
	defer f.Close()
	b := buffers.Get().(*[]byte) //nolint:forcetypeassert // the pool has nothing else
	defer buffers.Put(b)
	h := blake3.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, *b); err != nil {
		return nil, relative(err, name)
	}
	return h.Sum(nil), nil
}

// Listed is a tree whose entries are known and whose bytes are in a directory:
// a build context as its filters leave it. Each file is hashed at most once.
type Listed struct {
	root    string
	entries map[string]*types.Stat
	names   map[string][]string
	sums    sync.Map // path to func() ([]byte, error)
}

// List reads the entries of f, a view of the directory root.
func List(ctx context.Context, f fsutil.FS, root string) (*Listed, error) {
	l := &Listed{root: root, entries: map[string]*types.Stat{}, names: map[string][]string{}}
	st := &types.Stat{Mode: uint32(fs.ModeDir | 0o755)}
	l.entries["/"] = st
	err := f.Walk(ctx, "", func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*types.Stat)
		if !ok {
			return fmt.Errorf("%s: no attributes", e.Name())
		}
		p := path.Clean("/" + filepath.ToSlash(st.Path))
		st = st.Clone()
		if fs.FileMode(st.Mode).IsRegular() {
			st.Linkname = "" // a hard link is a file like any other
		}
		l.entries[p] = st
		dir := path.Dir(p)
		l.names[dir] = append(l.names[dir], path.Base(p))
		return nil
	})
	for _, names := range l.names {
		slices.Sort(names)
	}
	return l, err
}

// Stat implements Tree.
func (l *Listed) Stat(p string) (*types.Stat, error) {
	if st, ok := l.entries[p]; ok {
		return st, nil
	}
	return nil, &fs.PathError{Op: "stat", Path: strings.TrimPrefix(p, "/"), Err: fs.ErrNotExist}
}

// Names implements Tree.
func (l *Listed) Names(p string) ([]string, error) { return l.names[p], nil }

// Sum implements Tree.
func (l *Listed) Sum(p string) ([]byte, error) {
	once := sync.OnceValues(func() ([]byte, error) { return sum(filepath.Join(l.root, p), p) })
	f, _ := l.sums.LoadOrStore(p, once)
	return f.(func() ([]byte, error))() //nolint:forcetypeassert // nothing else is stored
}
