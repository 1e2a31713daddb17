package solve

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// Options of Solve. Resolve is required.
type Options struct {
	Resolve Resolver
	// Cache may be nil.
	Cache Cache
	// Progress takes Plan, Started and Done events; nil drops them.
	Progress progress.Sink
	// Begin is called before anything runs, with the vertices that will: one of
	// them may still turn out to be known. Its error is Solve's. May be nil.
	Begin func(ctx context.Context, running []*graph.Vertex) error
	// Unread says that nobody reads what files of the roots' trees contain: only
	// their layers are wanted.
	Unread bool
}

// Solve runs what the roots of the graph need and returns a claim for each
// root, in order (nil for a root without a vertex). The first failure cancels
// everything else and is what is returned, with the Dockerfile location of its
// vertex; when outer is cancelled the error is its cause. On an error no claim is
// left.
func Solve(outer context.Context, g *graph.Graph, opts Options) ([]Claim, error) {
	if opts.Progress == nil {
		opts.Progress = progress.Discard
	}
	if opts.Cache == nil {
		opts.Cache = noCache{}
	}
	s, err := newRun(outer, g, opts)
	if err != nil {
		return nil, err
	}
	if err := s.begin(outer); err != nil {
		return nil, err
	}
	// What is done is worth saving also when a later step fails.
	s.save = func(v *graph.Vertex, results []Result) { opts.Cache.Save(outer, v, results) }
	// Not cancelled on success: layers may still be in the making, and end with
	// the caller's context.
	ctx, cancel := context.WithCancelCause(context.WithValue(outer, wholeKey{}, outer))
	s.cancel = cancel
	s.announce()
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

// begin tells who wants to know what will run.
func (s *run) begin(ctx context.Context) error {
	if s.opts.Begin == nil {
		return nil
	}
	var running []*graph.Vertex
	for _, n := range s.order {
		if n.known == nil {
			running = append(running, n.v)
		}
	}
	return s.opts.Begin(ctx, running)
}

// run is one solve.
type run struct {
	opts  Options
	nodes map[*graph.Vertex]*node
	order []*node
	// plan is every step of the graph that the roots depend on; spared are
	// those of them that need not run, because what needs them is known.
	plan, spared []progress.Step

	save    func(v *graph.Vertex, results []Result)
	cancel  context.CancelCauseFunc
	once    sync.Once
	failure error
}

// node is a vertex that is needed.
type node struct {
	v    *graph.Vertex
	op   Op
	step progress.Step
	// known is the result from the cache; nil if the vertex runs.
	known []Result
	// inputs are the vertex's, none if it is known.
	inputs []graph.Edge
	// owners lists, for each output, the consumers, ascending.
	owners map[int][]Owner

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

func newRun(ctx context.Context, g *graph.Graph, opts Options) (*run, error) {
	s := &run{opts: opts, nodes: map[*graph.Vertex]*node{}}
	all := needed(g, nil)
	var vertices []*graph.Vertex
	for _, v := range g.Vertices {
		if all[v] {
			vertices = append(vertices, v)
		}
	}
	ops := map[*graph.Vertex]Op{}
	for _, v := range vertices {
		// Also what the cache knows: whether a build is refused must not
		// depend on what others have built.
		op, err := opts.Resolve(v)
		if err != nil {
			return nil, fault.At(err, v.Location)
		}
		ops[v] = op
	}
	known := opts.Cache.Known(ctx, vertices)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	rest := needed(g, known)
	// Vertices are in topological order, so consumers come ascending.
	for i, v := range vertices {
		step := progress.Step{ID: v.Digest.String(), Number: i + 1, Name: v.Name, Location: v.Location}
		s.plan = append(s.plan, step)
		if !rest[v] {
			s.spared = append(s.spared, step)
			continue
		}
		n := &node{v: v, op: ops[v], step: step, known: known[v], owners: map[int][]Owner{}, done: make(chan struct{}), claims: map[int][]owned{}}
		if n.known == nil {
			n.inputs = v.Inputs
		}
		s.nodes[v] = n
		s.order = append(s.order, n)
		for _, in := range n.inputs {
			from := s.nodes[in.Vertex]
			if from == nil {
				return nil, fmt.Errorf("graph is not in topological order at %s", v.Name)
			}
			from.owners[in.Output] = append(from.owners[in.Output], Owner{Index: v.Index, Reads: true})
		}
	}
	for i, r := range g.Roots {
		if r.Vertex != nil {
			n := s.nodes[r.Vertex]
			n.owners[r.Output] = append(n.owners[r.Output], Owner{Index: len(g.Vertices) + i, Reads: !opts.Unread})
		}
	}
	s.findReaders()
	return s, nil
}

// findReaders says of every owner whether what files contain matters to it: it
// does not to one that only adds files, unless it does to an owner of the result.
func (s *run) findReaders() {
	for _, n := range slices.Backward(s.order) { // consumers come first
		passed := false
		for _, owners := range n.owners {
			passed = passed || slices.ContainsFunc(owners, func(o Owner) bool { return o.Reads })
		}
		for _, in := range n.inputs {
			owners := s.nodes[in.Vertex].owners[in.Output]
			for i := range owners {
				if owners[i].Index == n.v.Index {
					owners[i].Reads = passed || graph.Reads(n.v, in)
				}
			}
		}
	}
}

// needed are the vertices that the roots depend on, not beyond known ones.
func needed(g *graph.Graph, known map[*graph.Vertex][]Result) map[*graph.Vertex]bool {
	out := map[*graph.Vertex]bool{}
	todo := slices.Clone(g.Roots)
	for len(todo) > 0 {
		v := todo[len(todo)-1].Vertex
		todo = todo[:len(todo)-1]
		if v == nil || out[v] {
			continue
		}
		out[v] = true
		if known[v] == nil {
			todo = append(todo, v.Inputs...)
		}
	}
	return out
}

// announce tells what may run, and what need not.
func (s *run) announce() {
	s.opts.Progress.Emit(progress.Plan{Steps: s.plan})
	for _, step := range s.spared {
		s.opts.Progress.Emit(progress.Done{Step: step, Cached: true, Time: time.Now()})
	}
}

// node waits for the inputs of a vertex, runs it, and hands out its results.
func (s *run) node(ctx context.Context, n *node) {
	defer close(n.done)
	defer s.prepareBase(ctx, n)()
	for _, in := range n.inputs {
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
	inputs := make([]Claim, len(n.inputs))
	for i, in := range n.inputs {
		inputs[i] = s.nodes[in.Vertex].take(in.Output, n.v.Index)
	}
	start := time.Now()
	s.opts.Progress.Emit(progress.Started{Step: n.step, Time: start})
	ctx = withStep(ctx, n.step)
	results, cached, err := s.result(ctx, n, inputs)
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
	s.opts.Progress.Emit(progress.Done{Step: n.step, Err: err, Cached: cached && err == nil, Time: now, Duration: now.Sub(start)})
	if err != nil {
		s.fail(fault.At(err, s.place(n.v)))
		return
	}
	n.ok = true
}

// prepareBase has the tree that a vertex continues from made ready while its other
// inputs are in the making; without a download where the cache may still spare it.
// end returns when nobody is at it any more.
func (s *run) prepareBase(ctx context.Context, n *node) (end func()) {
	base, ok := graph.Base(n.v)
	if !ok || len(n.inputs) < 2 || !slices.Contains(n.inputs, base) {
		return func() {}
	}
	from := s.nodes[base.Vertex]
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-from.done:
		case <-ctx.Done():
			return
		}
		if !from.ok || ctx.Err() != nil {
			return
		}
		if c, ok := from.look(base.Output, n.v.Index).(Preparer); ok {
			// The step has not begun: it is the build's work.
			defer progress.Timed(s.opts.Progress, progress.Step{}, "prepare tree ahead")()
			c.Prepare(ctx, s.opts.Cache.Decided(n.v))
		}
	})
	return func() {
		stop()
		wg.Wait()
	}
}

// result is what the cache knows of a vertex, or what it yields when it runs.
func (s *run) result(ctx context.Context, n *node, inputs []Claim) (results []Result, cached bool, err error) {
	if n.known != nil {
		return n.known, true, nil
	}
	if known := s.opts.Cache.Lookup(ctx, n.v, inputs); known != nil {
		return known, true, nil
	}
	if results, err = runOp(ctx, n.op, inputs); err == nil {
		s.save(n.v, results)
	}
	return results, false, err
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

// place is where a vertex comes from, or else who needs it first: what an
// instruction fetches (ADD of a URL) has no place of its own.
func (s *run) place(v *graph.Vertex) *fault.Location {
	if v.Location != nil {
		return v.Location
	}
	for _, n := range s.order { // consumers come later, so this ends
		for _, in := range n.v.Inputs {
			if in.Vertex == v {
				return s.place(n.v)
			}
		}
	}
	return nil
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
			n.claims[output] = append(n.claims[output], owned{owners[i].Index, c})
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

// look shows the claim that an owner will take, nil if it has.
func (n *node) look(output, owner int) Claim {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, o := range n.claims[output] {
		if o.owner == owner {
			return o.claim
		}
	}
	return nil
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

type wholeKey struct{}

// Whole gives an Op a context that ends with the build instead of with the first
// failure of any step: for what should be finished although the build fails, a
// layer for the cache.
func Whole(ctx context.Context) context.Context {
	if whole, ok := ctx.Value(wholeKey{}).(context.Context); ok {
		return withStep(whole, StepOf(ctx))
	}
	return ctx
}

func withStep(ctx context.Context, step progress.Step) context.Context {
	return context.WithValue(ctx, stepKey{}, step)
}

// StepOf gives an Op the step that it runs as, for the events it emits.
func StepOf(ctx context.Context) progress.Step {
	step, _ := ctx.Value(stepKey{}).(progress.Step)
	return step
}
