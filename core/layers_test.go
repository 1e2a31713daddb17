package core

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/needs"
)

// TestTheSizesOfStepsAreThoseOfTheImagesLayers, whether the steps ran or were known;
// the base's layers belong to no step, and a stage that is only read from has none.
func TestTheSizesOfStepsAreThoseOfTheImagesLayers(t *testing.T) {
	needs.Root(t)
	dir, cache := t.TempDir(), t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	write("small", "a")
	write("Base", "FROM scratch\nCOPY small /base\n")
	write("Dockerfile", "FROM base AS read\nCOPY small /read\nFROM base\nCOPY --from=read /read /got\nCOPY large /large\n")
	large := make([]byte, 1<<16)
	for i := range large {
		large[i] = byte(i * i >> 3)
	}
	write("large", string(large))
	base := filepath.Join(t.TempDir(), "base")
	build := func(file, out string, contexts map[string]string) (*Result, []int64) {
		res, err := Build(t.Context(), Request{Context: dir, Dockerfile: filepath.Join(dir, file), Chosen: "chroot", Snapshots: "flat", Store: t.TempDir(),
			NamedContexts: contexts, Outputs: Outputs{OCILayout: out}, Cache: Cache{Repo: "oci:" + cache, TTL: time.Hour}})
		require.NoError(t, err)
		idx, err := layout.ImageIndexFromPath(out)
		require.NoError(t, err)
		index, err := idx.IndexManifest()
		require.NoError(t, err)
		img, err := idx.Image(index.Manifests[0].Digest)
		require.NoError(t, err)
		manifest, err := img.Manifest()
		require.NoError(t, err)
		var sizes []int64
		for _, l := range manifest.Layers {
			sizes = append(sizes, l.Size)
		}
		return res, sizes
	}
	build("Base", base, nil)
	onBase := map[string]string{"base": "oci-layout://" + base}
	cold, sizes := build("Dockerfile", filepath.Join(t.TempDir(), "out"), onBase)
	require.Len(t, sizes, 3)
	require.Equal(t, []StepLayer{{"[stage-1 1/3] COPY --from=read /read /got", sizes[1]}, {"[stage-1 2/3] COPY large /large", sizes[2]}}, cold.Layers)
	warm, _ := build("Dockerfile", filepath.Join(t.TempDir(), "out"), onBase)
	for _, step := range warm.Cache {
		require.True(t, step.Hit, step)
	}
	require.Equal(t, cold.Layers, warm.Layers)
}
