package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/tests/conformance"
	"github.com/layerwright/layerwright/tests/parts"
)

// cacheDockerfile has a stage, files of the context, a link, an argument that
// one step uses, and a mount.
const cacheDockerfile = `FROM %s AS build
WORKDIR /src
COPY lib lib
RUN cat lib/* > all && echo ran >&2
FROM %[1]s
ARG VERSION=1
RUN echo prepared > /prepared
COPY --from=build /src/all /all
RUN echo $VERSION > /version
COPY main.txt /main.txt
RUN --mount=type=bind,source=conf,target=/conf cat /conf/* /main.txt > /final
`

func cacheContext(t *testing.T, base string) string {
	t.Helper()
	dir := buildContext(t, map[string]string{
		"Dockerfile": fmt.Sprintf(cacheDockerfile, base), ".dockerignore": "ignored\n",
		"lib/a": "a\n", "lib/b": "b\n", "main.txt": "main\n", "conf/x": "x\n", "ignored": "1", "unused": "1",
	})
	require.NoError(t, os.Symlink("a", filepath.Join(dir, "lib/link")))
	return dir
}

var (
	stepLine = regexp.MustCompile(`(?m)^#(\d+) (\[.*)$`)
	expanded = regexp.MustCompile(`echo \d >`)
	doneLine = regexp.MustCompile(`(?m)^#(\d+) (CACHED|DONE)`)
)

// ran are the instructions that a build carried out, without the first word of
// a stage's name and without contexts and bases; cached is the number of others.
func ran(output string) (list []string, cached int) {
	names := map[string]string{}
	for _, m := range stepLine.FindAllStringSubmatch(output, -1) {
		names[m[1]] = m[2]
	}
	for _, m := range doneLine.FindAllStringSubmatch(output, -1) {
		_, instruction, _ := strings.Cut(names[m[1]], "] ")
		instruction = expanded.ReplaceAllString(instruction, "echo $$VERSION >")
		switch {
		case strings.HasPrefix(instruction, "FROM "), strings.HasPrefix(instruction, "load build context"):
		case m[2] == "CACHED":
			cached++
		default:
			list = append(list, instruction)
		}
	}
	return list, cached
}

// inCache builds with a cache repository and gives the outcome.
func inCache(t *testing.T, dir, repo string, args ...string) outcome {
	t.Helper()
	got := onHost(t, append([]string{"build", "--log-format", "plain", "--context", dir, "--cache-repo", repo}, args...)...)
	require.Equal(t, 0, got.code, got.output)
	return got
}

// newRepo is a name that no other test uses.
func newRepo(t *testing.T) string {
	t.Helper()
	name := strings.ToLower(regexp.MustCompile(`[^A-Za-z0-9]+`).ReplaceAllString(t.Name(), "-"))
	return parts.SharedRegistry(t).Addr + "/" + name
}

func TestWhatAWarmBuildRunsAgain(t *testing.T) {
	base := smallBase(t)
	write := func(name, text string) func(*testing.T, string) []string {
		return func(t *testing.T, dir string) []string {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
			return nil
		}
	}
	final := []string{"COPY main.txt /main.txt", "RUN --mount=type=bind,source=conf,target=/conf cat /conf/* /main.txt > /final"}
	stage := []string{"COPY lib lib", "RUN cat lib/* > all && echo ran >&2"}
	fromStage := append([]string{"COPY --from=build /src/all /all", "RUN echo $VERSION > /version"}, final...)
	all := append(stage, fromStage...)
	for _, c := range []struct {
		name   string
		change func(t *testing.T, dir string) (args []string)
		runs   []string
	}{
		{"nothing changed", func(*testing.T, string) []string { return nil }, nil},
		{"a new time", func(t *testing.T, dir string) []string {
			require.NoError(t, os.Chtimes(filepath.Join(dir, "lib/a"), time.Now(), time.Now().Add(-time.Hour)))
			return nil
		}, nil},
		{"an owner, which images do not take from a context", func(t *testing.T, dir string) []string {
			require.NoError(t, os.Chown(filepath.Join(dir, "main.txt"), 12, 34))
			return nil
		}, nil},
		{"a file that .dockerignore names", write("ignored", "2"), nil},
		{"a file that no step reads", write("unused", "2"), nil},
		{"a build argument that no step uses", func(*testing.T, string) []string { return []string{"--build-arg", "OTHER=2"} }, nil},
		{"a proxy", func(*testing.T, string) []string { return []string{"--build-arg", "HTTP_PROXY=http://127.0.0.1:1"} }, nil},
		{"content of a file of the last COPY", write("main.txt", "other\n"), final},
		{"content of a bind mount", write("conf/x", "y\n"), final[1:]},
		{"content of a stage's file", write("lib/a", "A\n"), all},
		{"a stage's file whose result is the same", func(t *testing.T, dir string) []string {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "lib/a"), nil, 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "lib/0"), []byte("a\n"), 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "lib/b"), []byte("b\na\n"), 0o644))
			require.NoError(t, os.Remove(filepath.Join(dir, "lib/link")))
			return nil
		}, stage},
		{"mode", func(t *testing.T, dir string) []string {
			require.NoError(t, os.Chmod(filepath.Join(dir, "main.txt"), 0o600))
			return nil
		}, final},
		{"name", func(t *testing.T, dir string) []string {
			require.NoError(t, os.Rename(filepath.Join(dir, "conf/x"), filepath.Join(dir, "conf/z")))
			return nil
		}, final[1:]},
		{"target of a link", func(t *testing.T, dir string) []string {
			require.NoError(t, os.Remove(filepath.Join(dir, "lib/link")))
			require.NoError(t, os.Symlink("b", filepath.Join(dir, "lib/link")))
			return nil
		}, all},
		{"extended attribute", func(t *testing.T, dir string) []string {
			require.NoError(t, unix.Setxattr(filepath.Join(dir, "main.txt"), "user.x", []byte("1"), 0))
			return nil
		}, final},
		{"a build argument that a step uses", func(*testing.T, string) []string { return []string{"--build-arg", "VERSION=2"} }, append([]string{"RUN echo prepared > /prepared"}, fromStage...)},
		{"an instruction", func(t *testing.T, dir string) []string {
			p := filepath.Join(dir, "Dockerfile")
			b, err := os.ReadFile(p)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(p, bytes.Replace(b, []byte("cat /conf/* /main.txt"), []byte("cat /main.txt /conf/*"), 1), 0o644))
			return nil
		}, []string{"RUN --mount=type=bind,source=conf,target=/conf cat /main.txt /conf/* > /final"}},
		{"--no-cache", func(*testing.T, string) []string { return []string{"--no-cache"} },
			append([]string{"WORKDIR /src", "RUN echo prepared > /prepared"}, all...)},
		// What the stage yields is the same, and that is what counts.
		// BuildKit does not count WORKDIR among a stage's steps.
		{"--no-cache-filter", func(*testing.T, string) []string { return []string{"--no-cache-filter", "build"} }, stage},
		{"run layers only", func(*testing.T, string) []string { return []string{"--cache-copy-layers=false"} }, nil},
		{"expired", func(*testing.T, string) []string { return []string{"--cache-ttl", "1ns"} },
			append([]string{"WORKDIR /src", "RUN echo prepared > /prepared"}, all...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			repo, dir := newRepo(t), cacheContext(t, base)
			cold := inCache(t, dir, repo, "--destination", repo+"/cold:1")
			list, _ := ran(cold.output)
			require.Len(t, list, 8)
			args := c.change(t, dir)
			warm := inCache(t, dir, repo, append(args, "--destination", repo+"/warm:1")...)
			list, cached := ran(warm.output)
			require.ElementsMatch(t, c.runs, list, warm.output)
			require.Equal(t, 8-len(c.runs), cached, warm.output)
			if len(c.runs) == 0 {
				require.Equal(t, digestIn(t, cold.output), digestIn(t, warm.output))
				return
			}
			// The same as without a cache, whatever was taken from it.
			got := onHost(t, append(append([]string{"build", "--log-format", "plain", "--context", dir}, args...), "--destination", repo+"/plain:1")...)
			require.Equal(t, 0, got.code, got.output)
			compareContent(t, repo+"/plain:1", repo+"/warm:1")
		})
	}
}

func digestIn(t *testing.T, output string) string {
	t.Helper()
	m := regexp.MustCompile(`sha256:[0-9a-f]{64}\n`).FindAllString(output, -1)
	require.NotEmpty(t, m, output)
	return m[len(m)-1]
}

// TestWarmBuildCostsAFewRequests counts what a fully cached build asks of the
// registry, whatever the number of steps, and that it fetches no layer.
func TestWarmBuildCostsAFewRequests(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	var received int64
	proxy := newProxy(t, func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		seen = append(seen, r.Method+" "+r.URL.Path)
		mu.Unlock()
		return false
	})
	proxy.count = func(n int64) { mu.Lock(); received += n; mu.Unlock() }
	smallBase(t)
	text := "FROM " + proxy.addr + "/small:1\n"
	for i := range 30 {
		text += fmt.Sprintf("RUN echo %d > /%[1]d\n", i)
	}
	dir := buildContext(t, map[string]string{"Dockerfile": text})
	ref := proxy.addr + "/requests/app:1"
	for _, warm := range []bool{false, true} {
		mu.Lock()
		seen, received = nil, 0
		mu.Unlock()
		got := onHost(t, "build", "--log-format", "plain", "--context", dir, "--destination", ref, "--cache")
		require.Equal(t, 0, got.code, got.output)
		if !warm {
			require.Greater(t, len(seen), 100)
			continue
		}
		require.LessOrEqual(t, len(seen), 12, "with all that ask for permission: %v", seen)
		require.LessOrEqual(t, received, int64(64<<10))
	}
}

// TestCacheInADefaultContainer: nothing local, everything from the repository.
func TestCacheInADefaultContainer(t *testing.T) {
	repo, dir := newRepo(t), cacheContext(t, smallBase(t))
	args := []string{"build", "--log-format", "plain", "--context", "/workspace", "--cache", "--destination", repo + "/app:1"}
	cold := inJob(t, dir, args...)
	require.Equal(t, 0, cold.code, cold.output)
	warm := inJob(t, dir, args...)
	require.Equal(t, 0, warm.code, warm.output)
	list, cached := ran(warm.output)
	require.Empty(t, list)
	require.Equal(t, 8, cached)
	require.Equal(t, digestIn(t, cold.output), digestIn(t, warm.output))
	// A changed file: the last steps run on what is fetched.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.txt"), []byte("new\n"), 0o644))
	part := inJob(t, dir, args...)
	require.Equal(t, 0, part.code, part.output)
	list, _ = ran(part.output)
	require.Len(t, list, 2, part.output)
	plain := onHost(t, "build", "--log-format", "plain", "--context", dir, "--destination", repo+"/plain:1")
	require.Equal(t, 0, plain.code, plain.output)
	compareContent(t, repo+"/plain:1", repo+"/app:1")
}

// TestBaseThatMovesAndPlatformsMissTheCache: what a tree began with counts by
// its content, and a platform never gets another one's files.
func TestBaseThatMovesAndPlatformsMissTheCache(t *testing.T) {
	repo := newRepo(t)
	base := repo + "/base:1"
	parts.PushBase(t, base, parts.SmallBase(t))
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nRUN echo x > /x\n"})
	inCache(t, dir, repo, "--no-push")
	list, _ := ran(inCache(t, dir, repo, "--no-push").output)
	require.Empty(t, list)
	// A variable of the base is the command's as well: it runs, and says why.
	parts.PushBase(t, base, parts.SmallBase(t), "NEW=1")
	got := inCache(t, dir, repo, "--destination", repo+"/moved:1", "--explain-cache")
	list, _ = ran(got.output)
	require.Equal(t, []string{"RUN echo x > /x"}, list)
	require.Contains(t, got.output, "base")
	image, err := conformance.Load(t.Context(), repo+"/moved:1")
	require.NoError(t, err)
	require.Contains(t, fmt.Sprint(image.Config), "NEW=1")
	list, _ = ran(inCache(t, dir, repo, "--no-push").output)
	require.Empty(t, list)
	// So do other files.
	parts.PushBase(t, base, bytes.Replace(parts.SmallBase(t), []byte("root:x:0:0:"), []byte("root:y:0:0:"), 1))
	got = inCache(t, dir, repo, "--no-push", "--explain-cache")
	list, _ = ran(got.output)
	require.Equal(t, []string{"RUN echo x > /x"}, list)
	require.Contains(t, got.output, "base")
	dir2 := buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nCOPY f /f\n", "f": "f"})
	inCache(t, dir2, repo, "--no-push", "--platform", "linux/amd64")
	list, _ = ran(inCache(t, dir2, repo, "--no-push", "--platform", "linux/arm64").output)
	require.Equal(t, []string{"COPY f /f"}, list)
	list, _ = ran(inCache(t, dir2, repo, "--no-push", "--platform", "linux/amd64").output)
	require.Empty(t, list)
}

// TestWhatIsFetchedAndWhereTextsEndCount: a URL counts by what it answers, and two
// commands that read the same without the spaces between their words are two.
func TestWhatIsFetchedAndWhereTextsEndCount(t *testing.T) {
	repo, base := newRepo(t), smallBase(t)
	var answer atomic.Value
	answer.Store("one")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer.Load().(string)) }))
	t.Cleanup(server.Close)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nADD " + server.URL + "/f /f\n"})
	inCache(t, dir, repo, "--no-push")
	list, _ := ran(inCache(t, dir, repo, "--no-push").output)
	require.Empty(t, list)
	answer.Store("two")
	list, _ = ran(inCache(t, dir, repo, "--no-push").output)
	require.NotEmpty(t, list)

	one := buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nRUN [\"mkdir\", \"-p\", \"/ab\", \"/c\"]\n"})
	other := buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nRUN [\"mkdir\", \"-p\", \"/a\", \"b/c\"]\n"})
	inCache(t, one, repo, "--no-push")
	list, _ = ran(inCache(t, other, repo, "--no-push").output)
	require.Len(t, list, 1)
}

// TestALayerIsSentOnce: a destination on the cache's registry mounts what the cache
// gets, also where that takes longer than the rest of the build.
func TestALayerIsSentOnce(t *testing.T) {
	dir, proxy := buildContext(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /f\n", "f": "f"}), newProxy(t, nil)
	var sent, mounted atomic.Int32
	proxy.set(func(_ http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.Contains(r.URL.Path, "/once/cache/blobs/uploads/") && r.Method != http.MethodPost:
			time.Sleep(time.Second)
		case strings.Contains(r.URL.Path, "/once/app/blobs/uploads/") && r.URL.Query().Get("mount") != "":
			mounted.Add(1)
		case strings.Contains(r.URL.Path, "/once/app/blobs/uploads/") && r.Method == http.MethodPut:
			sent.Add(1)
		}
		return false
	})
	got := onHost(t, "build", "--context", dir, "--cache-repo", proxy.addr+"/once/cache", "--destination", proxy.addr+"/once/app:1")
	require.Equal(t, 0, got.code, got.output)
	require.Equal(t, int32(1), mounted.Load())
	require.Equal(t, int32(1), sent.Load(), "more than the configuration was sent")
}

// TestNoPushCacheOnlyReads: nothing is written, what is there is used.
func TestNoPushCacheOnlyReads(t *testing.T) {
	repo, dir := newRepo(t), cacheContext(t, smallBase(t))
	inCache(t, dir, repo, "--no-push", "--no-push-cache")
	list, _ := ran(inCache(t, dir, repo, "--no-push").output)
	require.Len(t, list, 8)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.txt"), []byte("new\n"), 0o644))
	for range 2 {
		list, _ = ran(inCache(t, dir, repo, "--no-push", "--no-push-cache").output)
		require.Len(t, list, 2)
	}
	other := repo + "/other"
	list, _ = ran(onHost(t, "build", "--log-format", "plain", "--context", dir, "--no-push", "--cache-repo", other, "--cache-from", repo).output)
	require.Len(t, list, 2)
}

// TestParallelJobsShareACache: eight at once write the same keys.
func TestParallelJobsShareACache(t *testing.T) {
	repo, dir := newRepo(t), cacheContext(t, smallBase(t))
	var g errgroup.Group
	g.SetLimit(8)
	for i := range 8 {
		g.Go(func() error {
			got := onHost(t, "build", "--log-format", "plain", "--context", dir, "--cache-repo", repo, "--destination", fmt.Sprintf("%s/app:%d", repo, i))
			if got.code != 0 || strings.Contains(got.output, "WARN") {
				return fmt.Errorf("job %d: %d\n%s", i, got.code, got.output)
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	for i := range 7 {
		compareContent(t, fmt.Sprintf("%s/app:%d", repo, i), fmt.Sprintf("%s/app:%d", repo, i+1))
	}
	list, _ := ran(inCache(t, dir, repo, "--no-push").output)
	require.Empty(t, list)
}

// TestACacheNeverFailsABuild: whatever the repository does, the image is right
// and the trouble is said once.
func TestACacheNeverFailsABuild(t *testing.T) {
	base := smallBase(t)
	isBlob := regexp.MustCompile(`^/v2/[^/]+/cache/blobs/sha256:`)
	get := func(r *http.Request) bool { return r.Method == http.MethodGet && isBlob.MatchString(r.URL.Path) }
	status := func(code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/cache/") {
				return false
			}
			w.WriteHeader(code)
			return true
		}
	}
	for _, c := range []struct {
		name  string
		fault func(http.ResponseWriter, *http.Request) bool
		// warm says that records are there and a later step must run on them.
		warm bool
	}{
		{"401", status(http.StatusUnauthorized), false},
		{"403", status(http.StatusForbidden), false},
		{"500", status(http.StatusInternalServerError), false},
		{"429", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Retry-After", "1")
			return status(http.StatusTooManyRequests)(w, r)
		}, false},
		{"cut off", func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/cache/") {
				panic(http.ErrAbortHandler)
			}
			return false
		}, false},
		{"a manifest that is no JSON", func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/cache/manifests/") || r.Method != http.MethodGet {
				return false
			}
			_, err := io.WriteString(w, "<html>")
			return err == nil
		}, true},
		{"a blob that is gone", func(w http.ResponseWriter, r *http.Request) bool {
			if get(r) {
				w.WriteHeader(http.StatusNotFound)
			}
			return get(r)
		}, true},
		{"a blob that is cut off", func(w http.ResponseWriter, r *http.Request) bool {
			if get(r) {
				w.Header().Set("Content-Length", "100000")
				_, _ = io.WriteString(w, "short")
				panic(http.ErrAbortHandler)
			}
			return false
		}, true},
		{"a blob that is another one", func(w http.ResponseWriter, r *http.Request) bool {
			if get(r) {
				_, _ = w.Write(bytes.Repeat([]byte("x"), 200))
			}
			return get(r)
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := cacheContext(t, base)
			proxy := newProxy(t, nil)
			name := strings.ToLower(filepath.Base(newRepo(t)))
			cacheRepo := proxy.addr + "/" + name + "/cache"
			dest := parts.SharedRegistry(t).Addr + "/" + name
			if c.warm {
				inCache(t, dir, cacheRepo, "--no-push")
				require.NoError(t, os.WriteFile(filepath.Join(dir, "main.txt"), []byte("new\n"), 0o644))
			}
			proxy.set(c.fault)
			got := onHost(t, "build", "--log-format", "plain", "--context", dir, "--cache-repo", cacheRepo, "--destination", dest+"/app:1",
				"--push-retry", "0", "--image-download-retry", "0")
			require.Equal(t, 0, got.code, got.output)
			n := strings.Count(got.output, "the cache in")
			require.GreaterOrEqual(t, n, 1, got.output)
			require.LessOrEqual(t, n, 2, got.output)
			plain := onHost(t, "build", "--log-format", "plain", "--context", dir, "--destination", dest+"/plain:1")
			require.Equal(t, 0, plain.code, plain.output)
			compareContent(t, dest+"/plain:1", dest+"/app:1")
		})
	}
	t.Run("slow", func(t *testing.T) {
		dir, proxy := cacheContext(t, base), newProxy(t, nil)
		over := make(chan struct{})
		t.Cleanup(func() { close(over) })
		proxy.set(func(_ http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/cache/") {
				return false
			}
			select { // never an answer
			case <-r.Context().Done():
			case <-over:
			}
			return true
		})
		start := time.Now()
		got := onHost(t, "build", "--log-format", "plain", "--context", dir, "--cache-repo", proxy.addr+"/slow/cache", "--destination", parts.SharedRegistry(t).Addr+"/slow/app:1")
		require.Equal(t, 0, got.code, got.output)
		require.Less(t, time.Since(start), 90*time.Second)
		require.Contains(t, got.output, "does not answer in time")
		require.LessOrEqual(t, strings.Count(got.output, "the cache in"), 2, got.output)
	})
	t.Run("nobody listens", func(t *testing.T) {
		dir := cacheContext(t, base)
		got := onHost(t, "build", "--log-format", "plain", "--context", dir, "--cache-repo", "127.0.0.1:1/x/cache", "--no-push", "--push-retry", "0", "--image-download-retry", "0")
		require.Equal(t, 0, got.code, got.output)
		require.Contains(t, got.output, "the cache in 127.0.0.1:1/x/cache")
	})
}

// TestSecretsAndArgumentsStayOutOfRecords: neither the value of a secret nor of
// a build argument that no instruction spells out is in the repository's
// manifests and configurations.
func TestSecretsAndArgumentsStayOutOfRecords(t *testing.T) {
	var mu sync.Mutex
	var sent bytes.Buffer
	proxy := newProxy(t, nil)
	proxy.set(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Body != nil && (r.Method == http.MethodPut || r.Method == http.MethodPatch) {
			b, err := io.ReadAll(r.Body)
			if err == nil {
				mu.Lock()
				sent.Write(b)
				mu.Unlock()
				r.Body = io.NopCloser(bytes.NewReader(b))
			}
		}
		return false
	})
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + smallBase(t) + "\nARG TOKEN\nRUN --mount=type=secret,id=s test -s /run/secrets/s && test -n \"$TOKEN\" && touch /done\n", "s": "planted-secret-7"})
	got := onHost(t, "build", "--log-format", "plain", "--context", dir, "--compression", "none", "--cache-repo", proxy.addr+"/secrets/cache", "--no-push",
		"--secret", "id=s,src="+filepath.Join(dir, "s"), "--build-arg", "TOKEN=planted-argument-7")
	require.Equal(t, 0, got.code, got.output)
	require.Contains(t, sent.String(), "dev.layerwright.cache.step")
	require.NotContains(t, sent.String(), "planted-secret-7")
	require.NotContains(t, sent.String(), "planted-argument-7")
	require.Contains(t, sent.String(), `test -n \"$TOKEN\"`, "the instruction is there as it is written")
	var m struct{ Tags []string }
	resp, err := http.Get("http://" + proxy.addr + "/v2/secrets/cache/tags/list") //nolint:noctx // a test
	require.NoError(t, err)
	defer resp.Body.Close()
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&m))
	require.NotEmpty(t, m.Tags)
}

// compareContent compares everything of two images but times.
func compareContent(t *testing.T, want, got string) {
	t.Helper()
	w, err := conformance.Load(t.Context(), want)
	require.NoError(t, err)
	g, err := conformance.Load(t.Context(), got)
	require.NoError(t, err)
	// Both began "now": what the builds themselves made may differ in time.
	require.Empty(t, conformance.Compare(conformance.Side{Image: g}, conformance.Side{Image: w}))
}

// proxy stands before the shared registry and can misbehave.
type proxy struct {
	addr  string
	mu    sync.Mutex
	fault func(http.ResponseWriter, *http.Request) bool
	count func(int64)
}

func (p *proxy) set(f func(http.ResponseWriter, *http.Request) bool) {
	p.mu.Lock()
	p.fault = f
	p.mu.Unlock()
}

// newProxy starts one. fault answers a request itself when it returns true.
func newProxy(t *testing.T, fault func(http.ResponseWriter, *http.Request) bool) *proxy {
	t.Helper()
	p := &proxy{fault: fault, count: func(int64) {}}
	to, err := url.Parse("http://" + parts.SharedRegistry(t).Addr)
	require.NoError(t, err)
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host // so that uploads come back here
	}, ModifyResponse: func(r *http.Response) error {
		if r.ContentLength > 0 && r.Request.Method != http.MethodHead {
			p.count(r.ContentLength)
		}
		return nil
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		f := p.fault
		p.mu.Unlock()
		if f != nil && f(w, r) {
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	p.addr = strings.TrimPrefix(server.URL, "http://")
	return p
}

// TestALargeLayerIsSentWhileItIsMade: with a cache and without, once, and the image is
// that of a build that sends it afterwards.
func TestALargeLayerIsSentWhileItIsMade(t *testing.T) {
	data := make([]byte, 32<<20)
	rand.New(rand.NewSource(7)).Read(data) //nolint:gosec // nothing that gzip makes small
	dir, proxy := buildContext(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /f\n", "f": string(data)}), newProxy(t, nil)
	var ahead, whole atomic.Int32
	proxy.set(func(_ http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method == http.MethodPatch:
			ahead.Add(1)
		case r.Method == http.MethodPut && r.ContentLength > 1<<20:
			whole.Add(1)
		}
		return false
	})
	destination := proxy.addr + "/ahead/app:"
	for i, flags := range [][]string{{}, {"--cache-repo", proxy.addr + "/ahead/cache"}} {
		// What is left after 8 MiB is to take longer than to ask for an upload: by
		// default a fast machine compresses a gigabyte a second.
		flags = append(flags, "--compression-level", "9")
		got := onHost(t, append([]string{"build", "--context", dir, "--destination", destination + strconv.Itoa(i)}, flags...)...)
		require.Equal(t, 0, got.code, got.output)
		require.Equal(t, int32(i+1), ahead.Load(), got.output)
	}
	require.Zero(t, whole.Load(), "nothing is sent a second time")
	// Where the digest may be known to the registry, it is asked for that first.
	got := onHost(t, "build", "--context", dir, "--destination", destination+"2", "--reproducible", "--build-arg", "SOURCE_DATE_EPOCH=1")
	require.Equal(t, 0, got.code, got.output)
	require.Equal(t, int32(2), ahead.Load())
	require.Equal(t, int32(1), whole.Load())
	compareContent(t, destination+"0", destination+"2")
}
