// Package cache owns what is known of earlier builds: it finds results of
// vertices in cache repositories and writes them there. Keys say what a result
// depends on (keys.go), a record is an ordinary image whose layers are those
// that a chain of vertices adds to its base (record.go). It implements
// solve.Cache. Nothing of it fails a build: what goes wrong is said once and
// counts as a miss. It refuses to know how a vertex is carried out.
package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/layerwright/layerwright/core/internal/content"
	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/registry"
	"github.com/layerwright/layerwright/core/internal/snapshot"
	"github.com/layerwright/layerwright/core/internal/solve"
)

// Repository keeps records. Implementations are safe for concurrent use.
type Repository interface {
	// Name is for people.
	Name() string
	// Get finds a record by its tag; ErrMiss where there is none.
	Get(ctx context.Context, tag string) (*Record, error)
	// Upload makes sure that the repository has a layer's blob.
	Upload(ctx context.Context, layer v1.Layer) error
	// Put stores an image whose layers were uploaded, under all tags.
	Put(ctx context.Context, img v1.Image, tags []string) error
	// Tag gives a record of this repository further tags.
	Tag(ctx context.Context, r *Record, tags []string) error
}

// ErrMiss says that a repository has no such record.
var ErrMiss = errors.New("no such record")

// Options of a Cache. Repositories and Read may be empty, Write nil; the rest is
// required.
type Options struct {
	// Read are asked in order; Write gets new records, nil for none.
	Read  []Repository
	Write Repository
	// TTL is the age from which a record counts as expired; 0 for never.
	TTL time.Duration
	// Variant is what layers depend on beside their step: how they are
	// compressed. It is part of every key. Asked when a solve begins.
	Variant func() string
	// Fresh is set where everything has to run: then nothing is looked up.
	Fresh bool
	// Commands and Files say whether results of commands (RUN) and of file
	// operations (COPY, ADD, WORKDIR) are looked up and written.
	Commands, Files bool
	// Store makes states of what is found.
	Store func() snapshot.Store
	// Image gives the layers of an image source, base first.
	Image func(ctx context.Context, v *graph.Vertex) ([]v1.Layer, error)
	// Layers prepares a record's layers for use in states.
	Layers func(layers []v1.Layer) ([]v1.Layer, error)
	// Local is the tree of a local source.
	Local func(ctx context.Context, v *graph.Vertex) (content.Tree, error)
	// Fetched identifies the content of a source that is fetched: a URL, a
	// git repository.
	Fetched func(ctx context.Context, v *graph.Vertex) (string, error)
	// Result makes a state what the scheduler hands on.
	Result func(s snapshot.State) solve.Result
	// Created is when a layer was made.
	Created func(l v1.Layer) time.Time
	// Found is told of each layer of a result that was found, with what the
	// history says of it.
	Found func(l v1.Layer, created time.Time, description string)
	// Uploaded is told of each layer that the repository Write has got.
	Uploaded func(l v1.Layer)
	// Notice takes what a person should know, each text once.
	Notice func(text string)
	// Now is the clock.
	Now func() time.Time
}

// Cache implements solve.Cache for one build, which may solve several times.
type Cache struct {
	opts Options

	mu sync.Mutex
	// keys are those of each vertex (Known makes the definition keys).
	keys map[*graph.Vertex]*keys
	// answers are the records that were asked for, nil for a miss.
	answers map[string]*Record
	// expired are tags whose record was too old.
	expired map[string]bool
	// distrusted are layers that turned out to be missing or broken.
	distrusted map[v1.Hash]bool
	// unreadable says that nothing is looked up any more.
	unreadable bool
	// down are repositories that failed: they are not asked again.
	down map[Repository]bool
	said map[string]bool
	// saving are the layers that are being saved; a channel is closed at the end.
	saving map[v1.Layer]chan struct{}

	saves *errgroup.Group
	// aheads are layers that are sent while they are being made.
	aheads sync.WaitGroup
}

// New makes a Cache.
func New(opts Options) *Cache {
	c := &Cache{opts: opts, keys: map[*graph.Vertex]*keys{}, answers: map[string]*Record{}, expired: map[string]bool{}, distrusted: map[v1.Hash]bool{},
		down: map[Repository]bool{}, said: map[string]bool{}, saving: map[v1.Layer]chan struct{}{}, saves: &errgroup.Group{}}
	c.saves.SetLimit(parallelSaves)
	return c
}

// How much goes on at once, and how long an answer may take before it counts as
// a miss.
const (
	parallelSaves   = 64
	parallelLookups = 16
)

// Patience is how long a repository may take for an answer of a few bytes before the
// build goes on without it.
const Patience = 10 * time.Second

var _ solve.Cache = (*Cache)(nil)

// cacheable says whether results of a vertex are kept: commands, and file
// operations that copy or work on a tree. Making a file on nothing (a heredoc)
// is done faster than looked up.
func (c *Cache) cacheable(v *graph.Vertex) bool {
	if v.Op.GetExec() != nil {
		return c.opts.Commands
	}
	if v.Op.GetMerge() != nil {
		return c.opts.Files
	}
	if f := v.Op.GetFile(); f != nil {
		_, based := graph.Base(v)
		return c.opts.Files && (based || copies(f))
	}
	return false
}

// Wanted are the vertices whose layers must be captured so that every cacheable
// one can be saved; nil where nothing is written.
func (c *Cache) Wanted(g *graph.Graph) map[*graph.Vertex]bool {
	out := map[*graph.Vertex]bool{}
	for _, v := range g.Vertices {
		if c.Saves(v) {
			for w := range graph.Chain(graph.Edge{Vertex: v}) {
				out[w] = true
			}
		}
	}
	return out
}

// Saves says whether Save will upload the layers of a vertex.
func (c *Cache) Saves(v *graph.Vertex) bool {
	return c.opts.Write != nil && c.cacheable(v) && singleOutput(v)
}

// Known implements solve.Cache: it makes the definition keys, asks for the
// roots' results first, for all the others side by side only if one of those is
// missing.
func (c *Cache) Known(ctx context.Context, vertices []*graph.Vertex) map[*graph.Vertex][]solve.Result {
	c.define(ctx, vertices)
	consumed := map[*graph.Vertex]bool{}
	for _, v := range vertices {
		for _, in := range v.Inputs {
			consumed[in.Vertex] = true
		}
	}
	var targets, rest []*graph.Vertex
	for _, v := range vertices {
		switch {
		case !consumed[v]:
			targets = append(targets, v)
		default:
			rest = append(rest, v)
		}
	}
	out := map[*graph.Vertex][]solve.Result{}
	if c.askAll(ctx, targets, out) < len(targets) {
		c.askAll(ctx, rest, out)
	}
	return out
}

// askAll looks for the definition keys of vertices and counts the hits.
func (c *Cache) askAll(ctx context.Context, vertices []*graph.Vertex, out map[*graph.Vertex][]solve.Result) int {
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(parallelLookups)
	hits := 0
	for _, v := range vertices {
		k := c.keysOf(v)
		if k.definition == "" || k.fresh || !c.cacheable(v) || !singleOutput(v) {
			continue
		}
		g.Go(func() error {
			r := c.find(ctx, tagOf(k.definition))
			if r == nil {
				return nil
			}
			result, ok := c.result(ctx, v, r)
			if !ok {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			k.content, k.hit, k.early = r.ContentKey, true, true
			out[v] = []solve.Result{result}
			hits++
			return nil
		})
	}
	_ = g.Wait() // nothing in it fails
	return hits
}

// Lookup implements solve.Cache: it makes the content key, which needs the
// inputs, and asks for it where there can be a record of that name.
func (c *Cache) Lookup(ctx context.Context, v *graph.Vertex, inputs []solve.Claim) []solve.Result {
	if !c.cacheable(v) || !singleOutput(v) {
		if k := c.keysOf(v); k.content == "" {
			k.content = c.contentKey(ctx, v, inputs)
		}
		return nil
	}
	k := c.keysOf(v)
	k.content = c.contentKey(ctx, v, inputs)
	if v.IgnoreCache {
		k.content = "" // what is run again may come out differently: a name of its own
	}
	if k.content == "" || !c.worthAsking(v) {
		return nil
	}
	r := c.find(ctx, tagOf(k.content))
	if r == nil {
		return nil
	}
	result, ok := c.result(ctx, v, r)
	if !ok {
		return nil
	}
	k.hit = true
	if w := c.opts.Write; w != nil && w == r.From && k.definition != "" {
		// The next build finds it without looking at any content.
		c.saves.Go(func() error {
			c.complain(ctx, w, w.Tag(ctx, r, []string{tagOf(k.definition)}))
			return nil
		})
	}
	return []solve.Result{result}
}

// Decided implements solve.Cache.
func (c *Cache) Decided(v *graph.Vertex) bool {
	return !c.cacheable(v) || !singleOutput(v) || !c.worthAsking(v)
}

// worthAsking says whether there can be a record under the content key though
// there is none under the definition's: files of another stage are read, or the
// tree itself was found in the cache.
func (c *Cache) worthAsking(v *graph.Vertex) bool {
	base, ok := graph.Base(v)
	if ok && c.keysOf(base.Vertex).hit {
		return true
	}
	for _, in := range v.Inputs {
		if variable(in.Vertex) && (!ok || in.Vertex != base.Vertex) {
			return true
		}
	}
	return false
}

// find asks the repositories for a record, each tag once a build.
func (c *Cache) find(ctx context.Context, tag string) *Record {
	c.mu.Lock()
	r, asked := c.answers[tag]
	c.mu.Unlock()
	if c.opts.Fresh || c.unreadable {
		return nil
	}
	if !asked {
		r = c.ask(ctx, tag)
		c.mu.Lock()
		c.answers[tag] = r
		c.mu.Unlock()
	}
	if r == nil || !c.trusted(r) {
		return nil
	}
	return r
}

func (c *Cache) ask(ctx context.Context, tag string) *Record {
	for _, repo := range c.reachable() {
		r, err := patientGet(ctx, repo, tag)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrMiss):
			continue
		case err != nil:
			c.mu.Lock()
			c.down[repo] = true
			c.mu.Unlock()
			c.notice(fmt.Sprintf("the cache in %s is not used: %v", repo.Name(), err))
			continue
		}
		if c.opts.TTL > 0 && c.opts.Now().Sub(r.Created) > c.opts.TTL {
			c.mu.Lock()
			c.expired[tag] = true
			c.mu.Unlock()
			continue
		}
		r.From = repo
		return r
	}
	return nil
}

// reachable are the repositories that have not failed yet.
func (c *Cache) reachable() []Repository {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.opts.Read), func(r Repository) bool { return c.down[r] })
}

func (c *Cache) isDown(repo Repository) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.down[repo]
}

// ErrSlow is the error where a repository has not answered within Patience.
var ErrSlow = errors.New("it does not answer in time")

// patientGet is Get, which a slow repository ends with ErrSlow.
func patientGet(ctx context.Context, repo Repository, tag string) (*Record, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, Patience, ErrSlow)
	defer cancel()
	return repo.Get(ctx, tag)
}

func (c *Cache) wasExpired(tag string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.expired[tag]
}

func (c *Cache) trusted(r *Record) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !slices.ContainsFunc(r.digests(), func(h v1.Hash) bool { return c.distrusted[h] })
}

// Distrust makes every record with the layer a miss from now on; when a second
// layer is broken, every record at all: who solves again must not do so for each
// of many. first says that it is the first one, again that to solve again makes
// sense.
func (c *Cache) Distrust(broken *BrokenError) (first, again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unreadable {
		return false, false
	}
	first = len(c.distrusted) == 0
	c.unreadable = !first
	c.distrusted[broken.Layer] = true
	c.keys = map[*graph.Vertex]*keys{}
	return first, true
}

// result is a record as the state of a vertex.
func (c *Cache) result(ctx context.Context, v *graph.Vertex, r *Record) (solve.Result, bool) {
	base, err := c.baseLayers(ctx, v)
	if err != nil {
		c.notice(fmt.Sprintf("a cached result is not used: %v", err))
		return nil, false
	}
	layers, err := c.opts.Layers(r.Layers)
	if err != nil {
		c.notice(fmt.Sprintf("a cached result is not used: %v", err))
		return nil, false
	}
	steps := addedBy(v)
	for i, l := range layers {
		name := r.History[i].CreatedBy
		if len(steps) == len(layers) {
			name = steps[i].Name
		}
		c.opts.Found(l, r.History[i].Created.Time, name)
	}
	return c.opts.Result(c.opts.Store().FromLayers(slices.Concat(base, layers))), true
}

// baseLayers are those of the image that a vertex's tree began with.
func (c *Cache) baseLayers(ctx context.Context, v *graph.Vertex) ([]v1.Layer, error) {
	source := bottom(v)
	if source == nil {
		return nil, nil
	}
	return c.opts.Image(ctx, source)
}

// Save implements solve.Cache.
func (c *Cache) Save(ctx context.Context, v *graph.Vertex, results []solve.Result) {
	if !c.Saves(v) {
		return
	}
	w, k := c.opts.Write, c.keysOf(v)
	tags := k.tags()
	state, ok := results[0].(interface{ Layers() []v1.Layer })
	if !ok || len(tags) == 0 {
		return
	}
	layers := state.Layers()
	done := make(chan struct{})
	if len(layers) > 0 {
		c.mu.Lock()
		c.saving[layers[len(layers)-1]] = done
		c.mu.Unlock()
	}
	c.saves.Go(func() error {
		defer close(done)
		if c.isDown(w) {
			return nil // it was said when it did not answer
		}
		c.complain(ctx, w, c.save(ctx, w, v, k, layers, tags))
		return nil
	})
}

// Ahead begins to send the layer that Save will be told of while it is still being
// made, where the repository is one of a registry. It returns at once.
func (c *Cache) Ahead(ctx context.Context, v *graph.Vertex, g registry.Growing) {
	w, ok := c.opts.Write.(interface {
		Ahead(g registry.Growing) (send func(ctx context.Context))
	})
	if !ok || !c.Saves(v) || c.isDown(c.opts.Write) {
		return
	}
	send := w.Ahead(g)
	c.aheads.Go(func() { send(ctx) })
}

// Await returns when a layer is saved, or could not be, or nobody saves it.
func (c *Cache) Await(ctx context.Context, l v1.Layer) {
	c.mu.Lock()
	done := c.saving[l]
	c.mu.Unlock()
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

func (c *Cache) save(ctx context.Context, w Repository, v *graph.Vertex, k *keys, layers []v1.Layer, tags []string) error {
	base, err := c.baseLayers(ctx, v)
	if err != nil {
		return err
	}
	if len(base) > len(layers) {
		return nil
	}
	added := layers[len(base):]
	for _, l := range added {
		if err := w.Upload(ctx, l); err != nil {
			return err
		}
		c.opts.Uploaded(l)
	}
	img, err := c.newRecord(v, k, added)
	if err != nil {
		return err
	}
	return w.Put(ctx, img, tags)
}

// complain says once that a repository cannot be written to.
func (c *Cache) complain(ctx context.Context, repo Repository, err error) {
	// A step that failed ends the making of other steps' layers.
	if err == nil || ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return
	}
	c.mu.Lock()
	said := c.said["write "+repo.Name()]
	c.said["write "+repo.Name()] = true
	c.mu.Unlock()
	if !said {
		c.notice(fmt.Sprintf("not everything could be written to the cache in %s: %v", repo.Name(), err))
	}
}

func (c *Cache) notice(text string) {
	c.mu.Lock()
	said := c.said[text]
	c.said[text] = true
	c.mu.Unlock()
	if !said {
		c.opts.Notice(text)
	}
}

// Wait returns when everything that was to be saved has been, or cannot be.
func (c *Cache) Wait() {
	_ = c.saves.Wait()
	c.aheads.Wait()
}

// BrokenError says that a layer of a record is missing or not what was
// promised. The build solves again without it.
type BrokenError struct {
	Layer v1.Hash
	Repo  string
	Err   error
}

func (e *BrokenError) Error() string { return e.Err.Error() }
func (e *BrokenError) Unwrap() error { return e.Err }
