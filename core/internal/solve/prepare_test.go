package solve_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/solve"
)

// preparing is a world in which a context waits until the base is being prepared, or
// for patience.
type preparing struct {
	began    chan struct{}
	patience time.Duration
	prepared atomic.Int32
	certain  atomic.Bool
	early    atomic.Bool
}

type preparingOp struct {
	w *preparing
	v *graph.Vertex
}

func (o preparingOp) Run(ctx context.Context, _ []solve.Claim) ([]solve.Result, error) {
	if graph.SourceScheme(o.v) == "local" {
		select {
		case <-o.w.began:
			o.w.early.Store(true)
		case <-time.After(o.w.patience):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return []solve.Result{o}, nil
}

func (o preparingOp) Claims(owners []solve.Owner) []solve.Claim {
	out := make([]solve.Claim, len(owners))
	for i := range owners {
		out[i] = preparingClaim{o.w}
	}
	return out
}

type preparingClaim struct{ w *preparing }

func (preparingClaim) Release() {}

func (c preparingClaim) Prepare(_ context.Context, certain bool) {
	c.w.certain.Store(certain)
	if c.w.prepared.Add(1) == 1 {
		close(c.w.began)
	}
}

// undecided is a cache that may know everything, later.
type undecided struct{ toyCache }

func (*undecided) Decided(*graph.Vertex) bool { return false }

func prepare(t *testing.T, c solve.Cache, patience time.Duration) *preparing {
	t.Helper()
	def, err := llb.Image("a").File(llb.Copy(llb.Local("context"), "/f", "/f")).Marshal(t.Context(), llb.LinuxAmd64)
	require.NoError(t, err)
	b := &graph.Builder{}
	_, err = b.Add(def.ToPB())
	require.NoError(t, err)
	w := &preparing{began: make(chan struct{}), patience: patience}
	_, err = solve.Solve(t.Context(), b.Graph(), solve.Options{Cache: c,
		Resolve: func(v *graph.Vertex) (solve.Op, error) { return preparingOp{w, v}, nil }})
	require.NoError(t, err)
	return w
}

func TestABaseIsPreparedWhileTheContextIsRead(t *testing.T) {
	w := prepare(t, nil, time.Minute)
	require.True(t, w.early.Load())
	require.EqualValues(t, 1, w.prepared.Load())
	require.True(t, w.certain.Load())
}

func TestABaseIsNotCertainToBeReadWhereTheCacheMaySpareIt(t *testing.T) {
	c := &undecided{toyCache{t: newToys(), saved: map[string]context.Context{}}}
	w := prepare(t, c, time.Minute)
	require.EqualValues(t, 1, w.prepared.Load())
	require.False(t, w.certain.Load())
}
