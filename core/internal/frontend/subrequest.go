package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// Question is what can be asked of a Dockerfile instead of building it.
type Question int

// Questions: BuildKit's subrequests of the same names.
const (
	// Lint is what BuildKit's rules say of the target, or of every stage
	// where none is named.
	Lint Question = iota
	// Outline is what the target can be given: arguments, secrets, agents.
	Outline
	// Targets are the stages.
	Targets
)

func (q Question) request() string {
	return [...]string{lint.RequestLint, outline.RequestSubrequestsOutline, targets.RequestTargets}[q]
}

// Answer is what the frontend said.
type Answer struct {
	// JSON is the answer in BuildKit's own form, Text the same for people.
	JSON []byte
	Text string
	// Warnings counts the violations that Lint has found.
	Warnings int
	// Err is what would have ended a build; JSON has it as well, if it has to
	// do with a line. Only Lint sets it.
	Err error
}

// Ask puts a question to the frontend. Images are described by the resolver as
// in a build, so a base image's ONBUILD, environment and platform count; no
// layer is fetched and nothing runs.
func Ask(ctx context.Context, req Request, q Question, resolver Resolver) (*Answer, error) {
	seen := &recorder{Resolver: resolver}
	g := &gateway{req: req, resolver: seen, inputs: map[string]llb.State{}}
	fail := func(err error) (*Answer, error) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		loc := g.usedBy(err)
		if loc == nil {
			loc = g.parsedAt(err)
		}
		return nil, explain(err, loc)
	}
	var err error
	if g.opts, err = Options(req); err != nil {
		return fail(err)
	}
	if err := g.stages(ctx); err != nil {
		return fail(err)
	}
	g.opts["requestid"] = q.request()
	res, err := builder.Build(ctx, g)
	if err != nil {
		return fail(err)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	a := &Answer{JSON: res.Metadata["result.json"], Text: string(res.Metadata["result.txt"])}
	if q == Lint {
		return a, a.lint(g, seen)
	}
	return a, nil
}

// lint reads what the frontend has found. It has put an error into words, so
// that of the resolver is taken where those are its words.
func (a *Answer) lint(g *gateway, seen *recorder) error {
	var found lint.LintResults
	if err := json.Unmarshal(a.JSON, &found); err != nil {
		return fmt.Errorf("decode lint results: %w", err)
	}
	a.Warnings = len(found.Warnings)
	if found.Error == nil {
		return nil
	}
	var loc *fault.Location
	if i := int(found.Error.Location.SourceIndex); i >= 0 && i < len(found.Sources) {
		loc = sourceLocation(found.Sources[i], found.Error.Location.Ranges)
	}
	err := errors.New(found.Error.Message)
	if cause := seen.failed(); cause != nil && strings.Contains(found.Error.Message, cause.Error()) {
		err = cause
		if loc == nil {
			loc = g.usedBy(err)
		}
	}
	a.Err = explain(err, loc)
	return nil
}

// parsedAt is the place of an error of the parser, to which BuildKit adds the
// file only in a build.
func (g *gateway) parsedAt(err error) *fault.Location {
	g.mu.Lock()
	defer g.mu.Unlock()
	var le *parser.LocationError
	if !errors.As(err, &le) || len(le.Locations) == 0 || len(le.Locations[0]) == 0 || le.Locations[0][0].Start.Line < 1 {
		return nil
	}
	r := le.Locations[0][0]
	return &fault.Location{File: g.req.Filename, Source: g.text, Start: r.Start.Line, End: max(r.Start.Line, r.End.Line)}
}

// recorder keeps the first error of a resolver.
type recorder struct {
	Resolver

	mu  sync.Mutex
	err error
}

func (r *recorder) ResolveImage(ctx context.Context, ref string, p ocispecs.Platform) (string, []byte, error) {
	d, config, err := r.Resolver.ResolveImage(ctx, ref, p)
	if err != nil {
		r.mu.Lock()
		if r.err == nil {
			r.err = &imageError{ref, err}
		}
		r.mu.Unlock()
	}
	return d, config, err
}

func (r *recorder) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// foreign is about a frontend that the built-in one does not stand for.
func foreign(source string, opts map[string]string) error {
	remedy := "Remove the line \"# syntax=\", or use a docker/dockerfile frontend; where this is a copy of that, give --build-arg BUILDKIT_SYNTAX=docker/dockerfile."
	if _, ok := opts["build-arg:BUILDKIT_SYNTAX"]; ok {
		remedy = "Leave out --build-arg BUILDKIT_SYNTAX, or give it docker/dockerfile."
	}
	return fault.New(fault.User, "frontend %q is not supported: Layerwright runs docker/dockerfile only", source).With(remedy)
}
