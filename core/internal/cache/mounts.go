package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/image"
	"github.com/layerwright/layerwright/core/internal/layer"
)

// MountOptions of Mounts. Read may be empty, Write nil; Scope may be empty; the
// rest is required.
type MountOptions struct {
	Read  []Repository
	Write Repository
	// Scope separates what does not share: branches. Where a scope has
	// nothing yet, what was saved without one is taken.
	Scope string
	// MaxSize is how many bytes of files a directory may hold to be saved.
	MaxSize int64
	// Blob stores a tar as a layer.
	Blob func(ctx context.Context, write func(context.Context, io.Writer) error) (v1.Layer, error)
	// Layers prepares a record's layers for reading.
	Layers func(layers []v1.Layer) ([]v1.Layer, error)
	Notice func(text string)
	Now    func() time.Time
}

// Mounts keeps the directories of RUN --mount=type=cache between jobs: a record
// for each, whose layers are the directory's content and what was changed since.
// As with results of steps, nothing of it fails a build. Safe for concurrent
// use; whoever calls holds the directory's lock.
type Mounts struct {
	opts MountOptions

	mu sync.Mutex
	// bases are what directories were restored from, by id.
	bases map[string]*base
}

// base is what a repository has of a directory, as it is on disk.
type base struct {
	layers  []v1.Layer
	history []v1.History
	files   map[string]mark
	// bytes is the size of all files that the layers hold, dead ones included.
	bytes int64
}

// mark tells whether a path is what it was. Every change of a file moves its
// ctime, which no process can set.
type mark struct {
	mode, uid, gid uint32
	size           int64
	ino            uint64
	mtime, ctime   int64
}

// NewMounts makes Mounts.
func NewMounts(opts MountOptions) *Mounts {
	return &Mounts{opts: opts, bases: map[string]*base{}}
}

const (
	labelMount = "dev.layerwright.cache.mount"
	labelBytes = "dev.layerwright.cache.bytes"
	// maxChanges is how many layers of changes may follow the first one
	// before everything is written anew.
	maxChanges = 8
)

func (m *Mounts) tag(scope, id string) string {
	h := newHash()
	h.add("mount", Format, scope, id)
	return tagOf("m-" + h.sum())
}

// Restore fills dir, a new and empty directory, with what was saved under id; ok
// is false if that is nothing. name is what messages call it.
func (m *Mounts) Restore(ctx context.Context, id, name, dir string) (ok bool) {
	r := m.find(ctx, id)
	if r == nil {
		return false
	}
	err := m.unpack(ctx, r, dir)
	if err == nil {
		var files map[string]mark
		if files, _, err = scan(dir); err == nil {
			b := &base{layers: r.Layers, history: r.History, files: files}
			_, err = fmt.Sscan(r.Labels[labelBytes], &b.bytes)
			m.mu.Lock()
			m.bases[id] = b
			m.mu.Unlock()
		}
	}
	if err == nil {
		return true
	}
	if ctx.Err() == nil {
		m.opts.Notice(fmt.Sprintf("cache mount %s begins empty: %v", name, err))
	}
	empty(dir)
	return false
}

// Adopt takes note of a directory that was there before the build: it is saved
// only if the build changes it, or if the repository has nothing of it.
func (m *Mounts) Adopt(ctx context.Context, id, dir string) {
	m.mu.Lock()
	_, known := m.bases[id]
	m.mu.Unlock()
	if known || m.opts.Write == nil || m.find(ctx, id) == nil {
		return
	}
	if files, _, err := scan(dir); err == nil {
		m.mu.Lock()
		m.bases[id] = &base{files: files}
		m.mu.Unlock()
	}
}

func (m *Mounts) find(ctx context.Context, id string) *Record {
	scopes := []string{m.opts.Scope}
	if m.opts.Scope != "" {
		scopes = append(scopes, "")
	}
	for _, repo := range m.opts.Read {
		for _, scope := range scopes {
			r, err := patientGet(ctx, repo, m.tag(scope, id))
			if err == nil {
				r.From = repo
				return r
			}
			if !errors.Is(err, ErrMiss) && ctx.Err() == nil {
				m.opts.Notice(fmt.Sprintf("the cache in %s is not used: %v", repo.Name(), err))
				break
			}
		}
	}
	return nil
}

func (m *Mounts) unpack(ctx context.Context, r *Record, dir string) error {
	layers, err := m.opts.Layers(r.Layers)
	if err != nil {
		return err
	}
	for _, l := range layers {
		rc, err := l.Uncompressed()
		if err != nil {
			return err
		}
		err = layer.Apply(ctx, dir, rc, layer.ApplyOptions{})
		if err = errors.Join(err, rc.Close()); err != nil {
			return err
		}
	}
	// The directory itself is no entry of a layer.
	var st rootAttributes
	if err := json.Unmarshal([]byte(r.Labels[labelMount]), &st); err != nil {
		return fmt.Errorf("record of a cache mount: %w", err)
	}
	return errors.Join(os.Chown(dir, st.UID, st.GID), unix.Chmod(dir, st.Mode&0o7777))
}

// rootAttributes are those of a cache's directory itself.
type rootAttributes struct {
	ID       string
	Scope    string
	UID, GID int
	Mode     uint32
}

// empty removes what is in a directory, as far as that goes.
func empty(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		_ = os.RemoveAll(filepath.Join(dir, e.Name()))
	}
}

// scan marks everything in a directory and counts the bytes of its files.
func scan(dir string) (files map[string]mark, bytes int64, err error) {
	files = map[string]mark{}
	err = filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return &fs.PathError{Op: "stat", Path: strings.TrimPrefix(p, dir), Err: err}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			return nil // no layer holds one
		}
		k := mark{mode: st.Mode, uid: st.Uid, gid: st.Gid}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			k.size, k.ino, k.mtime, k.ctime = st.Size, st.Ino, st.Mtim.Nano(), st.Ctim.Nano()
			bytes += st.Size
		}
		files[strings.TrimPrefix(p, dir+"/")] = k
		return nil
	})
	return files, bytes, err
}

// difference is what has to be written to get from one state to the other, and
// the size of the files in it.
func difference(from, to map[string]mark) (changes []layer.Change, bytes int64) {
	for p, k := range to {
		if from[p] != k {
			changes = append(changes, layer.Change{Path: p})
			bytes += k.size
		}
	}
	gone := map[string]bool{}
	for p := range from {
		if _, ok := to[p]; !ok {
			gone[p] = true
		}
	}
	for p := range gone {
		if !gone[filepath.Dir(p)] { // a removed directory takes all below it along
			changes = append(changes, layer.Change{Path: p, Delete: true})
		}
	}
	return changes, bytes
}

// Save stores what has changed in dir since Restore, all of it if nothing was
// restored, and returns when it is in the repository. A directory that is too
// large, or the same, is not saved.
func (m *Mounts) Save(ctx context.Context, id, name, dir string) {
	if m.opts.Write == nil {
		return
	}
	err := m.save(ctx, id, name, dir)
	if err != nil && ctx.Err() == nil {
		m.opts.Notice(fmt.Sprintf("cache mount %s could not be saved in %s: %v", name, m.opts.Write.Name(), err))
	}
}

func (m *Mounts) save(ctx context.Context, id, name, dir string) error {
	files, bytes, err := scan(dir)
	if err != nil {
		return err
	}
	if bytes > m.opts.MaxSize {
		m.opts.Notice(fmt.Sprintf("cache mount %s is not saved: it holds %d MiB, more than the %d MiB of --cache-mount-max-size",
			name, bytes>>20, m.opts.MaxSize>>20))
		return nil
	}
	m.mu.Lock()
	b := m.bases[id]
	m.mu.Unlock()
	if b == nil {
		b = &base{}
	}
	changes, added := difference(b.files, files)
	if len(changes) == 0 && (b.files != nil || len(files) == 0) {
		return nil
	}
	if b.files != nil && (len(b.layers) == 0 || len(b.layers) > maxChanges || b.bytes+added > 2*bytes) {
		b = &base{} // more dead than alive: all anew
		changes, added = difference(nil, files)
	}
	l, err := m.opts.Blob(ctx, func(ctx context.Context, w io.Writer) error {
		return layer.Write(ctx, w, dir, changes, layer.WriteOptions{})
	})
	if err != nil {
		return err
	}
	now := m.opts.Now()
	next := &base{layers: append(slices.Clone(b.layers), l), files: files, bytes: b.bytes + added,
		history: append(slices.Clone(b.history), v1.History{Created: v1.Time{Time: now.UTC()}})}
	if err := m.write(ctx, id, name, dir, next); err != nil {
		return err
	}
	m.mu.Lock()
	m.bases[id] = next
	m.mu.Unlock()
	return nil
}

func (m *Mounts) write(ctx context.Context, id, name, dir string, b *base) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	attributes, err := json.Marshal(rootAttributes{ID: id, Scope: m.opts.Scope, UID: int(st.Uid), GID: int(st.Gid), Mode: st.Mode & 0o7777})
	if err != nil {
		return err
	}
	layers := make([]image.Layer, len(b.layers))
	for i, l := range b.layers {
		if err := m.opts.Write.Upload(ctx, l); err != nil {
			return err
		}
		layers[i] = image.Layer{Layer: l, Created: b.history[i].Created.Time}
	}
	img, err := assemble(v1.ConfigFile{OS: "linux", Architecture: "unknown"}, map[string]string{
		labelMount: string(attributes), labelStep: "cache mount " + name, labelBytes: fmt.Sprint(b.bytes),
	}, layers, m.opts.Now())
	if err != nil {
		return err
	}
	return m.opts.Write.Put(ctx, img, []string{m.tag(m.opts.Scope, id)})
}
