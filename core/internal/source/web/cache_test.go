package web_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/needs"
	"github.com/layerwright/layerwright/core/internal/source/web"
)

func TestACachedURLIsAskedForOnce(t *testing.T) {
	needs.Root(t)
	var asked atomic.Int32
	u := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Last-Modified", modified)
		w.Header().Set("Content-Disposition", "attachment; filename=named")
		_, _ = w.Write([]byte("data"))
	})
	f := web.Fetcher{Cache: web.NewCache(t.TempDir())}
	var g errgroup.Group
	dirs := make([]string, 8)
	for i := range dirs {
		dirs[i] = t.TempDir()
		g.Go(func() error { return f.Fetch(t.Context(), u+"/f", nil, dirs[i]) })
	}
	require.NoError(t, g.Wait())
	for _, d := range dirs {
		fi, err := os.Stat(filepath.Join(d, "named"))
		require.NoError(t, err)
		require.Equal(t, int64(1612325106), fi.ModTime().Unix())
		require.NoError(t, os.WriteFile(filepath.Join(d, "named"), []byte("changed"), 0o600)) // it is the tree's own
	}
	require.EqualValues(t, 1, asked.Load())

	// Another use says more about the file, and the digest is still checked.
	dir := t.TempDir()
	require.NoError(t, f.Fetch(t.Context(), u+"/f", map[string]string{pb.AttrHTTPFilename: "x",
		pb.AttrHTTPChecksum: "sha512:77c7ce9a5d86bb386d443bb96390faa120633158699c8844c30b13ab0bf92760b7e4416aea397db91b4ac0e5dd56b8ef7e4b066162ab1fdc088319ce6defc876"}, dir))
	got, err := os.ReadFile(filepath.Join(dir, "x"))
	require.NoError(t, err)
	require.Equal(t, "data", string(got))
	err = f.Fetch(t.Context(), u+"/f", map[string]string{pb.AttrHTTPChecksum: "sha256:00"}, t.TempDir())
	require.ErrorContains(t, err, "digest mismatch")
	require.EqualValues(t, 1, asked.Load())
}

func TestAFailedDownloadIsNotKept(t *testing.T) {
	needs.Root(t)
	asked := 0
	u := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked == 1 {
			w.WriteHeader(404)
			return
		}
		_, _ = w.Write([]byte("data"))
	})
	dir := t.TempDir()
	f := web.Fetcher{Cache: web.NewCache(dir)}
	require.ErrorContains(t, f.Fetch(t.Context(), u, nil, t.TempDir()), "404")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, f.Fetch(t.Context(), u, nil, t.TempDir()))
}

func TestWhatWasPutAnswersWithoutANetwork(t *testing.T) {
	needs.Root(t)
	file := filepath.Join(t.TempDir(), "stream")
	require.NoError(t, os.WriteFile(file, []byte("data"), 0o600))
	link := filepath.Join(t.TempDir(), "handle") // as a path of /proc/self/fd is
	require.NoError(t, os.Symlink(file, link))
	f := web.Fetcher{Cache: web.NewCache(t.TempDir()), Client: &http.Client{Transport: nobody{t}}}
	f.Cache.Put("http://session.test/1", link, "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7")
	dir := t.TempDir()
	require.NoError(t, f.Fetch(t.Context(), "http://session.test/1", map[string]string{pb.AttrHTTPFilename: "context"}, dir))
	fi, err := os.Lstat(filepath.Join(dir, "context"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), fi.Mode())
	require.Zero(t, fi.ModTime().Unix())
}

type nobody struct{ t *testing.T }

func (n nobody) RoundTrip(r *http.Request) (*http.Response, error) {
	n.t.Errorf("%s was asked for", r.URL)
	return nil, context.Canceled
}

func TestCredentialsGoToTheirHostOnly(t *testing.T) {
	needs.Root(t)
	got := map[string]string{}
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got["other"] = r.Header.Get("Authorization")
	})
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got[r.URL.Path] = r.Header.Get("Authorization")
		if r.URL.Path == "/away" {
			http.Redirect(w, r, "http://localhost"+other[len("http://127.0.0.1"):]+"/x", http.StatusFound)
		}
	})
	f := web.Fetcher{Backoff: time.Millisecond, Secrets: map[string][]byte{"HTTP_AUTH_TOKEN_127.0.0.1": []byte("planted\n"), "named": []byte("Basic planted")}}
	require.NoError(t, f.Fetch(t.Context(), u+"/token", nil, t.TempDir()))
	require.NoError(t, f.Fetch(t.Context(), u+"/header", map[string]string{pb.AttrHTTPAuthHeaderSecret: "named"}, t.TempDir()))
	require.NoError(t, f.Fetch(t.Context(), u+"/away", nil, t.TempDir()))
	require.Equal(t, map[string]string{"/token": "Bearer planted", "/header": "Basic planted", "/away": "Bearer planted", "other": ""}, got)

	err := f.Fetch(t.Context(), u+"/x", map[string]string{pb.AttrHTTPAuthHeaderSecret: "absent"}, t.TempDir())
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.User, e.Kind)
	require.Contains(t, e.Remedy, "absent")
}

func TestASignatureIsRefused(t *testing.T) {
	err := web.Fetcher{}.Fetch(t.Context(), "http://127.0.0.1:1/x", map[string]string{pb.AttrHTTPSignatureVerify: "x"}, t.TempDir())
	require.ErrorContains(t, err, "not supported")
}

func TestMoreThanFitsIsNotFetched(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "1152921504606846976") })
	_, err := fetch(t, u, nil)
	_, ok := fault.As(err)
	require.True(t, ok)
	require.ErrorContains(t, err, "has more than")
}
