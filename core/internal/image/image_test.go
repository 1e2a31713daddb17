package image_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/image"
)

func layers(t *testing.T, n int) []image.Layer {
	t.Helper()
	var out []image.Layer
	for i := range n {
		l, err := random.Layer(100, types.DockerLayer)
		require.NoError(t, err)
		x := image.Layer{Layer: l}
		if i > 0 {
			x.Created, x.Description = time.Unix(int64(1000*i), 0), "step"
		}
		out = append(out, x)
	}
	return out
}

func config(history string) []byte {
	return []byte(`{"architecture":"amd64","os":"linux","config":{"Env":["A=1"]},"rootfs":{"type":"layers","diff_ids":["sha256:aa"]},"history":` + history + `,"variant-kept":1}`)
}

func TestHistoryAndLayersAgree(t *testing.T) {
	cases := []struct {
		name    string
		history string
		layers  int
		want    []bool // empty_layer of each entry
	}{
		{"one entry a layer", `[{"created_by":"base"},{"created_by":"RUN"}]`, 2, []bool{false, false}},
		{"entries without layers", `[{"created_by":"base"},{"created_by":"ENV","empty_layer":true},{"created_by":"RUN"}]`, 2, []bool{false, true, false}},
		{"layers without entries get one", `[{"created_by":"base"}]`, 3, []bool{false, false, false}},
		{"entries that no layer is left for", `[{"created_by":"base"},{"created_by":"RUN"}]`, 1, []bool{false, true}},
		{"no history at all", `null`, 2, []bool{false, false}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			img, err := image.Assemble(config(c.history), layers(t, c.layers), image.Options{})
			require.NoError(t, err)
			require.NoError(t, validate.Image(img))
			f, err := img.ConfigFile()
			require.NoError(t, err)
			require.Len(t, f.RootFS.DiffIDs, c.layers)
			var empty []bool
			for _, h := range f.History {
				empty = append(empty, h.EmptyLayer)
			}
			require.Equal(t, c.want, empty)
			raw, err := img.RawConfigFile()
			require.NoError(t, err)
			require.Contains(t, string(raw), `"variant-kept":1`, "what we do not know stays")
		})
	}
}

func TestEveryEntryGetsATime(t *testing.T) {
	img, err := image.Assemble(config(`[{"created":"2020-01-01T00:00:00Z","created_by":"base"},{"created_by":"ENV","empty_layer":true},{"created_by":"RUN"},{"created_by":"CMD","empty_layer":true}]`), layers(t, 2), image.Options{})
	require.NoError(t, err)
	var c struct {
		Created time.Time
		History []ocispecs.History
	}
	raw, err := img.RawConfigFile()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &c))
	want := time.Unix(1000, 0).UTC()
	for _, h := range c.History[1:] {
		require.Equal(t, want, *h.Created)
	}
	require.Equal(t, want, c.Created)
}

func TestTheSameInputGivesTheSameBytes(t *testing.T) {
	ls := layers(t, 2)
	var digests []v1.Hash
	for range 3 {
		img, err := image.Assemble(config(`[]`), ls, image.Options{})
		require.NoError(t, err)
		d, err := img.Digest()
		require.NoError(t, err)
		digests = append(digests, d)
	}
	require.Equal(t, digests[0], digests[1])
	require.Equal(t, digests[0], digests[2])
}

func TestMediaTypesAreOfOneFamily(t *testing.T) {
	for docker, want := range map[bool][3]types.MediaType{
		false: {types.OCIManifestSchema1, types.OCIConfigJSON, types.OCILayer},
		true:  {types.DockerManifestSchema2, types.DockerConfigJSON, types.DockerLayer},
	} {
		img, err := image.Assemble(config(`[]`), layers(t, 1), image.Options{Docker: docker})
		require.NoError(t, err)
		m, err := img.Manifest()
		require.NoError(t, err)
		require.Equal(t, want, [3]types.MediaType{m.MediaType, m.Config.MediaType, m.Layers[0].MediaType})
		ls, err := img.Layers()
		require.NoError(t, err)
		mt, err := ls[0].MediaType()
		require.NoError(t, err)
		require.Equal(t, want[2], mt)
	}
	_, err := image.Assemble(config(`[]`), []image.Layer{{Layer: static.NewLayer([]byte("x"), types.OCILayerZStd)}}, image.Options{Docker: true})
	require.ErrorContains(t, err, "--image-format")
}

func TestIndexKeepsThePlatformsInOrder(t *testing.T) {
	var images []v1.Image
	ps := []ocispecs.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64", Variant: "v8"}}
	for _, p := range ps {
		c := strings.Replace(string(config(`[]`)), `"amd64"`, `"`+p.Architecture+`","variant":"`+p.Variant+`"`, 1)
		img, err := image.Assemble([]byte(c), layers(t, 1), image.Options{})
		require.NoError(t, err)
		images = append(images, img)
	}
	idx, err := image.Index(images, ps, image.Options{})
	require.NoError(t, err)
	require.NoError(t, validate.Index(idx))
	m, err := idx.IndexManifest()
	require.NoError(t, err)
	require.Equal(t, "amd64", m.Manifests[0].Platform.Architecture)
	require.Equal(t, "v8", m.Manifests[1].Platform.Variant)
}
