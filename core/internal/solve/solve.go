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
	// once, when the vertex is done. owners holds each consumer's vertex
	// index in ascending order; a consumer that uses the output twice is in
	// it twice. Outputs of the build (roots) come last, with indexes beyond
	// those of all vertices.
	Claims(owners []int) []Claim
}

// Claim is one consumer's hold on a Result. The scheduler releases every claim
// when its consumer has ended, or will never run.
type Claim interface{ Release() }

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
