package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerwright/layerwright/core/internal/layer"
	"github.com/layerwright/layerwright/core/internal/ops"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/snapshot"
)

// squash makes one layer of all that the build has put on its base
// (Outputs.SingleSnapshot): they are applied to the base's tree once more, and
// what has changed by that is the layer. Steps keep layers of their own for the
// cache.
func (b *build) squash(ctx context.Context, env *ops.Env, layers []v1.Layer) (_ []v1.Layer, err error) {
	base := b.baseLayers(layers)
	if len(layers)-base < 2 {
		return layers, nil
	}
	defer b.timed("make one layer")()
	defer patience(b.notice, "making one layer of all steps (--single-snapshot)")()
	claim := env.Store.FromLayers(layers[:base]).Claims([]int{0})[0]
	tree, err := claim.Mutate(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, tree.Discard()) }() // nothing after Commit
	for _, l := range layers[base:] {
		if err := applyTo(ctx, tree.Dir(), l); err != nil {
			return nil, err
		}
	}
	state, err := tree.Commit(ctx, snapshot.Changes{Ignore: b.req.IgnorePaths}, env.Capture(progress.Step{Name: "single snapshot"}, b.sendAhead))
	if err != nil {
		return nil, err
	}
	all := state.Layers()
	one := all[len(all)-1]
	if _, err := one.DiffID(); err != nil { // waits until it is complete
		return nil, err
	}
	state.Claims(nil) // nobody needs the tree any more
	b.mu.Lock()
	b.made[one] = madeLayer{created: time.Now(), description: "layerwright --single-snapshot", final: true}
	b.mu.Unlock()
	if b.push != nil {
		b.push.Offer(one)
	}
	return all, nil
}

// baseLayers counts the layers at the bottom that the build has not made.
func (b *build) baseLayers(layers []v1.Layer) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, l := range layers {
		if _, ok := b.made[l]; ok {
			return i
		}
	}
	return len(layers)
}

func applyTo(ctx context.Context, dir string, l v1.Layer) (err error) {
	rc, err := l.Uncompressed()
	if err != nil {
		return fmt.Errorf("open layer: %w", err)
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	return layer.Apply(ctx, dir, rc, layer.ApplyOptions{})
}

// squashHistory leaves one of the build's own entries with a layer, the last that
// has one; base counts the layers below.
func squashHistory(config []byte, base int) ([]byte, error) {
	m := map[string]json.RawMessage{}
	if err := json.Unmarshal(config, &m); err != nil {
		return nil, fmt.Errorf("decode image configuration: %w", err)
	}
	var history []ocispecs.History
	if raw, ok := m["history"]; ok {
		if err := json.Unmarshal(raw, &history); err != nil {
			return nil, fmt.Errorf("decode history: %w", err)
		}
	}
	last, n := -1, 0
	for i := range history {
		if history[i].EmptyLayer {
			continue
		}
		if n++; n > base {
			if last >= 0 {
				history[last].EmptyLayer = true
			}
			last = i
		}
	}
	raw, err := json.Marshal(history)
	if err != nil {
		return nil, fmt.Errorf("encode history: %w", err)
	}
	m["history"] = raw
	return json.Marshal(m)
}
