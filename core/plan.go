package core

import (
	"context"

	"github.com/layerwright/layerwright/core/internal/frontend"
	"github.com/layerwright/layerwright/core/internal/solve"
)

// PlannedStep is a step that a build would have.
type PlannedStep struct {
	Step
	// Cached says that its result is in the cache, Spared that nothing that runs
	// needs it. Otherwise it runs, unless what comes before it turns out to be
	// what the cache has.
	Cached, Spared bool
}

// plan says what would run (Request.DryRun).
func (b *build) plan(ctx context.Context, res *frontend.Result) (*Result, error) {
	env, err := b.environment(res)
	if err != nil {
		return nil, err
	}
	opts := solve.Options{Resolve: env.Resolve}
	if b.cache != nil {
		opts.Cache = spoken{b.cache, b.notice, b.timed}
	}
	steps, err := solve.Plan(ctx, res.Graph, opts)
	if err != nil {
		return nil, err
	}
	out := &Result{Plan: make([]PlannedStep, len(steps))}
	for i, s := range steps {
		out.Plan[i] = PlannedStep{Step: s.Step, Cached: s.Known, Spared: s.Spared}
	}
	return out, nil
}
