package core

import (
	"context"
	"slices"

	"github.com/layerwright/layerwright/core/internal/frontend"
	"github.com/layerwright/layerwright/core/internal/graph"
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
	var running []*graph.Vertex
	out := &Result{Plan: make([]PlannedStep, len(steps))}
	for i, s := range steps {
		if !s.Known && !s.Spared {
			running = append(running, res.Graph.Vertices[slices.IndexFunc(res.Graph.Vertices, func(v *graph.Vertex) bool { return v.Digest.String() == s.Step.ID })])
		}
		out.Plan[i] = PlannedStep{Step: s.Step, Cached: s.Known, Spared: s.Spared}
	}
	return out, b.checkEmulation(ctx, running)
}
