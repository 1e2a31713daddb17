package e2e_test

import (
	"archive/tar"
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

// TestCacheMountsBetweenJobs: what a step leaves in a cache mount is there in the
// next job, on an empty machine, by id and not by place.
func TestCacheMountsBetweenJobs(t *testing.T) {
	repo := newRepo(t)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + smallBase(t) + `
ARG N
RUN --mount=type=cache,id=pkg,target=/pkg,mode=0750,uid=7 ls /pkg > /seen; echo "saw <$(tr "\n" " " < /seen)>"; echo $N > /pkg/$N
FROM scratch
COPY --from=0 /seen /
`})
	job := func(n string, args ...string) outcome {
		got := inJob(t, dir, append([]string{"build", "--log-format", "plain", "--context", "/workspace", "--no-push", "--build-arg", "N=" + n}, args...)...)
		require.Equal(t, 0, got.code, got.output)
		return got
	}
	require.Contains(t, job("1", "--cache-repo", repo).output, "saw <>")
	require.Contains(t, job("2", "--cache-repo", repo).output, "saw <1 >")
	require.NotContains(t, job("2", "--cache-repo", repo).output, " saw <1", "the step is cached: nothing is restored")
	require.Contains(t, job("3", "--cache-repo", repo, "--no-push-cache").output, "saw <1 2 >")
	require.Contains(t, job("4", "--cache-repo", repo).output, "saw <1 2 >", "the job before only read")
	require.Contains(t, job("5", "--cache-repo", repo, "--cache-mounts", "off").output, "saw <>")
	require.Contains(t, job("6", "--cache-repo", repo, "--cache-scope", "branch").output, "saw <1 2 4 >")
	require.Contains(t, job("7", "--cache-repo", repo).output, "saw <1 2 4 >")
	require.Contains(t, job("8", "--cache-repo", repo, "--cache-mount-max-size", "3").output, "--cache-mount-max-size")
}

// TestAMissExplainsItself: for each step that ran, why.
func TestAMissExplainsItself(t *testing.T) {
	repo := newRepo(t)
	base := repo + "/base:1"
	parts.PushBase(t, base, parts.SmallBase(t))
	dir := cacheContext(t, base)
	build := func(args ...string) string {
		return inCache(t, dir, repo, append([]string{"--no-push", "--explain-cache"}, args...)...).output
	}
	out := build()
	require.Contains(t, out, "cache   0 of 8 steps")
	require.Contains(t, out, "COPY lib lib: no earlier record")
	require.Contains(t, build(), "cache   8 of 8 steps")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "lib/a"), []byte("A"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "lib/c"), nil, 0o644))
	require.NoError(t, os.Chmod(filepath.Join(dir, "lib/b"), 0o664))
	require.NoError(t, os.Remove(filepath.Join(dir, "lib/link")))
	out = build()
	require.Contains(t, out, "COPY lib lib: 4 of the context's files changed")
	for _, line := range []string{"lib/a (content)", "lib/b (mode 0644 → 0664)", "lib/c (new)", "lib/link (gone)"} {
		require.Contains(t, out, "            "+line+"\n")
	}
	require.Contains(t, out, "> all && echo ran >&2: an earlier step was missed")

	require.Contains(t, build("--build-arg", "VERSION=2"), "RUN echo 2 > /version: changed: build argument or variable VERSION")
	require.Contains(t, build("--cache-ttl", "1ns"), "the record is older than 1ns (--cache-ttl)")
	require.Contains(t, build("--no-cache"), "--no-cache was asked for")

	dockerfile := filepath.Join(dir, "Dockerfile")
	b, err := os.ReadFile(dockerfile)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(dockerfile, []byte(strings.Replace(string(b), "echo prepared", "echo PREPARED", 1)), 0o644))
	require.Contains(t, build(), "RUN echo PREPARED > /prepared: the instruction is new or was changed")

	for i := range 12 {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "conf", string(rune('a'+i))), nil, 0o644))
	}
	out = build()
	require.Contains(t, out, "12 of the context's files changed")
	require.Contains(t, out, "… and 2 more")

	parts.PushBase(t, base, otherBase(t))
	out = build()
	require.Contains(t, out, "RUN echo PREPARED > /prepared: the base changed: "+base+"@sha256:")
}

// TestCacheIsListedAndPruned by the program's own commands.
func TestCacheIsListedAndPruned(t *testing.T) {
	layout := "oci:" + filepath.Join(t.TempDir(), "layout")
	for _, repo := range []string{newRepo(t), layout} {
		dir := cacheContext(t, smallBase(t))
		inCache(t, dir, repo, "--no-push")
		got := onHostCommand(t, "cache", "ls", repo)
		require.Equal(t, 0, got.code, got.output)
		require.Contains(t, got.output, "linux/amd64  RUN echo prepared > /prepared\n")
		n := strings.Count(got.output, "\n")
		got = onHostCommand(t, "cache", "prune", repo, "--older-than", "1ns", "--keep-last", "2", "--dry-run")
		require.Equal(t, 0, got.code, got.output)
		require.Contains(t, got.output, "would be removed")
		require.Equal(t, n, strings.Count(onHostCommand(t, "cache", "ls", repo).output, "\n"))
		got = onHostCommand(t, "cache", "prune", repo, "--older-than", "1ns", "--keep-last", "2")
		require.Equal(t, 0, got.code, got.output)
		require.Equal(t, 3, strings.Count(onHostCommand(t, "cache", "ls", repo).output, "\n"))
		// What is left is whole: a build goes on from it.
		inCache(t, dir, repo, "--no-push")
	}
	strict := newProxy(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodDelete {
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
		return r.Method == http.MethodDelete
	})
	dir := cacheContext(t, smallBase(t))
	inCache(t, dir, strict.addr+"/strict/c", "--no-push")
	got := onHostCommand(t, "cache", "prune", strict.addr+"/strict/c", "--older-than", "1ns")
	require.Equal(t, 3, got.code, got.output)
	require.Contains(t, got.output, "does not allow deletion")
	got = onHostCommand(t, "cache", "prune", strict.addr+"/strict/c")
	require.Equal(t, 2, got.code, got.output)
}

// TestWarmerFillsADirectoryThatBuildsRead: layers come from it, and a damaged one
// from the registry.
func TestWarmerFillsADirectoryThatBuildsRead(t *testing.T) {
	fetched := 0
	proxy := newProxy(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			fetched++
		}
		return false
	})
	smallBase(t)
	base := proxy.addr + "/small:1"
	dir := filepath.Join(t.TempDir(), "warm")
	for range 2 {
		got := onHostCommand(t, "warmer", "--cache-dir", dir, "--image", base)
		require.Equal(t, 0, got.code, got.output)
	}
	context := buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nRUN true\n"})
	build := func() int {
		fetched = 0
		got := onHost(t, "build", "--log-format", "plain", "--context", context, "--no-push", "--cache-dir", dir)
		require.Equal(t, 0, got.code, got.output)
		return fetched
	}
	require.Equal(t, 1, build(), "the configuration, and no layer")
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	require.NoError(t, err)
	for _, b := range blobs {
		if fi, err := os.Stat(b); err == nil && fi.Size() > 100<<10 {
			require.NoError(t, os.Truncate(b, 1000))
		}
	}
	require.Equal(t, 2, build())
	got := onHostCommand(t, "warmer", "--cache-dir", dir, "--force", "--cache-ttl", "1h", "--dockerfile", filepath.Join(context, "Dockerfile"))
	require.Equal(t, 0, got.code, got.output)
	require.Contains(t, got.output, "--cache-ttl has no effect")
	require.Equal(t, 1, build(), "whole again")
	got = onHostCommand(t, "warmer", "--cache-dir", dir, "--image", proxy.addr+"/none:1")
	require.Equal(t, 3, got.code, got.output)
}

// onHostCommand runs a command of the binary that needs no store.
func onHostCommand(t *testing.T, args ...string) outcome {
	t.Helper()
	return run(t, exec.CommandContext(t.Context(), parts.Binary(t), args...))
}

// otherBase is the small base with another file in it.
func otherBase(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "etc/other", Typeflag: tar.TypeReg, Mode: 0o644}))
	require.NoError(t, w.Flush())
	return append(buf.Bytes(), parts.SmallBase(t)...)
}
