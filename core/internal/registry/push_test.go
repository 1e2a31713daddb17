package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
)

func TestUploadIsDoneOnceForConcurrentCallers(t *testing.T) {
	s, c := newServer(t), newClient(t)
	l, err := random.Layer(100_000, types.OCILayer)
	require.NoError(t, err)
	p, err := c.Pusher(s.host + "/once")
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { require.NoError(t, p.Upload(t.Context(), l)) })
	}
	wg.Wait()
	require.Equal(t, 1, s.count("POST /v2/once/blobs/uploads/"))
	// Another pusher finds it there.
	p, err = c.Pusher(s.host + "/once")
	require.NoError(t, err)
	require.NoError(t, p.Upload(t.Context(), l))
	require.Equal(t, 1, s.count("POST /v2/once/blobs/uploads/"))
}

// TestManifestRefusedForWantOfBlobs: what the registry says that it does not
// have, it is asked for again, and given if that is so.
func TestManifestRefusedForWantOfBlobs(t *testing.T) {
	for _, code := range []string{"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "DIGEST_INVALID"} {
		for refusals, ok := range map[int32]bool{1: true, 100: false} {
			t.Run(fmt.Sprintf("%s %d times", code, refusals), func(t *testing.T) {
				s, c := newServer(t), newClient(t)
				img, err := random.Image(1000, 2)
				require.NoError(t, err)
				p, err := c.Pusher(s.host + "/lost")
				require.NoError(t, err)
				var puts, lost atomic.Int32
				s.on(func(w http.ResponseWriter, r *http.Request) bool {
					switch manifest := strings.Contains(r.URL.Path, "/manifests/"); {
					case r.Method == http.MethodPut && manifest && puts.Add(1) <= refusals:
						w.WriteHeader(http.StatusBadRequest)
						_, _ = fmt.Fprintf(w, `{"errors":[{"code":"%s","message":"lost"}]}`, code)
						return true
					case r.Method == http.MethodHead && !manifest && puts.Load() > 0 && lost.Add(1) == 1:
						w.WriteHeader(http.StatusNotFound) // it was really lost
						return true
					}
					return false
				})
				before := s.count("PUT /v2/lost/blobs/")
				err = p.Put(t.Context(), img)
				if !ok {
					require.ErrorContains(t, err, code)
					require.Equal(t, int32(4), puts.Load(), "one attempt and three more")
					return
				}
				require.NoError(t, err)
				require.NoError(t, p.Tag(t.Context(), img, "1"))
				require.Equal(t, 4, s.count("PUT /v2/lost/blobs/")-before, "three blobs, and one again")
			})
		}
	}
}

func TestUploadRetries(t *testing.T) {
	for name, code := range map[string]int{"500": 500, "429": 429, "lost session": 404} {
		t.Run(name, func(t *testing.T) {
			s, c := newServer(t), newClient(t)
			var n atomic.Int32
			s.on(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPut && n.Add(1) <= 2 {
					w.WriteHeader(code)
					return true
				}
				return false
			})
			l, err := random.Layer(100_000, types.OCILayer)
			require.NoError(t, err)
			p, err := c.Pusher(s.host + "/again")
			require.NoError(t, err)
			require.NoError(t, p.Upload(t.Context(), l))
			n.Store(-100)
			l, err = random.Layer(1000, types.OCILayer)
			require.NoError(t, err)
			require.Error(t, p.Upload(t.Context(), l), "not for ever")
			n.Store(100)
			require.NoError(t, p.Upload(t.Context(), l), "a failure is not remembered")
		})
	}
}

func TestRefusedPushSaysWhere(t *testing.T) {
	s, c := newServer(t), newClient(t)
	s.on(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			w.WriteHeader(403)
			_, _ = fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"no"}]}`)
			return true
		}
		return false
	})
	p, err := c.Pusher(s.host + "/denied")
	require.NoError(t, err)
	for _, err := range []error{p.Put(t.Context(), platformImage(t, amd64)), p.Check(t.Context())} {
		require.ErrorIs(t, err, ErrDenied)
		require.ErrorContains(t, err, "push to "+s.host+"/denied")
		f, ok := fault.As(err)
		require.True(t, ok)
		require.Equal(t, fault.Registry, f.Kind)
	}
	s.on(nil)
	require.NoError(t, p.Check(t.Context()))
}

// failing is a layer that cannot be read.
type failing struct {
	v1.Layer
	err error
}

func (f *failing) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(iotest.ErrReader(f.err)), nil
}

func TestAnErrorOfTheLayerIsNotTheRegistrys(t *testing.T) {
	s, c := newServer(t), newClient(t)
	img, err := c.Pusher(s.host + "/x")
	require.NoError(t, err)
	l, err := random.Layer(1000, types.OCILayer)
	require.NoError(t, err)
	cause := errors.New("disk on fire")
	err = img.Upload(t.Context(), &failing{l, cause})
	require.ErrorIs(t, err, cause)
}

func TestDestination(t *testing.T) {
	for in, want := range map[string]string{
		"app": "docker.io/library/app latest", "h.example:5/a/b:1": "h.example:5/a/b 1",
	} {
		repo, tag, err := Destination(in)
		require.NoError(t, err)
		require.Equal(t, want, repo+" "+tag)
	}
	_, _, err := Destination("a@sha256:" + strings.Repeat("a", 64))
	require.ErrorContains(t, err, "has a digest")
}

func TestBrokenConfigIsAnError(t *testing.T) {
	dir := writeConfig(t, `{"auths":`)
	_, err := New(Options{Environment: map[string]string{"DOCKER_CONFIG": dir}})
	f, ok := fault.As(err)
	require.True(t, ok)
	require.Contains(t, err.Error(), dir+"/config.json: line 1, column 10")
	require.NotEmpty(t, f.Remedy)
}

func TestPlainHTTPIsOnlyForWhoMayUseIt(t *testing.T) {
	o := Options{InsecureRegistries: []string{"lab.example:80"}}
	p, err := newPools(o)
	require.NoError(t, err)
	tr := newRouting(o, p, true)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://10.1.2.3/v2/", nil)
	require.NoError(t, err)
	_, err = tr.RoundTrip(req) //nolint:bodyclose // an error
	require.ErrorIs(t, err, errPlainHTTP)
}

// TestARegistryIsAskedOnceWhatItIs, whatever the number of repositories, and again
// where it did not answer.
func TestARegistryIsAskedOnceWhatItIs(t *testing.T) {
	s, c := newServer(t), newClient(t, func(o *Options) { o.PushRetries = -1 })
	var down atomic.Bool
	down.Store(true)
	s.on(func(w http.ResponseWriter, r *http.Request) bool {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return down.Load()
	})
	p, err := c.Pusher(s.host + "/a")
	require.NoError(t, err)
	require.Error(t, p.Check(t.Context()))
	down.Store(false)
	asked := s.count("GET /v2/")
	var wg sync.WaitGroup
	for _, repo := range []string{"/a", "/b", "/c", "/d"} {
		wg.Go(func() {
			p, err := c.Pusher(s.host + repo)
			require.NoError(t, err)
			require.NoError(t, p.Check(t.Context()))
		})
	}
	wg.Wait()
	require.Equal(t, 1, s.count("GET /v2/")-asked)
}
