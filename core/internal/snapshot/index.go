package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/layer"
)

// index is what is known of a tree's files, so that a walk by stat alone finds
// what a command has changed. Driver flat.
type index struct {
	root *dirNode
	// newest is the latest ctime seen, in nanoseconds.
	newest int64
	// hashAll is set where ctime cannot be trusted at all: on tmpfs a write
	// through mmap does not move it.
	hashAll bool
	mu      sync.Mutex
}

// dirNode is a directory; guarded by whoever walks it.
type dirNode struct {
	mode, uid, gid uint32
	dirs           map[string]*dirNode
	files          fileTable
}

// fileEntry is what is known of anything but a directory.
type fileEntry struct {
	ino, rdev          uint64
	size, mtime, ctime int64
	// sum is a hash of the content (or link target), caps one of the file
	// capabilities, 0 without.
	sum, caps      uint64
	mode, uid, gid uint32
	hasSum         bool
}

func newIndex(dir string) *index {
	var fs unix.Statfs_t
	tmpfs := unix.Statfs(dir, &fs) == nil && fs.Type == unix.TMPFS_MAGIC
	ix := &index{root: newDirNode(nil), hashAll: tmpfs}
	var st unix.Stat_t
	if unix.Lstat(dir, &st) == nil {
		ix.root.set(&st)
	}
	return ix
}

func newDirNode(st *unix.Stat_t) *dirNode {
	n := &dirNode{}
	if st != nil {
		n.set(st)
	}
	return n
}

func (n *dirNode) set(st *unix.Stat_t) { n.mode, n.uid, n.gid = st.Mode, st.Uid, st.Gid }

func (n *dirNode) same(st *unix.Stat_t) bool {
	return n.mode == st.Mode && n.uid == st.Uid && n.gid == st.Gid
}

// count is how many files and directories are below.
func (n *dirNode) count() int {
	all := len(n.dirs) + n.files.len()
	for _, d := range n.dirs {
		all += d.count()
	}
	return all
}

func (n *dirNode) addDir(name string, child *dirNode) {
	if n.dirs == nil {
		n.dirs = map[string]*dirNode{}
	}
	n.files.remove(name)
	n.dirs[name] = child
}

func (n *dirNode) addFile(name string, e fileEntry) {
	delete(n.dirs, name)
	n.files.set(name, e)
}

func isDir(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

func entryOf(st *unix.Stat_t) fileEntry {
	return fileEntry{ino: st.Ino, rdev: st.Rdev, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(), mode: st.Mode, uid: st.Uid, gid: st.Gid}
}

// find gives the node of a directory, nil if it is unknown.
func (ix *index) find(dir string) *dirNode {
	n := ix.root
	for dir != "" && n != nil {
		name, rest, _ := strings.Cut(dir, "/")
		n, dir = n.dirs[name], rest
	}
	return n
}

func split(p string) (dir, name string) {
	dir, name = path.Split(p)
	return strings.TrimSuffix(dir, "/"), name
}

// observe takes in what layer.Apply did.
func (ix *index) observe(root string) func(layer.Observed) {
	return func(o layer.Observed) {
		if o.Path == "" {
			ix.root.set(o.Stat)
			return
		}
		dir, name := split(o.Path)
		n := ix.find(dir)
		if n == nil {
			return
		}
		switch {
		case o.Removed:
			n.files.remove(name)
			delete(n.dirs, name)
		case isDir(o.Stat):
			if d := n.dirs[name]; d != nil {
				d.set(o.Stat)
			} else {
				n.addDir(name, newDirNode(o.Stat))
			}
		default:
			e := entryOf(o.Stat)
			e.sum, e.hasSum = o.Sum, o.Stat.Mode&unix.S_IFMT == unix.S_IFREG
			if o.Hardlink {
				e.hasSum = false
			}
			at := filepath.Join(root, o.Path)
			e.caps = capsOf(at, o.Stat.Mode)
			if o.Hardlink {
				e.sum, e.hasSum = sumOf(at, o.Stat)
			} else if o.Stat.Mode&unix.S_IFMT == unix.S_IFLNK {
				e.sum, e.hasSum = sumOf(at, o.Stat)
			}
			ix.seen(e.ctime)
			n.addFile(name, e)
		}
	}
}

func (ix *index) seen(ctime int64) {
	ix.mu.Lock()
	ix.newest = max(ix.newest, ctime)
	ix.mu.Unlock()
}

// setSum records the content hash of a file that was read for its layer.
func (ix *index) setSum(p string, sum uint64) {
	dir, name := split(p)
	if n := ix.find(dir); n != nil {
		if e, ok := n.files.get(name); ok {
			e.sum, e.hasSum = sum, true
			n.files.set(name, e)
		}
	}
}

// capsOf is a hash of a file's capabilities; only regular files have any.
func capsOf(at string, mode uint32) uint64 {
	if mode&unix.S_IFMT != unix.S_IFREG {
		return 0
	}
	var buf [64]byte
	n, err := unix.Lgetxattr(at, "security.capability", buf[:])
	if err != nil || n == 0 {
		return 0
	}
	return xxhash.Sum64(buf[:n])
}

// sumOf hashes a file's content or a link's target.
func sumOf(at string, st *unix.Stat_t) (uint64, bool) {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := os.Readlink(at)
		return xxhash.Sum64String(target), err == nil
	case unix.S_IFREG:
		f, err := os.OpenFile(at, os.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return 0, false
		}
		defer f.Close()
		d := xxhash.New()
		var head [24]byte
		if n, err := f.ReadAt(head[:], 0); err == nil {
			if sum, ok := layer.HollowSum(head[:n], st.Size); ok {
				return sum, true
			}
		}
		_, err = f.WriteTo(d)
		return d.Sum64(), err == nil
	}
	return 0, true
}

// walk compares the whole tree with the index, brings the index up to date,
// and gives the changes. Suspects are compared by attributes and content
// whatever their ctime says.
func (ix *index) walk(ctx context.Context, root string, suspect map[string]bool) ([]layer.Change, error) {
	w := &walker{ix: ix, root: root, suspect: suspect}
	w.group, w.ctx = errgroup.WithContext(ctx)
	w.group.SetLimit(2 * runtime.GOMAXPROCS(0))
	w.group.Go(func() error { return w.dir(ix.root, "") })
	if err := w.group.Wait(); err != nil {
		return nil, err
	}
	return w.changes, nil
}

type walker struct {
	ix      *index
	root    string
	suspect map[string]bool
	group   *errgroup.Group
	ctx     context.Context //nolint:containedctx // lives as long as one walk
	mu      sync.Mutex
	changes []layer.Change
}

func (w *walker) add(c ...layer.Change) {
	if len(c) == 0 {
		return
	}
	w.mu.Lock()
	w.changes = append(w.changes, c...)
	w.mu.Unlock()
}

func (w *walker) dir(n *dirNode, rel string) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	f, err := os.Open(filepath.Join(w.root, rel))
	if err != nil {
		return fmt.Errorf("walk tree: %w", err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("walk tree: %w", err)
	}
	known := len(n.dirs) + n.files.len()
	if known == 0 {
		n.files.reserve(len(names))
	}
	matched := 0
	var found []layer.Change
	var st unix.Stat_t
	for _, name := range names {
		if err := unix.Fstatat(int(f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			if errors.Is(err, unix.ENOENT) {
				continue
			}
			return fmt.Errorf("walk tree: %s: %w", path.Join(rel, name), err)
		}
		if n.dirs[name] != nil {
			matched++
		} else if n.files.has(name) {
			matched++
		}
		// Paths are put together only where one is needed: most files are as they were.
		suspect := len(w.suspect) > 0 && w.suspect[path.Join(rel, name)]
		changed, child := w.ix.compare(n, place{w.root, rel, name}, &st, suspect)
		if changed {
			found = append(found, layer.Change{Path: path.Join(rel, name)})
		}
		if child == nil {
			continue
		}
		p := path.Join(rel, name)
		if !w.group.TryGo(func() error { return w.dir(child, p) }) {
			if err := w.dir(child, p); err != nil {
				return err
			}
		}
	}
	if matched < known {
		found = append(found, n.forget(rel, names)...)
	}
	w.add(found...)
	return nil
}

// forget drops what the index knows of a directory beyond names, as deletions.
func (n *dirNode) forget(rel string, names []string) []layer.Change {
	present := make(map[string]bool, len(names))
	for _, name := range names {
		present[name] = true
	}
	var out []layer.Change
	for name := range n.files.all {
		if !present[name] {
			n.files.remove(name)
			out = append(out, layer.Change{Path: path.Join(rel, name), Delete: true})
		}
	}
	for name := range n.dirs {
		if !present[name] {
			delete(n.dirs, name)
			out = append(out, layer.Change{Path: path.Join(rel, name), Delete: true})
		}
	}
	return out
}

// place is where a file is: name in the directory rel of the tree at root.
type place struct{ root, rel, name string }

func (p place) path() string { return filepath.Join(p.root, p.rel, p.name) }

// compare holds one path against the index and brings the index up to date.
// child is the node of a directory. What counts as a change is what counts for
// BuildKit's overlay differ (sameDirent): mode, owner, device, capabilities,
// and but for directories size and time, the content only where both times
// have no nanoseconds.
func (ix *index) compare(n *dirNode, at place, st *unix.Stat_t, suspect bool) (changed bool, child *dirNode) {
	name := at.name
	if isDir(st) {
		child = n.dirs[name]
		if child == nil {
			child = newDirNode(st)
			n.addDir(name, child)
			return true, child
		}
		changed = !child.same(st)
		child.set(st)
		return changed, child
	}
	e := entryOf(st)
	ix.seen(e.ctime)
	old, ok := n.files.get(name)
	if !ok {
		e.caps = capsOf(at.path(), st.Mode)
		if e.mode&unix.S_IFMT != unix.S_IFREG {
			e.sum, e.hasSum = sumOf(at.path(), st)
		}
		n.addFile(name, e)
		return st.Mode&unix.S_IFMT != unix.S_IFSOCK, nil
	}
	regular := st.Mode&unix.S_IFMT == unix.S_IFREG
	if !suspect && !(ix.hashAll && regular) && old.ino == e.ino && old.ctime == e.ctime && old.mtime == e.mtime && old.size == e.size && old.mode == e.mode {
		return false, nil
	}
	e.caps = capsOf(at.path(), st.Mode)
	changed = !ix.same(&old, &e, at, st)
	if changed && !e.hasSum && !regular {
		// Regular files are hashed while they are written to the layer.
		e.sum, e.hasSum = sumOf(at.path(), st)
	}
	n.files.set(name, e)
	return changed && st.Mode&unix.S_IFMT != unix.S_IFSOCK, nil
}

// same is sameDirent; it fills in e's hash where it had to be computed, or
// carries it over.
func (ix *index) same(old, e *fileEntry, at place, st *unix.Stat_t) bool {
	if old.mode != e.mode || old.uid != e.uid || old.gid != e.gid || old.rdev != e.rdev || old.caps != e.caps || old.size != e.size {
		return false
	}
	link := e.mode&unix.S_IFMT == unix.S_IFLNK
	if old.mtime != e.mtime {
		return false
	}
	if e.mtime%int64(time.Second) != 0 && !ix.hashAll {
		e.sum, e.hasSum = old.sum, old.hasSum
		return true
	}
	e.sum, e.hasSum = sumOf(at.path(), st)
	if e.size == 0 && !link {
		return true
	}
	return old.hasSum && e.hasSum && old.sum == e.sum
}

// known compares only the given paths.
func (ix *index) known(root string, paths []string) ([]layer.Change, error) {
	var out []layer.Change
	paths = sortedPaths(paths)
	for _, p := range paths {
		at := filepath.Join(root, p)
		if p == "" {
			continue
		}
		dir, name := split(p)
		n := ix.find(dir)
		if n == nil {
			continue // below something that is gone
		}
		var st unix.Stat_t
		err := unix.Lstat(at, &st)
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			if n.files.has(name) || n.dirs[name] != nil {
				n.files.remove(name)
				delete(n.dirs, name)
				out = append(out, layer.Change{Path: p, Delete: true})
			}
		case err != nil:
			return nil, fmt.Errorf("look at %s: %w", p, err)
		default:
			if changed, _ := ix.compare(n, place{root, dir, name}, &st, true); changed {
				out = append(out, layer.Change{Path: p})
			}
		}
	}
	return out, nil
}

// settle waits until a change made from now on gets a ctime later than all
// that the index has seen: kernels that stamp by ticks would otherwise hide a
// change made within the same tick.
func (ix *index) settle(ctx context.Context, clock func() int64) error {
	for clock() <= ix.newest {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// coarse is the clock that file times come from.
func coarse() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts); err != nil {
		return time.Now().UnixNano()
	}
	return ts.Nano()
}
