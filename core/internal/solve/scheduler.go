package solve

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// Options of Solve. Resolve is required.
type Options struct {
	Resolve Resolver
	// Progress takes Plan, Started and Done events; nil drops them.
	Progress progress.Sink
}

// Solve runs what the roots of the graph need and returns a claim for each
// root, in order (nil for a root without a vertex). The first failure cancels
// everything else and is what is returned, with the Dockerfile location of its
// vertex; when ctx is cancelled the error is its cause. On an error no claim is
// left.
func Solve(ctx context.Context, g *graph.Graph, opts Options) ([]Claim, error) {
	if opts.Progress == nil {
		opts.Progress = progress.Discard
	}
	s, err := newRun(g, opts)
	if err != nil {
		return nil, err
	}
	// Not cancelled on success: layers may still be in the making, and end with
	// the caller's context.
	ctx, s.cancel = context.WithCancelCause(ctx)
	steps := make([]progress.Step, 0, len(s.order))
	for _, n := range s.order {
		steps = append(steps, n.step)
	}
	opts.Progress.Emit(progress.Plan{Steps: steps})
	var wg sync.WaitGroup
	for _, n := range s.order {
		wg.Go(func() { s.node(ctx, n) })
	}
	wg.Wait()
	if s.failure != nil {
		for _, n := range s.order {
			n.releaseRest()
		}
		return nil, s.failure
	}
	claims := make([]Claim, len(g.Roots))
	for i, r := range g.Roots {
		if r.Vertex != nil {
			claims[i] = s.nodes[r.Vertex].take(r.Output, len(g.Vertices)+i)
		}
	}
	return claims, nil
}

// run is one solve.
type run struct {
	opts  Options
	nodes map[*graph.Vertex]*node
	order []*node

	cancel  context.CancelCauseFunc
	once    sync.Once
	failure error
}

// node is a vertex that is needed.
type node struct {
	v    *graph.Vertex
	op   Op
	step progress.Step
	// owners lists, for each output, the consumers' indexes, ascending.
	owners map[int][]int

	// done is closed when the vertex has ended; ok says how.
	done chan struct{}
	ok   bool

	mu     sync.Mutex
	claims map[int][]owned
}

// owned is a claim that its owner has not taken yet.
type owned struct {
	owner int
	claim Claim
}

func newRun(g *graph.Graph, opts Options) (*run, error) {
	s := &run{opts: opts, nodes: map[*graph.Vertex]*node{}}
	needed := map[*graph.Vertex]bool{}
	todo := []*graph.Vertex{}
	for _, r := range g.Roots {
		if r.Vertex != nil {
			todo = append(todo, r.Vertex)
		}
	}
	for len(todo) > 0 {
		v := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if needed[v] {
			continue
		}
		needed[v] = true
		for _, in := range v.Inputs {
			todo = append(todo, in.Vertex)
		}
	}
	// Vertices are in topological order, so consumers come ascending.
	for _, v := range g.Vertices {
		if !needed[v] {
			continue
		}
		op, err := opts.Resolve(v)
		if err != nil {
			return nil, fault.At(err, v.Location)
		}
		n := &node{v: v, op: op, owners: map[int][]int{}, done: make(chan struct{}), claims: map[int][]owned{},
			step: progress.Step{ID: v.Digest.String(), Number: len(s.order) + 1, Name: v.Name, Location: v.Location}}
		s.nodes[v] = n
		s.order = append(s.order, n)
		for _, in := range v.Inputs {
			from := s.nodes[in.Vertex]
			if from == nil {
				return nil, fmt.Errorf("graph is not in topological order at %s", v.Name)
			}
			from.owners[in.Output] = append(from.owners[in.Output], v.Index)
		}
	}
	for i, r := range g.Roots {
		if r.Vertex != nil {
			n := s.nodes[r.Vertex]
			n.owners[r.Output] = append(n.owners[r.Output], len(g.Vertices)+i)
		}
	}
	return s, nil
}

// node waits for the inputs of a vertex, runs it, and hands out its results.
func (s *run) node(ctx context.Context, n *node) {
	defer close(n.done)
	for _, in := range n.v.Inputs {
		select {
		case <-s.nodes[in.Vertex].done:
		case <-ctx.Done():
			s.fail(context.Cause(ctx))
			return
		}
		if !s.nodes[in.Vertex].ok {
			return
		}
	}
	if ctx.Err() != nil {
		s.fail(context.Cause(ctx))
		return
	}
	inputs := make([]Claim, len(n.v.Inputs))
	for i, in := range n.v.Inputs {
		inputs[i] = s.nodes[in.Vertex].take(in.Output, n.v.Index)
	}
	start := time.Now()
	s.opts.Progress.Emit(progress.Started{Step: n.step, Time: start})
	ctx = withStep(ctx, n.step)
	results, err := runOp(ctx, n.op, inputs)
	if err == nil {
		err = n.hand(results)
	}
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = context.Cause(ctx)
	}
	for _, c := range inputs {
		c.Release()
	}
	now := time.Now()
	s.opts.Progress.Emit(progress.Done{Step: n.step, Err: err, Time: now, Duration: now.Sub(start)})
	if err != nil {
		s.fail(fault.At(err, n.v.Location))
		return
	}
	n.ok = true
}

// runOp turns a panic into an error: a defect in one op must not leave the
// others' trees and mounts behind.
func runOp(ctx context.Context, op Op, inputs []Claim) (_ []Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault.New(fault.Internal, "panic: %v\n%s", p, debug.Stack())
		}
	}()
	return op.Run(ctx, inputs)
}

func (s *run) fail(err error) {
	s.once.Do(func() {
		s.failure = err
		s.cancel(err)
	})
}

// hand splits the results among their consumers.
func (n *node) hand(results []Result) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for output := range n.owners {
		if output >= len(results) {
			return fault.New(fault.Internal, "%s has no output %d", n.v.Name, output)
		}
	}
	for output, r := range results {
		owners := n.owners[output]
		for i, c := range r.Claims(owners) {
			n.claims[output] = append(n.claims[output], owned{owners[i], c})
		}
	}
	return nil
}

// take hands an owner one of its claims.
func (n *node) take(output, owner int) Claim {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := n.claims[output]
	for i, o := range list {
		if o.owner == owner {
			n.claims[output] = append(list[:i:i], list[i+1:]...)
			return o.claim
		}
	}
	panic(fmt.Sprintf("solve: %s: no claim of output %d for %d", n.v.Name, output, owner))
}

// releaseRest gives back what nobody will take any more.
func (n *node) releaseRest() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, list := range n.claims {
		for _, o := range list {
			o.claim.Release()
		}
	}
	n.claims = nil
}

type stepKey struct{}

func withStep(ctx context.Context, step progress.Step) context.Context {
	return context.WithValue(ctx, stepKey{}, step)
}

// StepOf gives an Op the step that it runs as, for the events it emits.
func StepOf(ctx context.Context) progress.Step {
	step, _ := ctx.Value(stepKey{}).(progress.Step)
	return step
}
