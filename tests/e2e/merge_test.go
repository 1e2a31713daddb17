package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

// TestAMatrixIsMerged: jobs push by digest, another one makes the index of it.
func TestAMatrixIsMerged(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	counter := newProxy(t, func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		asked = append(asked, r.Method+" "+r.URL.Path)
		mu.Unlock()
		return false
	})
	repo := counter.addr + "/matrix"
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM scratch\nARG TARGETPLATFORM REVISION=1\nLABEL org.opencontainers.image.revision=$REVISION\nCOPY f /f\n", "f": "x"})
	list := []string{"linux/386", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64", "linux/ppc64le", "linux/riscv64", "linux/s390x"}
	build := func(platform, to string, more ...string) string {
		file := filepath.Join(t.TempDir(), "digest")
		got := onHost(t, append([]string{"build", "--log-format", "plain", "--isolation", "chroot", "--platform", platform, "--push-by-digest", "-d", to, "--digest-file", file, dir}, more...)...)
		require.Equal(t, 0, got.code, got.output)
		return file
	}
	read := func(file string) string {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		return string(data)
	}
	var files []string
	for _, p := range list {
		files = append(files, build(p, repo))
	}
	require.Empty(t, tagsOf(t, repo), "nothing has a tag yet")

	merge := func(args ...string) outcome {
		return run(t, exec.CommandContext(t.Context(), parts.Binary(t), append([]string{"merge", "--log-format", "plain"}, args...)...))
	}
	asked = nil
	digest := filepath.Join(t.TempDir(), "index")
	got := merge(append([]string{"-d", repo + ":1", "-t", repo + ":latest", "--annotation", "index:a=b", "--digest-file", digest}, files...)...)
	require.Equal(t, 0, got.code, got.output)
	require.LessOrEqual(t, len(asked), 4*len(list), asked)
	for _, a := range asked {
		require.NotContains(t, a, "uploads", "no blob is transferred")
	}
	require.ElementsMatch(t, []string{"1", "latest"}, tagsOf(t, repo))
	index := manifestOf(t, repo, "1")
	require.Equal(t, "b", index.Annotations["a"])
	var platforms []string
	for _, m := range index.Manifests {
		platforms = append(platforms, strings.TrimSuffix(m.Platform.OS+"/"+m.Platform.Architecture+"/"+m.Platform.Variant, "/"))
	}
	require.ElementsMatch(t, list, platforms)

	t.Run("again, in another order: the same", func(t *testing.T) {
		again := filepath.Join(t.TempDir(), "index")
		got := merge("-d", repo+":2", "--annotation", "index:a=b", "--digest-file", again, read(files[3]), files[1], files[0], repo+"@"+read(files[2]), files[4], files[5], files[6], repo+":1")
		require.Equal(t, 0, got.code, got.output)
		require.Equal(t, read(digest), read(again))
	})
	t.Run("what is no image is refused before anything is written", func(t *testing.T) {
		other, elsewhere := build("linux/arm64", repo, "--build-arg", "REVISION=2"), build("linux/arm64", counter.addr+"/elsewhere")
		for want, args := range map[string][]string{
			"not of one commit":          {files[0], other},
			"two images for linux/arm64": {files[4], other},
			"is not in the repository":   {files[0], counter.addr + "/elsewhere@" + read(elsewhere)},
			"name unknown":               {},
			"nothing to merge":           {},
			"":                           {files[0], "sha256:" + strings.Repeat("0", 64)},
		} {
			got := merge(append([]string{"-d", repo + ":bad"}, args...)...)
			require.NotZero(t, got.code)
			if want != "name unknown" {
				require.Contains(t, got.output, want)
			}
			require.Contains(t, got.output, "remedy: ")
		}
		require.NotContains(t, tagsOf(t, repo), "bad")
		got := onHost(t, "build", "--isolation", "chroot", "--push-by-digest", "-d", repo+":tag", dir)
		require.Equal(t, 2, got.code, got.output)
		require.Contains(t, got.output, "Leave the tag out")
	})
}

// TestADestinationThatFails: the others get the image, and the exit code says so.
func TestADestinationThatFails(t *testing.T) {
	reg := parts.SharedRegistry(t)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /f\n", "f": "x"})
	for _, c := range []struct {
		policy string
		code   int
		says   string
	}{{"all", 3, "complete: " + reg.Addr + "/policy:all"}, {"any", 0, "WARN"}} {
		names := filepath.Join(t.TempDir(), "names")
		got := onHost(t, "build", "--log-format", "plain", "--isolation", "chroot", "--skip-push-permission-check", "--push-retry", "0", "--destination-policy", c.policy,
			"-d", reg.Addr+"/policy:"+c.policy, "-d", "127.0.0.1:1/dead:1", "--image-name-with-digest-file", names, dir)
		require.Equal(t, c.code, got.code, got.output)
		require.Contains(t, got.output, "127.0.0.1:1/dead:1")
		require.Contains(t, got.output, c.says)
		require.Contains(t, tagsOf(t, reg.Addr+"/policy"), c.policy)
		if c.policy == "any" {
			data, err := os.ReadFile(names)
			require.NoError(t, err)
			require.Equal(t, 1, strings.Count(string(data), "@sha256:"), "only what was pushed")
		}
	}
	got := onHost(t, "build", "--log-format", "plain", "--isolation", "chroot", "--destination-policy", "any", "-d", "127.0.0.1:1/dead:1", "--push-retry", "0", dir)
	require.Equal(t, 3, got.code, got.output)
}

// tagsOf asks a registry for the tags of host/path.
func tagsOf(t *testing.T, repo string) []string {
	t.Helper()
	host, path, _ := strings.Cut(repo, "/")
	resp, err := http.Get("http://" + host + "/v2/" + path + "/tags/list")
	require.NoError(t, err)
	defer resp.Body.Close()
	var list struct{ Tags []string }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&list))
	return list.Tags
}

type listedIndex struct {
	Annotations map[string]string
	Manifests   []struct {
		Platform struct{ OS, Architecture, Variant string }
	}
}

func manifestOf(t *testing.T, repo, tag string) (out listedIndex) {
	t.Helper()
	host, path, _ := strings.Cut(repo, "/")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/v2/"+path+"/manifests/"+tag, nil)
	require.NoError(t, err)
	req.Header.Set("Accept", "application/vnd.oci.image.index.v1+json")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&out))
	return out
}
