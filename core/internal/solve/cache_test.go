package solve_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/solve"
)

// toyCache knows vertices by name, before anything runs or when they are looked
// up, and remembers what it is told.
type toyCache struct {
	t             *toys
	early, late   []string
	mu            sync.Mutex
	asked, looked []string
	saved         map[string]context.Context
}

func (c *toyCache) Known(_ context.Context, vertices []*graph.Vertex) map[*graph.Vertex][]solve.Result {
	out := map[*graph.Vertex][]solve.Result{}
	for _, v := range vertices {
		c.asked = append(c.asked, v.Name)
		if slices.Contains(c.early, v.Name) {
			out[v] = []solve.Result{&toyResult{t: c.t, name: v.Name}}
		}
	}
	return out
}

func (c *toyCache) Lookup(_ context.Context, v *graph.Vertex, inputs []solve.Claim) []solve.Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looked = append(c.looked, v.Name)
	if len(inputs) == len(v.Inputs) && slices.Contains(c.late, v.Name) {
		return []solve.Result{&toyResult{t: c.t, name: v.Name}}
	}
	return nil
}

func (c *toyCache) Decided(v *graph.Vertex) bool { return !slices.Contains(c.late, v.Name) }

func (c *toyCache) Save(ctx context.Context, v *graph.Vertex, _ []solve.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.saved[v.Name] = ctx
}

// watched counts how steps ended.
type watched struct {
	mu     sync.Mutex
	plan   []string
	cached []string
	done   []string
}

func (w *watched) Emit(e progress.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch e := e.(type) {
	case progress.Plan:
		for _, s := range e.Steps {
			w.plan = append(w.plan, s.Name)
		}
	case progress.Done:
		if e.Cached {
			w.cached = append(w.cached, e.Step.Name)
		} else {
			w.done = append(w.done, e.Step.Name)
		}
	}
}

func (t *toys) solveWith(ctx context.Context, g *graph.Graph, c *toyCache) (*watched, []solve.Claim, error) {
	c.t, c.saved = t, map[string]context.Context{}
	w := &watched{}
	claims, err := solve.Solve(ctx, g, solve.Options{Cache: c, Progress: w, Resolve: func(v *graph.Vertex) (solve.Op, error) { return toyOp{t, v.Name}, nil }})
	slices.Sort(w.cached)
	slices.Sort(w.done)
	return w, claims, err
}

// diamond is base ─ stage ─ copied ─ top, with base ─ copied as well.
func diamond() *graph.Graph {
	return build([]string{"top"}, []string{"base"}, []string{"stage", "base"}, []string{"copied", "base", "stage"}, []string{"top", "copied"})
}

func TestAKnownRootNeedsNothingElse(t *testing.T) {
	w := newToys()
	c := &toyCache{early: []string{"top"}}
	seen, claims, err := w.solveWith(t.Context(), diamond(), c)
	require.NoError(t, err)
	require.Empty(t, w.runs)
	require.Equal(t, []string{"base", "stage", "copied", "top"}, c.asked)
	require.Equal(t, []string{"base", "stage", "copied", "top"}, seen.plan)
	require.Equal(t, []string{"base", "copied", "stage", "top"}, seen.cached)
	require.Empty(t, c.saved)
	require.Len(t, claims, 1)
	claims[0].Release()
	require.Zero(t, w.live)
}

func TestWhatOnlyAKnownVertexNeedsDoesNotRun(t *testing.T) {
	w := newToys()
	c := &toyCache{early: []string{"copied"}}
	seen, claims, err := w.solveWith(t.Context(), diamond(), c)
	require.NoError(t, err)
	require.Equal(t, map[string]int{"top": 1}, w.runs)
	require.Equal(t, []string{"base", "copied", "stage"}, seen.cached)
	require.Equal(t, []string{"top"}, seen.done)
	require.Contains(t, c.saved, "top")
	claims[0].Release()
	require.Zero(t, w.live)
}

func TestAVertexMayBeKnownWhenItsInputsAre(t *testing.T) {
	w := newToys()
	c := &toyCache{late: []string{"copied"}}
	seen, claims, err := w.solveWith(t.Context(), diamond(), c)
	require.NoError(t, err)
	require.Equal(t, map[string]int{"base": 1, "stage": 1, "top": 1}, w.runs)
	require.Equal(t, []string{"copied"}, seen.cached)
	require.NotContains(t, c.saved, "copied")
	claims[0].Release()
	require.Zero(t, w.live, "the claims on its inputs were released")
}

func TestWhatIsDoneIsSavedThoughALaterStepFails(t *testing.T) {
	w := newToys()
	failure := errors.New("no")
	w.run["top"] = func(context.Context, []solve.Claim) error { return failure }
	c := &toyCache{}
	_, _, err := w.solveWith(t.Context(), diamond(), c)
	require.ErrorIs(t, err, failure)
	require.Len(t, c.saved, 3)
	for name, ctx := range c.saved {
		require.NoError(t, ctx.Err(), "saving %s goes on", name)
	}
	require.Zero(t, w.live)
}
