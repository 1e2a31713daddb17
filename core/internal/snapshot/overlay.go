package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/layer"
)

// NewOverlay makes a store of driver overlay in dir, which it creates: every
// layer is a directory, a state is a list of them, and a change is the upper
// directory of a mount. The process must be in a mount namespace of its own.
func NewOverlay(dir string, opts Options) (Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make store: %w", err)
	}
	o := &overlay{dir: dir, opts: opts, base: map[string]*layerDir{}, mounts: map[string]bool{}}
	o.closed = sync.OnceValue(o.clear)
	return o, nil
}

type overlay struct {
	dir  string
	opts Options

	mu   sync.Mutex
	next int
	base map[string]*layerDir
	// mounts are those that Close has to undo.
	mounts map[string]bool
	// captures are layers in the making; Close waits for them.
	captures sync.WaitGroup
	// closed is Close.
	closed func() error
}

// layerDir is one layer as a directory. Layers of a base are unpacked side by
// side; unpacked is closed when the files are there, ready when also what had
// to come from the layers below is right.
type layerDir struct {
	path            string
	unpacked, ready chan struct{}
	err             error
}

func (o *overlay) path(suffix string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next++
	return filepath.Join(o.dir, strconv.Itoa(o.next)+suffix)
}

func (o *overlay) Scratch() State { return &overlayState{store: o} }
func (o *overlay) FromLayers(layers []v1.Layer) State {
	return &overlayState{store: o, layers: slices.Clone(layers)}
}

func (o *overlay) Extend(p State, more []v1.Layer) State {
	parent := p.(*overlayState)
	return &overlayState{store: o, below: parent, layers: append(parent.Layers(), more...), more: more}
}

func (o *overlay) Close() error { return o.closed() }

func (o *overlay) clear() error {
	o.captures.Wait()
	o.mu.Lock()
	left := slices.Collect(maps.Keys(o.mounts))
	o.mu.Unlock()
	var errs []error
	for _, dir := range left {
		// Whoever still holds it has been told that it is invalid now; to
		// remove the store through a mount would be worse.
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", dir, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return removeTree(o.dir)
}

// mount mounts and remembers it; unmount undoes both.
func (o *overlay) mount(dir string, lower []string, upper, work string) error {
	if err := mountOverlay(dir, lower, upper, work, o.opts.UserXattr); err != nil {
		return err
	}
	o.mu.Lock()
	o.mounts[dir] = true
	o.mu.Unlock()
	return nil
}

func (o *overlay) unmount(dir string) error {
	if err := unmount(dir); err != nil {
		return err
	}
	o.mu.Lock()
	delete(o.mounts, dir)
	o.mu.Unlock()
	return os.Remove(dir)
}

type overlayState struct {
	store      *overlay
	layers     []v1.Layer
	uncaptured bool

	// below and more are set by Extend: more layers on another state.
	below *overlayState
	more  []v1.Layer

	// hollow is Use.Hollow.
	hollow bool

	mu sync.Mutex
	// dirs is the chain as directories, base first; known says that it is.
	dirs  []*layerDir
	known bool
}

func (s *overlayState) Layers() []v1.Layer {
	if s.uncaptured {
		panic("snapshot: layers of a state that was committed without capture")
	}
	return slices.Clone(s.layers)
}

// Expect implements State: a branch is a mount, whoever will change it.
func (s *overlayState) Expect(use Use) { s.hollow = use.Hollow }

func (s *overlayState) Claims(owners []int) []Claim {
	out := make([]Claim, len(owners))
	for i := range owners {
		out[i] = &overlayClaim{state: s}
	}
	return out
}

// materialise makes the chain's directories.
func (s *overlayState) materialise(ctx context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known {
		var below []*layerDir
		layers := s.layers
		if s.below != nil {
			if _, err := s.below.materialise(ctx); err != nil {
				return nil, err
			}
			below, layers = s.below.dirs, s.more
		}
		dirs, err := s.store.unpack(ctx, below, layers, s.hollow)
		if err != nil {
			return nil, err
		}
		s.dirs, s.known = dirs, true
	}
	paths := make([]string, len(s.dirs))
	for i, d := range s.dirs {
		paths[i] = d.path
	}
	return paths, nil
}

// errOther says that somebody else, whose unpacking was waited for, has failed:
// his context may have ended, ours has not.
var errOther = errors.New("another reader's unpacking has failed")

// unpack gives layers on top of below as directories, all at once.
func (o *overlay) unpack(ctx context.Context, below []*layerDir, layers []v1.Layer, hollow bool) ([]*layerDir, error) {
	for {
		dirs, err := o.tryUnpack(ctx, below, layers, hollow)
		if !errors.Is(err, errOther) || ctx.Err() != nil {
			return dirs, err
		}
	}
}

func (o *overlay) tryUnpack(caller context.Context, below []*layerDir, layers []v1.Layer, hollow bool) ([]*layerDir, error) {
	dirs := slices.Clone(below)
	mine := map[*layerDir]bool{}
	group, ctx := errgroup.WithContext(caller)
	group.SetLimit(4)
	for _, l := range layers {
		digest, err := l.DiffID()
		if err != nil {
			return nil, errors.Join(err, group.Wait())
		}
		chain := slices.Clone(dirs)
		key := digest.String()
		if len(chain) > 0 {
			key = chain[len(chain)-1].path + " " + key
		}
		o.mu.Lock()
		d, ok := o.base[key]
		if !ok && hollow { // a whole one serves as well, but not the other way round
			key = "hollow " + key
			d, ok = o.base[key]
		}
		if !ok {
			o.next++
			d = &layerDir{path: filepath.Join(o.dir, strconv.Itoa(o.next)), unpacked: newChan(), ready: newChan()}
			o.base[key] = d
		}
		o.mu.Unlock()
		dirs = append(dirs, d)
		if !ok {
			mine[d] = true
			group.Go(func() error {
				defer close(d.ready)
				if d.err = o.unpackOne(ctx, d, chain, l, hollow); d.err != nil {
					o.forget(key)
				}
				return d.err
			})
		}
	}
	err := group.Wait()
	for _, d := range dirs {
		if d.ready == nil || mine[d] {
			continue
		}
		select {
		case <-d.ready:
		case <-caller.Done():
			return nil, context.Cause(caller)
		}
		if d.err != nil {
			return nil, fmt.Errorf("%w: %w", errOther, d.err)
		}
	}
	if err != nil {
		return nil, err
	}
	return dirs, nil
}

// forget lets the next who needs a layer unpack it anew.
func (o *overlay) forget(key string) {
	o.mu.Lock()
	delete(o.base, key)
	o.mu.Unlock()
}

func (o *overlay) unpackOne(ctx context.Context, d *layerDir, chain []*layerDir, l v1.Layer, hollow bool) (err error) {
	closed := false
	defer func() {
		if !closed {
			d.err = err
			close(d.unpacked)
		}
	}()
	if err := os.Mkdir(d.path, 0o755); err != nil {
		return fmt.Errorf("make layer directory: %w", err)
	}
	opts := layer.ApplyOptions{Whiteouts: layer.OverlayTrusted, Hollow: hollow}
	if o.opts.UserXattr {
		opts.Whiteouts = layer.OverlayUser
	}
	var implicit []string
	opts.Implicit = func(p string) { implicit = append(implicit, p) }
	opts.Lower = func(p string) (string, error) { return lookup(ctx, chain, p, unpacked) }
	if err := readLayer(ctx, l, func(r io.Reader) error { return layer.Apply(ctx, d.path, r, opts) }); err != nil {
		return err
	}
	closed = true
	close(d.unpacked)
	slices.Sort(implicit) // parents first
	for _, p := range implicit {
		if err := inherit(ctx, chain, d.path, p); err != nil {
			return err
		}
	}
	return nil
}

// lookup finds a path in the layers below, top first; it waits for them with
// wait. A link or file of a layer in a parent's place, a whiteout and an opaque
// directory hide what is further below: following them would also lead out of
// the store.
func lookup(ctx context.Context, chain []*layerDir, p string, wait func(*layerDir) chan struct{}) (string, error) {
	for _, d := range slices.Backward(chain) {
		if c := wait(d); c != nil {
			select {
			case <-c:
			case <-ctx.Done():
				return "", context.Cause(ctx)
			}
		}
		at, hidden, err := inLayer(d.path, p)
		if err != nil {
			return "", err
		}
		if at != "" {
			return at, nil
		}
		if hidden {
			break
		}
	}
	return "", fmt.Errorf("%s: %w in the layers below", p, os.ErrNotExist)
}

// inLayer looks for a path in one layer's directory, name by name. hidden says
// that the layers below cannot have it either.
func inLayer(dir, p string) (at string, hidden bool, err error) {
	at = dir
	names := strings.Split(p, "/")
	for i, name := range names {
		at = filepath.Join(at, name)
		var st unix.Stat_t
		switch err := unix.Lstat(at, &st); {
		case errors.Is(err, unix.ENOENT):
			return "", hidden, nil
		case err != nil:
			return "", false, &os.PathError{Op: "lstat", Path: at, Err: err}
		case isWhiteout(&st), i < len(names)-1 && !isDir(&st):
			return "", true, nil
		case isDir(&st) && isOpaque(at):
			hidden = true
		}
	}
	return at, false, nil
}

func unpacked(d *layerDir) chan struct{} { return d.unpacked }
func ready(d *layerDir) chan struct{}    { return d.ready }

type overlayClaim struct{ state *overlayState }

func (c *overlayClaim) State() State { return c.state }
func (*overlayClaim) Release()       {}

// Settle implements Claim: nobody waits for a view.
func (*overlayClaim) Settle() {}

// Prepare implements Claim.
func (c *overlayClaim) Prepare(ctx context.Context, certain bool) {
	if certain {
		_, _ = c.state.materialise(ctx)
	}
}

func (c *overlayClaim) View(ctx context.Context) (View, error) {
	lower, err := c.state.materialise(ctx)
	if err != nil {
		return nil, err
	}
	return c.state.store.view(lower)
}

// Take implements Claim: a view is a mount of its own, out of which nothing can be
// moved.
func (c *overlayClaim) Take(context.Context) (View, bool, error) { return nil, false, nil }

// view mounts lower read-only; nothing need be mounted for fewer than two.
func (o *overlay) view(lower []string) (View, error) {
	switch len(lower) {
	case 0:
		dir := o.path("-empty")
		return dirView(dir), os.Mkdir(dir, 0o755)
	case 1:
		if !hasWhiteouts(lower[0]) {
			return dirView(lower[0]), nil
		}
		// A mount needs two directories to hide the whiteouts of one.
		empty := o.path("-empty")
		if err := os.Mkdir(empty, 0o755); err != nil {
			return nil, err
		}
		lower = []string{empty, lower[0]}
	}
	dir := o.path("-view")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if err := o.mount(dir, lower, "", ""); err != nil {
		return nil, err
	}
	return &mountedView{store: o, dir: dir}, nil
}

type mountedView struct {
	store *overlay
	dir   string
	once  sync.Once
	err   error
}

func (v *mountedView) Dir() string { return v.dir }

func (v *mountedView) Close() error {
	v.once.Do(func() {
		v.err = v.store.unmount(v.dir)
	})
	return v.err
}

func (c *overlayClaim) Mutate(ctx context.Context) (Mutable, error) {
	s := c.state
	lower, err := s.materialise(ctx)
	if err != nil {
		return nil, err
	}
	m := &overlayMutable{parent: s, lower: lower, upper: s.store.path(""), work: s.store.path("-work"), merged: s.store.path("-merged")}
	for _, d := range []string{m.upper, m.work, m.merged} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, fmt.Errorf("make upper directory: %w", err)
		}
	}
	if len(lower) == 0 {
		m.merged = m.upper
		return m, nil
	}
	// The root's attributes are the lower layer's.
	if err := copyDirAttributes(lower[len(lower)-1], m.upper); err != nil {
		return nil, err
	}
	if err := s.store.mount(m.merged, lower, m.upper, m.work); err != nil {
		return nil, err
	}
	m.mounted = true
	return m, nil
}

type overlayMutable struct {
	parent              *overlayState
	lower               []string
	upper, work, merged string
	mounted, ended      bool
}

func (m *overlayMutable) Dir() string { return m.merged }

func (m *overlayMutable) end() error {
	m.ended = true
	var err error
	if m.mounted {
		err = m.parent.store.unmount(m.merged)
	}
	return errors.Join(err, os.RemoveAll(m.work))
}

func (m *overlayMutable) Discard() error {
	if m.ended {
		return nil
	}
	return errors.Join(m.end(), removeTree(m.upper))
}

// Commit implements Mutable. The upper directory says what has changed; what
// the caller knows is not needed.
func (m *overlayMutable) Commit(ctx context.Context, ignored Changes, capture Capture) (State, error) {
	if m.ended {
		return nil, errors.New("commit: the change has ended already")
	}
	if capture != nil && m.parent.uncaptured {
		return nil, errors.New("commit: capture on top of a state without capture")
	}
	if err := m.end(); err != nil {
		return nil, fmt.Errorf("end change: %w", err)
	}
	s := m.parent.store
	next := &overlayState{store: s, known: true, uncaptured: capture == nil, layers: slices.Clone(m.parent.layers)}
	next.dirs = append(slices.Clone(m.parent.dirs), &layerDir{path: m.upper})
	if capture == nil {
		return next, nil
	}
	s.captures.Add(1)
	next.layers = append(next.layers, newFuture(func() (v1.Layer, error) {
		defer s.captures.Done()
		changes, err := m.changes(ctx)
		if err != nil {
			return nil, fmt.Errorf("find changes: %w", err)
		}
		changes = ignored.without(changes)
		return capture(ctx, func(ctx context.Context, w io.Writer) error {
			return layer.Write(ctx, w, m.upper, changes, layer.WriteOptions{})
		})
	}))
	return next, nil
}
