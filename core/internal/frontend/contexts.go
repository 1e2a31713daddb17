package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	cfs "github.com/containerd/continuity/fs"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	commonexptypes "github.com/moby/buildkit/exporter/exptypes"
	"github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/archiveutil"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// Contexts gives what the frontend wants to see of build contexts that are no
// directories, before there is a graph.
type Contexts interface {
	// Files carries out a definition, of sources and file operations, and
	// gives the directory of its tree, which stays until Run has returned.
	Files(ctx context.Context, def *pb.Definition) (dir string, err error)
	// ResolveLayout gives the raw configuration of an image in the OCI
	// layout called store.
	ResolveLayout(ctx context.Context, store, digest string, platform *ocispecs.Platform) (config []byte, err error)
}

// Stream is the URL of a build context that is a stream, which BuildKit's own
// client would send: id is its name.
func Stream(id string) string { return "http://buildkit-session/" + id }

// IsStream says whether a context's URL comes from Stream.
func IsStream(url string) bool { return strings.HasPrefix(url, Stream("")) }

// IsGit says whether BuildKit takes a context's URL for a git repository; err is
// what is wrong with it.
func IsGit(url string) (ok bool, err error) {
	_, ok, err = dfgitutil.ParseGitRef(url)
	if !ok {
		return false, nil
	}
	return true, err
}

// IsArchive says whether BuildKit takes a stream that begins like this for an
// archive: a tar, or anything compressed by a method that it knows.
func IsArchive(header []byte) bool { return archiveutil.IsArchive(header) }

// contextOptions are the options that say where the context is.
func contextOptions(req Request, o map[string]string) {
	if req.ContextURL == "" {
		return
	}
	o["context"] = req.ContextURL
	if req.ContextSubDir != "" {
		o["contextsubdir"] = req.ContextSubDir
	}
	if _, ok := req.Locals[Dockerfile]; ok || req.Data != nil {
		o["dockerfilekey"] = Dockerfile // else it is in the context
	}
}

// directory is that of a result's tree; the tree is made when somebody asks.
func (r *result) directory(ctx context.Context) (string, error) {
	if r.dir != "" || r.contexts == nil || r.def == nil {
		return r.dir, nil
	}
	dir, err := r.contexts.Files(ctx, r.def)
	if err != nil {
		return "", &filesError{err}
	}
	r.dir = dir
	return dir, nil
}

// filesError is a context that could not be had: BuildKit's words around it say
// nothing more.
type filesError struct{ err error }

func (e *filesError) Error() string { return e.err.Error() }
func (e *filesError) Unwrap() error { return e.err }

// readRemote remembers the Dockerfile of a remote context. What a context is
// first asked for is its beginning, to find out whether it is an archive.
func (g *gateway) readRemote(name string, data []byte) error {
	if name == remoteFile && IsArchive(data) {
		return nil
	}
	if name == remoteFile || name == g.req.Filename {
		g.mu.Lock()
		g.text = data
		g.mu.Unlock()
	}
	if name == remoteFile {
		return errPage("the build context", data)
	}
	return nil
}

// remoteFile is what BuildKit calls the file that a context's URL answers.
const remoteFile = "context"

// resolveLayout describes an image in an OCI layout.
func (g *gateway) resolveLayout(ctx context.Context, ref string, opt *sourceresolver.ResolveOCILayoutOpt) (string, digest.Digest, []byte, error) {
	_, d, ok := strings.Cut(ref, "@")
	if !ok || g.req.Contexts == nil {
		return "", "", nil, fault.New(fault.Internal, "image %s in an OCI layout", ref)
	}
	config, err := g.req.Contexts.ResolveLayout(ctx, opt.Store.StoreID, d, opt.Platform)
	if err != nil {
		return "", "", nil, err
	}
	return ref, digest.Digest(d), config, nil
}

// inContext says where the Dockerfile was looked for.
func inContext(req Request, err error) error {
	e, ok := fault.As(err)
	if !ok || req.ContextURL == "" || !errors.Is(err, fs.ErrNotExist) || e.Location != nil {
		return err
	}
	return e.With("The Dockerfile is looked for in the context: name it with --dockerfile, by its path there. An absolute path is a file outside of the context.")
}

// openResolved opens a file of a tree of ours, in which an absolute link means a
// place in the tree, as it does for BuildKit.
func openResolved(dir, name string) (*os.File, error) {
	at, err := cfs.RootPath(dir, name)
	if err != nil {
		return nil, err
	}
	rel, err := filepath.Rel(dir, at)
	if err != nil {
		return nil, err
	}
	return os.OpenInRoot(dir, rel)
}

// errPage is about a page for people where a Dockerfile was expected.
func errPage(name string, data []byte) error {
	start := bytes.ToLower(bytes.TrimLeft(data[:min(len(data), 512)], "\ufeff \t\r\n"))
	if !bytes.HasPrefix(start, []byte("<!doctype html")) && !bytes.HasPrefix(start, []byte("<html")) {
		return nil
	}
	return fault.New(fault.User, "%s is an HTML page, neither a Dockerfile nor an archive", name).
		With("Name the URL of the file itself; a page for people, often one to log in, came back instead.")
}

// CheckDockerfile refuses what a URL answered in place of a Dockerfile.
func CheckDockerfile(name string, data []byte) error { return errPage(name, data) }

// Words of the values of named contexts.
const (
	targetPrefix = "target:"
	layoutPrefix = "oci-layout:"
	// cyclePrefix stands in for a context that is being made.
	cyclePrefix = "target-of-itself:"
)

// stages builds the stages that named contexts mean ("target:STAGE") and hands
// them to the frontend as its inputs, as docker buildx bake does.
func (g *gateway) stages(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(g.req.NamedContexts)) {
		stage, ok := strings.CutPrefix(g.req.NamedContexts[name], targetPrefix)
		if !ok {
			continue
		}
		sub := g.req
		sub.Target, sub.Progress = stage, progress.Discard // its warnings come from the whole build
		sub.NamedContexts = maps.Clone(g.req.NamedContexts)
		sub.NamedContexts[name] = cyclePrefix + name
		if err := g.stage(ctx, name, sub); err != nil {
			return err
		}
	}
	return nil
}

func (g *gateway) stage(ctx context.Context, name string, sub Request) error {
	key, err := contextName(name)
	if err != nil {
		return err
	}
	inner, res, err := convert(ctx, sub, g.resolver)
	if err != nil {
		if _, ok := fault.As(err); !ok {
			err = explain(err, inner.usedBy(err))
		}
		return fmt.Errorf("--build-context %s=%s%s: %w", name, targetPrefix, sub.Target, err)
	}
	list, err := results(sub, res)
	if err != nil {
		return err
	}
	for i, r := range list {
		st, err := r.ref.ToState()
		if err != nil {
			return err
		}
		md, err := json.Marshal(map[string][]byte{exptypes.ExporterImageConfigKey: r.config})
		if err != nil {
			return err
		}
		names := []string{key + "::" + platforms.FormatAll(r.platform)}
		if i == 0 {
			names = append(names, key)
		}
		for _, n := range names {
			input := "target-" + n // not to be taken for the context or the Dockerfile
			g.inputs[input] = st
			g.opts["context:"+n] = "input:" + input
			g.opts["input-metadata:"+input] = string(md)
		}
	}
	return nil
}

// convert runs BuildKit's frontend.
func convert(ctx context.Context, req Request, resolver Resolver) (*gateway, *gwclient.Result, error) {
	g := &gateway{req: req, resolver: resolver, inputs: map[string]llb.State{}}
	var err error
	if g.opts, err = Options(req); err != nil {
		return g, nil, err
	}
	if err := g.stages(ctx); err != nil {
		return g, nil, err
	}
	res, err := builder.Build(ctx, g)
	return g, res, err
}

// platformResult is what BuildKit's frontend gives for one platform.
type platformResult struct {
	platform           ocispecs.Platform
	ref                *result
	config, baseConfig []byte
	epoch              *time.Time
}

// results are a frontend's results by platform.
func results(req Request, res *gwclient.Result) ([]platformResult, error) {
	var out []platformResult
	add := func(p ocispecs.Platform, r any, suffix string) error {
		ref, ok := r.(*result)
		if !ok {
			return fmt.Errorf("no result for platform %s", platforms.FormatAll(p))
		}
		epoch, err := epochOf(res, suffix)
		if err != nil {
			return err
		}
		out = append(out, platformResult{platform: p, ref: ref, epoch: epoch,
			config:     res.Metadata[exptypes.ExporterImageConfigKey+suffix],
			baseConfig: res.Metadata[exptypes.ExporterImageBaseConfigKey+suffix]})
		return nil
	}
	if res.Ref != nil {
		p := platforms.DefaultSpec()
		if len(req.Platforms) > 0 {
			p = req.Platforms[0]
		}
		err := add(platforms.Normalize(p), res.Ref, "")
		return out, err
	}
	var ps exptypes.Platforms
	if err := json.Unmarshal(res.Metadata[exptypes.ExporterPlatformsKey], &ps); err != nil {
		return nil, fmt.Errorf("decode platforms: %w", err)
	}
	for _, p := range ps.Platforms {
		if err := add(p.Platform, res.Refs[p.ID], "/"+p.ID); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// epochOf is SOURCE_DATE_EPOCH as the frontend has understood it; nil if there is
// none.
func epochOf(res *gwclient.Result, suffix string) (*time.Time, error) {
	raw, ok := res.Metadata[commonexptypes.ExporterEpochKey+suffix]
	if !ok {
		raw, ok = res.Metadata[commonexptypes.ExporterEpochKey]
	}
	if !ok || len(raw) == 0 {
		return nil, nil //nolint:nilnil // none
	}
	seconds, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH from the frontend: %w", err)
	}
	t := time.Unix(seconds, 0).UTC()
	return &t, nil
}

// missing is a file that is not there.
func missing(op, name string) error { return &os.PathError{Op: op, Path: name, Err: os.ErrNotExist} }
