package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
)

var (
	amd64 = v1.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	armv7 = v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
	armv6 = v1.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}
)

func TestResolvePicksThePlatform(t *testing.T) {
	s, c := newServer(t), newClient(t)
	push(t, c, indexOf(t, armv6, amd64, armv7, arm64), s.host+"/a/multi:1")
	for name, tc := range map[string]struct{ want, got v1.Platform }{
		"exact":                       {amd64, amd64},
		"arm64 without variant is v8": {v1.Platform{OS: "linux", Architecture: "arm64"}, arm64},
		"best variant wins":           {armv7, armv7},
		"aliases are normalised":      {v1.Platform{OS: "linux", Architecture: "x86_64"}, amd64},
		"lower variant fits":          {v1.Platform{OS: "linux", Architecture: "arm", Variant: "v8"}, armv7},
	} {
		t.Run(name, func(t *testing.T) {
			img, err := c.Resolve(t.Context(), s.host+"/a/multi:1", &tc.want)
			require.NoError(t, err)
			require.Equal(t, tc.got.String(), new(img.Platform()).String())
			require.NotEqual(t, img.Digest, img.ManifestDigest)
			require.Len(t, img.Layers, 2)
		})
	}
}

func TestResolveWithoutMatchSaysWhatThereIs(t *testing.T) {
	s, c := newServer(t), newClient(t)
	push(t, c, indexOf(t, amd64, v1.Platform{OS: "linux", Architecture: "s390x"}), s.host+"/a/multi:1")
	_, err := c.Resolve(t.Context(), s.host+"/a/multi:1", &arm64)
	require.ErrorIs(t, err, ErrNoPlatform)
	require.ErrorContains(t, err, "no match for platform linux/arm64 in "+s.host+"/a/multi:1; it has: linux/amd64, linux/s390x")
}

func TestResolvePlainManifestIsTakenWhateverItIsFor(t *testing.T) {
	s, c := newServer(t), newClient(t)
	img := platformImage(t, armv6)
	push(t, c, img, s.host+"/plain:1")
	got, err := c.Resolve(t.Context(), s.host+"/plain:1", &amd64)
	require.NoError(t, err)
	require.Equal(t, got.Digest, got.ManifestDigest)
	require.Equal(t, "arm", got.Config.Architecture)
	require.Equal(t, s.host+"/plain:1", got.Name)
}

func TestResolveAcceptsDockerAndOCIMediaTypes(t *testing.T) {
	s, c := newServer(t), newClient(t)
	for i, mt := range []types.MediaType{types.DockerManifestSchema2, types.OCIManifestSchema1} {
		ref := fmt.Sprintf("%s/types:%d", s.host, i)
		push(t, c, mutate.MediaType(platformImage(t, amd64), mt), ref)
		img, err := c.Resolve(t.Context(), ref, nil)
		require.NoError(t, err)
		require.Equal(t, mt, img.Manifest.MediaType)
	}
}

func TestResolveByDigestAndTwiceIsOneRequest(t *testing.T) {
	s, c := newServer(t), newClient(t)
	img := platformImage(t, amd64)
	push(t, c, img, s.host+"/d:1")
	d, err := img.Digest()
	require.NoError(t, err)
	before := s.count("GET /v2/d/manifests")
	a, err := c.Resolve(t.Context(), s.host+"/d:1@"+d.String(), nil)
	require.NoError(t, err)
	b, err := c.Resolve(t.Context(), s.host+"/d:1@"+d.String(), nil)
	require.NoError(t, err)
	require.Same(t, a, b)
	require.Equal(t, before+1, s.count("GET /v2/d/manifests"))
}

func TestResolveReportsLiesAboutDigests(t *testing.T) {
	conf := []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`)
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]}`,
		types.OCIManifestSchema1, types.OCIConfigJSON, digestOf(conf), len(conf))
	index := func(size int) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":"amd64"}}]}`,
			types.OCIImageIndex, types.OCIManifestSchema1, digestOf([]byte(manifest)), size)
	}
	sub := "/v2/x/manifests/" + digestOf([]byte(manifest))
	blob := "/v2/x/blobs/" + digestOf(conf)
	for name, tc := range map[string]struct {
		ref   string
		files map[string][]byte
	}{
		"pinned manifest": {"x@" + digestOf([]byte("other")), map[string][]byte{"/v2/x/manifests/" + digestOf([]byte("other")): []byte(manifest)}},
		"config":          {"x:1", map[string][]byte{"/v2/x/manifests/1": []byte(manifest), blob: []byte(strings.Replace(string(conf), "amd64", "amd65", 1))}},
		"config is short": {"x:1", map[string][]byte{"/v2/x/manifests/1": []byte(manifest), blob: conf[:10]}},
		"size in index":   {"x:1", map[string][]byte{"/v2/x/manifests/1": []byte(index(7)), sub: []byte(manifest), blob: conf}},
		"entry of index":  {"x:1", map[string][]byte{"/v2/x/manifests/1": []byte(index(len(manifest))), sub: []byte(strings.Replace(manifest, `"layers"`, `"Layers"`, 1)), blob: conf}},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(raw(tc.files))
			defer s.Close()
			_, err := newClient(t).Resolve(t.Context(), strings.TrimPrefix(s.URL, "http://")+"/"+tc.ref, &amd64)
			require.ErrorIs(t, err, ErrDigest)
			f, ok := fault.As(err)
			require.True(t, ok)
			require.Equal(t, fault.Registry, f.Kind)
			require.NotEmpty(t, f.Remedy)
		})
	}
}

func TestResolveRefusesWhatIsNoImage(t *testing.T) {
	for name, tc := range map[string]struct{ manifest, says string }{
		"schema 1":       {`{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}]}`, "schema 1"},
		"no JSON":        {`<html>`, "not JSON"},
		"ambiguous":      {`{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}`, "ambiguous"},
		"something else": {`{"schemaVersion":2,"mediaType":"application/x"}`, "not a container image"},
		"bad digest":     {`{"schemaVersion":2,"config":{"digest":"sha512:ab","size":1},"layers":[]}`, "manifest"},
		"empty index":    {`{"schemaVersion":2,"manifests":[]}`, "no match for platform linux/amd64"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(raw(map[string][]byte{"/v2/x/manifests/latest": []byte(tc.manifest)}))
			defer s.Close()
			_, err := newClient(t).Resolve(t.Context(), strings.TrimPrefix(s.URL, "http://")+"/x", &amd64)
			require.ErrorContains(t, err, tc.says)
			f, ok := fault.As(err)
			require.True(t, ok)
			require.Equal(t, fault.Registry, f.Kind)
		})
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	status := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				w.WriteHeader(code)
				_, _ = io.WriteString(w, body)
			}
		}
	}
	for name, tc := range map[string]struct {
		h            http.Handler
		config       string
		kind         error
		says, remedy string
	}{
		"401 without credentials": {status(401, ""), `{}`, ErrDenied, "config.json has none for", "layerwright login"},
		"403 with credentials":    {status(403, ""), `{"auths":{"HOST":{"auth":"dTpzZWNyZXQ="}}}`, ErrDenied, "config.json)", "Give it the right to pull"},
		"404 of a repository":     {status(404, `{"errors":[{"code":"NAME_UNKNOWN"}]}`), `{}`, ErrNotFound, "the repository does not exist", "Check the name"},
		"404 of a tag":            {status(404, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`), `{}`, ErrNotFound, "the tag or digest does not exist", "Check the tag"},
		"404 of either":           {status(404, ""), `{}`, ErrNotFound, "the image or its tag does not exist", "Check the name"},
		"a secret in the answer":  {status(418, `{"errors":[{"code":"X","message":"https://u:secret@h/?token=secret secret"}]}`), `{"auths":{"HOST":{"auth":"dTpzZWNyZXQ="}}}`, nil, "***", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(tc.h)
			defer s.Close()
			host := strings.TrimPrefix(s.URL, "http://")
			c := newClient(t, config(t, strings.ReplaceAll(tc.config, "HOST", host)))
			_, err := c.Resolve(t.Context(), host+"/team/app:1", nil)
			f, ok := fault.As(err)
			require.True(t, ok)
			require.Equal(t, fault.Registry, f.Kind)
			require.ErrorContains(t, err, tc.says)
			require.ErrorContains(t, err, "registry "+host)
			require.ErrorContains(t, err, "team/app")
			require.Contains(t, f.Remedy, tc.remedy)
			require.NotContains(t, err.Error(), "secret")
			if tc.kind != nil {
				require.ErrorIs(t, err, tc.kind)
			}
		})
	}
}

func TestTLSAndNetworkErrors(t *testing.T) {
	s := httptest.NewTLSServer(raw(map[string][]byte{}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "https://")
	_, err := newClient(t).Resolve(t.Context(), host+"/x:1", nil)
	f, ok := fault.As(err)
	require.True(t, ok)
	require.Contains(t, f.Remedy, "--skip-tls-verify-registry="+host)

	_, err = newClient(t, func(o *Options) { o.SkipTLSVerifyRegistries = []string{host} }).Resolve(t.Context(), host+"/x:1", nil)
	require.ErrorIs(t, err, ErrNotFound)

	s.Close()
	_, err = newClient(t).Resolve(t.Context(), host+"/x:1", nil)
	require.ErrorContains(t, err, "connection refused")

	_, err = newClient(t).Resolve(t.Context(), "no-such-host.invalid/x:1", nil)
	require.ErrorContains(t, err, "cannot be resolved")

	_, err = newClient(t).Resolve(t.Context(), "https://x/y", nil)
	f, ok = fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.User, f.Kind)
}

func TestRetries(t *testing.T) {
	for name, fail := range map[string]func(http.ResponseWriter){
		"500": func(w http.ResponseWriter) { w.WriteHeader(500) },
		"429": func(w http.ResponseWriter) { w.Header().Set("Retry-After", "0"); w.WriteHeader(429) },
		"cut connection": func(w http.ResponseWriter) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := newServer(t), newClient(t)
			push(t, c, platformImage(t, amd64), s.host+"/r:1")
			var n atomic.Int32
			s.on(func(w http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.URL.Path, "manifests") && n.Add(1) <= 2 {
					fail(w)
					return true
				}
				return false
			})
			_, err := newClient(t).Resolve(t.Context(), s.host+"/r:1", nil)
			require.NoError(t, err)
			n.Store(0)
			_, err = newClient(t, func(o *Options) { o.PullRetries = -1 }).Resolve(t.Context(), s.host+"/r:1", nil)
			require.Error(t, err)
		})
	}
}

func TestRetryAfterIsHonouredAndCancellable(t *testing.T) {
	s, c := newServer(t), newClient(t)
	push(t, c, platformImage(t, amd64), s.host+"/r:1")
	s.on(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "manifests") {
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(429)
			return true
		}
		return false
	})
	cause := fmt.Errorf("stopped by test")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(100*time.Millisecond, func() { cancel(cause) })
	begin := time.Now()
	_, err := newClient(t).Resolve(ctx, s.host+"/r:1", nil)
	require.ErrorIs(t, err, cause)
	require.Less(t, time.Since(begin), 5*time.Second)
	require.Greater(t, time.Since(begin), 90*time.Millisecond)
}

// cutting answers blob requests with part of the body, with or without ranges.
func cutting(s *server, ranges bool, whole []byte, cuts *atomic.Int32, most int32) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, digestOf(whole)) {
			return false
		}
		off := 0
		if v := strings.TrimSuffix(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-"); ranges && v != "" {
			off, _ = strconv.Atoi(v)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, len(whole)-1, len(whole)))
		}
		rest := whole[off:]
		w.Header().Set("Content-Length", strconv.Itoa(len(rest)))
		if off > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		if cuts.Add(1) <= most {
			_, _ = w.Write(rest[:min(len(rest), len(whole)/3+int(cuts.Load())*100)])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(rest)
		return true
	}
}

func TestLayerResumesCutConnections(t *testing.T) {
	for name, ranges := range map[string]bool{"with ranges": true, "without ranges": false} {
		t.Run(name, func(t *testing.T) {
			s, c := newServer(t), newClient(t)
			push(t, c, platformImage(t, amd64), s.host+"/cut:1")
			img, err := c.Resolve(t.Context(), s.host+"/cut:1", nil)
			require.NoError(t, err)
			whole, err := readLayer(t.Context(), img.Layers[0])
			require.NoError(t, err)
			var cuts atomic.Int32
			s.Config.ErrorLog = nil
			s.on(cutting(s, ranges, whole, &cuts, 2))
			got, err := readLayer(t.Context(), img.Layers[0])
			require.NoError(t, err)
			require.Equal(t, whole, got)
			require.Equal(t, int32(3), cuts.Load())
		})
	}
}

func TestLayerThatLiesIsAnError(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"too short":  func(b []byte) []byte { return b[:len(b)/2] },
		"too long":   func(b []byte) []byte { return append(b, 'x') },
		"other byte": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
	} {
		t.Run(name, func(t *testing.T) {
			s, c := newServer(t), newClient(t)
			push(t, c, platformImage(t, amd64), s.host+"/lie:1")
			img, err := c.Resolve(t.Context(), s.host+"/lie:1", nil)
			require.NoError(t, err)
			whole, err := readLayer(t.Context(), img.Layers[1])
			require.NoError(t, err)
			digest := digestOf(whole)
			bad := change(whole)
			s.on(func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, digest) {
					_, _ = w.Write(bad)
					return true
				}
				return false
			})
			_, err = readLayer(t.Context(), img.Layers[1])
			require.ErrorIs(t, err, ErrDigest)
			require.ErrorContains(t, err, digest)
			require.ErrorContains(t, err, s.host)
		})
	}
}

func TestMirrorsAreAskedFirstAndMayFail(t *testing.T) {
	s, c := newServer(t), newClient(t)
	push(t, c, platformImage(t, amd64), s.host+"/hub/library/debian:12")
	img, err := newClient(t, func(o *Options) { o.Mirrors = []string{"127.0.0.1:1", s.host + "/hub"} }).Resolve(t.Context(), "debian:12", nil)
	require.NoError(t, err)
	require.Equal(t, "docker.io/library/debian:12", img.Name)
	host, path := img.Layers[0].(*Layer).MountSource()
	require.Equal(t, s.host+"/hub/library/debian", host+"/"+path)
}

func FuzzResolve(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:aa","size":1,"platform":{"os":"linux","architecture":"amd64"}}]}`), []byte(`{}`))
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="},"layers":[]}`), []byte(`{}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[null,{"platform":null}]}`), []byte(`null`))
	f.Fuzz(func(t *testing.T, manifest, blob []byte) {
		h := func(r *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			switch {
			case r.URL.Path == "/v2/":
			case strings.Contains(r.URL.Path, "/manifests/"):
				_, _ = w.Write(manifest)
			default:
				_, _ = w.Write(blob)
			}
			resp := w.Result()
			resp.Request = r
			return resp, nil
		}
		c, err := New(Options{Environment: map[string]string{"HOME": t.TempDir()}, PullRetries: -1})
		require.NoError(t, err)
		c.pull = roundTrip(h)
		_, _ = c.Resolve(t.Context(), "127.0.0.1:1/x:1", &amd64)
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
