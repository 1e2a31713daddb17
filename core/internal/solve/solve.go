// Package solve owns the scheduler: it runs the vertices of a graph in
// dependency order, identical ones once, independent ones concurrently,
// unneeded ones never, and hands results to their consumers. It knows neither
// containers nor registries, and is tested with toy ops.
package solve

import (
	"context"

	"github.com/layerwright/layerwright/core/internal/graph"
)

// Result is one output of a vertex, opaque to the scheduler.
type Result interface {
	// Claims splits the result among its consumers and is called exactly
	// once, when the vertex is done. owners are in ascending order; a consumer
	// that uses the output twice is in it twice. Outputs of the build (roots)
	// come last, with indexes beyond those of all vertices.
	Claims(owners []Owner) []Claim
}

// Owner is a consumer of a result.
type Owner struct {
	// Index is its vertex's.
	Index int
	// Reads says that what the result's files contain may matter, to the consumer
	// or to those that continue from what it yields (graph.Reads).
	Reads bool
}

// Claim is one consumer's hold on a Result. The scheduler releases every claim
// when its consumer has ended, or will never run.
type Claim interface{ Release() }

// Preparer is a Claim on something that may take its time to be made ready: it is,
// while the consumer still waits for its other inputs.
type Preparer interface {
	Claim
	// Prepare makes it ready, before the consumer runs. Where it is not certain that
	// it will, nothing is to be fetched for it. What goes wrong is the consumer's to
	// find again.
	Prepare(ctx context.Context, certain bool)
}

// Op carries out one vertex.
type Op interface {
	// Run gets a claim for each of the vertex's inputs, in order, and
	// returns a result for each of its outputs (those that nobody consumes
	// included). It must return soon after ctx is cancelled, with
	// context.Cause(ctx).
	Run(ctx context.Context, inputs []Claim) ([]Result, error)
}

// Resolver finds the Op for a vertex. It is called for every needed vertex
// before the first one runs, so that what is not supported is found out early.
type Resolver func(v *graph.Vertex) (Op, error)

// Cache knows results of earlier builds. The scheduler asks, and decides
// nothing: what a result is known by is the cache's own matter. No method fails:
// a cache that cannot answer knows nothing.
type Cache interface {
	// Known is asked once, before anything runs, for the vertices that the
	// roots may need, in graph order. What is needed only by vertices that it
	// knows the results of will not run.
	Known(ctx context.Context, vertices []*graph.Vertex) map[*graph.Vertex][]Result
	// Lookup is asked for a vertex that Known did not know, when its inputs
	// are there. The claims are for looking only. nil is a miss.
	Lookup(ctx context.Context, v *graph.Vertex, inputs []Claim) []Result
	// Decided says that Lookup will not know the vertex either. It is asked when
	// the vertex that this one continues from (graph.Base) has ended.
	Decided(v *graph.Vertex) bool
	// Save is told what a vertex that ran has yielded, before any consumer
	// is. It must not block: the work goes on in the background, also when
	// the solve fails, until ctx ends.
	Save(ctx context.Context, v *graph.Vertex, results []Result)
}

// noCache knows nothing.
type noCache struct{}

func (noCache) Known(context.Context, []*graph.Vertex) map[*graph.Vertex][]Result { return nil }
func (noCache) Lookup(context.Context, *graph.Vertex, []Claim) []Result           { return nil }
func (noCache) Decided(*graph.Vertex) bool                                        { return true }
func (noCache) Save(context.Context, *graph.Vertex, []Result)                     {}
