package layout_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	ggcr "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/source/layout"
)

func image(t *testing.T, arch string) v1.Image {
	t.Helper()
	img, err := random.Image(300, 2)
	require.NoError(t, err)
	cf, err := img.ConfigFile()
	require.NoError(t, err)
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", arch
	img, err = mutate.ConfigFile(img, cf)
	require.NoError(t, err)
	return img
}

func named(name string) ggcr.Option {
	return ggcr.WithAnnotations(map[string]string{ocispecs.AnnotationRefName: name})
}

func both(t *testing.T) v1.ImageIndex {
	idx := v1.ImageIndex(empty.Index)
	for _, arch := range []string{"amd64", "arm64"} {
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: image(t, arch), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	return idx
}

func TestTagsAndDigests(t *testing.T) {
	dir := t.TempDir()
	p, err := ggcr.Write(dir, empty.Index)
	require.NoError(t, err)
	one, two := image(t, "amd64"), image(t, "amd64")
	l := layout.Open(dir, "the layout")
	_, err = l.Find("")
	require.ErrorContains(t, err, `no image in it is called "latest"`)
	require.NoError(t, p.AppendImage(one, named("v1")))
	d1, err := one.Digest()
	require.NoError(t, err)
	got, err := l.Find("")
	require.NoError(t, err)
	require.Equal(t, d1, got, "the only one, without a tag")
	_, err = l.Find("v2")
	require.ErrorContains(t, err, `called "v2"`)
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.User, e.Kind)
	require.Contains(t, e.Remedy, "v1")
	require.NoError(t, p.AppendImage(two, named("v2")))
	d2, err := two.Digest()
	require.NoError(t, err)
	got, err = l.Find("v2")
	require.NoError(t, err)
	require.Equal(t, d2, got)
	_, err = l.Find("")
	require.ErrorContains(t, err, "latest")
	_, err = l.Resolve(t.Context(), v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}, nil)
	require.ErrorContains(t, err, "it has no blob")
}

func TestThePlatformIsChosenFromAnIndex(t *testing.T) {
	dir := t.TempDir()
	p, err := ggcr.Write(dir, empty.Index)
	require.NoError(t, err)
	require.NoError(t, p.AppendIndex(both(t)))
	l := layout.Open(dir, "x")
	d, err := l.Find("any")
	require.NoError(t, err, "the only one, and it has no name")
	for _, arch := range []string{"amd64", "arm64"} {
		img, err := l.Resolve(t.Context(), d, &ocispecs.Platform{OS: "linux", Architecture: arch})
		require.NoError(t, err)
		require.Contains(t, string(img.RawConfig), `"architecture":"`+arch+`"`)
		require.Len(t, img.Layers, 2)
	}
	_, err = l.Resolve(t.Context(), d, &ocispecs.Platform{OS: "linux", Architecture: "s390x"})
	require.ErrorContains(t, err, "no match for platform linux/s390x; it has: linux/amd64, linux/arm64")
}

func TestEverythingReadIsVerified(t *testing.T) {
	dir := t.TempDir()
	img := image(t, "amd64")
	p, err := ggcr.Write(dir, empty.Index)
	require.NoError(t, err)
	require.NoError(t, p.AppendImage(img))
	l := layout.Open(dir, "x")
	d, err := l.Find("")
	require.NoError(t, err)
	got, err := l.Resolve(t.Context(), d, nil)
	require.NoError(t, err)
	read := func(layer v1.Layer) error {
		rc, err := layer.Compressed()
		if err != nil {
			return err
		}
		defer rc.Close()
		_, err = io.Copy(io.Discard, rc)
		return err
	}
	require.NoError(t, read(got.Layers[0]))

	h, err := got.Layers[1].Digest()
	require.NoError(t, err)
	blob := filepath.Join(dir, "blobs/sha256", h.Hex)
	raw, err := os.ReadFile(blob)
	require.NoError(t, err)
	raw[len(raw)/2] ^= 1
	require.NoError(t, os.WriteFile(blob, raw, 0o600))
	err = read(got.Layers[1])
	require.ErrorContains(t, err, "does not have that digest")
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.User, e.Kind)

	manifest := filepath.Join(dir, "blobs/sha256", d.Hex)
	raw, err = os.ReadFile(manifest)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(manifest, append(raw, ' '), 0o600))
	_, err = l.Resolve(t.Context(), d, nil)
	require.ErrorContains(t, err, "does not have that digest")
}

func TestALinkOutOfTheLayoutIsNotFollowed(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "index.json")
	require.NoError(t, os.WriteFile(outside, []byte(`{"manifests":[]}`), 0o600))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "index.json")))
	_, err := layout.Open(dir, "x").Find("")
	require.ErrorContains(t, err, "escapes")
}

func TestWhatIsNoLayout(t *testing.T) {
	dir := t.TempDir()
	l := layout.Open(dir, "x")
	_, err := l.Find("")
	require.ErrorContains(t, err, "it has no index.json")
	require.NoError(t, os.WriteFile(dir+"/index.json", []byte("{"), 0o600))
	_, err = l.Find("")
	require.ErrorContains(t, err, "index.json:")
	e, ok := fault.As(err)
	require.True(t, ok)
	require.NotEmpty(t, e.Remedy)
}
