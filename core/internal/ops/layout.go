package ops

import (
	"context"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerwright/layerwright/core/internal/solve"
)

// layoutOp is FROM and COPY --from of an image in an OCI layout.
type layoutOp struct {
	env           *Env
	store, digest string
	platform      ocispecs.Platform
}

// Run implements solve.Op.
func (o *layoutOp) Run(ctx context.Context, _ []solve.Claim) ([]solve.Result, error) {
	layers, err := o.env.Layouts(ctx, o.store, o.digest, o.platform)
	if err != nil {
		return nil, err
	}
	return []solve.Result{result{o.env.Store.FromLayers(layers)}}, nil
}
