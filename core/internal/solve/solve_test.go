package solve_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/solve"
)

// toys is a world of ops without containers.
type toys struct {
	mu       sync.Mutex
	runs     map[string]int
	released map[string]int
	live     int
	run      map[string]func(ctx context.Context, in []solve.Claim) error
}

func newToys() *toys {
	return &toys{runs: map[string]int{}, released: map[string]int{}, run: map[string]func(context.Context, []solve.Claim) error{}}
}

type toyOp struct {
	t    *toys
	name string
}

func (o toyOp) Run(ctx context.Context, in []solve.Claim) ([]solve.Result, error) {
	o.t.mu.Lock()
	o.t.runs[o.name]++
	f := o.t.run[o.name]
	o.t.mu.Unlock()
	if f != nil {
		if err := f(ctx, in); err != nil {
			return nil, err
		}
	}
	return []solve.Result{&toyResult{t: o.t, name: o.name}}, nil
}

// toyResult checks that owners come ascending and that it is split once.
type toyResult struct {
	t     *toys
	name  string
	split bool
	left  int
	cond  chan struct{}
}

func (r *toyResult) Claims(owners []solve.Owner) []solve.Claim {
	if r.split {
		panic("split twice")
	}
	r.split = true
	r.left, r.cond = len(owners), make(chan struct{})
	var out []solve.Claim
	for i, o := range owners {
		if i > 0 && owners[i-1].Index > o.Index {
			panic("owners are not ascending")
		}
		r.t.mu.Lock()
		r.t.live++
		r.t.mu.Unlock()
		out = append(out, &toyClaim{r: r, last: i == len(owners)-1 && (i == 0 || owners[i-1].Index != o.Index)})
	}
	return out
}

type toyClaim struct {
	r    *toyResult
	last bool
	once sync.Once
}

func (c *toyClaim) Release() {
	c.once.Do(func() {
		c.r.t.mu.Lock()
		defer c.r.t.mu.Unlock()
		c.r.t.live--
		c.r.t.released[c.r.name]++
		c.r.left--
		close(c.r.cond)
		c.r.cond = make(chan struct{})
	})
}

// mutate waits as a change in place does: the last owner for all others.
func (c *toyClaim) mutate(ctx context.Context) error {
	for c.last {
		c.r.t.mu.Lock()
		left, cond := c.r.left, c.r.cond
		c.r.t.mu.Unlock()
		if left <= 1 {
			break
		}
		select {
		case <-cond:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	c.Release()
	return nil
}

// build makes a graph from "name: input input"; roots are the names given.
func build(roots []string, lines ...[]string) *graph.Graph {
	g := &graph.Graph{}
	byName := map[string]*graph.Vertex{}
	for i, l := range lines {
		v := &graph.Vertex{Digest: digest.FromString(l[0]), Index: i, Op: &pb.Op{}, Name: l[0], Location: &fault.Location{File: "Dockerfile", Start: i + 1, End: i + 1}}
		for _, in := range l[1:] {
			v.Inputs = append(v.Inputs, graph.Edge{Vertex: byName[in]})
		}
		byName[l[0]] = v
		g.Vertices = append(g.Vertices, v)
	}
	for _, r := range roots {
		g.Roots = append(g.Roots, graph.Edge{Vertex: byName[r]})
	}
	return g
}

func (t *toys) solve(ctx context.Context, g *graph.Graph) ([]solve.Claim, error) {
	return solve.Solve(ctx, g, solve.Options{Resolve: func(v *graph.Vertex) (solve.Op, error) { return toyOp{t, v.Name}, nil }})
}

func TestEachNeededVertexRunsOnceAndUnneededNever(t *testing.T) {
	w := newToys()
	g := build([]string{"top"}, []string{"base"}, []string{"left", "base"}, []string{"right", "base"}, []string{"unneeded", "base"}, []string{"top", "left", "right"})
	claims, err := w.solve(t.Context(), g)
	require.NoError(t, err)
	require.Equal(t, map[string]int{"base": 1, "left": 1, "right": 1, "top": 1}, w.runs)
	require.Equal(t, 1, w.live, "only the root's claim is left")
	claims[0].Release()
	require.Zero(t, w.live)
}

func TestIndependentVerticesRunAtOnce(t *testing.T) {
	w := newToys()
	var barrier sync.WaitGroup
	barrier.Add(3)
	for _, n := range []string{"a", "b", "c"} {
		w.run[n] = func(ctx context.Context, _ []solve.Claim) error {
			barrier.Done()
			met := make(chan struct{})
			go func() { barrier.Wait(); close(met) }()
			select {
			case <-met:
				return nil
			case <-time.After(20 * time.Second):
				return errors.New("waited in vain for the others")
			}
		}
	}
	_, err := w.solve(t.Context(), build([]string{"top"}, []string{"a"}, []string{"b"}, []string{"c"}, []string{"top", "a", "b", "c"}))
	require.NoError(t, err)
}

func TestFirstFailureStopsTheRestAndNamesItsLine(t *testing.T) {
	w := newToys()
	broken := errors.New("broken")
	w.run["fails"] = func(context.Context, []solve.Claim) error { return broken }
	w.run["slow"] = func(ctx context.Context, _ []solve.Claim) error { <-ctx.Done(); return context.Cause(ctx) }
	_, err := w.solve(t.Context(), build([]string{"top"}, []string{"base"}, []string{"slow", "base"}, []string{"fails", "base"}, []string{"top", "slow", "fails"}))
	require.ErrorIs(t, err, broken)
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, "Dockerfile:3", e.Location.String())
	require.Zero(t, w.runs["top"])
	require.Zero(t, w.live, "no claim is left")
}

func TestCancelGivesTheCause(t *testing.T) {
	w := newToys()
	signal := errors.New("ended by a signal")
	ctx, cancel := context.WithCancelCause(t.Context())
	w.run["base"] = func(ctx context.Context, _ []solve.Claim) error { cancel(signal); <-ctx.Done(); return ctx.Err() }
	_, err := w.solve(ctx, build([]string{"top"}, []string{"base"}, []string{"top", "base"}))
	require.ErrorIs(t, err, signal)
	require.Zero(t, w.live)
}

func TestAPanicIsAnErrorOfOurs(t *testing.T) {
	w := newToys()
	w.run["base"] = func(context.Context, []solve.Claim) error { panic("oops") }
	_, err := w.solve(t.Context(), build([]string{"base"}, []string{"base"}))
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.Internal, e.Kind)
	require.ErrorContains(t, err, "oops")
}

func TestWhatIsNotSupportedIsFoundOutBeforeAnythingRuns(t *testing.T) {
	w := newToys()
	g := build([]string{"top"}, []string{"base"}, []string{"top", "base"})
	_, err := solve.Solve(t.Context(), g, solve.Options{Resolve: func(v *graph.Vertex) (solve.Op, error) {
		if v.Name == "top" {
			return nil, fault.New(fault.User, "not supported")
		}
		return toyOp{w, v.Name}, nil
	}})
	require.ErrorContains(t, err, "Dockerfile:2: not supported")
	require.Empty(t, w.runs)
}

// TestEventsTellTheWholeStory: a plan, then a start and an end for each step.
func TestEventsTellTheWholeStory(t *testing.T) {
	w := newToys()
	sink := &events{}
	g := build([]string{"top"}, []string{"base"}, []string{"top", "base"})
	_, err := solve.Solve(t.Context(), g, solve.Options{Progress: sink, Resolve: func(v *graph.Vertex) (solve.Op, error) { return toyOp{w, v.Name}, nil }})
	require.NoError(t, err)
	require.Equal(t, []string{"plan 2", "start 1 base", "done 1 base", "start 2 top", "done 2 top"}, sink.list)
}

type events struct {
	mu   sync.Mutex
	list []string
}

func (e *events) Emit(ev progress.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch ev := ev.(type) {
	case progress.Plan:
		e.list = append(e.list, fmt.Sprintf("plan %d", len(ev.Steps)))
	case progress.Started:
		e.list = append(e.list, fmt.Sprintf("start %d %s", ev.Step.Number, ev.Step.Name))
	case progress.Done:
		e.list = append(e.list, fmt.Sprintf("done %d %s", ev.Step.Number, ev.Step.Name))
	}
}

// TestChangesInPlaceNeverDeadlock: on random graphs, where every vertex reads
// all its inputs and changes one of them in place by the rule of claims, the
// solve ends.
func TestChangesInPlaceNeverDeadlock(t *testing.T) {
	for seed := range int64(200) {
		r := rand.New(rand.NewSource(seed))
		w := newToys()
		n := 2 + r.Intn(25)
		var lines [][]string
		for i := range n {
			l := []string{fmt.Sprint(i)}
			if i > 0 {
				for range r.Intn(4) {
					l = append(l, fmt.Sprint(r.Intn(i)))
				}
			}
			lines = append(lines, l)
			first := r.Intn(3)
			w.run[l[0]] = func(ctx context.Context, in []solve.Claim) error {
				if len(in) == 0 {
					return nil
				}
				if r := first % len(in); in[r] != nil {
					return in[r].(*toyClaim).mutate(ctx)
				}
				return nil
			}
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Second, fmt.Errorf("seed %d: deadlock", seed))
		claims, err := w.solve(ctx, build([]string{fmt.Sprint(n - 1), "0"}, lines...))
		require.NoError(t, err)
		for _, c := range claims {
			c.Release()
		}
		require.Zero(t, w.live)
		cancel()
	}
}

func TestNoGoroutineIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 20 {
		w := newToys()
		w.run["b"] = func(context.Context, []solve.Claim) error { return errors.New("x") }
		_, err := w.solve(t.Context(), build([]string{"c"}, []string{"a"}, []string{"b", "a"}, []string{"c", "b"}))
		require.Error(t, err)
	}
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+2 }, 10*time.Second, 10*time.Millisecond)
}

func TestAnErrorHasThePlaceOfWhoNeedsIt(t *testing.T) {
	w := newToys()
	g := build([]string{"top"}, []string{"fetch"}, []string{"add", "fetch"}, []string{"top", "add"})
	g.Vertices[0].Location = nil // as a URL's
	w.run["fetch"] = func(context.Context, []solve.Claim) error { return errors.New("404") }
	_, err := w.solve(t.Context(), g)
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, "Dockerfile:2", e.Location.String())
}
