package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/layerwright/layerwright/core/internal/layer"
)

// Options are the choices of a driver; the zero value is fine.
type Options struct {
	// Clock is the clock of file times in nanoseconds; for tests.
	Clock func() int64
	// UserXattr makes driver overlay use user.overlay.* attributes: needed
	// for mounts inside a user namespace.
	UserXattr bool
}

// NewFlat makes a store of driver flat in dir, which it creates: every state
// that is needed as files is one directory that holds the whole tree.
func NewFlat(dir string, opts Options) (Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make store: %w", err)
	}
	if opts.Clock == nil {
		opts.Clock = coarse
	}
	f := &flat{dir: dir, opts: opts}
	f.ctx, f.end = context.WithCancel(context.Background())
	f.closed = sync.OnceValue(f.clear)
	return f, nil
}

type flat struct {
	dir  string
	opts Options

	mu   sync.Mutex
	next int
	// removals are trees that are being removed.
	removals errgroup.Group
	// ahead are trees that are being unpacked before anybody has asked for them,
	// until ctx ends.
	ahead sync.WaitGroup
	ctx   context.Context //nolint:containedctx // lives as long as the store
	end   context.CancelFunc
	// closed is Close.
	closed func() error
}

func (f *flat) Scratch() State { return f.state() }
func (f *flat) FromLayers(layers []v1.Layer) State {
	s := f.state()
	s.layers, s.unpacked = slices.Clone(layers), len(layers) > 0
	return s
}

func (f *flat) state() *flatState { return &flatState{store: f, maker: make(chan struct{}, 1)} }

func (f *flat) Extend(p State, more []v1.Layer) State {
	return f.FromLayers(append(slices.Clone(p.Layers()), more...))
}

func (f *flat) Close() error { return f.closed() }

func (f *flat) clear() error {
	f.end()
	f.ahead.Wait()
	err := f.removals.Wait()
	return errors.Join(err, removeTree(f.dir))
}

func (f *flat) newTree() (*tree, error) {
	f.mu.Lock()
	f.next++
	dir := filepath.Join(f.dir, strconv.Itoa(f.next))
	f.mu.Unlock()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make tree: %w", err)
	}
	return &tree{dir: dir, index: newIndex(dir)}, nil
}

func (f *flat) remove(t *tree) {
	f.removals.Go(func() error { return removeTree(t.dir) })
}

// tree is one directory with what is known of its files.
type tree struct {
	dir   string
	index *index
	// stale says that the index does not know the last change.
	stale bool
}

type flatState struct {
	store      *flat
	layers     []v1.Layer
	uncaptured bool
	// unpacked says that the tree is what the layers give, since nothing but directories
	// has been made in it: another one like it can be had from them.
	unpacked bool
	claims   *claims

	// use is what the owners will do, where that is known.
	use Use

	// maker is full while somebody makes the tree, which takes its time.
	maker chan struct{}

	mu sync.Mutex
	// tree is the state as files; nil before it is needed and after somebody was
	// given it to change. given says that this has been.
	tree  *tree
	given bool
}

func (s *flatState) Expect(use Use) { s.use = use }

func (s *flatState) Layers() []v1.Layer {
	if s.uncaptured {
		panic("snapshot: layers of a state that was committed without capture")
	}
	return slices.Clone(s.layers)
}

func (s *flatState) Claims(owners []int) []Claim {
	s.claims = newClaims(owners, s.drop)
	out := make([]Claim, len(owners))
	for i := range owners {
		out[i] = &flatClaim{state: s, number: i}
	}
	if len(owners) == 0 {
		s.drop()
	}
	return out
}

// drop removes the tree when nobody can ask for it any more; after it was made, where
// somebody is at that.
func (s *flatState) drop() {
	s.store.removals.Go(func() error {
		s.maker <- struct{}{}
		s.mu.Lock()
		t := s.tree
		s.tree = nil
		s.mu.Unlock()
		<-s.maker
		if t == nil {
			return nil
		}
		return removeTree(t.dir)
	})
}

// materialise makes the state's files, unless they are there.
func (s *flatState) materialise(ctx context.Context) (*tree, error) {
	return s.materialiseFor(ctx, func() bool { return true })
}

// materialiseFor does so where it is still wanted when nobody else is at it; else the
// tree may be nil.
func (s *flatState) materialiseFor(ctx context.Context, wanted func() bool) (*tree, error) {
	select {
	case s.maker <- struct{}{}:
		defer func() { <-s.maker }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	t := s.tree
	s.mu.Unlock()
	if t != nil || !wanted() {
		return t, nil
	}
	t, err := s.unpack(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.tree = t
	s.mu.Unlock()
	return t, nil
}

// unpack makes a tree out of the layers.
func (s *flatState) unpack(ctx context.Context) (*tree, error) {
	t, err := s.store.newTree()
	if err != nil {
		return nil, err
	}
	for _, l := range s.Layers() {
		err := readLayer(ctx, l, func(r io.Reader) error {
			return layer.Apply(ctx, t.dir, r, layer.ApplyOptions{Observe: t.index.observe(t.dir), Hollow: s.use.Hollow})
		})
		if err != nil {
			s.store.remove(t)
			return nil, err
		}
	}
	return t, nil
}

// readLayer hands a layer's tar to f, and ends it with ctx where the layer is still on
// its way.
func readLayer(ctx context.Context, l v1.Layer, f func(io.Reader) error) (err error) {
	open := l.Uncompressed
	if remote, ok := l.(interface {
		UncompressedContext(ctx context.Context) (io.ReadCloser, error)
	}); ok {
		open = func() (io.ReadCloser, error) { return remote.UncompressedContext(ctx) }
	}
	rc, err := open()
	if err != nil {
		return fmt.Errorf("open layer: %w", err)
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	return f(rc)
}

type flatClaim struct {
	state *flatState
	// number is the claim's among those of the state.
	number   int
	released sync.Once
	// viewed is set once the owner looks at the tree: it then has to stay.
	viewed atomic.Bool
}

func (c *flatClaim) State() State { return c.state }
func (c *flatClaim) Release()     { c.released.Do(func() { c.state.claims.set(c.number, gone) }) }

// Prepare implements Claim.
func (c *flatClaim) Prepare(ctx context.Context, certain bool) {
	s := c.state
	s.claims.announce(c.number)
	_, _ = s.materialiseFor(ctx, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.claims.announces(c.number) && (certain || s.given)
	})
}

func (c *flatClaim) View(ctx context.Context) (View, error) {
	c.viewed.Store(true)
	c.state.claims.set(c.number, viewing)
	t, err := c.state.materialise(ctx)
	if err != nil {
		return nil, err
	}
	return dirView(t.dir), nil
}

// Settle implements Claim.
func (c *flatClaim) Settle() { c.state.claims.settle(c.number) }

// Take implements Claim.
func (c *flatClaim) Take(ctx context.Context) (View, bool, error) {
	s := c.state
	if !s.claims.only(c.number) {
		return nil, false, nil
	}
	t, err := s.materialise(ctx)
	if err != nil {
		return nil, false, err
	}
	s.mu.Lock()
	s.tree = nil
	s.mu.Unlock()
	return &takenView{store: s.store, tree: t}, true, nil
}

// takenView is a tree that goes with the view.
type takenView struct {
	store *flat
	tree  *tree
	once  sync.Once
}

func (v *takenView) Dir() string { return v.tree.dir }

func (v *takenView) Close() error {
	v.once.Do(func() { v.store.remove(v.tree) })
	return nil
}

// dirView is a tree that needs nothing done at the end.
type dirView string

func (d dirView) Dir() string { return string(d) }
func (dirView) Close() error  { return nil }

func (c *flatClaim) Mutate(ctx context.Context) (Mutable, error) {
	s := c.state
	t, err := c.take(ctx)
	if err != nil {
		return nil, err
	}
	if !c.viewed.Load() {
		c.Release()
	}
	if err := t.index.settle(ctx, s.store.opts.Clock); err != nil {
		s.store.remove(t)
		return nil, err
	}
	return &flatMutable{store: s.store, parent: s, tree: t}, nil
}

// take gives the state's own tree to the last one who is left. Everybody else gets a
// branch; or the state's own too, where nobody looks at it and the next one can have it
// unpacked again: so the first step can begin, and the others' trees are made beside it.
func (c *flatClaim) take(ctx context.Context) (*tree, error) {
	s := c.state
	inPlace, err := s.claims.acquire(ctx, c.number, demand{keep: c.viewed.Load(), patience: s.patience()})
	if err != nil {
		return nil, err
	}
	if !inPlace {
		defer s.claims.copied()
	}
	t, err := s.materialise(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	if !inPlace && (!s.unpacked || s.claims.viewed()) {
		s.mu.Unlock()
		return s.store.copy(ctx, t)
	}
	s.tree, s.given = nil, true
	s.mu.Unlock()
	if !inPlace && s.claims.announced() {
		s.again(ctx)
	}
	return t, nil
}

// again has the tree made again beside what goes on, for those who have announced
// themselves and not asked yet.
func (s *flatState) again(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	unhook := context.AfterFunc(s.store.ctx, stop) //nolint:contextcheck // the store ends before or after who asks
	s.store.ahead.Go(func() {
		defer stop()
		defer unhook()
		_, _ = s.materialiseFor(ctx, s.claims.announced)
	})
}

// perFile is the part of the time that a file takes to copy which is worth waiting for
// not having to: a quarter of what was measured.
const perFile = 20 * time.Microsecond

// patience is how long to wait rather than copy the tree; 0 where a branch is no copy.
func (s *flatState) patience() time.Duration {
	if s.unpacked && !s.claims.viewed() {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tree == nil {
		return 0
	}
	return time.Duration(s.tree.index.root.count()) * perFile
}

type flatMutable struct {
	store  *flat
	parent *flatState
	tree   *tree
	ended  bool
}

func (m *flatMutable) Dir() string { return m.tree.dir }

func (m *flatMutable) Discard() error {
	if !m.ended {
		m.ended = true
		m.store.remove(m.tree)
	}
	return nil
}

func (m *flatMutable) Commit(ctx context.Context, changes Changes, capture Capture) (State, error) {
	if m.ended {
		return nil, errors.New("commit: the change has ended already")
	}
	next := m.store.state()
	next.tree, next.layers, next.uncaptured = m.tree, slices.Clone(m.parent.layers), m.parent.uncaptured
	if capture == nil {
		m.ended = true
		m.tree.stale = true
		next.uncaptured = true
		return next, nil
	}
	if m.tree.stale || m.parent.uncaptured {
		return nil, errors.New("commit: capture on top of a state without capture")
	}
	found, err := m.find(ctx, changes)
	if err != nil {
		return nil, err
	}
	// WORKDIR: what files there are came out of the layers.
	next.unpacked = m.parent.unpacked && changes.Known != nil && len(changes.Ignore) == 0 && m.tree.index.allDirs(found)
	found = changes.without(found)
	l, err := capture(ctx, func(ctx context.Context, w io.Writer) error {
		return layer.Write(ctx, w, m.tree.dir, found, layer.WriteOptions{Sum: m.tree.index.setSum})
	})
	if err != nil {
		return nil, err
	}
	m.tree.index.shareSums(found)
	m.ended = true
	next.layers = append(next.layers, l)
	return next, nil
}

func (m *flatMutable) find(ctx context.Context, changes Changes) ([]layer.Change, error) {
	if changes.Known != nil {
		return m.tree.index.known(m.tree.dir, changes.Known)
	}
	suspect := make(map[string]bool, len(changes.Suspect))
	for _, p := range changes.Suspect {
		suspect[path.Clean(p)] = true
	}
	return m.tree.index.walk(ctx, m.tree.dir, suspect)
}

// shareSums gives further names of an inode the hash of the first, which alone
// was read for the layer.
func (ix *index) shareSums(changes []layer.Change) {
	sums := map[uint64]uint64{} // of inodes that lack one
	for _, c := range changes {
		if e, ok := ix.file(c.Path); ok && !e.hasSum {
			sums[e.ino] = 0
		}
	}
	if len(sums) == 0 {
		return
	}
	for _, c := range changes {
		if e, ok := ix.file(c.Path); ok && e.hasSum {
			if _, lacking := sums[e.ino]; lacking {
				sums[e.ino] = e.sum
			}
		}
	}
	for _, c := range changes {
		if e, ok := ix.file(c.Path); ok && !e.hasSum && sums[e.ino] != 0 {
			ix.setSum(c.Path, sums[e.ino])
		}
	}
}

// allDirs says whether all changes are directories that were made or changed.
func (ix *index) allDirs(changes []layer.Change) bool {
	return !slices.ContainsFunc(changes, func(c layer.Change) bool { return c.Delete || ix.find(c.Path) == nil })
}

func (ix *index) file(p string) (fileEntry, bool) {
	dir, name := split(p)
	n := ix.find(dir)
	if n == nil {
		return fileEntry{}, false
	}
	return n.files.get(name)
}

// sortedPaths orders as a walk would, parents first, without doubles.
func sortedPaths(paths []string) []string {
	out := make([]string, 0, len(paths))
	for _, p := range paths {
		c := path.Clean("/" + p)[1:]
		out = append(out, c)
	}
	slices.SortFunc(out, layer.ComparePaths)
	return slices.Compact(out)
}
