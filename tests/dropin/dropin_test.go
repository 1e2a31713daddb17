// Package dropin runs pipelines that were written for Kaniko with only the image's
// name changed: our own image, as make image builds it, in default containers.
package dropin_test

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

func TestMain(m *testing.M) { parts.Run(m) }

// pipeline is one way in which people run Kaniko.
type pipeline struct {
	name string
	// target of our Dockerfile: debug where there has to be a shell.
	target string
	// docker are further arguments of docker run, args what follows the image.
	docker, args []string
	// says is part of the output.
	says string
}

// TestKanikosPipelines: each builds from and pushes to a registry that demands a
// login, and no step sees the login.
func TestKanikosPipelines(t *testing.T) {
	d := parts.Engine(t)
	locked := parts.LockedRegistry(t)
	auth := base64.StdEncoding.EncodeToString([]byte(parts.LockedUser + ":" + parts.LockedPassword))
	conf := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, locked.Addr, auth)
	secrets := t.TempDir()
	require.NoError(t, os.Chmod(secrets, 0o755))
	file := filepath.Join(secrets, "config.json")
	require.NoError(t, os.WriteFile(file, []byte(conf), 0o644))
	base := parts.SharedRegistry(t).Addr + "/small:1"
	parts.PushBase(t, base, parts.SmallBase(t))

	for _, p := range []pipeline{
		// Kaniko's README, "Running kaniko in Docker".
		{"docker run with a mounted config.json", "executor",
			[]string{"-v", file + ":/kaniko/.docker/config.json:ro", "-v", "CONTEXT:/workspace"},
			[]string{"--dockerfile", "/workspace/Dockerfile", "--destination", "REF", "--context", "dir:///workspace/"}, ""},
		// As Kubernetes mounts a secret.
		{"docker run with a mounted directory", "executor",
			[]string{"-v", secrets + ":/kaniko/.docker:ro", "-v", "CONTEXT:/workspace"},
			[]string{"--context=dir:///workspace", "--destination=REF"}, ""},
		{"docker run with inline DOCKER_CONFIG", "executor",
			[]string{"-e", "DOCKER_CONFIG=" + conf, "-v", "CONTEXT:/workspace"},
			[]string{"--dockerfile=Dockerfile", "--destination=REF"}, ""},
		{"docker run with a credentials file", "executor",
			[]string{"-v", secrets + ":/opt/creds:ro", "-v", "CONTEXT:/workspace"},
			[]string{"--secret", "/opt/creds/config.json", "--destination", "REF", "--context=/workspace"}, ""},
		{"docker run of /kaniko/executor", "executor",
			[]string{"-v", file + ":/kaniko/.docker/config.json:ro", "-v", "CONTEXT:/workspace", "--entrypoint", "/kaniko/executor"},
			[]string{"--dockerfile=Dockerfile", "--context=dir:///workspace", "--destination=REF"}, ""},
		{"cache and cache repository", "executor",
			[]string{"-v", file + ":/kaniko/.docker/config.json:ro", "-v", "CONTEXT:/workspace"},
			[]string{"--context=dir:///workspace", "--destination=REF", "--cache=true", "--cache-copy-layers", "--cache-repo=" + locked.Addr + "/cache"}, "cache   "},
		// GitLab's documentation of Kaniko: "Build and push to the GitLab container registry".
		{"GitLab's job", "debug",
			[]string{"--entrypoint", "", "-v", "CONTEXT:/builds/group/project", "-w", "/builds/group/project", "-e", "CI=true", "-e", "GITLAB_CI=true",
				"-e", "CI_PROJECT_DIR=/builds/group/project", "-e", "CI_REGISTRY=" + locked.Addr, "-e", "CI_REGISTRY_USER=" + parts.LockedUser, "-e", "CI_REGISTRY_PASSWORD=" + parts.LockedPassword, "-e", "IMAGE=REF"},
			[]string{"sh", "-c", `/kaniko/executor --context "${CI_PROJECT_DIR}" --dockerfile "${CI_PROJECT_DIR}/Dockerfile" --destination "${IMAGE}"`}, ""},
		// The same as it was documented before, with a config.json of its own.
		{"GitLab's job that writes config.json", "debug",
			[]string{"--entrypoint", "", "-v", "CONTEXT:/builds/group/project", "-w", "/builds/group/project", "-e", "REGISTRY=" + locked.Addr, "-e", "AUTH_USER=" + parts.LockedUser, "-e", "AUTH_PASSWORD=" + parts.LockedPassword},
			[]string{"/busybox/sh", "-c", `mkdir -p /kaniko/.docker
echo "{\"auths\":{\"${REGISTRY}\":{\"auth\":\"$(printf "%s:%s" "${AUTH_USER}" "${AUTH_PASSWORD}" | base64 | tr -d '\n')\"}}}" > /kaniko/.docker/config.json
/kaniko/executor --context /builds/group/project --dockerfile /builds/group/project/Dockerfile --destination REF && test -s /kaniko/.docker/config.json`}, ""},
	} {
		t.Run(p.name, func(t *testing.T) {
			dir := newContext(t, base)
			ref := locked.Addr + "/app:" + strings.ReplaceAll(strings.ToLower(filepath.Base(t.Name())), "'", "")
			fill := func(list []string) (out []string) {
				for _, s := range list {
					out = append(out, strings.NewReplacer("CONTEXT:", dir+":", "REF", ref).Replace(s))
				}
				return out
			}
			command := append([]string{"run", "--rm", "--network", "host"}, fill(p.docker)...)
			command = append(append(command, parts.ProductImage(t, d, p.target)), fill(p.args)...)
			out := d.Must(t, command...)
			require.Contains(t, out, "isolation inplace")
			require.Contains(t, out, p.says)
			require.NotContains(t, out, parts.LockedPassword)
			require.NotContains(t, out, auth)
			login := d.Command(t.Context(), "--config", secrets, "pull", ref)
			got, err := login.CombinedOutput()
			require.NoError(t, err, string(got))
			require.Equal(t, "built\n", d.Must(t, "run", "--rm", "--network", "none", ref))
		})
	}
}

// newContext is a build context whose step looks for logins.
func newContext(t *testing.T, base string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+base+`
COPY message /message
RUN for f in /kaniko/.docker/config.json /kaniko-home/.docker/config.json /opt/creds/config.json /root/.docker/config.json; do ! cat $f || exit 9; done; ! env | grep -e auth -e planted
CMD ["cat", "/message"]
`), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "message"), []byte("built\n"), 0o644))
	return dir
}

// TestALoginThatCannotBeSetAsideIsSaid: a volume on a directory of the image stays
// where it is, and steps can read it; the log says so, and only of that.
func TestALoginThatCannotBeSetAsideIsSaid(t *testing.T) {
	d := parts.Engine(t)
	reg := parts.SharedRegistry(t)
	base := reg.Addr + "/small:1"
	parts.PushBase(t, base, parts.SmallBase(t))
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+base+"\nRUN true\nRUN true\n"), 0o644))
	build := func(docker ...string) string {
		command := append([]string{"run", "--rm", "--network", "host", "-v", dir + ":/workspace"}, docker...)
		return d.Must(t, append(command, parts.ProductImage(t, d, "executor"), "--context=/workspace", "--no-push")...)
	}
	const says = "steps can see what the job has mounted at "
	require.Equal(t, 1, strings.Count(build("-v", t.TempDir()+":/kaniko/logins"), says+"/kaniko/logins:"))
	require.NotContains(t, build("-v", t.TempDir()+":/kaniko/.docker"), says)
	require.NotContains(t, build("-v", t.TempDir()+":/opt/logins"), says)
	require.NotContains(t, build(), says)
}

// TestTarOutput is Kaniko's --tar-path, in both of its spellings, with what docker
// load makes of it.
func TestTarOutput(t *testing.T) {
	d := parts.Engine(t)
	base := parts.SharedRegistry(t).Addr + "/small:1"
	parts.PushBase(t, base, parts.SmallBase(t))
	for _, flag := range []string{"--tar-path", "--tarPath"} {
		dir := newContext(t, base)
		d.Must(t, "run", "--rm", "--network", "host", "-v", dir+":/workspace", parts.ProductImage(t, d, "executor"),
			"--context=dir:///workspace", "--no-push", "--destination=tar.example/app:1", flag+"=/workspace/image.tar")
		d.Must(t, "load", "--input", filepath.Join(dir, "image.tar"))
		require.Equal(t, "built\n", d.Must(t, "run", "--rm", "--network", "none", "tar.example/app:1"))
		d.Must(t, "rmi", "tar.example/app:1")
	}
}

// TestTheImageItself: what is in it, and how large it is.
func TestTheImageItself(t *testing.T) {
	d := parts.Engine(t)
	for target, most := range map[string]int64{"executor": 25 << 20, "debug": 27 << 20} {
		image := parts.ProductImage(t, d, target)
		layout := filepath.Join(parts.Repo(), ".image/layout/blobs/sha256")
		if target == "debug" || exec.Command("test", "-d", layout).Run() == nil {
			var size int64
			blobs, err := os.ReadDir(layout)
			require.NoError(t, err)
			for _, b := range blobs {
				fi, err := b.Info()
				require.NoError(t, err)
				size += fi.Size()
			}
			require.Less(t, size, most, target)
		}
		names := listing(t, d, image)
		require.Contains(t, names, "kaniko/executor")
		require.Contains(t, names, "kaniko/warmer")
		require.Contains(t, names, "kaniko/ssl/certs/ca-certificates.crt")
		require.Equal(t, target == "debug", strings.Contains(names, "layerwright/busybox/sh"), names)
		require.Equal(t, "layerwright", strings.Fields(d.Must(t, "run", "--rm", "--entrypoint", "/kaniko/executor", image, "version"))[0])
	}
}

// TestTheImageForAnotherArchitecture is made without emulation: nothing runs in it.
func TestTheImageForAnotherArchitecture(t *testing.T) {
	d := parts.Engine(t)
	arch := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	cmd := exec.CommandContext(t.Context(), "make", "image", "IMAGE=layerwright-product:other", "IMAGE_ARCH="+arch)
	cmd.Dir, cmd.Env = parts.Repo(), append(os.Environ(), "DOCKER_HOST="+d.Host)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, arch+"\n", d.Must(t, "image", "inspect", "--format", "{{.Architecture}}", "layerwright-product:other"))
}

// TestWarmer is Kaniko's, with a directory that the builder then reads.
func TestWarmer(t *testing.T) {
	d := parts.Engine(t)
	base := parts.SharedRegistry(t).Addr + "/small:1"
	parts.PushBase(t, base, parts.SmallBase(t))
	cache := t.TempDir()
	d.Must(t, "run", "--rm", "--network", "host", "-v", cache+":/cache", "--entrypoint", "/kaniko/warmer", parts.ProductImage(t, d, "executor"), "--cache-dir=/cache", "--image="+base)
	require.FileExists(t, filepath.Join(cache, "index.json"))
	out := d.Must(t, "run", "--rm", "--network", "host", "-v", newContext(t, base)+":/workspace", "-v", cache+":/cache:ro", parts.ProductImage(t, d, "executor"), "--no-push")
	require.NotContains(t, out, "pull "+base, "the layer is not fetched")
}

// listing is the names of an image's files.
func listing(t *testing.T, d *parts.Docker, image string) string {
	t.Helper()
	id := strings.TrimSpace(d.Must(t, "create", image))
	defer d.Must(t, "rm", id)
	data, err := d.Command(t.Context(), "export", id).Output()
	require.NoError(t, err)
	var names strings.Builder
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return names.String()
		}
		require.NoError(t, err)
		names.WriteString(h.Name + "\n")
	}
}

// TestOtherThingsThatKanikoCan: flags beyond those of everybody's pipeline.
func TestOtherThingsThatKanikoCan(t *testing.T) {
	d := parts.Engine(t)
	reg := parts.SharedRegistry(t)
	base := reg.Addr + "/small:1"
	parts.PushBase(t, base, parts.SmallBase(t))
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777)) //nolint:gosec // written by the container
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	write("Dockerfile", "FROM "+base+"\nRUN exit 42\n")
	write("sub/message", "below")
	write("sub/Dockerfile", "FROM "+base+`
RUN mkdir -p /skipped/a && echo 1 > /skipped/a/b && echo 1 > /first
RUN test -e /skipped/a/b && rm /first && echo 2 > /second
COPY message /message
`)
	image := parts.ProductImage(t, d, "executor")
	run := func(args ...string) (string, int) {
		command := append([]string{"run", "--rm", "--network", "host", "-v", dir + ":/workspace", "-w", "/", image}, args...)
		c := d.Command(t.Context(), command...)
		out, err := c.CombinedOutput()
		require.NotNil(t, c.ProcessState, "%v", err)
		return string(out), c.ProcessState.ExitCode()
	}
	ref := reg.Addr + "/other"

	t.Run("one layer, ignored paths, names with digests, a part of the context", func(t *testing.T) {
		out, code := run("--context=dir:///workspace", "--context-sub-path=sub", "--single-snapshot", "--ignore-path=/skipped", "-d", ref+":1", "-d", ref+":2",
			"--image-name-with-digest-file=/workspace/names", "--image-name-tag-with-digest-file=/workspace/tagged", "--digest-file=/workspace/digest")
		require.Zero(t, code, out)
		read := func(name string) string {
			data, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			return string(data)
		}
		digest := read("digest")
		require.Equal(t, ref+"@"+digest+"\n"+ref+"@"+digest+"\n", read("names"))
		require.Equal(t, ref+":1@"+digest+"\n"+ref+":2@"+digest+"\n", read("tagged"))
		d.Must(t, "pull", base)
		d.Must(t, "pull", ref+":1")
		layers := func(ref string) int {
			return strings.Count(d.Must(t, "image", "inspect", "--format", "{{json .RootFS.Layers}}", ref), "sha256:")
		}
		require.Equal(t, layers(base)+1, layers(ref+":1"))
		require.Equal(t, "2\nbelow", d.Must(t, "run", "--rm", "--network", "none", ref+":1", "sh", "-c", "cat /second /message; ! test -e /first && ! test -e /skipped"))
	})
	t.Run("the code of a step, a time limit, a plan, no space", func(t *testing.T) {
		out, code := run("--context=dir:///workspace", "--no-push", "--exit-code-from-step")
		require.Equal(t, 42, code, out)
		out, code = run("--context=dir:///workspace", "--dryrun", "-d", reg.Addr+"/never:1")
		require.Zero(t, code, out)
		require.Contains(t, out, "run         [2/2] RUN exit 42  (Dockerfile:2)")
		out, code = run("--context=dir:///workspace", "--no-push", "--min-free=4000g")
		require.Equal(t, 4, code, out)
		require.Contains(t, out, "--min-free")
		write("Dockerfile", "FROM "+base+"\nRUN sleep 60\n")
		out, code = run("--context=dir:///workspace", "--no-push", "--timeout=2s")
		require.Equal(t, 124, code, out)
		require.Contains(t, out, "running then: [2/2] RUN sleep 60")
	})
}

// TestAnImageIsPushedLater, with the digest that the build gave it: from a layout, from
// a tar, and from what docker save writes.
func TestAnImageIsPushedLater(t *testing.T) {
	d := parts.Engine(t)
	reg := parts.SharedRegistry(t)
	base := reg.Addr + "/small:1"
	parts.PushBase(t, base, parts.SmallBase(t))
	dir := newContext(t, base)
	require.NoError(t, os.Chmod(dir, 0o777)) //nolint:gosec // written by the container
	image := parts.ProductImage(t, d, "executor")
	run := func(args ...string) string {
		return d.Must(t, append([]string{"run", "--rm", "--network", "host", "-v", dir + ":/workspace", image}, args...)...)
	}
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return string(data)
	}
	run("--context=/workspace", "--no-push", "--destination=later:1", "--oci-layout-path=/workspace/layout", "--tar-path=/workspace/image.tar", "--digest-file=/workspace/built")
	for _, from := range []string{"layout", "image.tar"} {
		ref := reg.Addr + "/later:" + from
		require.Contains(t, run("push", "/workspace/"+from, "-d", ref, "--digest-file=/workspace/pushed"), "pushed  "+ref)
		require.Equal(t, read("built"), read("pushed"))
		d.Must(t, "pull", ref)
		require.Equal(t, "built\n", d.Must(t, "run", "--rm", "--network", "none", ref))
	}
	d.Must(t, "save", "-o", filepath.Join(dir, "docker.tar"), reg.Addr+"/later:layout")
	run("push", "/workspace/docker.tar", "-d", reg.Addr+"/later:docker")
	d.Must(t, "rmi", "--force", reg.Addr+"/later:layout", reg.Addr+"/later:image.tar")
	d.Must(t, "pull", reg.Addr+"/later:docker")
	require.Equal(t, "built\n", d.Must(t, "run", "--rm", "--network", "none", reg.Addr+"/later:docker"))
}
