package e2e_test

import (
	"archive/zip"
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// moduleProxy serves Go modules h.example/NAME v1.0.0 of one file each, and notes
// whose content was fetched (go.dev/ref/mod, "GOPROXY protocol").
type moduleProxy struct {
	*httptest.Server
	mu      sync.Mutex
	fetched []string
}

func newModuleProxy(t *testing.T) *moduleProxy {
	t.Helper()
	p := &moduleProxy{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		module, file, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/@v/v1.0.0.")
		mod := "module " + module + "\n\ngo 1.20\n"
		switch {
		case ok && file == "info":
			fmt.Fprint(w, `{"Version":"v1.0.0","Time":"2026-01-02T03:04:05Z"}`)
		case ok && file == "mod":
			fmt.Fprint(w, mod)
		case ok && file == "zip":
			p.mu.Lock()
			p.fetched = append(p.fetched, module)
			p.mu.Unlock()
			var b bytes.Buffer
			z := zip.NewWriter(&b)
			for name, text := range map[string]string{"go.mod": mod, "x.go": "package x\n"} {
				f, err := z.Create(module + "@v1.0.0/" + name)
				if err == nil {
					_, err = f.Write([]byte(text))
				}
				if err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
					return
				}
			}
			if err := z.Close(); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			_, _ = w.Write(b.Bytes())
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

// since gives what was fetched and forgets it.
func (p *moduleProxy) since() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.fetched
	p.fetched = nil
	return list
}

// TestGoModulesBetweenJobs: with one dependency added, a job on an empty machine
// fetches only that one: go's own module cache is a cache mount.
func TestGoModulesBetweenJobs(t *testing.T) {
	proxy := newModuleProxy(t)
	goroot, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	require.NoError(t, err)
	program, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(goroot)), "bin/go"))
	require.NoError(t, err)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + smallBase(t) + `
COPY --chmod=0755 go /bin/go
WORKDIR /app
ENV HOME=/root GOROOT=/goroot GOMODCACHE=/modules GOTOOLCHAIN=local GOFLAGS=-mod=mod GOSUMDB=off GOPROXY=` + proxy.URL + `
RUN mkdir /goroot
COPY go.mod .
RUN --mount=type=cache,target=/modules go mod download && ls /modules/h.example
`, "go": string(program)})
	repo := newRepo(t)
	job := func(modules ...string) outcome {
		text := "module app\n\ngo 1.20\n"
		for _, m := range modules {
			text += "\nrequire h.example/" + m + " v1.0.0\n"
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte(text), 0o644))
		got := inJob(t, dir, "build", "--log-format", "plain", "--context", "/workspace", "--no-push", "--cache-repo", repo)
		require.Equal(t, 0, got.code, got.output)
		return got
	}
	job("one", "two")
	require.ElementsMatch(t, []string{"h.example/one", "h.example/two"}, proxy.since())
	got := job("one", "two", "three")
	require.Equal(t, []string{"h.example/three"}, proxy.since())
	for _, m := range []string{"one", "two", "three"} {
		require.Contains(t, got.output, " "+m+"@v1.0.0\n")
	}
	job("one", "two", "three")
	require.Empty(t, proxy.since(), "the step is known")
}
