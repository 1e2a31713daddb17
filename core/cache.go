package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerwright/layerwright/core/internal/cache"
	"github.com/layerwright/layerwright/core/internal/commit"
	"github.com/layerwright/layerwright/core/internal/content"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/frontend"
	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/hostview"
	"github.com/layerwright/layerwright/core/internal/ops"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/registry"
	"github.com/layerwright/layerwright/core/internal/snapshot"
	"github.com/layerwright/layerwright/core/internal/solve"
	localsource "github.com/layerwright/layerwright/core/internal/source/local"
)

// Cache says where results of steps are kept between builds. Without Repo and
// From there is no cache.
type Cache struct {
	// Repo is a repository, "host/path", that is read and written; From are
	// more that are only read.
	Repo string
	From []string
	// Dir is a directory of base images that Warm has filled; read only. One
	// that does not exist is as good as none.
	Dir string
	// TTL is the age from which a result is not used any more; 0 for never.
	TTL time.Duration
	// NoPush writes nothing to Repo.
	NoPush bool
	// NoRunLayers and NoCopyLayers keep results of RUN, or of COPY, ADD and
	// WORKDIR, out of the cache.
	NoRunLayers, NoCopyLayers bool
	// Mounts keeps the directories of RUN --mount=type=cache in Repo, each up
	// to MaxMountSize bytes of files. Scope separates what must not share, such
	// as branches.
	Mounts       bool
	MaxMountSize int64
	Scope        string
}

// DefaultCacheRepo is the cache repository for a destination: below it, or
// beside it where the registry has no nested names (Docker Hub).
func DefaultCacheRepo(destination string) (string, error) {
	repo, _, err := registry.Destination(destination)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(repo, "docker.io/") {
		return repo + "-cache", nil
	}
	return repo + "/cache", nil
}

// openCache prepares the cache; b.cache stays nil where there is none.
func (b *build) openCache() error {
	r := b.req.Cache
	if r.Repo == "" && len(r.From) == 0 || len(b.req.Engines) > 0 {
		return nil // nothing, or the engines' own cache (engineCache)
	}
	opts := cache.Options{
		Variant: b.variant, TTL: r.TTL, Fresh: b.req.NoCache, Commands: !r.NoRunLayers, Files: !r.NoCopyLayers,
		Store: func() snapshot.Store { return b.trees }, Image: b.sourceLayers, Layers: b.source.Layers,
		Local: b.localTree, Fetched: b.fetched, Result: ops.Result, Created: b.created, Found: b.layerFound,
		Uploaded: func(l v1.Layer) {}, Notice: b.warn, Now: time.Now,
	}
	for _, name := range append([]string{r.Repo}, r.From...) {
		if name == "" {
			continue
		}
		repo, err := b.cacheRepository(name)
		if err != nil {
			return err
		}
		opts.Read = append(opts.Read, repo)
		if name == r.Repo && !r.NoPush {
			opts.Write = repo
			opts.Uploaded = func(l v1.Layer) { b.cached(l, name) }
		}
	}
	b.cache = cache.New(opts)
	if r.Mounts {
		b.mounts = &cache.MountOptions{Read: opts.Read, Write: opts.Write, Scope: r.Scope, MaxSize: r.MaxMountSize,
			Layers: b.source.Layers, Notice: b.warn, Now: time.Now}
	}
	b.atEnd(func() error {
		defer patience(b.notice, "writing to the cache")()
		b.cache.Wait()
		return nil
	})
	return nil
}

// variant is what else layers depend on: how they are stored.
func (b *build) variant() string {
	o := b.req.Outputs
	out := o.Compression
	if o.Compression == "gzip" {
		out = ""
	}
	if o.CompressionLevel != nil {
		out += fmt.Sprintf(" level %d", *o.CompressionLevel)
	}
	if o.RewriteTimestamp {
		// As the frontend has understood it: "context" means another time for
		// each commit.
		out += fmt.Sprintf(" epoch %d", b.epoch)
	}
	if len(b.req.IgnorePaths) > 0 {
		out += fmt.Sprintf(" without %q", b.req.IgnorePaths)
	}
	return out
}

// cacheRepository opens "host/path" or "oci:DIR".
func (b *build) cacheRepository(name string) (cache.Repository, error) {
	if dir, ok := strings.CutPrefix(name, "oci:"); ok {
		path, parent, err := hostview.Output(dir)
		if err != nil {
			return nil, fault.New(fault.Usage, "cache %s: %w", name, err).With("Name a directory that can be written.")
		}
		b.hold(parent)
		return cache.InLayout(path, name), nil
	}
	repo, err := cache.InRegistry(b.client, name)
	if err != nil {
		return nil, fault.New(fault.Usage, "cache repository %s: %w", name, err).With("Write it as registry.example/team/app/cache, without a tag.")
	}
	return repo, nil
}

// sourceLayers are the layers of an image source.
func (b *build) sourceLayers(ctx context.Context, v *graph.Vertex) ([]v1.Layer, error) {
	_, rest, _ := strings.Cut(v.Op.GetSource().GetIdentifier(), "://")
	p := ocispecs.Platform{}
	if o := v.Op.Platform; o != nil {
		p = ocispecs.Platform{OS: o.OS, Architecture: o.Architecture, Variant: o.Variant, OSVersion: o.OSVersion, OSFeatures: o.OSFeatures}
	}
	if graph.SourceScheme(v) == "oci-layout" {
		_, digest, _ := strings.Cut(rest, "@")
		return b.layoutLayers(ctx, v.Op.GetSource().Attrs[pb.AttrOCILayoutStoreID], digest, p)
	}
	return b.layersOf(ctx, rest, p)
}

func (b *build) warn(text string) {
	b.sink.Emit(progress.Notice{Level: progress.Warning, Text: text, Time: time.Now()})
}

// localTree lists a local source, once a build.
func (b *build) localTree(ctx context.Context, v *graph.Vertex) (content.Tree, error) {
	b.mu.Lock()
	list, ok := b.listed[v.Digest.String()]
	if !ok {
		list = sync.OnceValues(func() (t content.Tree, err error) {
			name := strings.TrimPrefix(v.Op.GetSource().Identifier, "local://")
			err = b.machine.outside(func() error {
				t, err = localsource.List(ctx, b.locals[name], v.Op.GetSource().Attrs)
				return err
			})
			return t, err
		})
		b.listed[v.Digest.String()] = list
	}
	b.mu.Unlock()
	return list()
}

// fetched identifies what a repository or URL holds: a commit says it all, a URL
// is fetched for that, once a build, since only its content says whether it is
// what it was.
func (b *build) fetched(ctx context.Context, v *graph.Vertex) (_ string, err error) {
	source := v.Op.GetSource()
	switch graph.SourceScheme(v) {
	case "http", "https":
	case "git":
		hash, err := b.findGit(ctx, source.Identifier, source.Attrs)
		if err != nil {
			return "", err
		}
		// What of the commit is taken, and how.
		return strings.Join([]string{hash, source.Identifier, source.Attrs[pb.AttrKeepGitDir], source.Attrs[pb.AttrGitSkipSubmodules], source.Attrs[pb.AttrGitMTime]}, "\n"), nil
	default:
		return "", nil
	}
	dir, err := os.MkdirTemp(b.work.dir, "url-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := b.remote.web.Fetch(ctx, source.Identifier, source.Attrs, dir); err != nil {
		return "", err
	}
	return content.Digest(ctx, content.Dir(dir), content.Selection{})
}

// created is when a layer was made.
func (b *build) created(l v1.Layer) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.made[l].created
}

// layerFound remembers what the history says of a layer from the cache.
func (b *build) layerFound(l v1.Layer, created time.Time, description string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.made[l] = madeLayer{created: created, description: description}
}

// cached is told that the cache repository has a layer: the destinations mount
// it from there.
func (b *build) cached(l v1.Layer, repo string) {
	b.mu.Lock()
	final := b.made[l].final
	b.mu.Unlock()
	if final && b.push != nil {
		host, path, _ := strings.Cut(repo, "/")
		b.push.Offer(elsewhere{Layer: l, host: host, path: path})
	}
}

// besideCache says whether a destination is on the cache's registry, and mounts from
// there what the cache has been sent.
func (b *build) besideCache() bool {
	cached, _, err := registry.Destination(b.req.Cache.Repo)
	if err != nil || b.cache == nil || b.req.Cache.NoPush || strings.HasPrefix(b.req.Cache.Repo, "oci:") {
		return false
	}
	host := func(repo string) string { h, _, _ := strings.Cut(repo, "/"); return h }
	return slices.ContainsFunc(b.req.Outputs.Destinations, func(d string) bool {
		repo, _, err := registry.Destination(d)
		return err == nil && host(repo) == host(cached)
	})
}

// awaitCache waits until the cache has been sent the layers that a destination will
// mount from there: sent side by side they would be sent twice.
func (b *build) awaitCache(ctx context.Context, images []solved) {
	if b.push == nil || !b.besideCache() {
		return
	}
	for _, img := range images {
		for _, l := range img.layers {
			b.cache.Await(ctx, l)
		}
	}
}

// elsewhere is a layer that a repository has.
type elsewhere struct {
	v1.Layer
	host, path string
}

// MountSource implements what a push asks for.
func (e elsewhere) MountSource() (host, path string) { return e.host, e.path }

// wanted are the vertices whose layers must be captured, final those whose layers
// are part of an image.
func (b *build) wanted(g *graph.Graph) (wanted, final map[*graph.Vertex]bool) {
	wanted, final = g.Captured(), map[*graph.Vertex]bool{}
	for _, r := range g.Roots {
		maps.Copy(final, graph.Chain(r))
	}
	if b.cache != nil {
		maps.Copy(wanted, b.cache.Wanted(g))
	}
	return wanted, final
}

// spoken is the cache with a word when the first look takes long: the build
// context is hashed in it.
type spoken struct {
	solve.Cache
	notice func(string)
	timed  func(kind string) (end func())
}

// Known implements solve.Cache.
func (s spoken) Known(ctx context.Context, vertices []*graph.Vertex) map[*graph.Vertex][]solve.Result {
	defer s.timed("ask the cache")()
	defer patience(s.notice, "hashing the build context and looking for results in the cache")()
	return s.Cache.Known(ctx, vertices)
}

// carryOut solves and exports. When a layer from the cache turns out to be
// missing or broken, it is done again without that: a cache never fails a build.
func (b *build) carryOut(ctx context.Context, res *frontend.Result) (*Result, error) {
	for {
		out, err := b.attempt(ctx, res)
		var broken *cache.BrokenError
		if err == nil || b.cache == nil || ctx.Err() != nil || !errors.As(err, &broken) {
			return out, err
		}
		first, again := b.cache.Distrust(broken)
		if !again {
			return out, err
		}
		if err := b.renewTrees(); err != nil {
			return nil, err
		}
		if first {
			b.warn(fmt.Sprintf("the cache in %s is damaged; building without what is broken: %v", broken.Repo, broken.Err))
		}
	}
}

// renewTrees begins with an empty store.
func (b *build) renewTrees() (err error) {
	if err = b.trees.Close(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(b.work.dir, "trees-")
	if err != nil {
		return err
	}
	b.trees, err = b.machine.newStore(dir)
	if err == nil {
		b.atEnd(b.trees.Close)
	}
	return err
}

func (b *build) attempt(ctx context.Context, res *frontend.Result) (*Result, error) {
	env, err := b.environment(res)
	if err != nil {
		return nil, err
	}
	finished, claims, err := b.solve(ctx, res, env)
	defer release(claims)
	if err != nil {
		return nil, err
	}
	if !b.wantsRoots() {
		// Trees are removed while the outputs are written; what goes wrong with that
		// comes out when the build ends.
		release(claims)
		trees := b.trees
		go func() { _ = trees.Close() }()
	}
	steps := b.explain(ctx, res)
	// Side by side: neither needs the other.
	var saved sync.WaitGroup
	saved.Go(func() {
		defer b.timed("save cache mounts")()
		defer patience(b.notice, "saving cache mounts")()
		env.SaveCaches(ctx)
	})
	defer saved.Wait()
	end := b.timed("write outputs")
	out, err := b.export(ctx, finished)
	end()
	if out != nil {
		out.Cache = steps
	}
	return out, err
}

// CachedStep says whether a step came from the cache.
type CachedStep struct {
	// Name is the step's: "[build 2/4] RUN make".
	Name string
	Hit  bool
	// Why is the reason of a miss in a few words; Details are more, such as
	// the files that changed.
	Why     string
	Details []string
}

// StepLayer is the layer of a step, whether it ran or was known.
type StepLayer struct {
	// Name is the step's, as in CachedStep.
	Name string
	// Size is the layer's in bytes, compressed as it is stored.
	Size int64
}

// explain says how the steps went; nil without a cache.
func (b *build) explain(ctx context.Context, res *frontend.Result) (out []CachedStep) {
	if b.cache == nil {
		return nil
	}
	name := strings.Join(append([]string{b.req.Target}, b.req.Platforms...), " ")
	for _, e := range b.cache.Explain(ctx, name, res.Graph.Vertices) {
		out = append(out, CachedStep{Name: e.Vertex.Name, Hit: e.Hit, Why: e.Why, Details: e.Details})
	}
	return out
}

// cacheMounts is what keeps cache mounts between jobs; nil if nothing does.
func (b *build) cacheMounts(blobs string) ops.CacheMounts {
	if b.mounts == nil {
		return nil
	}
	if b.kept == nil {
		w := commit.New(blobs, commit.Options{Compression: commit.Zstd})
		b.mounts.Blob = func(ctx context.Context, write func(context.Context, io.Writer) error) (v1.Layer, error) {
			return w.Layer(ctx, write, nil)
		}
		b.kept = cache.NewMounts(*b.mounts)
	}
	return b.kept
}
