package ops

import (
	"context"

	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/snapshot"
	"github.com/layerwright/layerwright/core/internal/solve"
)

// gitOp is a commit of a git repository: ADD, or a build context.
type gitOp struct {
	env        *Env
	v          *graph.Vertex
	identifier string
	attrs      map[string]string
}

// Run implements solve.Op.
func (o *gitOp) Run(ctx context.Context, _ []solve.Claim) ([]solve.Result, error) {
	m, err := o.env.scratch().Mutate(ctx)
	if err != nil {
		return nil, err
	}
	if err := o.env.Git.Checkout(ctx, o.identifier, o.attrs, m.Dir()); err != nil {
		return nil, discard(m, err)
	}
	s, err := m.Commit(ctx, snapshot.Changes{}, o.env.capture(o.v))
	if err != nil {
		return nil, discard(m, err)
	}
	o.env.made(o.v, s) // FROM of a named context: its files are a layer
	return []solve.Result{result{s}}, nil
}
