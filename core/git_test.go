package core

import (
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/needs"
)

// serveGit shows a repository with files at /repo/.git to who has the token, and
// counts what is asked for.
func serveGit(t *testing.T, header string, files map[string]string) (url string, posts *atomic.Int32) {
	t.Helper()
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		needs.Missing(t, "git, which is the server")
	}
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, "repo", name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, []byte(text), 0o600))
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@x.test", "GIT_COMMITTER_NAME=a",
		"GIT_COMMITTER_EMAIL=a@x.test", "GIT_COMMITTER_DATE=2020-01-02T03:04:05Z", "GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "-A", "-f"}, {"commit", "-q", "-m", "x"}} {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir, cmd.Env = filepath.Join(dir, "repo"), env
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	posts = &atomic.Int32{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != header {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodPost {
			posts.Add(1)
		}
		(&cgi.Handler{Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"), Env: env}).ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL + "/repo/.git", posts
}

func TestOneRepositoryIsFetchedOnce(t *testing.T) {
	url, posts := serveGit(t, "basic eC1hY2Nlc3MtdG9rZW46c2VjcmV0", map[string]string{"sub/f": "f", "g": "g"})
	got, err := buildFiles(t, Request{Context: url + "#main", NamedContexts: map[string]string{"other": url + "#main:sub"},
		DockerfileData: []byte("FROM scratch\nCOPY g /\nCOPY --from=other f /\nADD " + url + "#main:sub /add/\n"),
		Secrets:        []Secret{{ID: "GIT_AUTH_TOKEN", Value: []byte("secret")}}})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"g": "g", "f": "f", "add/f": "f"}, got)
	require.EqualValues(t, 2, posts.Load(), "one for the refs, one for the commit")
}

func TestGitContextsBringTheirDockerfile(t *testing.T) {
	url, _ := serveGit(t, "", map[string]string{"sub/Dockerfile": "FROM scratch\nCOPY . /\n", "sub/.dockerignore": "x*\n", "sub/x1": "", "sub/f": "f"})
	got, err := buildFiles(t, Request{Context: url + "#main:sub"})
	require.NoError(t, err)
	require.Equal(t, "f", got["f"])
	require.Contains(t, got, "x1", "BuildKit reads .dockerignore for local contexts only")
	for context, want := range map[string]string{url + "#none": `no branch or tag "none"`, url + "#main:none": "no directory"} {
		_, err := buildFiles(t, Request{Context: context})
		require.ErrorContains(t, err, want)
		e, ok := fault.As(err)
		require.True(t, ok)
		require.Equal(t, fault.User, e.Kind)
	}
	_, err = buildFiles(t, Request{Context: t.TempDir(), DockerfileData: []byte("FROM scratch\n\nADD " + url + "#none /\n")})
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, 3, e.Location.Start)
}
