package web_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/needs"
	"github.com/layerwright/layerwright/core/internal/source/web"
)

const modified = "Wed, 03 Feb 2021 04:05:06 GMT"

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func fetch(t *testing.T, u string, attrs map[string]string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	return dir, web.Fetcher{Backoff: time.Millisecond}.Fetch(t.Context(), u, attrs, dir)
}

func TestNameModeAndTime(t *testing.T) {
	needs.Root(t)
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/named" {
			w.Header().Set("Content-Disposition", `attachment; filename="../../by-server"`)
		}
		if r.URL.Path != "/timeless" {
			w.Header().Set("Last-Modified", modified)
		}
		_, _ = w.Write([]byte("data"))
	})
	for _, c := range []struct {
		path, name string
		attrs      map[string]string
		mode       os.FileMode
		time       int64
	}{
		{"/a/file.txt", "file.txt", nil, 0o600, 1612325106},
		{"/named", "by-server", nil, 0o600, 1612325106},
		{"/timeless", "timeless", nil, 0o600, 0},
		{"/", "download", nil, 0o600, 1612325106},
		{"/x", "given", map[string]string{pb.AttrHTTPFilename: "given", pb.AttrHTTPPerm: "0755"}, 0o755, 1612325106},
	} {
		dir, err := fetch(t, u+c.path, c.attrs)
		require.NoError(t, err)
		fi, err := os.Stat(filepath.Join(dir, c.name))
		require.NoError(t, err)
		require.Equal(t, c.mode, fi.Mode())
		require.Equal(t, c.time, fi.ModTime().Unix())
	}
}

func TestTheDigestIsChecked(t *testing.T) {
	needs.Root(t)
	u := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("data")) })
	_, err := fetch(t, u+"/f", map[string]string{pb.AttrHTTPChecksum: "sha256:3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"})
	require.NoError(t, err)
	dir, err := fetch(t, u+"/f", map[string]string{pb.AttrHTTPChecksum: "sha256:" + strings.Repeat("0", 64)})
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.User, e.Kind)
	require.Contains(t, err.Error(), "3a6eb0790f39")
	require.NotEmpty(t, e.Remedy)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestPassingFaultsAreTriedAgain(t *testing.T) {
	needs.Root(t)
	for name, fail := range map[string]func(w http.ResponseWriter){
		"500": func(w http.ResponseWriter) { w.WriteHeader(500) },
		"429": func(w http.ResponseWriter) { w.WriteHeader(429) },
		"cut": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("da"))
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			u := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if asked++; asked < 3 {
					fail(w)
					return
				}
				_, _ = w.Write([]byte("data"))
			})
			dir, err := fetch(t, u+"/f", nil)
			require.NoError(t, err)
			b, err := os.ReadFile(dir + "/f")
			require.NoError(t, err)
			require.Equal(t, "data", string(b))
		})
	}
}

func TestErrorsNameTheURLWithoutItsSecrets(t *testing.T) {
	asked := 0
	u := serve(t, func(w http.ResponseWriter, _ *http.Request) { asked++; w.WriteHeader(404) })
	for _, bad := range []string{u, "http://127.0.0.1:1"} {
		secret := strings.Replace(bad, "http://", "http://user:planted@", 1) + "/f?token=planted"
		_, err := fetch(t, secret, nil)
		e, ok := fault.As(err)
		require.True(t, ok)
		require.Equal(t, fault.Registry, e.Kind)
		require.NotContains(t, err.Error(), "planted")
		require.Contains(t, err.Error(), "127.0.0.1")
	}
	require.Equal(t, 1, asked, "404 is not asked again")
}

func TestCancelGivesTheCause(t *testing.T) {
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	u := serve(t, func(w http.ResponseWriter, _ *http.Request) { cancel(stop); w.WriteHeader(500) })
	err := web.Fetcher{Backoff: time.Minute}.Fetch(ctx, u, nil, t.TempDir())
	require.ErrorIs(t, err, stop)
}
