package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/commit"
	"github.com/layerwright/layerwright/core/internal/export"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/frontend"
	"github.com/layerwright/layerwright/core/internal/hostview"
	"github.com/layerwright/layerwright/core/internal/image"
	"github.com/layerwright/layerwright/core/internal/ops"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/registry"
	"github.com/layerwright/layerwright/core/internal/sandbox"
	"github.com/layerwright/layerwright/core/internal/snapshot"
	"github.com/layerwright/layerwright/core/internal/solve"
	imagesource "github.com/layerwright/layerwright/core/internal/source/image"
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
	b := &build{req: &req, sink: req.Progress, made: map[v1.Layer]madeLayer{}}
	defer func() {
		err = b.classify(errors.Join(err, b.close()))
	}()
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	res, err := frontend.Run(ctx, b.frontendRequest(), b)
	if err != nil {
		return nil, err
	}
	if err := checkPlatforms(res); err != nil {
		return nil, err
	}
	finished, err := b.solve(ctx, res)
	if err != nil {
		return nil, err
	}
	return b.export(ctx, finished)
}

// build is one build under way.
type build struct {
	req  *Request
	sink progress.Sink

	machine   *machine
	work      *workdir
	locals    map[string]string
	file      string
	data      []byte
	secrets   map[string][]byte
	outputs   outputs
	platforms []ocispecs.Platform

	client *registry.Client
	source *imagesource.Source
	push   *export.Push
	trees  snapshot.Store

	mu   sync.Mutex
	made map[v1.Layer]madeLayer

	// ends run in reverse order when the build has ended.
	ends []func() error
}

// madeLayer is what the history says of a layer that this build has made.
type madeLayer struct {
	created     time.Time
	description string
}

func (b *build) atEnd(f func() error) { b.ends = append(b.ends, f) }

func (b *build) close() error {
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
	// Isolation inplace may have made directories anew: handles come after.
	if err := b.machine.outside(b.openHandles); err != nil {
		return err
	}
	b.notice(b.machine.describe())
	if b.work, err = newWorkdir(b.machine.store); err != nil {
		return err
	}
	b.atEnd(b.work.close)
	return b.openRegistry(ctx)
}

func (b *build) openRegistry(ctx context.Context) error {
	r := b.req.Registry
	opts := registry.Options{Insecure: r.Insecure, InsecureRegistries: r.InsecureRegistries, SkipTLSVerify: r.SkipTLSVerify,
		SkipTLSVerifyRegistries: r.SkipTLSVerifyRegistries, Mirrors: r.Mirrors, ConfigDir: r.DockerConfig,
		PullRetries: r.PullRetries, PushRetries: r.PushRetries, Outside: b.machine.outside, Progress: b.sink}
	var err error
	if b.client, err = registry.New(opts); err != nil {
		return err
	}
	blobs, err := b.work.sub("pulled")
	if err != nil {
		return err
	}
	b.source = imagesource.New(ctx, imagesource.Options{Dir: blobs, Progress: b.sink})
	b.atEnd(func() error { b.source.Close(); return nil })
	if len(b.req.Outputs.Destinations) == 0 || b.req.Outputs.NoPush {
		return nil
	}
	if b.push, err = export.NewPush(ctx, b.client, b.req.Outputs.Destinations); err != nil {
		return err
	}
	b.atEnd(func() error { b.push.Close(); return nil })
	return b.push.Check(ctx)
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

// solved is one platform's finished image.
type solved struct {
	image    v1.Image
	platform ocispecs.Platform
}

// solve runs the graph and assembles the images.
func (b *build) solve(ctx context.Context, res *frontend.Result) ([]solved, error) {
	env, err := b.environment(res)
	if err != nil {
		return nil, err
	}
	claims, err := solve.Solve(ctx, res.Graph, solve.Options{Resolve: env.Resolve, Progress: b.sink})
	if err != nil {
		return nil, err
	}
	var out []solved
	for i, img := range res.Images {
		var layers []v1.Layer
		if claims[i] != nil {
			layers = claims[i].(snapshot.Claim).State().Layers()
		}
		assembled, err := b.assemble(img, layers)
		if err != nil {
			return nil, err
		}
		out = append(out, solved{image: assembled, platform: img.Platform})
	}
	for _, c := range claims {
		if c != nil {
			c.Release()
		}
	}
	return out, nil
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
	if b.trees, err = b.machine.newStore(filepath.Join(b.work.dir, "trees")); err != nil {
		return nil, err
	}
	b.atEnd(b.trees.Close)
	compression, err := commit.ParseCompression(b.req.Outputs.Compression)
	if err != nil {
		return nil, fault.Wrap(fault.Usage, err, "")
	}
	return &ops.Env{
		Store: b.trees, Sandbox: b.machine.sandbox, Fallback: b.machine.fallback,
		Blobs:  commit.New(dirs["blobs"], commit.Options{Compression: compression, Docker: b.docker()}),
		Images: b.layersOf, Locals: b.locals, Outside: b.machine.outside, Secrets: b.secrets,
		Caches: filepath.Join(b.machine.store, "caches"), Scratch: dirs["steps"],
		NetworkNone: sync.OnceValue(sandbox.TryNetworkNone), Progress: b.sink, Wanted: res.Graph.Captured(), Made: b.layerMade,
	}, nil
}

func (b *build) docker() bool { return b.req.Outputs.ImageFormat == "docker" }

// layerMade remembers what the history needs and begins to upload.
func (b *build) layerMade(l v1.Layer, created time.Time, description string) {
	b.mu.Lock()
	b.made[l] = madeLayer{created, description}
	b.mu.Unlock()
	if b.push != nil {
		b.push.Offer(l)
	}
}

func (b *build) assemble(img frontend.Image, layers []v1.Layer) (v1.Image, error) {
	list := make([]image.Layer, len(layers))
	b.mu.Lock()
	for i, l := range layers {
		m := b.made[l]
		list[i] = image.Layer{Layer: l, Created: m.created, Description: m.description}
	}
	b.mu.Unlock()
	return image.Assemble(img.Config, list, image.Options{Docker: b.docker()})
}

// export writes the outputs.
func (b *build) export(ctx context.Context, images []solved) (*Result, error) {
	artifact := export.Artifact(images[0].image)
	if len(images) > 1 {
		var list []v1.Image
		var ps []ocispecs.Platform
		for _, i := range images {
			list, ps = append(list, i.image), append(ps, i.platform)
		}
		idx, err := image.Index(list, ps, image.Options{Docker: b.docker()})
		if err != nil {
			return nil, err
		}
		artifact = idx
	}
	digest, err := artifact.Digest()
	if err != nil {
		return nil, err
	}
	id, err := images[0].image.ConfigName()
	if err != nil {
		return nil, err
	}
	raw, err := artifact.RawManifest()
	if err != nil {
		return nil, err
	}
	mt, err := artifact.MediaType()
	if err != nil {
		return nil, err
	}
	out := &Result{Digest: digest.String(), ImageID: id.String(), MediaType: string(mt), Size: int64(len(raw))}
	names := b.req.Outputs.Destinations
	if p := b.outputs.layout; p != "" {
		if err := export.OCILayout(ctx, p, artifact, names...); err != nil {
			return nil, err
		}
	}
	if p := b.outputs.tar; p != "" {
		if err := export.DockerTar(ctx, p, artifact, names...); err != nil {
			return nil, err
		}
	}
	if b.push != nil {
		if out.Destinations, err = b.push.Finish(ctx, artifact); err != nil {
			return out, err
		}
	}
	if p := b.outputs.digest; p != "" {
		if err := export.Digest(p, artifact); err != nil {
			return out, err
		}
	}
	return out, nil
}

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
