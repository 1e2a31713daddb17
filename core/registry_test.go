package core

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/needs"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/registry"
)

// restricted is a registry that takes one login, which may push to
// repositories below "open" only.
func restricted(t *testing.T) (host string) {
	t.Helper()
	inner := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch {
		case user != "u" || password != "planted-password":
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method != http.MethodGet && r.Method != http.MethodHead && !strings.HasPrefix(r.URL.Path, "/v2/open/"):
			w.WriteHeader(http.StatusForbidden)
		default:
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// TestPushIsCheckedBeforeAnythingRuns: for each destination, which is an error,
// and for the cache repository that is written, which is then only read.
func TestPushIsCheckedBeforeAnythingRuns(t *testing.T) {
	needs.Root(t)
	host := restricted(t)
	for name, c := range map[string]struct {
		change func(r *Request)
		says   string // as an error
		warns  string
	}{
		"all is allowed":             {func(r *Request) { r.Cache.Repo = host + "/open/cache" }, "", ""},
		"one destination is not":     {func(r *Request) { r.Outputs.Destinations = append(r.Outputs.Destinations, host+"/closed/app:1") }, "may not push to " + host + "/closed/app", ""},
		"the cache is not":           {func(r *Request) { r.Cache.Repo = host + "/closed/cache" }, "", "may not push to " + host + "/closed/cache"},
		"the cache is only read":     {func(r *Request) { r.Cache.Repo, r.Cache.NoPush = host+"/closed/cache", true }, "", ""},
		"the cache is not there":     {func(r *Request) { r.Cache.Repo = "127.0.0.1:1/cache" }, "", ""},
		"the check is not wanted":    {func(r *Request) { r.Cache.Repo, r.Registry.SkipPushCheck = host+"/closed/cache", true }, "", ""},
		"nothing but the cache":      {func(r *Request) { r.Cache.Repo, r.Outputs = host+"/closed/cache", Outputs{} }, "", "may not push to " + host + "/closed/cache"},
		"a login that is not one":    {func(r *Request) { r.Registry.Credentials[0].Password = "planted-wrong" }, "the login is refused", ""},
		"a destination without push": {func(r *Request) { r.Outputs.Destinations, r.Outputs.NoPush = []string{host + "/closed/app:1"}, true }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY Dockerfile /x\n"), 0o600))
			var events eventList
			req := Request{Context: dir, Chosen: "chroot", Snapshots: "flat", Store: t.TempDir(), Progress: &events,
				Outputs: Outputs{Destinations: []string{host + "/open/app:1"}},
				Registry: Registry{Environment: map[string]string{"HOME": dir}, PullRetries: -1, PushRetries: -1,
					Credentials: []Credential{{Host: host, Username: "u", Password: "planted-password"}}}}
			c.change(&req)
			_, err := Build(t.Context(), req)
			if c.says == "" {
				require.NoError(t, err)
				require.True(t, events.started)
				require.Equal(t, c.warns != "", strings.Contains(events.warned, "is only read: push to "), events.warned)
				require.Contains(t, events.warned, c.warns)
				require.NotContains(t, events.warned, "planted")
				return
			}
			require.ErrorContains(t, err, c.says)
			f, ok := fault.As(err)
			require.True(t, ok)
			require.Equal(t, fault.Registry, f.Kind)
			require.False(t, events.started, "nothing has run")
			require.NotContains(t, err.Error()+f.Remedy, "planted")
		})
	}
}

// eventList notes whether a step has begun, and warnings before that.
type eventList struct {
	mu      sync.Mutex
	started bool
	warned  string
}

// Emit implements Sink.
func (l *eventList) Emit(e progress.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e := e.(type) {
	case progress.Started:
		l.started = true
	case progress.Notice:
		if e.Level == progress.Warning && !l.started {
			l.warned += e.Text + "\n"
		}
	}
}

// TestANetrcOpensURLs: for files, and by the same transport for git.
func TestANetrcOpensURLs(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "u" || password != "planted-password" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, "data")
	}))
	defer s.Close()
	home := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(home, ".netrc"), []byte("machine 127.0.0.1 login u password planted-password\n"), 0o600))
	req := Request{DockerfileData: []byte("FROM scratch\nADD " + s.URL + "/file /\n"), Context: t.TempDir(),
		Registry: Registry{Environment: map[string]string{"HOME": home}, PullRetries: -1}}
	files, err := buildFiles(t, req)
	require.NoError(t, err)
	require.Equal(t, "data", files["file"])
	req.Registry.Environment = map[string]string{"HOME": t.TempDir()}
	_, err = buildFiles(t, req)
	require.ErrorContains(t, err, "401")
}

func TestANetrcOpensGitRepositories(t *testing.T) {
	url, _ := serveGit(t, "Basic dTpwbGFudGVkLXBhc3N3b3Jk", map[string]string{"Dockerfile": "FROM scratch\nCOPY f /\n", "f": "f"})
	file := filepath.Join(t.TempDir(), "logins")
	require.NoError(t, os.WriteFile(file, []byte("machine 127.0.0.1\nlogin u\npassword planted-password\n"), 0o600))
	files, err := buildFiles(t, Request{Context: url + "#main", Registry: Registry{Environment: map[string]string{"NETRC": file}}})
	require.NoError(t, err)
	require.Equal(t, "f", files["f"])
	_, err = buildFiles(t, Request{Context: url + "#main", Registry: Registry{Environment: map[string]string{"HOME": t.TempDir()}}})
	require.ErrorContains(t, err, "authentication is required")
}

// TestURLsGoThroughTheProxyOfTheVariables and not of the process.
func TestURLsGoThroughTheProxyOfTheVariables(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "through the proxy to "+r.Host) }))
	defer proxy.Close()
	files, err := buildFiles(t, Request{DockerfileData: []byte("FROM scratch\nADD http://files.example/file /\n"), Context: t.TempDir(),
		Registry: Registry{Environment: map[string]string{"HOME": t.TempDir(), "http_proxy": proxy.URL}}})
	require.NoError(t, err)
	require.Equal(t, "through the proxy to files.example", files["file"])
}

func TestProxiesOfTheConfigurationAreBuildArguments(t *testing.T) {
	client, err := registry.New(registry.Options{Environment: map[string]string{"HOME": t.TempDir(),
		"DOCKER_CONFIG": `{"proxies":{"default":{"httpProxy":"http://p:1","httpsProxy":"http://p:2"}}}`}})
	require.NoError(t, err)
	given := map[string]string{"HTTPS_PROXY": "mine", "A": "b"}
	b := &build{req: &Request{BuildArgs: given}, client: client, sink: progress.Discard}
	b.proxyArguments()
	require.Equal(t, map[string]string{"A": "b", "HTTPS_PROXY": "mine", "https_proxy": "http://p:2", "HTTP_PROXY": "http://p:1", "http_proxy": "http://p:1"}, b.req.BuildArgs)
	require.Len(t, given, 2, "the caller's map stays what it was")
}

// TestWhatHoldsForPushingHoldsForTheCache: its repositories are read, too.
func TestWhatHoldsForPushingHoldsForTheCache(t *testing.T) {
	b := &build{req: &Request{Cache: Cache{Repo: "a.example/x", From: []string{"b.example:5/y", "oci:/dir"}},
		Registry: Registry{Insecure: true, InsecureRegistries: []string{"c.example"}, SkipTLSVerify: true}}, machine: &machine{}, sink: progress.Discard}
	o := b.registryOptions()
	require.Equal(t, []string{"c.example", "a.example", "b.example:5"}, o.InsecureRegistries)
	require.Equal(t, []string{"a.example", "b.example:5"}, o.SkipTLSVerifyRegistries)
	require.False(t, o.InsecurePull)
}
