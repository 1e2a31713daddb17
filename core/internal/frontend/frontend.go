// Package frontend owns the way from a Dockerfile to a graph and an image
// configuration: BuildKit's own Dockerfile frontend, run in this process on a
// gateway client of ours. It alone imports that frontend. It refuses to carry
// anything out: images are described by a Resolver, local files are read
// through directories that it is given.
package frontend

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// Resolver describes images of registries.
type Resolver interface {
	// ResolveImage gives the digest that ref points at (of the index, if it
	// is one) and the raw configuration for a platform.
	ResolveImage(ctx context.Context, ref string, platform ocispecs.Platform) (digest string, config []byte, err error)
}

// Names of the local sources.
const (
	// Context is the build context, Dockerfile the directory of the
	// Dockerfile. Named contexts have their own names.
	Context    = "context"
	Dockerfile = "dockerfile"
)

// Request is one Dockerfile with its settings.
type Request struct {
	// Locals maps a local source's name to a directory.
	Locals map[string]string
	// Filename is the Dockerfile's name in the directory Dockerfile. Data,
	// when not nil, is its text, and nothing is read.
	Filename string
	Data     []byte
	// ContextURL is the build context where it is no directory: what BuildKit
	// takes as a context's URL, or a Stream. The Dockerfile is then in it,
	// unless Data or the local source Dockerfile is there.
	ContextURL string
	// ContextSubDir is the directory there that is the context; empty for all.
	// Filename is not relative to it.
	ContextSubDir string
	// Contexts is needed for ContextURL and for OCI layouts.
	Contexts Contexts

	Target        string
	Platforms     []ocispecs.Platform
	BuildArgs     map[string]string
	Labels        map[string]string
	NamedContexts map[string]string
	NoCache       bool
	NoCacheFilter []string
	ExtraHosts    []string
	Ulimits       []string
	ShmSize       int64
	Network       string
	Hostname      string

	// Progress takes notices and lint warnings.
	Progress progress.Sink
}

// Result is the graph of all platforms and an image for each.
type Result struct {
	Graph  *graph.Graph
	Images []Image
}

// Image is what one platform's part of the graph yields.
type Image struct {
	Platform ocispecs.Platform
	// Root is the tree; its vertex is nil for an empty one.
	Root graph.Edge
	// Config is the raw image configuration, without the build's own layers
	// (exptypes.ExporterImageConfigKey). BaseConfig is that of the base
	// image, nil without one.
	Config, BaseConfig []byte
	// Epoch is SOURCE_DATE_EPOCH; nil if there is none.
	Epoch *time.Time
}

// Run converts the Dockerfile. An error that has to do with a line carries its
// location.
func Run(ctx context.Context, req Request, resolver Resolver) (*Result, error) {
	g, res, err := convert(ctx, req, resolver)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var fe *filesError
		if errors.As(err, &fe) {
			return nil, fe.err
		}
		return nil, inContext(req, explain(err, g.usedBy(err)))
	}
	g.checkNoCacheFilter()
	list, err := results(req, res)
	if err != nil {
		return nil, err
	}
	b := &graph.Builder{}
	out := &Result{}
	for _, r := range list {
		root, err := b.Add(r.ref.def)
		if err != nil {
			return nil, err
		}
		out.Images = append(out.Images, Image{Platform: r.platform, Root: root, Config: r.config, BaseConfig: r.baseConfig, Epoch: r.epoch})
	}
	out.Graph = b.Graph()
	return out, nil
}

// Options are the request in the words of BuildKit's frontend.
func Options(req Request) (map[string]string, error) {
	o := map[string]string{"filename": req.Filename}
	contextOptions(req, o)
	set := func(key, value string) {
		if value != "" {
			o[key] = value
		}
	}
	set("target", req.Target)
	set("hostname", req.Hostname)
	set("force-network-mode", req.Network)
	var hosts []string
	for _, h := range req.ExtraHosts {
		name, ip, _ := strings.Cut(h, ":")
		hosts = append(hosts, name+"="+ip)
	}
	set("add-hosts", strings.Join(hosts, ","))
	set("ulimit", strings.Join(req.Ulimits, ","))
	if req.ShmSize > 0 {
		o["shm-size"] = strconv.FormatInt(req.ShmSize, 10)
	}
	var ps []string
	for _, p := range req.Platforms {
		ps = append(ps, platforms.FormatAll(p))
	}
	set("platform", strings.Join(ps, ","))
	for k, v := range req.BuildArgs {
		o["build-arg:"+k] = v
	}
	for k, v := range req.Labels {
		o["label:"+k] = v
	}
	for k, v := range req.NamedContexts {
		if strings.HasPrefix(v, layoutPrefix) && req.Contexts == nil {
			return nil, fault.New(fault.Usage, "--build-context %s=%s: an OCI layout as a context is not supported", k, v).
				With("Push the image to a registry and name it as docker-image://REFERENCE.")
		}
		name, err := contextName(k)
		if err != nil {
			return nil, err
		}
		o["context:"+name] = v
	}
	if req.NoCache {
		o["no-cache"] = ""
	} else if len(req.NoCacheFilter) > 0 {
		o["no-cache"] = strings.Join(req.NoCacheFilter, ",")
	}
	return o, nil
}

// contextName is a named context's name as the frontend looks it up: a short
// image name without ":latest".
func contextName(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fault.New(fault.Usage, "--build-context %s: %w", name, err).
			With("Write the name as FROM and --from do: lower-case letters, digits, and separators.")
	}
	return strings.TrimSuffix(reference.FamiliarString(named), ":latest"), nil
}

// Explain is what Run makes of the frontend's errors, for one that has run elsewhere.
func Explain(err error) error { return explain(err, nil) }

// explain turns the frontend's error into one with kind, place and remedy.
// fallback is the place for an error that has none of its own.
func explain(err error, fallback *fault.Location) error {
	loc := Location(err)
	if loc == nil {
		loc = fallback
	}
	if _, ok := fault.As(err); ok {
		return fault.At(bare(err), loc)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e := &fault.Error{Kind: fault.User, Err: bare(err), Location: loc}
	switch text := err.Error(); {
	case errors.Is(err, fs.ErrNotExist) && strings.Contains(text, "failed to read dockerfile"):
		e.Remedy = "Name the Dockerfile with --dockerfile, and its directory with --context."
	case strings.Contains(text, "unsupported context source "+strings.TrimSuffix(cyclePrefix, ":")):
		e.Err, e.Remedy = errors.New("a stage that a named context is made of uses this context itself"), "Make the named context of another stage (--build-context NAME=target:STAGE)."
	case text == "syntax error in pattern":
		e.Op, e.Remedy = "read .dockerignore", "Correct the pattern: a [ needs its ]."
	case strings.Contains(text, "no build stage in current context"):
		e.Remedy = "A Dockerfile begins with FROM; only ARG may come before it."
	case strings.Contains(text, "unknown instruction"):
		e.Remedy = "Correct the instruction's name, or end the line before with \\ if it continues there."
	case strings.Contains(text, "the Dockerfile cannot be empty"), strings.Contains(text, "file with no instructions"):
		e.Remedy = "A Dockerfile needs at least one FROM."
	case strings.Contains(text, "check option"):
		e.Remedy = "Write skip=RULE,RULE or skip=all, experimental=RULE or experimental=all, and error=true, with ; between them."
	case strings.Contains(text, "lint violation found"):
		e.Remedy = "Correct what the warnings name, or take error=true out of the line \"# check=\"."
	case strings.Contains(text, "could not be found") && strings.Contains(text, "target stage"):
		e.Remedy = "Name one of the Dockerfile's stages with --target (FROM … AS name)."
	}
	return e
}

// bare is the innermost error that still has the words, without the layers that
// only carry a source position.
func bare(err error) error {
	for {
		var se *errdefs.SourceError
		var le *parser.LocationError
		switch {
		case errors.As(err, &se) && se.Error() == err.Error() && errors.Unwrap(se) != nil && any(se) == any(err):
			err = errors.Unwrap(se)
		case errors.As(err, &le) && any(le) == any(err) && errors.Unwrap(le) != nil:
			err = errors.Unwrap(le)
		default:
			return err
		}
	}
}

// Location is the instruction that BuildKit says an error is about; nil where it says
// none.
func Location(err error) *fault.Location {
	for _, s := range errdefs.Sources(err) {
		// Line 0 is BuildKit's word for "somewhere in the directives".
		if s.Info == nil || len(s.Ranges) == 0 || s.Ranges[0].Start == nil || s.Ranges[0].Start.Line < 1 {
			continue
		}
		loc := &fault.Location{File: s.Info.Filename, Source: s.Info.Data, Start: int(s.Ranges[0].Start.Line)}
		loc.End = loc.Start
		if last := s.Ranges[len(s.Ranges)-1]; last.End != nil {
			loc.End = max(loc.End, int(last.End.Line))
		}
		return loc
	}
	return nil
}

// sourceLocation is the place of a lint warning.
func sourceLocation(info *pb.SourceInfo, ranges []*pb.Range) *fault.Location {
	if info == nil || len(ranges) == 0 || ranges[0].Start == nil || ranges[0].Start.Line < 1 {
		return nil
	}
	l := &fault.Location{File: info.Filename, Source: info.Data, Start: int(ranges[0].Start.Line)}
	l.End = l.Start
	if ranges[0].End != nil {
		l.End = max(l.End, int(ranges[0].End.Line))
	}
	return l
}

// Syntax finds the line "# syntax=" of a Dockerfile: what it names, and whether the
// built-in frontend stands for that.
func Syntax(text []byte) (ref string, isBuiltin bool) {
	ref, _, _, ok := parser.DetectSyntax(text)
	return ref, ok && builtin(ref)
}

// builtin says whether a "# syntax=" names a frontend that the built-in one
// stands for: docker/dockerfile in any version and channel.
func builtin(ref string) bool {
	ref = strings.TrimPrefix(ref, "docker.io/")
	ref = strings.TrimPrefix(ref, "index.docker.io/")
	name, _, _ := strings.Cut(ref, "@")
	name, _, _ = strings.Cut(name, ":")
	return slices.Contains([]string{"docker/dockerfile", "docker/dockerfile-upstream", "dockerfile.v0"}, name)
}

func cloneOptions(m map[string]string) map[string]string { return maps.Clone(m) }
