package saved

import (
	"archive/tar"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// written is a layout with an image and an index.
func written(t *testing.T) (dir string, img v1.Image, index v1.ImageIndex) {
	t.Helper()
	img, err := random.Image(1000, 3)
	require.NoError(t, err)
	index, err = random.Index(500, 2, 3)
	require.NoError(t, err)
	dir = filepath.Join(t.TempDir(), "layout")
	p, err := layout.Write(dir, emptyIndex(t))
	require.NoError(t, err)
	require.NoError(t, p.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "one"})))
	require.NoError(t, p.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "two", "io.containerd.image.name": "example.com/app:two"})))
	return dir, img, index
}

func emptyIndex(t *testing.T) v1.ImageIndex {
	t.Helper()
	i, err := random.Index(1, 0, 0)
	require.NoError(t, err)
	return i
}

// packed is a directory as a tar.
func packed(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.tar")
	f, err := os.Create(file)
	require.NoError(t, err)
	w := tar.NewWriter(f)
	require.NoError(t, w.AddFS(os.DirFS(dir)))
	require.NoError(t, w.Close())
	require.NoError(t, f.Close())
	return file
}

func TestAnImageIsReadAsItIs(t *testing.T) {
	dir, img, index := written(t)
	for kind, where := range map[string]string{"directory": dir, "tar": packed(t, dir)} {
		t.Run(kind, func(t *testing.T) {
			s, err := Open(where)
			require.NoError(t, err)
			defer s.Close()
			for _, want := range []string{"one", digest(t, img)} {
				got, err := s.Image(want)
				require.NoError(t, err)
				require.Equal(t, digest(t, img), digest(t, got))
				require.NoError(t, validate.Image(got.(v1.Image)))
			}
			for _, want := range []string{"two", "example.com/app:two"} {
				got, err := s.Image(want)
				require.NoError(t, err)
				require.Equal(t, digest(t, index), digest(t, got))
				require.NoError(t, validate.Index(got.(v1.ImageIndex)))
			}
			_, err = s.Image("")
			require.ErrorContains(t, err, "has 2 images: one, example.com/app:two")
			_, err = s.Image("three")
			require.ErrorContains(t, err, "has no image three")
		})
	}
}

func digest(t *testing.T, a Artifact) string {
	t.Helper()
	h, err := a.Digest()
	require.NoError(t, err)
	return h.String()
}

func TestWhatDockerSaveWroteBefore(t *testing.T) {
	img, err := random.Image(1000, 2)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "old.tar")
	tag, err := name.NewTag("example.com/app:1")
	require.NoError(t, err)
	require.NoError(t, tarball.WriteToFile(file, tag, img))
	s, err := Open(file)
	require.NoError(t, err)
	defer s.Close()
	for _, want := range []string{"", "example.com/app:1"} {
		a, err := s.Image(want)
		require.NoError(t, err)
		require.NoError(t, validate.Image(a.(v1.Image)))
		id, err := a.(v1.Image).ConfigName()
		require.NoError(t, err)
		wantID, err := img.ConfigName()
		require.NoError(t, err)
		require.Equal(t, wantID, id)
	}
	_, err = s.Image("example.com/app:2")
	require.Error(t, err)
}

// TestWhatIsNoImageIsSaid, and what is broken.
func TestWhatIsNoImageIsSaid(t *testing.T) {
	says := func(err error, want string) {
		t.Helper()
		e, ok := fault.As(err)
		require.True(t, ok, "%v", err)
		require.Contains(t, err.Error(), want)
		require.NotEmpty(t, e.Remedy)
	}
	_, err := Open(filepath.Join(t.TempDir(), "none"))
	says(err, "no such file")
	text := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(text, []byte("this is no tar, and long enough to have been one if it were"+string(make([]byte, 1024))), 0o600))
	_, err = Open(text)
	says(err, "it is no tar")
	s, err := Open(t.TempDir())
	require.NoError(t, err)
	_, err = s.Image("")
	says(err, "neither index.json nor manifest.json")

	dir, img, _ := written(t)
	m, err := img.Manifest()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "blobs/sha256", m.Config.Digest.Hex), []byte("{}"), 0o600))
	require.NoError(t, os.Truncate(filepath.Join(dir, "blobs/sha256", m.Layers[0].Digest.Hex), 7))
	s, err = Open(dir)
	require.NoError(t, err)
	a, err := s.Image("one")
	require.NoError(t, err)
	_, err = a.(v1.Image).RawConfigFile()
	says(err, "has another content")
	layers, err := a.(v1.Image).Layers()
	require.NoError(t, err)
	_, err = layers[0].Compressed()
	says(err, "it has 7 bytes instead of")
}
