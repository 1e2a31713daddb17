package solve

import (
	"context"

	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// Planned is a step of a solve that has not begun.
type Planned struct {
	Step progress.Step
	// Known says that the result is there already, Spared that nothing that runs
	// needs it.
	Known, Spared bool
}

// Plan says what Solve would do, as far as that is known before anything runs: a
// step behind one that runs may still turn out to be known. What an Op refuses is
// an error as in Solve.
func Plan(ctx context.Context, g *graph.Graph, opts Options) ([]Planned, error) {
	if opts.Cache == nil {
		opts.Cache = noCache{}
	}
	s, err := newRun(ctx, g, opts)
	if err != nil {
		return nil, err
	}
	known, runs := map[string]bool{}, map[string]bool{}
	for _, n := range s.order {
		runs[n.step.ID], known[n.step.ID] = n.known == nil, n.known != nil
	}
	out := make([]Planned, len(s.plan))
	for i, step := range s.plan {
		out[i] = Planned{Step: step, Known: known[step.ID], Spared: !known[step.ID] && !runs[step.ID]}
	}
	return out, nil
}
