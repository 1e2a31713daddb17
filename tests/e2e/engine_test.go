package e2e_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

// byEngine runs a build with engines, "buildkit=" left out, on the machine.
func byEngine(t *testing.T, engines []string, args ...string) outcome {
	t.Helper()
	all := []string{"build", "--log-format", "plain"}
	for _, e := range engines {
		all = append(all, "--engine", "buildkit="+e)
	}
	return onHost(t, append(all, args...)...)
}

func reference(t *testing.T, ref string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(ref, name.Insecure)
	require.NoError(t, err)
	return r
}

func imageAt(t *testing.T, ref string) v1.Image {
	t.Helper()
	img, err := remote.Image(reference(t, ref), remote.WithContext(t.Context()))
	require.NoError(t, err)
	return img
}

const engineDockerfile = `FROM %s AS build
ARG WHO=nobody
RUN echo hello $WHO >/hello
RUN --mount=type=secret,id=token test "$(cat /run/secrets/token)" = planted-value && echo used >/used
COPY --from=extra extra /extra
COPY --from=lay /f /from-layout
FROM build
COPY data/ /data/
LABEL a=b
`

// TestAnEngineGetsTheSameRequest: contexts, named contexts, arguments, secrets and every
// output, from inside a default container.
func TestAnEngineGetsTheSameRequest(t *testing.T) {
	base, reg := smallBase(t), parts.SharedRegistry(t).Addr
	engine := parts.Oracle(t).Addr
	files := map[string]string{
		"Dockerfile": fmt.Sprintf(engineDockerfile, base), ".dockerignore": "data/ignored\n",
		"data/kept": "kept\n", "data/ignored": "ignored\n", "x/extra": "extra\n", "token": "planted-value", "lay/Dockerfile": "FROM scratch\nCOPY f /f\n", "lay/f": "layout",
	}
	dir := buildContext(t, files)
	require.Zero(t, onHost(t, "build", "--isolation", "chroot", "--no-push", "--oci-layout-path", filepath.Join(dir, "layout"), filepath.Join(dir, "lay")).code)
	sock := strings.TrimPrefix(engine, "unix://")
	out := filepath.Join(dir, "out")
	require.NoError(t, os.Mkdir(out, 0o777))
	got := run(t, jobCommand(t.Context(), t, []string{"-v", filepath.Dir(sock) + ":/engine", "-w", "/workspace"}, dir, "build", "--log-format", "plain", "--engine", "buildkit=unix:///engine/sock",
		"--build-arg", "WHO=you", "--secret", "id=token,src=token", "--build-context", "extra=x", "--build-context", "lay=oci-layout://layout", "--label", "c=d", "--annotation", "note=1",
		"-d", reg+"/engine/a:1", "-d", reg+"/engine/a:2", "-d", reg+"/engine/b:1", "--cache-repo", reg+"/engine/cache",
		"--oci-layout-path", "out/layout", "--tar-path", "out/image.tar", "--rootfs-dir", "out/root", "--rootfs-tar", "out/root.tar",
		"--digest-file", "out/digest", "--iidfile", "out/iid", "--metadata-file", "out/metadata", "--image-name-with-digest-file", "out/names", "."))
	require.Zero(t, got.code, got.output)
	require.NotContains(t, got.output, "planted-value")
	require.Contains(t, got.output, "[build 2/5] RUN echo hello you >/hello\n")
	require.Contains(t, got.output, "cache   0 of 5 steps: the engine's cache has no result")

	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(out, name))
		require.NoError(t, err)
		return string(data)
	}
	digest := read("digest")
	for _, ref := range []string{"/engine/a:1", "/engine/a:2", "/engine/b:1"} {
		img := imageAt(t, reg+ref)
		d, err := img.Digest()
		require.NoError(t, err)
		require.Equal(t, digest, d.String(), ref)
	}
	img := imageAt(t, reg+"/engine/a:1")
	config, err := img.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "b", "c": "d"}, config.Config.Labels)
	manifest, err := img.Manifest()
	require.NoError(t, err)
	require.Equal(t, "1", manifest.Annotations["note"])
	require.Contains(t, read("layout/index.json"), digest)
	require.FileExists(t, filepath.Join(out, "layout/blobs", strings.ReplaceAll(digest, ":", "/")))
	for name, want := range map[string]string{"hello": "hello you\n", "used": "used\n", "extra": "extra\n", "from-layout": "layout", "data/kept": "kept\n"} {
		require.Equal(t, want, read("root/"+name))
	}
	require.NoFileExists(t, filepath.Join(out, "root/data/ignored"))
	require.Contains(t, namesIn(t, filepath.Join(out, "root.tar")), "data/kept")
	require.Contains(t, namesIn(t, filepath.Join(out, "image.tar")), "manifest.json")
	require.Contains(t, read("names"), reg+"/engine/b@"+digest)
	require.Contains(t, tagsOf(t, reg+"/engine/cache"), "buildkit")
	require.Equal(t, "layout", func() string { data, _ := os.ReadFile(filepath.Join(dir, "lay/f")); return string(data) }())
	left, err := os.ReadDir(filepath.Join(dir, "layout"))
	require.NoError(t, err)
	require.Len(t, left, 3, "an engine that reads a layout leaves nothing there: %v", left)
}

func namesIn(t *testing.T, path string) (out []string) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	r := tar.NewReader(bytes.NewReader(data))
	for h, err := r.Next(); err == nil; h, err = r.Next() {
		out = append(out, h.Name)
	}
	return out
}

// TestAnEngineTakesEveryContext: streams, URLs, git, and a Dockerfile from elsewhere.
func TestAnEngineTakesEveryContext(t *testing.T) {
	engine := parts.Oracle(t).Addr
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /f\n", "f": "from the context", "other/Dockerfile": "FROM scratch\nCOPY f /g\n"})
	archive := filepath.Join(t.TempDir(), "context.tar.gz")
	require.NoError(t, exec.CommandContext(t.Context(), "tar", "-C", dir, "-czf", archive, ".").Run())
	data, err := os.ReadFile(archive)
	require.NoError(t, err)
	web := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(archive))))
	t.Cleanup(web.Close)
	check := func(t *testing.T, stdin []byte, want string, args ...string) {
		t.Helper()
		root := t.TempDir()
		all := append([]string{"build", "--log-format", "plain", "--engine", "buildkit=" + engine, "--store", filepath.Join(t.TempDir(), "store"), "--rootfs-dir", root}, args...)
		cmd := exec.CommandContext(t.Context(), parts.Binary(t), all...)
		cmd.Stdin, cmd.Dir = bytes.NewReader(stdin), dir
		got := run(t, cmd)
		require.Zero(t, got.code, got.output)
		data, err := os.ReadFile(filepath.Join(root, want))
		require.NoError(t, err, got.output)
		require.Equal(t, "from the context", string(data))
	}
	t.Run("stream", func(t *testing.T) { check(t, data, "f", "-") })
	t.Run("tar", func(t *testing.T) { check(t, nil, "f", "--context", "tar://"+archive) })
	t.Run("Dockerfile by standard input", func(t *testing.T) { check(t, []byte("FROM scratch\nCOPY f /h\n"), "h", "-f", "-", ".") })
	t.Run("Dockerfile in a stream", func(t *testing.T) { check(t, data, "g", "-f", "other/Dockerfile", "-") })
	t.Run("URL", func(t *testing.T) { check(t, nil, "f", web.URL+"/context.tar.gz") })
	t.Run("directory", func(t *testing.T) { check(t, nil, "g", "-f", "other/Dockerfile", ".") })
	t.Run("sub path", func(t *testing.T) {
		check(t, nil, "f", "--context", filepath.Dir(dir), "--context-sub-path", filepath.Base(dir), "-f", filepath.Join(dir, "Dockerfile"))
	})
	t.Run("git", func(t *testing.T) { check(t, nil, "f", gitServer(t, dir)) })
	t.Run("a frontend by its name is the built-in one", func(t *testing.T) {
		check(t, []byte("# syntax=docker/dockerfile:1\nFROM scratch\nCOPY f /h\n"), "h", "-f", "-", ".")
	})
}

// gitServer serves a directory's files as a git repository by http.
func gitServer(t *testing.T, dir string) (url string) {
	t.Helper()
	root := t.TempDir()
	git := func(args ...string) {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	work := filepath.Join(root, "work")
	require.NoError(t, os.CopyFS(work, os.DirFS(dir)))
	git("-C", work, "init", "-q", "-b", "main")
	git("-C", work, "add", ".")
	git("-C", work, "commit", "-q", "-m", "x")
	git("clone", "-q", "--bare", work, filepath.Join(root, "repo.git"))
	s := httptest.NewServer(&cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}})
	t.Cleanup(s.Close)
	return s.URL + "/repo.git#main"
}

// TestAnEnginesCacheIsInARegistry: a second build, by an engine that has lost its state,
// runs nothing.
func TestAnEnginesCacheIsInARegistry(t *testing.T) {
	base, reg := smallBase(t), parts.SharedRegistry(t).Addr
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nRUN cat /proc/sys/kernel/random/uuid >/uuid\nCOPY f /f\n", "f": "x"})
	engine := parts.NewBuildKit(t, "cached", nil)
	build := func(more ...string) (outcome, v1.Hash) {
		got := byEngine(t, []string{engine.Addr}, append([]string{"-d", reg + "/enginecache/app:1", "--cache-repo", reg + "/enginecache/cache", dir}, more...)...)
		require.Zero(t, got.code, got.output)
		d, err := imageAt(t, reg+"/enginecache/app:1").ConfigName()
		require.NoError(t, err)
		return got, d
	}
	got, first := build()
	require.Contains(t, got.output, "there is no cache yet at "+reg+"/enginecache/cache:buildkit")
	prune := func() {
		out, err := exec.CommandContext(t.Context(), engine.Buildctl, "--addr", engine.Addr, "prune", "--all").CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	prune()
	got, second := build()
	require.Equal(t, first, second, "the step ran again: %s", got.output)
	require.Contains(t, got.output, "cache   2 of 2 steps")
	require.NotContains(t, got.output, "there is no cache yet")
	prune()
	_, third := build("--no-cache")
	require.NotEqual(t, first, third)
	prune()
	before := tagDigest(t, reg+"/enginecache/cache:buildkit")
	build("--no-cache", "--no-push-cache")
	require.Equal(t, before, tagDigest(t, reg+"/enginecache/cache:buildkit"), "--no-push-cache writes nothing")
}

func tagDigest(t *testing.T, ref string) string {
	t.Helper()
	d, err := remote.Head(reference(t, ref), remote.WithContext(t.Context()))
	require.NoError(t, err)
	return d.Digest.String()
}

// TestEnginesBuildPlatformsSideBySide: two engines with a platform each, one image.
func TestEnginesBuildPlatformsSideBySide(t *testing.T) {
	reg := parts.SharedRegistry(t).Addr
	one, two := parts.NewBuildKit(t, "amd64", nil), parts.NewBuildKit(t, "arm64", nil)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY f /of-$TARGETARCH\n", "f": "x"})
	root := t.TempDir()
	got := byEngine(t, []string{one.Addr + ",platforms=linux/amd64,linux/386", two.Addr + ",platforms=linux/arm64"},
		"--platform", "linux/arm64,linux/amd64", "-d", reg+"/engines/app:1", "-d", reg+"/engines/app:2", "--annotation", "index:a=b", "--rootfs-dir", root, dir)
	require.Zero(t, got.code, got.output)
	index := manifestOf(t, reg+"/engines/app", "1")
	require.Equal(t, "b", index.Annotations["a"])
	require.Len(t, index.Manifests, 2)
	require.Equal(t, "arm64", index.Manifests[0].Platform.Architecture, "in the order that was asked for")
	require.Equal(t, "amd64", index.Manifests[1].Platform.Architecture)
	require.FileExists(t, filepath.Join(root, "linux_arm64/of-arm64"))
	require.FileExists(t, filepath.Join(root, "linux_amd64/of-amd64"))
	require.Contains(t, got.output, "linux/arm64 [1/1] COPY f /of-arm64")
	got = byEngine(t, []string{one.Addr + ",platforms=linux/amd64"}, "--platform", "linux/arm64", "--no-push", dir)
	require.Equal(t, 2, got.code, got.output)
	require.Contains(t, got.output, "no engine is for linux/arm64")

	// One that fails ends the other, and nothing is tagged.
	dir = buildContext(t, map[string]string{"Dockerfile": "FROM " + smallBase(t) + "\nARG TARGETARCH\nRUN test $TARGETARCH = arm64 || sleep 100\nRUN test $TARGETARCH = amd64\n"})
	start := time.Now()
	got = byEngine(t, []string{one.Addr + ",platforms=linux/amd64", two.Addr + ",platforms=linux/arm64"}, "--platform", "linux/arm64,linux/amd64", "-d", reg+"/engines/failed:1", dir)
	require.Equal(t, 1, got.code, got.output)
	require.Contains(t, got.output, "Dockerfile:4")
	require.Less(t, time.Since(start), 60*time.Second)
	require.Empty(t, tagsOf(t, reg+"/engines/failed"))
}

// TestAnEngineUsesTheJobsLogins: pulling and pushing where a login is needed; the
// engine knows none.
func TestAnEngineUsesTheJobsLogins(t *testing.T) {
	locked := parts.LockedRegistry(t)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /f\n", "f": "x", "next/Dockerfile": "FROM " + locked.Addr + "/app:1\nCOPY Dockerfile /\n"})
	config := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(config, "config.json"), fmt.Appendf(nil, `{"auths":{%q:{"username":%q,"password":%q}}}`, locked.Addr, parts.LockedUser, parts.LockedPassword), 0o600))
	build := func(config, tag, dir string) outcome {
		cmd := exec.CommandContext(t.Context(), parts.Binary(t), "build", "--log-format", "plain", "--engine", "buildkit="+parts.Oracle(t).Addr, "--store", t.TempDir(), "-d", locked.Addr+"/app:"+tag, dir)
		cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+config)
		return run(t, cmd)
	}
	got := build(config, "1", dir)
	require.Zero(t, got.code, got.output)
	got = build(config, "2", filepath.Join(dir, "next"))
	require.Zero(t, got.code, got.output)
	require.NotContains(t, got.output, parts.LockedPassword)
	got = build(t.TempDir(), "3", dir)
	require.Equal(t, 3, got.code, got.output)
}

// TestAnEngineMakesTheSameImage: what docs/scale.md says of it. The same digest, but with
// gzip, which BuildKit's library writes in other words.
func TestAnEngineMakesTheSameImage(t *testing.T) {
	base := smallBase(t)
	for name, c := range map[string]struct {
		args []string
		same bool
	}{
		"uncompressed": {[]string{"--compression", "none"}, true},
		"zstd":         {[]string{"--compression", "zstd"}, true},
		"gzip":         {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			images := map[bool]v1.Image{}
			for _, engine := range []bool{false, true} {
				dir := reproducibleContext(t, base, time.Now())
				out := filepath.Join(dir, "out")
				args := append([]string{"--oci-layout-path", out, "--context", dir, "--reproducible", "--platform", "linux/amd64"}, c.args...)
				var got outcome
				if engine {
					got = byEngine(t, []string{parts.Oracle(t).Addr}, args...)
				} else {
					got = onHost(t, append([]string{"build", "--log-format", "plain"}, args...)...)
				}
				require.Zero(t, got.code, got.output)
				images[engine] = layoutImage(t, out)
			}
			here, there := imageListing(t, images[false]), imageListing(t, images[true])
			if !c.same { // all but the manifest's digest, in the last line
				here, there = here[:strings.LastIndex(here, "\n")], there[:strings.LastIndex(there, "\n")]
			}
			require.Equal(t, here, there)
		})
	}
}

// TestAnEngineByAnotherProgram: docker exec and kubectl exec reach buildctl dial-stdio
// next to the engine. The Docker engine is a real one; kubectl is a script, since there
// is no cluster.
func TestAnEngineByAnotherProgram(t *testing.T) {
	d, kit := parts.Engine(t), parts.Oracle(t)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /f\n", "f": "x"})
	d.Must(t, "run", "-d", "--name", "buildkitd", "--entrypoint", "/busybox/sh", "-v", filepath.Dir(strings.TrimPrefix(kit.Addr, "unix://"))+":/engine", "-v", kit.Buildctl+":/usr/bin/buildctl:ro",
		"-e", "BUILDKIT_HOST=unix:///engine/sock", "-e", "PATH=/usr/bin:/busybox", parts.JobImage(t, d), "-c", "while sleep 1000; do :; done")
	t.Cleanup(func() { _ = d.Command(context.WithoutCancel(t.Context()), "rm", "-f", "buildkitd").Run() })
	programs := t.TempDir()
	script := "#!/bin/sh\necho \"$*\" >" + programs + "/asked\nexec " + kit.Buildctl + " --addr " + kit.Addr + " dial-stdio\n"
	require.NoError(t, os.WriteFile(filepath.Join(programs, "kubectl"), []byte(script), 0o755))
	for _, address := range []string{"docker-container://buildkitd", "kube-pod://builder-0?namespace=ci&container=buildkitd"} {
		cmd := exec.CommandContext(t.Context(), parts.Binary(t), "build", "--log-format", "plain", "--store", t.TempDir(), "--engine", "buildkit="+address, "--no-push", dir)
		cmd.Env = append(os.Environ(), "DOCKER_HOST="+d.Host, "PATH="+programs+":"+os.Getenv("PATH"))
		got := run(t, cmd)
		require.Zero(t, got.code, got.output)
		require.Contains(t, got.output, "[1/1] COPY f /f")
	}
	asked, err := os.ReadFile(filepath.Join(programs, "asked"))
	require.NoError(t, err)
	require.Contains(t, string(asked), "--namespace=ci exec --container=buildkitd -i builder-0 -- buildctl dial-stdio")
	got := byEngine(t, []string{"docker-container://nobody"}, "--no-push", dir)
	require.Equal(t, 4, got.code, got.output)
	require.Contains(t, got.output, "remedy: ")
}
