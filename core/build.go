package core

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/cache"
	"github.com/layerwright/layerwright/core/internal/commit"
	"github.com/layerwright/layerwright/core/internal/content"
	"github.com/layerwright/layerwright/core/internal/export"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/frontend"
	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/hostview"
	"github.com/layerwright/layerwright/core/internal/ops"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/registry"
	"github.com/layerwright/layerwright/core/internal/room"
	"github.com/layerwright/layerwright/core/internal/sandbox"
	"github.com/layerwright/layerwright/core/internal/snapshot"
	"github.com/layerwright/layerwright/core/internal/solve"
	"github.com/layerwright/layerwright/core/internal/source/git"
	imagesource "github.com/layerwright/layerwright/core/internal/source/image"
	"github.com/layerwright/layerwright/core/internal/sshagent"
)

// Build carries out a request: the image is built, and written to every output.
// Nothing appears under its final name before all of it is complete. On an
// error nothing is left but the store's cache mounts; the error's kind (see
// Error) says whose it is. Cancelling ctx ends the build within two seconds,
// with the context's cause.
func Build(ctx context.Context, req Request) (_ *Result, err error) {
	if req.Progress == nil {
		req.Progress = progress.Discard
	}
	req.reproducible()
	if req.DryRun {
		req.Outputs.NoPush, req.Cache.NoPush, req.Registry.SkipPushCheck = true, true, true
	}
	b := &build{req: &req, sink: req.Progress, made: map[v1.Layer]madeLayer{}, listed: map[string]func() (content.Tree, error){}}
	defer func() {
		err = b.classify(errors.Join(err, b.close()))
	}()
	if len(req.Engines) > 0 {
		return b.byEngines(ctx)
	}
	end := b.timed("open")
	err = b.open(ctx)
	end()
	if err != nil {
		return nil, err
	}
	b.proxyArguments()
	end = b.timed("read the Dockerfile")
	res, err := frontend.Run(ctx, b.frontendRequest(), b)
	end()
	b.closeViews()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(checkPlatforms(res), b.checkAnnotations(res)); err != nil {
		return nil, err
	}
	if len(res.Images) > 0 && res.Images[0].Epoch != nil {
		b.epoch = res.Images[0].Epoch.Unix()
	}
	if req.DryRun {
		return b.plan(ctx, res)
	}
	return b.carryOut(ctx, res)
}

// build is one build under way.
type build struct {
	req  *Request
	sink progress.Sink

	machine   *machine
	work      *workdir
	locals    map[string]string
	remote    remote
	file      string
	data      []byte
	secrets   map[string][]byte
	agents    *sshagent.Agents
	outputs   outputs
	platforms []ocispecs.Platform

	client *registry.Client
	source *imagesource.Source
	git    *git.Source
	web    http.RoundTripper
	push   *export.Push
	trees  snapshot.Store
	cache  *cache.Cache
	// epoch is SOURCE_DATE_EPOCH in seconds, 0 where there is none.
	epoch int64
	// mounts are how cache mounts are kept, kept is what does it.
	mounts *cache.MountOptions
	kept   *cache.Mounts

	mu   sync.Mutex
	made map[v1.Layer]madeLayer
	// listed are the local sources whose files are known, by vertex.
	listed map[string]func() (content.Tree, error)

	// held are the handles on directories of the job.
	held []*hostview.Dir
	// ends run in reverse order when the build has ended.
	ends []func() error
}

// madeLayer is what the history says of a layer that this build has made.
type madeLayer struct {
	created     time.Time
	description string
	// final says that it is part of an image, and not only of the cache.
	final bool
}

func (b *build) atEnd(f func() error) { b.ends = append(b.ends, f) }

// timed tells how long the build is at something: for profiles.
func (b *build) timed(kind string) (end func()) { return progress.Timed(b.sink, progress.Step{}, kind) }

func (b *build) close() error {
	defer b.timed("clean up")()
	defer patience(b.notice, "removing the build's file trees")()
	var err error
	for i := len(b.ends) - 1; i >= 0; i-- {
		err = errors.Join(err, b.ends[i]())
	}
	return err
}

func (b *build) notice(text string) {
	b.sink.Emit(progress.Notice{Level: progress.Info, Text: text, Time: time.Now()})
}

// classify gives errors of the operating system their kind.
func (b *build) classify(err error) error {
	if err == nil {
		return nil
	}
	e, ok := fault.As(err)
	if errors.Is(err, unix.ENOSPC) && (!ok || e.Kind == fault.Internal || e.Kind == fault.User) {
		where := "the store"
		if b.machine != nil {
			where = b.machine.store
		}
		out := fault.New(fault.Environment, "no space left in %s: %w", where, unix.ENOSPC).
			With("Free some space, or put the store on a larger file system with --store.")
		if ok {
			out.Location = e.Location
		}
		return out
	}
	return err
}

// open looks at everything that the build needs from outside, before anything
// runs and before "/" is ever exchanged.
func (b *build) open(ctx context.Context) (err error) {
	if err := hostview.Preload(); err != nil {
		b.notice(fmt.Sprintf("the system's certificates cannot be read: %v", err))
	}
	if b.platforms, err = parsePlatforms(b.req.Platforms); err != nil {
		return err
	}
	if err := b.openContext(); err != nil {
		return err
	}
	if b.secrets, err = readSecrets(b.req.Secrets); err != nil {
		return err
	}
	if b.machine, err = newMachine(ctx, b.req, b.notice); err != nil {
		return err
	}
	b.atEnd(b.machine.sandbox.Close)
	if err := b.machine.outside(func() error { return errors.Join(b.openHandles(), b.openAgents(ctx), b.openTransport()) }); err != nil {
		return err
	}
	if err := room.Check(b.machine.store, b.req.MinFree); err != nil {
		return err
	}
	if err := b.openObject(ctx); err != nil {
		return err
	}
	described := b.machine.describe(b.notice)
	b.atEnd(func() error { described(); return nil })
	if b.req.CgroupParent != "" {
		b.notice("--cgroup-parent " + b.req.CgroupParent + " is ignored: steps stay in the control group that the job runs in")
	}
	if b.work, err = newWorkdir(b.machine.store); err != nil {
		return err
	}
	b.atEnd(b.work.close)
	if err := b.loadContext(ctx); err != nil {
		return err
	}
	return b.openRegistry(ctx)
}

func (b *build) openRegistry(ctx context.Context) error {
	var err error
	if b.client, err = registry.New(b.registryOptions()); err != nil {
		return err
	}
	blobs, err := b.work.sub("pulled")
	if err != nil {
		return err
	}
	kept, err := b.openCacheDir()
	if err != nil {
		return err
	}
	b.source = imagesource.New(ctx, imagesource.Options{Dir: blobs, Kept: kept, Progress: b.sink})
	b.atEnd(func() error { b.source.Close(); return nil })
	if err := b.prepareRepositories(ctx); err != nil {
		return err
	}
	if len(b.req.Outputs.Destinations) > 0 && !b.req.Outputs.NoPush {
		b.push, err = export.NewPush(ctx, b.client, b.req.Outputs.Destinations, b.req.Outputs.PushByDigest)
	}
	if err == nil {
		err = b.checkPush(ctx)
	}
	if err == nil {
		err = b.openCache()
	}
	if b.push != nil { // ends before the cache does
		b.atEnd(func() error { b.push.Close(); return nil })
	}
	return err
}

// ResolveImage implements frontend.Resolver.
func (b *build) ResolveImage(ctx context.Context, ref string, p ocispecs.Platform) (string, []byte, error) {
	img, err := b.resolve(ctx, ref, p)
	if err != nil {
		return "", nil, err
	}
	return img.Digest.String(), img.RawConfig, nil
}

func (b *build) resolve(ctx context.Context, ref string, p ocispecs.Platform) (*registry.Image, error) {
	return b.client.Resolve(ctx, ref, &v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion})
}

func (b *build) layersOf(ctx context.Context, ref string, p ocispecs.Platform) ([]v1.Layer, error) {
	img, err := b.resolve(ctx, ref, p)
	if err != nil {
		return nil, err
	}
	return b.source.Layers(img.Layers)
}

// hold keeps a handle on a directory of the job until the build has ended.
func (b *build) hold(d *hostview.Dir) {
	b.held = append(b.held, d)
	b.atEnd(d.Close)
}

// prepare finds out whether the steps can run, and makes the sandbox ready where one is to: a build whose steps are
// all known does without.
func (b *build) prepare(ctx context.Context, running []*graph.Vertex) error {
	if err := b.checkEmulation(ctx, running); err != nil {
		return err
	}
	if !slices.ContainsFunc(running, func(v *graph.Vertex) bool { return v.Op.GetExec() != nil }) {
		return nil
	}
	defer patience(b.notice, "preparing /: directories of the container's own image are made anew, once in a container, so that they can be moved (isolation inplace)")()
	defer b.timed("prepare /")()
	return b.machine.sandbox.Prepare(ctx, func() (err error) {
		for _, d := range b.held {
			err = errors.Join(err, d.Renew())
		}
		if b.agents != nil {
			err = errors.Join(err, b.agents.Renew())
		}
		return err
	})
}

// solve runs the graph and assembles the images. The claims on their trees are
// the caller's to release, also after an error.
func (b *build) solve(ctx context.Context, res *frontend.Result, env *ops.Env) (out []solved, claims []solve.Claim, err error) {
	opts := solve.Options{Resolve: env.Resolve, Progress: b.sink, Begin: b.prepare, Unread: !b.wantsRoots()}
	if b.cache != nil {
		opts.Cache = spoken{b.cache, b.notice, b.timed}
	}
	if claims, err = solve.Solve(ctx, res.Graph, opts); err != nil {
		return nil, nil, err
	}
	for i, img := range res.Images {
		s := solved{platform: img.Platform, epoch: img.Epoch}
		var layers []v1.Layer
		if claims[i] != nil {
			s.tree = claims[i].(snapshot.Claim) //nolint:forcetypeassert // ops makes no others
			layers = s.tree.State().Layers()
		}
		if b.req.Outputs.SingleSnapshot {
			base := b.baseLayers(layers)
			if layers, err = b.squash(ctx, env, layers); err != nil {
				return nil, claims, err
			}
			if img.Config, err = squashHistory(img.Config, base); err != nil {
				return nil, claims, err
			}
		}
		s.layers = layers
		if s.image, err = b.assemble(img, layers); err != nil {
			return nil, claims, err
		}
		out = append(out, s)
	}
	return out, claims, nil
}

func (b *build) environment(res *frontend.Result) (*ops.Env, error) {
	dirs := map[string]string{}
	for _, name := range []string{"blobs", "steps"} {
		var err error
		if dirs[name], err = b.work.sub(name); err != nil {
			return nil, err
		}
	}
	var err error
	if b.trees == nil { // not yet made for the frontend
		if b.trees, err = b.machine.newStore(filepath.Join(b.work.dir, "trees")); err != nil {
			return nil, err
		}
		b.atEnd(b.trees.Close)
	}
	repositories, err := b.repositories()
	if err != nil {
		return nil, err
	}
	blobs, err := b.blobOptions(res)
	if err != nil {
		return nil, err
	}
	// With a cache the layers of every stage are stored, with several platforms each
	// has its own.
	blobs.Share = b.cache != nil || len(res.Images) > 1
	mounts := b.cacheMounts(dirs["blobs"])
	wanted, final := b.wanted(res.Graph)
	return &ops.Env{
		Store: b.trees, Sandbox: b.machine.sandbox, Fallback: b.machine.fallback,
		Blobs:  commit.New(dirs["blobs"], blobs),
		Images: b.layersOf, Layouts: b.layoutLayers, Web: b.remote.web, Git: repositories, Locals: b.locals, Outside: b.machine.outside, Secrets: b.secrets, SSH: b.agents,
		Caches: filepath.Join(b.machine.store, "caches"), CacheMounts: mounts, Scratch: dirs["steps"],
		NetworkNone: sync.OnceValue(sandbox.TryNetworkNone), Seen: b.exposed(), Progress: b.sink, Wanted: wanted, Saved: b.cache != nil, Ignore: b.req.IgnorePaths,
		Made:    func(v *graph.Vertex, l v1.Layer, created time.Time) { b.layerMade(v, l, created, final[v]) },
		Growing: func(ctx context.Context, v *graph.Vertex, g *commit.Growing) { b.layerGrowing(ctx, v, g, final[v]) },
	}, nil
}

func (b *build) docker() bool { return b.req.Outputs.ImageFormat == "docker" }

// layerMade remembers what the history needs and begins to upload, unless the
// cache does that first.
func (b *build) layerMade(v *graph.Vertex, l v1.Layer, created time.Time, final bool) {
	final = final && !b.req.Outputs.SingleSnapshot
	b.mu.Lock()
	// The name, as BuildKit's history has it: conformance case context-dir-from.
	b.made[l] = madeLayer{created: created, description: v.Name, final: final}
	b.mu.Unlock()
	if b.push != nil && final && !(b.cache != nil && b.cache.Saves(v) && b.besideCache()) {
		b.push.Offer(l)
	}
}

// layerGrowing begins to send a large layer that is still being compressed, to where
// layerMade has it sent: to the cache, or to the destinations.
func (b *build) layerGrowing(ctx context.Context, v *graph.Vertex, g *commit.Growing, final bool) {
	if b.cache != nil && b.cache.Saves(v) && !b.repeats() {
		b.cache.Ahead(ctx, v, g)
		if b.besideCache() {
			return
		}
	}
	if final && !b.req.Outputs.SingleSnapshot {
		b.sendAhead(ctx, g)
	}
}

// sendAhead begins to send the destinations a layer that is still being compressed.
func (b *build) sendAhead(_ context.Context, g *commit.Growing) {
	if b.push != nil && !b.repeats() {
		b.push.Ahead(g)
	}
}

// repeats says that layers come out the same in every build (SOURCE_DATE_EPOCH): then a
// registry may well have them, which only the digest of the whole tells.
func (b *build) repeats() bool { return b.epoch != 0 || b.req.Outputs.RewriteTimestamp }

// readSecrets reads every secret once, at the start.
func readSecrets(list []Secret) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, s := range list {
		data := s.Value
		if s.File != "" {
			var err error
			if data, err = os.ReadFile(s.File); err != nil {
				return nil, (&fault.Error{Kind: fault.Usage, Op: "read secret " + s.ID, Err: err}).
					With("Correct the path after src= of --secret.")
			}
		}
		out[s.ID] = data
	}
	return out, nil
}
