package core

import (
	"context"
	"errors"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/layerwright/layerwright/core/internal/content"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/frontend"
	"github.com/layerwright/layerwright/core/internal/hostview"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/registry"
)

// Question is what can be asked of a Dockerfile instead of building it.
type Question = frontend.Question

// Questions: see package frontend.
const (
	AskLint    = frontend.Lint
	AskOutline = frontend.Outline
	AskTargets = frontend.Targets
)

// Inspection is the answer to a Question.
type Inspection struct {
	// JSON is BuildKit's own form of it, Text the same for people, of several
	// lines or empty.
	JSON []byte
	Text string
	// Warnings counts violations; Err is what would have ended a build. Both
	// are of AskLint.
	Warnings int
	Err      error
}

// Inspect asks a question about a request's Dockerfile and builds nothing: no
// isolation is tried, no store is made, no output is looked at. A remote
// context is fetched into a temporary directory; base images are described by
// their registries.
func Inspect(ctx context.Context, req Request, q Question) (_ *Inspection, err error) {
	if req.Progress == nil {
		req.Progress = progress.Discard
	}
	req.Outputs, req.Cache = Outputs{}, Cache{}
	b := &build{req: &req, sink: req.Progress, made: map[v1.Layer]madeLayer{}, listed: map[string]func() (content.Tree, error){}}
	defer func() { err = b.classify(errors.Join(err, b.close())) }()
	if err := b.openInspection(ctx); err != nil {
		return nil, err
	}
	a, err := frontend.Ask(ctx, b.frontendRequest(), q, b)
	b.closeViews()
	if err != nil {
		return nil, err
	}
	return &Inspection{JSON: a.JSON, Text: a.Text, Warnings: a.Warnings, Err: a.Err}, nil
}

// openInspection is open without anything that a step would need.
func (b *build) openInspection(ctx context.Context) (err error) {
	if err := hostview.Preload(); err != nil {
		b.notice("the system's certificates cannot be read: " + err.Error())
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
	b.machine, b.work = &machine{outside: func(f func() error) error { return f() }}, &workdir{}
	if b.elsewhere() {
		if b.work.dir, err = os.MkdirTemp("", "layerwright-"); err != nil {
			return fault.New(fault.Environment, "make a temporary directory for the context: %w", err).
				With("Point TMPDIR at a directory that can be written.")
		}
		b.machine.store = b.work.dir
		b.atEnd(func() error { return os.RemoveAll(b.work.dir) })
	}
	if err := errors.Join(b.openHandles(), b.openTransport()); err != nil {
		return err
	}
	if b.elsewhere() {
		if err := b.loadContext(ctx); err != nil {
			return err
		}
	}
	b.client, err = registry.New(b.registryOptions())
	return err
}

// elsewhere says whether anything that the frontend reads has to be fetched.
func (b *build) elsewhere() bool {
	if b.remote.kind != contextDir || isURL(b.file) {
		return true
	}
	for _, value := range b.req.NamedContexts {
		if kind, _, err := contextOf(value); err == nil && kind == contextRemote {
			return true
		}
	}
	return false
}
