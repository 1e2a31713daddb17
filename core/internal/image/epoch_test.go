package image_test

import (
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/image"
)

func TestEpochLeavesTheBasesHistoryAlone(t *testing.T) {
	epoch := time.Unix(1000000000, 0).UTC()
	history := `[{"created":"2020-01-01T00:00:00Z","created_by":"base"},{"created":"1999-01-01T00:00:00Z","created_by":"OLD","empty_layer":true},{"created":"2022-01-01T00:00:00Z","created_by":"NEW","empty_layer":true}]`
	img, err := image.Assemble(config(history), layers(t, 1), image.Options{Epoch: &epoch, BaseHistory: 1})
	require.NoError(t, err)
	cf, err := img.ConfigFile()
	require.NoError(t, err)
	var years []int
	for _, h := range cf.History {
		years = append(years, h.Created.Year())
	}
	require.Equal(t, []int{2020, 1999, 2001}, years)
}

func TestAnnotationsOfWhatPointsAtAnImage(t *testing.T) {
	img, err := image.Assemble(config(`[]`), layers(t, 1), image.Options{Annotations: map[string]string{"a": "1"}, Descriptor: map[string]string{"b": "2"}})
	require.NoError(t, err)
	m, err := img.Manifest()
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "1"}, m.Annotations)
	idx, err := image.Index([]v1.Image{img}, []ocispecs.Platform{{OS: "linux", Architecture: "amd64"}}, image.Options{Annotations: map[string]string{"c": "3"}})
	require.NoError(t, err)
	im, err := idx.IndexManifest()
	require.NoError(t, err)
	require.Equal(t, map[string]string{"c": "3"}, im.Annotations)
	require.Equal(t, map[string]string{"b": "2"}, im.Manifests[0].Annotations)
	_, err = image.Assemble(config(`[]`), layers(t, 1), image.Options{Docker: true, Annotations: map[string]string{"a": "1"}})
	require.ErrorContains(t, err, "annotations need an OCI image")
}
