package image

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
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

	"github.com/layerwright/layerwright/core/internal/fault"
)

// known is a layer of which only the identity matters.
type known struct {
	v1.Layer
	diffID v1.Hash
}

func (k known) DiffID() (v1.Hash, error) { return k.diffID, nil }

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return data
}

// recorded are the layers that a configuration made by buildkitd 0.34.2 speaks
// of, with the times at which they were made.
func recorded(t *testing.T, config []byte, base int) []Layer {
	t.Helper()
	var img ocispecs.Image
	require.NoError(t, json.Unmarshal(config, &img))
	var out []Layer
	for _, h := range img.History {
		if h.EmptyLayer {
			continue
		}
		d, err := v1.NewHash(string(img.RootFS.DiffIDs[len(out)]))
		require.NoError(t, err)
		l := Layer{Layer: known{static.NewLayer([]byte(d.String()), types.OCILayer), d}, Description: h.CreatedBy}
		if len(out) >= base {
			l.Created = *h.Created
		}
		out = append(out, l)
	}
	require.Len(t, out, len(img.RootFS.DiffIDs))
	return out
}

// The files in testdata: X.Dockerfile was built by buildkitd 0.34.2;
// X.buildkit.json is the configuration that it exported, X.frontend.json the
// one that its frontend gave.
func TestConfigIsByteForByteThatOfBuildKit(t *testing.T) {
	for name, base := range map[string]int{"run": 1, "scratch": 0, "meta": 1, "empty": 0, "context": 0} {
		t.Run(name, func(t *testing.T) {
			want := read(t, name+".buildkit.json")
			img, err := Assemble(read(t, name+".frontend.json"), recorded(t, want, base), Options{})
			require.NoError(t, err)
			got, err := img.RawConfigFile()
			require.NoError(t, err)
			require.Equal(t, string(want), string(got))
		})
	}
}

const minimal = `{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]},"history":%HISTORY%}`

func config(history string) []byte {
	return []byte(strings.Replace(minimal, "%HISTORY%", history, 1))
}

func randoms(t *testing.T, n int, mt types.MediaType) []Layer {
	t.Helper()
	var out []Layer
	for i := range n {
		l, err := random.Layer(100, mt)
		require.NoError(t, err)
		out = append(out, Layer{Layer: l, Created: time.Unix(1000+int64(i), 0), Description: "step"})
	}
	return out
}

func TestHistoryAgreesWithLayers(t *testing.T) {
	for _, c := range []struct {
		name, history string
		layers        int
		want          []string // created_by, with "-" before entries without a layer
	}{
		{"entries and layers match", `[{"created_by":"a"},{"created_by":"b","empty_layer":true},{"created_by":"c"}]`, 2, []string{"a", "-b", "c"}},
		{"a layer too many gets an entry", `[{"created_by":"a"}]`, 2, []string{"a", "step"}},
		{"an entry too many has no layer", `[{"created_by":"a"},{"created_by":"b"}]`, 1, []string{"a", "-b"}},
		{"no history at all", `null`, 2, []string{"step", "step"}},
		{"no layer at all", `[{"created_by":"a","empty_layer":true}]`, 0, []string{"-a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			img, err := Assemble(config(c.history), randoms(t, c.layers, types.OCILayer), Options{})
			require.NoError(t, err)
			cf, err := img.ConfigFile()
			require.NoError(t, err)
			var got []string
			for _, h := range cf.History {
				if h.EmptyLayer {
					h.CreatedBy = "-" + h.CreatedBy
				}
				got = append(got, h.CreatedBy)
			}
			require.Equal(t, c.want, got)
			require.Len(t, cf.RootFS.DiffIDs, c.layers)
		})
	}
}

func TestImageIsValidAndReproducible(t *testing.T) {
	layers := randoms(t, 3, types.OCILayer)
	c := config(`[{"created_by":"a"},{"created_by":"b"},{"created_by":"c"}]`)
	img, err := Assemble(c, layers, Options{})
	require.NoError(t, err)
	require.NoError(t, validate.Image(img))
	again, err := Assemble(c, layers, Options{})
	require.NoError(t, err)
	a, err := img.Digest()
	require.NoError(t, err)
	b, err := again.Digest()
	require.NoError(t, err)
	require.Equal(t, a, b)
}

func TestLayersTakeTheManifestsFamily(t *testing.T) {
	zstd := types.MediaType("application/vnd.docker.image.rootfs.diff.tar.zstd")
	for _, c := range []struct {
		from   types.MediaType
		docker bool
		want   types.MediaType
	}{
		{types.DockerLayer, false, types.OCILayer},
		{types.DockerUncompressedLayer, false, types.OCIUncompressedLayer},
		{types.DockerForeignLayer, false, types.OCIRestrictedLayer},
		{zstd, false, types.OCILayerZStd},
		{types.OCILayerZStd, false, types.OCILayerZStd},
		{types.OCILayer, true, types.DockerLayer},
		{types.OCIUncompressedLayer, true, types.DockerUncompressedLayer},
		{types.OCILayer, false, types.OCILayer},
	} {
		img, err := Assemble(config(`null`), randoms(t, 1, c.from), Options{Docker: c.docker})
		require.NoError(t, err)
		m, err := img.Manifest()
		require.NoError(t, err)
		require.Equal(t, c.want, m.Layers[0].MediaType, c.from)
		ls, err := img.Layers()
		require.NoError(t, err)
		mt, err := ls[0].MediaType()
		require.NoError(t, err)
		require.Equal(t, c.want, mt)
		if c.docker {
			require.Equal(t, types.DockerManifestSchema2, m.MediaType)
			require.Equal(t, types.DockerConfigJSON, m.Config.MediaType)
		}
	}
	for _, mt := range []types.MediaType{types.OCILayerZStd, zstd} {
		_, err := Assemble(config(`null`), randoms(t, 1, mt), Options{Docker: true})
		e, ok := fault.As(err)
		require.True(t, ok)
		require.Equal(t, fault.Usage, e.Kind)
		require.NotEmpty(t, e.Remedy)
	}
}

func TestBadConfigurationIsAnError(t *testing.T) {
	for _, c := range []string{``, `null`, `[]`, `{}`, `{"os":"linux"}`, `{"architecture":"amd64"}`, `{"os":1}`, `{"os":"linux","architecture":"amd64","history":3}`} {
		_, err := Assemble([]byte(c), nil, Options{})
		require.Error(t, err, c)
	}
}

// Layers are asked for their digests only: bytes flow when somebody reads them.
func TestNothingIsReadToAssemble(t *testing.T) {
	l := unread{static.NewLayer([]byte("x"), types.OCILayer), t}
	img, err := Assemble(config(`null`), []Layer{{Layer: l}}, Options{})
	require.NoError(t, err)
	_, err = img.Digest()
	require.NoError(t, err)
}

type unread struct {
	v1.Layer
	t *testing.T
}

func (u unread) DiffID() (v1.Hash, error) { return v1.NewHash("sha256:" + strings.Repeat("1", 64)) }
func (u unread) Compressed() (io.ReadCloser, error) {
	u.t.Error("a layer was read")
	return io.NopCloser(bytes.NewReader(nil)), nil
}
func (u unread) Uncompressed() (io.ReadCloser, error) { return u.Compressed() }

func TestIndexKeepsOrderAndPlatforms(t *testing.T) {
	for _, docker := range []bool{false, true} {
		var list []v1.Image
		ps := []ocispecs.Platform{{OS: "linux", Architecture: "arm", Variant: "v7"}, {OS: "linux", Architecture: "amd64"}}
		for _, p := range ps {
			c := bytes.Replace(config(`null`), []byte(`"amd64"`), []byte(`"`+p.Architecture+`","variant":"`+p.Variant+`"`), 1)
			img, err := Assemble(c, randoms(t, 1, types.OCILayer), Options{Docker: docker})
			require.NoError(t, err)
			list = append(list, img)
		}
		idx, err := Index(list, ps, Options{Docker: docker})
		require.NoError(t, err)
		require.NoError(t, validate.Index(idx))
		m, err := idx.IndexManifest()
		require.NoError(t, err)
		require.Len(t, m.Manifests, 2)
		require.Empty(t, m.Manifests[0].ArtifactType, "an image is no artifact")
		require.Equal(t, "linux/arm/v7", m.Manifests[0].Platform.String())
		require.Equal(t, "linux/amd64", m.Manifests[1].Platform.String())
		want := types.OCIImageIndex
		if docker {
			want = types.DockerManifestList
		}
		mt, err := idx.MediaType()
		require.NoError(t, err)
		require.Equal(t, want, mt)
	}
}
