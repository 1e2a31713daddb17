package export

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/registry"
)

func newClient(t *testing.T, config string) *registry.Client {
	t.Helper()
	dir := t.TempDir()
	if config != "" {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600))
	}
	c, err := registry.New(registry.Options{Environment: map[string]string{"DOCKER_CONFIG": dir}, Backoff: time.Millisecond})
	require.NoError(t, err)
	return c
}

// serve starts an in-memory registry; hook, if not nil, may answer first.
func serve(t *testing.T, hook func(http.ResponseWriter, *http.Request) bool) string {
	t.Helper()
	inner := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hook == nil || !hook(w, r) {
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func image(t *testing.T) v1.Image { return imageFor(t, "amd64") }

func imageFor(t *testing.T, arch string) v1.Image {
	t.Helper()
	img, err := random.Image(20_000, 3)
	require.NoError(t, err)
	cf, err := img.ConfigFile()
	require.NoError(t, err)
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", arch
	img, err = mutate.ConfigFile(img, cf)
	require.NoError(t, err)
	return mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON)
}

func index(t *testing.T) v1.ImageIndex {
	t.Helper()
	idx := v1.ImageIndex(empty.Index)
	for _, arch := range []string{"amd64", "arm64"} {
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: imageFor(t, arch), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	return idx
}

func finish(t *testing.T, c *registry.Client, a Artifact, offer []v1.Layer, dest ...string) ([]string, error) {
	t.Helper()
	p, err := NewPush(t.Context(), c, dest, false)
	require.NoError(t, err)
	defer p.Close()
	for _, l := range offer {
		p.Offer(l)
	}
	return p.Finish(t.Context(), a)
}

func TestPushToSeveralDestinations(t *testing.T) {
	a, b, c := serve(t, nil), serve(t, nil), newClient(t, "")
	img := image(t)
	layers, err := img.Layers()
	require.NoError(t, err)
	dest := []string{a + "/x:1", a + "/x:latest", a + "/y:1", b + "/z/deep"}
	pushed, err := finish(t, c, img, layers, dest...)
	require.NoError(t, err)
	require.Equal(t, []string{a + "/x:1", a + "/x:latest", a + "/y:1", b + "/z/deep:latest"}, pushed)
	want, err := img.Digest()
	require.NoError(t, err)
	for _, ref := range pushed {
		got, err := c.Resolve(t.Context(), ref, nil)
		require.NoError(t, err)
		require.Equal(t, want, got.Digest)
	}
}

func TestPushOfAnIndex(t *testing.T) {
	host, c := serve(t, nil), newClient(t, "")
	idx := index(t)
	_, err := finish(t, c, idx, nil, host+"/multi:1")
	require.NoError(t, err)
	want, err := idx.Digest()
	require.NoError(t, err)
	img, err := c.Resolve(t.Context(), host+"/multi:1", &v1.Platform{OS: "linux", Architecture: "arm64"})
	require.NoError(t, err)
	require.Equal(t, want, img.Digest)
}

func TestOneFailingDestinationLeavesTheOthersAndIsNamed(t *testing.T) {
	bad := serve(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	good, c := serve(t, nil), newClient(t, "")
	pushed, err := finish(t, c, image(t), nil, bad+"/app:1", good+"/app:1")
	require.Equal(t, []string{good + "/app:1"}, pushed)
	require.ErrorContains(t, err, bad+"/app:1")
	require.ErrorIs(t, err, registry.ErrDenied)
	f, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.Registry, f.Kind)
	require.NotEmpty(t, f.Remedy)
	_, err = c.Resolve(t.Context(), good+"/app:1", nil)
	require.NoError(t, err)
}

func TestAFailedBlobLeavesNoTagAndNoManifest(t *testing.T) {
	var manifests atomic.Int32
	host := serve(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			manifests.Add(1)
		}
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/") {
			w.WriteHeader(http.StatusBadRequest)
			return true
		}
		return false
	})
	_, err := finish(t, newClient(t, ""), image(t), nil, host+"/app:1")
	require.Error(t, err)
	require.Zero(t, manifests.Load())
}

func TestTagsComeAfterAllManifests(t *testing.T) {
	var order []string
	host := serve(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			order = append(order, r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:])
		}
		return false
	})
	_, err := finish(t, newClient(t, ""), image(t), nil, host+"/app:a", host+"/app:b")
	require.NoError(t, err)
	require.Len(t, order, 3)
	require.Contains(t, order[0], "sha256:")
	require.Equal(t, []string{"a", "b"}, order[1:])
}

func TestACancelledPushSaysWhyAndTagsNothing(t *testing.T) {
	cause := errors.New("stopped by test")
	ctx, cancel := context.WithCancelCause(t.Context())
	host := serve(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			cancel(cause)
		}
		return false
	})
	c := newClient(t, "")
	p, err := NewPush(t.Context(), c, []string{host + "/app:1"}, false)
	require.NoError(t, err)
	defer p.Close()
	_, err = p.Finish(ctx, image(t))
	require.ErrorIs(t, err, cause)
	_, err = c.Resolve(t.Context(), host+"/app:1", nil)
	require.ErrorIs(t, err, registry.ErrNotFound)
}

func TestOCILayoutAppendsAndReplacesNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "layout")
	one, two, idx := image(t), image(t), index(t)
	for _, s := range []struct {
		a     Artifact
		names []string
	}{{one, []string{"one", "latest"}}, {two, []string{"latest"}}, {two, []string{"latest"}}, {idx, []string{"multi"}}, {one, nil}} {
		require.NoError(t, OCILayout(t.Context(), dir, s.a, s.names...))
	}
	p, err := layout.FromPath(dir)
	require.NoError(t, err)
	ii, err := p.ImageIndex()
	require.NoError(t, err)
	require.NoError(t, validate.Index(ii))
	m, err := ii.IndexManifest()
	require.NoError(t, err)
	got := map[string]v1.Hash{}
	for _, d := range m.Manifests {
		got[d.Annotations[annotationName]] = d.Digest
	}
	require.Len(t, m.Manifests, 4)
	for name, a := range map[string]Artifact{"one": one, "latest": two, "multi": idx, "": one} {
		d, err := a.Digest()
		require.NoError(t, err)
		require.Equal(t, d, got[name])
	}
}

func TestOCILayoutOfAnotherVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, layoutFile), []byte(`{"imageLayoutVersion":"9"}`), 0o600))
	require.ErrorContains(t, OCILayout(t.Context(), dir, image(t)), "another version")
}

func TestDockerTarHoldsWhatDockerLoadReads(t *testing.T) {
	for name, a := range map[string]Artifact{"image": image(t), "index": index(t)} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out.tar")
			require.NoError(t, DockerTar(t.Context(), path, nil, a, "app", "h.example/app:2"))
			f, err := os.Open(path)
			require.NoError(t, err)
			defer func() { _ = f.Close() }()
			files := map[string][]byte{}
			for r := tar.NewReader(f); ; {
				h, err := r.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				require.NoError(t, err)
				require.NotContains(t, files, h.Name)
				files[h.Name], err = io.ReadAll(r)
				require.NoError(t, err)
			}
			var m []dockerManifest
			require.NoError(t, json.Unmarshal(files["manifest.json"], &m))
			require.Len(t, m, 1)
			require.Equal(t, []string{"app:latest", "h.example/app:2"}, m[0].RepoTags)
			require.Contains(t, files, m[0].Config)
			for _, l := range m[0].Layers {
				require.Contains(t, files, l)
			}
			require.Contains(t, files, indexFile)
			require.Contains(t, files, layoutFile)
		})
	}
}

// unreadable fails in the middle of a layer.
type unreadable struct{ v1.Layer }

func (u unreadable) Compressed() (io.ReadCloser, error) {
	rc, err := u.Layer.Compressed()
	return io.NopCloser(iotest.TimeoutReader(iotest.HalfReader(rc))), err
}

type oneLayer struct {
	v1.Image
	l v1.Layer
}

func (o oneLayer) Layers() ([]v1.Layer, error) { return []v1.Layer{o.l}, nil }

func TestAFailureLeavesTheOldFileAndNoOther(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.tar")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	l, err := random.Layer(600_000, types.OCILayer)
	require.NoError(t, err)
	img, err := mutate.AppendLayers(empty.Image, l)
	require.NoError(t, err)
	err = DockerTar(t.Context(), path, nil, oneLayer{img, unreadable{l}}, "app")
	require.ErrorIs(t, err, iotest.ErrTimeout)
	_, classified := fault.As(err)
	require.False(t, classified, "not the disk's fault")
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "old", string(got))
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 1)
}

func TestDigestFile(t *testing.T) {
	img := image(t)
	d, err := img.Digest()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "digest")
	require.NoError(t, Digest(path, img))
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, d.String(), string(got))
	require.NoError(t, Digest("/dev/null", img), "a device is written to, not replaced")
	st, err := os.Stat("/dev/null")
	require.NoError(t, err)
	require.NotZero(t, st.Mode()&os.ModeDevice)
	err = Digest(filepath.Join(t.TempDir(), "no", "digest"), img)
	f, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.Environment, f.Kind)
	require.Contains(t, f.Remedy, "Create the directory")
}
