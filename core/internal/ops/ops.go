// Package ops owns how each kind of vertex is carried out: it turns a vertex of
// the graph into a solve.Op on snapshots, sandbox, file operations and sources.
// What it cannot do it refuses before anything runs. It does not know
// Dockerfiles or destinations.
package ops

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerwright/layerwright/core/internal/commit"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/sandbox"
	"github.com/layerwright/layerwright/core/internal/snapshot"
	"github.com/layerwright/layerwright/core/internal/solve"
	"github.com/layerwright/layerwright/core/internal/source/git"
	"github.com/layerwright/layerwright/core/internal/source/local"
	"github.com/layerwright/layerwright/core/internal/source/web"
	"github.com/layerwright/layerwright/core/internal/sshagent"
)

// Env is what the ops of one build work with. All fields are required unless
// said otherwise.
type Env struct {
	Store   snapshot.Store
	Sandbox sandbox.Sandbox
	// Fallback runs a step that the sandbox refuses because a mount of the
	// container cannot be set aside; nil makes that an error.
	Fallback sandbox.Sandbox
	Blobs    *commit.Writer
	// Images gives an image's layers, base first, without fetching them.
	Images func(ctx context.Context, ref string, platform ocispecs.Platform) ([]v1.Layer, error)
	// Layouts is the same for an image in an OCI layout, by the layout's id.
	Layouts func(ctx context.Context, store, digest string, platform ocispecs.Platform) ([]v1.Layer, error)
	// Locals maps a local source's name to a directory. Outside runs a
	// function while such directories mean what they meant at the start.
	Locals  map[string]string
	Outside func(func() error) error
	Secrets map[string][]byte
	// SSH are the agents for steps; nil has none.
	SSH *sshagent.Agents
	// Web fetches what ADD names by URL.
	Web web.Fetcher
	// Git checks out what ADD and contexts name by git URL.
	Git *git.Source
	// NetworkNone says why a step cannot be without a network; nil if it can.
	NetworkNone func() error
	// Seen is told of the job's mounts that a step could see; may be nil.
	Seen func(mounts []string)
	// Caches is the directory of cache mounts, Scratch one for temporary
	// directories, both on the file system of the trees.
	Caches, Scratch string
	Progress        progress.Sink
	// Wanted are the vertices whose layers are asked for. Made is told of
	// each such layer, which may still be in the making.
	Wanted map[*graph.Vertex]bool
	// Ignore are paths that no layer has (snapshot.Changes.Ignore).
	Ignore []string
	// Saved says that layers are of use even if the build fails.
	Saved bool
	Made  func(v *graph.Vertex, l v1.Layer, created time.Time)
	// Growing is told of the blob of such a layer that is large, while it is being
	// written, as commit.Writer tells it.
	Growing func(ctx context.Context, v *graph.Vertex, g *commit.Growing)

	// CacheMounts keeps cache mounts between jobs; nil if nobody does.
	CacheMounts CacheMounts

	locks cacheLocks
	used  usedCaches
	// lockPatience is the constant of this name, for tests.
	lockPatience time.Duration
}

// Resolve implements solve.Resolver.
func (e *Env) Resolve(v *graph.Vertex) (solve.Op, error) {
	switch o := v.Op.Op.(type) {
	case *pb.Op_Source:
		return e.source(v, o.Source)
	case *pb.Op_Exec:
		return e.exec(v, o.Exec)
	case *pb.Op_File:
		return newFileOp(e, v, o.File)
	case *pb.Op_Merge:
		return &mergeOp{env: e}, nil
	}
	return nil, unsupported("operation %T", v.Op.Op)
}

func unsupported(format string, args ...any) error {
	return fault.New(fault.User, format+" is not supported", args...).
		With("Layerwright does not do this yet; leave it out, or build this Dockerfile with BuildKit.")
}

// result hands a state's claims to the scheduler.
type result struct{ snapshot.State }

// Result makes a state what the scheduler hands on.
func Result(s snapshot.State) solve.Result { return result{s} }

// Claims implements solve.Result.
func (r result) Claims(owners []solve.Owner) []solve.Claim {
	indexes := make([]int, len(owners))
	use := snapshot.Use{Hollow: true}
	for i, o := range owners {
		indexes[i] = o.Index
		if o.Reads {
			use.Hollow = false
		}
	}
	r.State.Expect(use)
	claims := r.State.Claims(indexes)
	out := make([]solve.Claim, len(claims))
	for i, c := range claims {
		out[i] = c
	}
	return out
}

func claimOf(c solve.Claim) snapshot.Claim { return c.(snapshot.Claim) }

// scratch is a claim of its own on an empty tree.
func (e *Env) scratch() snapshot.Claim { return e.Store.Scratch().Claims([]int{0})[0] }

// capture is how a wanted vertex's layer is stored; nil for others.
func (e *Env) capture(v *graph.Vertex) snapshot.Capture {
	if !e.Wanted[v] {
		return nil
	}
	return e.Capture(progress.Step{}, func(ctx context.Context, g *commit.Growing) { e.Growing(ctx, v, g) })
}

// Capture is how a layer is stored; step is whose it is where the context does
// not say, growing as for commit.Writer.
func (e *Env) Capture(step progress.Step, growing func(context.Context, *commit.Growing)) snapshot.Capture {
	return func(ctx context.Context, write func(context.Context, io.Writer) error) (v1.Layer, error) {
		if s := solve.StepOf(ctx); s.ID != "" {
			step = s
		}
		defer progress.Timed(e.Progress, step, "compress layer")()
		return e.Blobs.Layer(ctx, write, growing)
	}
}

// timed tells how long the step in ctx is at something: for profiles.
func (e *Env) timed(ctx context.Context, kind string) (end func()) {
	return progress.Timed(e.Progress, solve.StepOf(ctx), kind)
}

// lasting is the context for making a layer.
func (e *Env) lasting(ctx context.Context) context.Context {
	if e.Saved {
		return solve.Whole(ctx)
	}
	return ctx
}

// made announces a committed vertex's layer.
func (e *Env) made(v *graph.Vertex, s snapshot.State) {
	if !e.Wanted[v] {
		return
	}
	layers := s.Layers()
	e.Made(v, layers[len(layers)-1], time.Now())
}

func (e *Env) source(v *graph.Vertex, s *pb.SourceOp) (solve.Op, error) {
	scheme, rest, _ := strings.Cut(s.Identifier, "://")
	switch scheme {
	case "docker-image", "oci-layout":
		p := ocispecs.Platform{}
		if o := v.Op.Platform; o != nil {
			p = ocispecs.Platform{OS: o.OS, Architecture: o.Architecture, Variant: o.Variant, OSVersion: o.OSVersion, OSFeatures: o.OSFeatures}
		}
		if scheme == "oci-layout" {
			_, digest, _ := strings.Cut(rest, "@")
			return &layoutOp{env: e, store: s.Attrs[pb.AttrOCILayoutStoreID], digest: digest, platform: p}, nil
		}
		return &imageOp{env: e, ref: rest, platform: p}, nil
	case "local":
		if _, ok := e.Locals[rest]; !ok {
			return nil, fault.New(fault.Usage, "no directory was given for the context %q", rest).With("Give it with --build-context.")
		}
		return &localOp{env: e, v: v, name: rest, attrs: s.Attrs}, nil
	case "http", "https":
		return &webOp{env: e, url: s.Identifier, attrs: s.Attrs}, nil
	case "git":
		return &gitOp{env: e, v: v, identifier: s.Identifier, attrs: s.Attrs}, nil
	}
	return nil, unsupported("source %s", s.Identifier)
}

// imageOp is FROM and COPY --from of an image: nothing is fetched.
type imageOp struct {
	env      *Env
	ref      string
	platform ocispecs.Platform
}

// Run implements solve.Op.
func (o *imageOp) Run(ctx context.Context, _ []solve.Claim) ([]solve.Result, error) {
	layers, err := o.env.Images(ctx, o.ref, o.platform)
	if err != nil {
		return nil, err
	}
	return []solve.Result{result{o.env.Store.FromLayers(layers)}}, nil
}

// localOp is a build context, as a tree of our own with just what the build
// may see.
type localOp struct {
	env   *Env
	v     *graph.Vertex
	name  string
	attrs map[string]string
}

// Run implements solve.Op.
func (o *localOp) Run(ctx context.Context, _ []solve.Claim) ([]solve.Result, error) {
	m, err := o.env.scratch().Mutate(ctx)
	if err != nil {
		return nil, err
	}
	end := o.env.timed(ctx, "copy context")
	err = o.env.Outside(func() error { return local.Copy(ctx, o.env.Locals[o.name], o.attrs, m.Dir()) })
	end()
	if err != nil {
		return nil, discard(m, err)
	}
	s, err := m.Commit(ctx, snapshot.Changes{}, o.env.capture(o.v))
	if err != nil {
		return nil, discard(m, err)
	}
	o.env.made(o.v, s) // FROM of a named context: its files are a layer
	return []solve.Result{result{s}}, nil
}

// webOp is ADD of a URL: a tree with that one file.
type webOp struct {
	env   *Env
	url   string
	attrs map[string]string
}

// Run implements solve.Op.
func (o *webOp) Run(ctx context.Context, _ []solve.Claim) ([]solve.Result, error) {
	m, err := o.env.scratch().Mutate(ctx)
	if err != nil {
		return nil, err
	}
	if err := o.env.Web.Fetch(ctx, o.url, o.attrs, m.Dir()); err != nil {
		return nil, discard(m, err)
	}
	s, err := m.Commit(ctx, snapshot.Changes{}, nil)
	if err != nil {
		return nil, discard(m, err)
	}
	return []solve.Result{result{s}}, nil
}

func discard(m snapshot.Mutable, err error) error {
	if e := m.Discard(); e != nil {
		return fmt.Errorf("%w (and discarding the change: %w)", err, e)
	}
	return err
}

// mergeOp is COPY --link: the layers of further inputs on top of the first.
type mergeOp struct{ env *Env }

// Run implements solve.Op.
func (o *mergeOp) Run(_ context.Context, in []solve.Claim) ([]solve.Result, error) {
	if len(in) == 0 {
		return nil, fault.New(fault.Internal, "merge of nothing")
	}
	state := claimOf(in[0]).State()
	var more []v1.Layer
	for _, c := range in[1:] {
		more = append(more, claimOf(c).State().Layers()...)
	}
	return []solve.Result{result{o.env.Store.Extend(state, more)}}, nil
}
