package frontend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/builder"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	fstypes "github.com/tonistiigi/fsutil/types"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// session is fixed, so that one Dockerfile always yields one graph.
const session = "layerwright"

// maxFile bounds what is read of a Dockerfile or .dockerignore.
const maxFile = 16 << 20

// gateway is what BuildKit's frontend sees of the outside.
type gateway struct {
	req      Request
	resolver Resolver
	opts     map[string]string
	inputs   map[string]llb.State

	mu   sync.Mutex
	text []byte // the Dockerfile, once it has been read
}

// imageError is a failure to describe the image ref.
type imageError struct {
	ref string
	err error
}

func (e *imageError) Error() string { return e.err.Error() }
func (e *imageError) Unwrap() error { return e.err }

// usedBy is the instruction whose --from or from= names the image that err is
// about (BuildKit gives a place to FROM only), or the place of other errors that
// have none.
func (g *gateway) usedBy(err error) *fault.Location {
	g.mu.Lock()
	defer g.mu.Unlock()
	var ie *imageError
	if g.text == nil {
		return nil
	}
	if !errors.As(err, &ie) {
		return placeOf(err, g.req.Filename, g.text)
	}
	return usersOf(ie.ref, g.req.Filename, g.text)
}

// read remembers the Dockerfile's text.
func (g *gateway) read(local, name string, data []byte) {
	if local == Dockerfile && name == g.req.Filename {
		g.mu.Lock()
		g.text = data
		g.mu.Unlock()
	}
}

var _ gwclient.Client = (*gateway)(nil)

func (g *gateway) ResolveImageConfig(ctx context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	if opt.OCILayoutOpt != nil {
		return g.resolveLayout(ctx, ref, opt.OCILayoutOpt)
	}
	p := platforms.DefaultSpec()
	if opt.ImageOpt != nil && opt.ImageOpt.Platform != nil {
		p = *opt.ImageOpt.Platform
	}
	d, config, err := g.resolver.ResolveImage(ctx, ref, p)
	if err != nil {
		return "", "", nil, &imageError{ref, err}
	}
	return ref, digest.Digest(d), config, nil
}

func (g *gateway) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	if md, ok, err := g.resolveGit(ctx, op); ok {
		return md, err
	}
	ref, ok := strings.CutPrefix(op.Identifier, "docker-image://")
	if !ok {
		return &sourceresolver.MetaResponse{Op: op}, nil
	}
	_, d, config, err := g.ResolveImageConfig(ctx, ref, opt)
	if err != nil {
		return nil, err
	}
	return &sourceresolver.MetaResponse{Op: op, Image: &sourceresolver.ResolveImageResponse{Digest: d, Config: config}}, nil
}

func (g *gateway) BuildOpts() gwclient.BuildOpts {
	return gwclient.BuildOpts{
		Opts: cloneOptions(g.opts), SessionID: session, Product: "layerwright",
		Workers: []gwclient.WorkerInfo{{ID: "layerwright", Platforms: []ocispecs.Platform{platforms.DefaultSpec()}}},
		LLBCaps: pb.Caps.CapSet(pb.Caps.All()),
		Caps:    gwpb.Caps.CapSet(gwpb.Caps.All()),
	}
}

func (g *gateway) Inputs(context.Context) (map[string]llb.State, error) { return g.inputs, nil }

func (*gateway) NewContainer(context.Context, gwclient.NewContainerRequest) (gwclient.Container, error) {
	return nil, errors.New("containers of a frontend are not supported")
}

func (g *gateway) Warn(_ context.Context, _ digest.Digest, msg string, opts gwclient.WarnOpts) error {
	g.req.Progress.Emit(LintNotice(msg, opts.URL, opts.SourceInfo, opts.Range))
	return nil
}

// LintNotice is a warning of BuildKit's linter, "Rule: text (line N)", as an event.
func LintNotice(msg, url string, source *pb.SourceInfo, ranges []*pb.Range) progress.Notice {
	rule, text, ok := strings.Cut(msg, ": ")
	if !ok || strings.ContainsAny(rule, " \t") {
		rule, text = "", msg
	}
	if i := strings.LastIndex(text, " (line "); i > 0 {
		text = text[:i]
	}
	return progress.Notice{Level: progress.Warning, Rule: rule, Text: text, URL: url, Location: sourceLocation(source, ranges), Time: time.Now()}
}

// Solve is asked for three things: to read files of a local source, to run
// another frontend ("# syntax="), and, at the end, for the graph itself.
func (g *gateway) Solve(ctx context.Context, req gwclient.SolveRequest) (*gwclient.Result, error) {
	if req.Frontend != "" {
		return g.forward(ctx, req)
	}
	res := gwclient.NewResult()
	name, err := localOnly(req.Definition)
	if err != nil {
		return nil, err
	}
	if name == "" {
		// The graph, or a remote context whose files will be asked for.
		res.SetRef(&result{def: req.Definition, contexts: g.req.Contexts, read: g.readRemote})
		return res, nil
	}
	dir, ok := g.req.Locals[name]
	if !ok && (name != Dockerfile || g.req.Data == nil) {
		return nil, fmt.Errorf("no local source %q", name)
	}
	ref := &result{def: req.Definition, dir: dir, read: func(file string, data []byte) error { g.read(name, file, data); return nil }}
	if name == Dockerfile && g.req.Data != nil {
		ref.files = map[string][]byte{g.req.Filename: g.req.Data}
	}
	res.SetRef(ref)
	return res, nil
}

// localOnly gives the name of the local source that is all of a definition.
func localOnly(def *pb.Definition) (string, error) {
	if def == nil || len(def.Def) != 2 {
		return "", nil
	}
	op := &pb.Op{}
	if err := op.Unmarshal(def.Def[0]); err != nil {
		return "", fmt.Errorf("decode operation: %w", err)
	}
	if s := op.GetSource(); s != nil {
		if name, ok := strings.CutPrefix(s.Identifier, "local://"); ok {
			return name, nil
		}
	}
	return "", nil
}

func (g *gateway) forward(ctx context.Context, req gwclient.SolveRequest) (*gwclient.Result, error) {
	source := req.FrontendOpt["source"]
	if !builtin(source) {
		return nil, foreign(source, req.FrontendOpt)
	}
	g.opts["cmdline"] = req.FrontendOpt["cmdline"]
	g.req.Progress.Emit(progress.Notice{Level: progress.Info, Time: time.Now(),
		Text: fmt.Sprintf("%s: the built-in Dockerfile frontend is used in its place", source)})
	return builder.Build(ctx, g)
}

// result is a graph that has not run, or a local source whose files can be
// read.
type result struct {
	def   *pb.Definition
	dir   string
	files map[string][]byte
	// contexts makes the directory where dir is empty.
	contexts Contexts
	// read, where there is a directory, is told of what was read and may
	// refuse it.
	read func(name string, data []byte) error
}

var _ gwclient.Reference = (*result)(nil)

func (r *result) ToState() (llb.State, error) {
	op, err := llb.NewDefinitionOp(r.def)
	if err != nil {
		return llb.State{}, err
	}
	return llb.NewState(op), nil
}

func (*result) Evaluate(context.Context) error { return nil }

func (r *result) ReadFile(ctx context.Context, req gwclient.ReadRequest) ([]byte, error) {
	name := path.Clean("/" + req.Filename)[1:]
	if data, ok := r.files[req.Filename]; ok {
		return data, r.read(req.Filename, data)
	}
	dir, err := r.directory(ctx)
	if err != nil {
		return nil, err
	}
	if dir == "" {
		return nil, missing("open", name)
	}
	open := os.OpenInRoot
	if r.contexts != nil {
		open = openResolved
	}
	f, err := open(dir, name)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			return nil, &os.PathError{Op: "open", Path: name, Err: pe.Err}
		}
		return nil, err
	}
	defer f.Close()
	if req.Range != nil && req.Range.Offset > 0 {
		if _, err := f.Seek(int64(req.Range.Offset), io.SeekStart); err != nil {
			return nil, err
		}
	}
	if req.Range != nil && req.Range.Length > 0 && req.Range.Length <= maxFile {
		data, err := io.ReadAll(io.LimitReader(f, int64(req.Range.Length)))
		if err == nil {
			err = r.read(req.Filename, data)
		}
		return data, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: larger than %d bytes", name, maxFile)
	}
	if err == nil {
		err = r.read(req.Filename, data)
	}
	return data, err
}

func (r *result) StatFile(ctx context.Context, req gwclient.StatRequest) (*fstypes.Stat, error) {
	if data, ok := r.files[req.Path]; ok {
		return &fstypes.Stat{Path: req.Path, Size: int64(len(data)), Mode: 0o644}, nil
	}
	dir, err := r.directory(ctx)
	if err != nil {
		return nil, err
	}
	if dir == "" {
		return nil, missing("stat", req.Path)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	fi, err := root.Stat(path.Clean("/" + req.Path)[1:])
	if err != nil {
		return nil, err
	}
	return &fstypes.Stat{Path: req.Path, Size: fi.Size(), Mode: uint32(fi.Mode()), ModTime: fi.ModTime().UnixNano()}, nil
}

func (*result) ReadDir(context.Context, gwclient.ReadDirRequest) ([]*fstypes.Stat, error) {
	return nil, errors.New("listing a directory is not supported")
}
