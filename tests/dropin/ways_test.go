package dropin_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/tests/parts"
)

const (
	published   = "ghcr.io/layerwright/layerwright:v1"
	destination = "registry.example/team/app:1"
)

// way is what the ways to run have in common: a registry that demands a login, a
// home directory with that login, and a context.
type way struct {
	docker       *parts.Docker
	registry     string
	home, login  string
	context, ref string
}

func newWay(t *testing.T, name string) *way {
	t.Helper()
	w := &way{docker: parts.Engine(t), registry: parts.LockedRegistry(t).Addr, home: t.TempDir()}
	auth := base64.StdEncoding.EncodeToString([]byte(parts.LockedUser + ":" + parts.LockedPassword))
	w.login = fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, w.registry, auth)
	require.NoError(t, os.Mkdir(filepath.Join(w.home, ".docker"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(w.home, ".docker", "config.json"), []byte(w.login), 0o644))
	base := parts.SharedRegistry(t).Addr + "/small:1"
	parts.PushBase(t, base, parts.SmallBase(t))
	w.context, w.ref = newContext(t, base), w.registry+"/ways:"+name
	return w
}

// example reads a file of examples/ with the names of this test.
func (w *way) example(t *testing.T, file, image string, more ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts.Repo(), "examples", file))
	require.NoError(t, err)
	pairs := append([]string{published, image, destination, w.ref}, more...)
	for i := 0; i < len(pairs); i += 2 {
		require.Contains(t, string(data), pairs[i])
	}
	return strings.NewReplacer(pairs...).Replace(string(data))
}

// script runs an example in the context.
func (w *way) script(t *testing.T, text string, env ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-s")
	cmd.Stdin, cmd.Dir = strings.NewReader(text), w.context
	cmd.Env = append(os.Environ(), append([]string{"HOME=" + w.home, "DOCKER_HOST=" + w.docker.Host}, env...)...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

// arrived looks at the image in the registry, and for the login in the log.
func (w *way) arrived(t *testing.T, log string) {
	t.Helper()
	require.NotContains(t, log, parts.LockedPassword)
	got, err := w.docker.Command(t.Context(), "--config", filepath.Join(w.home, ".docker"), "pull", w.ref).CombinedOutput()
	require.NoError(t, err, string(got)+log)
	require.Equal(t, "built\n", w.docker.Must(t, "run", "--rm", "--network", "none", w.ref))
}

// saved is our image as a tar.
func (w *way) saved(t *testing.T) (name, file string) {
	t.Helper()
	name, file = parts.ProductImage(t, w.docker, "executor"), filepath.Join(t.TempDir(), "image.tar")
	w.docker.Must(t, "save", "-o", file, name)
	return name, file
}

func TestExampleDockerRun(t *testing.T) {
	w := newWay(t, "docker")
	text := w.example(t, "docker-run/build.sh", parts.ProductImage(t, w.docker, "executor"), "docker run --rm", "docker run --rm --network host")
	w.arrived(t, w.script(t, text))
}

func TestExampleContainerd(t *testing.T) {
	w := newWay(t, "ctr")
	_, file := w.saved(t)
	const image = "docker.io/library/layerwright-product:executor"
	text := w.example(t, "ctr/build.sh", image, "ctr images pull "+published, "ctr images import "+file)
	socket := strings.TrimSuffix(strings.TrimPrefix(w.docker.Host, "unix://"), "docker.sock") + "exec/containerd/containerd.sock"
	w.arrived(t, w.script(t, text, "CONTAINERD_ADDRESS="+socket, "CONTAINERD_NAMESPACE=ways"))
}

func TestExampleMachine(t *testing.T) {
	w := newWay(t, "vm")
	data, err := os.ReadFile(filepath.Join(parts.Repo(), "examples", "vm/build.sh"))
	require.NoError(t, err)
	require.Contains(t, string(data), destination)
	path := filepath.Dir(parts.Binary(t)) + ":" + os.Getenv("PATH")
	out := w.script(t, strings.ReplaceAll(string(data), destination, w.ref), "PATH="+path, "LAYERWRIGHT_HOST=", "CI=")
	require.Contains(t, out, "isolation namespaces")
	w.arrived(t, out)
}

// TestExamplePod is a Pod of Kubernetes, as podman runs it: with its own seccomp
// profile, and with Docker's, which is what RuntimeDefault means.
func TestExamplePod(t *testing.T) {
	if _, err := exec.LookPath("podman"); err != nil {
		parts.Need(t, err)
	}
	w := newWay(t, "pod")
	name, file := w.saved(t)
	dir := t.TempDir()
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(dir, "root", "overlay"), unix.MNT_DETACH) }) // podman's own bind
	// This kernel may lack what podman's own limits and crun want.
	conf := filepath.Join(dir, "containers.conf")
	require.NoError(t, os.WriteFile(conf, []byte("[containers]\ndefault_ulimits = [\"nofile=20000:20000\",\"nproc=30000:30000\"]\n[engine]\nruntime = \"runc\"\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "docker.json"), dockersSeccomp(t), 0o600))
	podman := func(stdin string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "podman", append([]string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--cgroup-manager", "cgroupfs"}, args...)...)
		cmd.Env, cmd.Stdin = append(os.Environ(), "CONTAINERS_CONF="+conf), strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(stdin string, args ...string) string {
		out, err := podman(stdin, args...)
		require.NoError(t, err, "podman %q: %s", args, out)
		return out
	}
	must("", "load", "-i", file)
	// This podman (4.3) knows no items of a secret and decodes none of its data: the
	// login is a directory instead.
	const secret = "secret:\n        secretName: registry-login\n        optional: false\n        items:\n          - key: .dockerconfigjson\n            path: config.json\n"
	directory := "hostPath:\n        path: " + filepath.Join(w.home, ".docker") + "\n"
	for _, c := range []struct{ name, annotation, isolation string }{
		{"podman's seccomp profile", "", "isolation namespaces"},
		{"RuntimeDefault", "  annotations:\n    container.seccomp.security.alpha.kubernetes.io/build: localhost/docker.json\n", "isolation inplace"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := w.example(t, "kubernetes/pod.yaml", "localhost/"+name, "path: /srv/app", "path: "+w.context, secret, directory,
				"  name: build-app\nspec:\n", "  name: build-app\n"+c.annotation+"spec:\n  hostNetwork: true\n")
			out, err := podman(pod, "kube", "play", "--seccomp-profile-root", dir, "--log-driver", "k8s-file", "-")
			require.NoError(t, err, out)
			defer func() { must(pod, "kube", "down", "-") }()
			code := strings.TrimSpace(must("", "wait", "build-app-build"))
			log := must("", "logs", "build-app-build")
			require.Equal(t, "0", code, log)
			require.Contains(t, log, c.isolation)
			w.arrived(t, log)
		})
	}
}

// dockersSeccomp is the profile that the engine gives its containers.
func dockersSeccomp(t *testing.T) []byte {
	t.Helper()
	data, err := json.Marshal(seccomp.DefaultProfile())
	require.NoError(t, err)
	return data
}

// TestOtherExamples: what cannot run here has only flags that there are.
func TestOtherExamples(t *testing.T) {
	help, err := exec.CommandContext(t.Context(), parts.Binary(t), "build", "--help-all").Output()
	require.NoError(t, err)
	flag := regexp.MustCompile(`(?:^|[ "])--([a-z][a-z-]+)`)
	for file, least := range map[string]int{"tekton/task.yaml": 4, "jenkins/Jenkinsfile": 3, "kubernetes/pod.yaml": 2} {
		data, err := os.ReadFile(filepath.Join(parts.Repo(), "examples", file))
		require.NoError(t, err)
		found := 0
		for line := range bytes.Lines(data) {
			if bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) || bytes.HasPrefix(line, []byte("//")) {
				continue
			}
			for _, m := range flag.FindAllSubmatch(line, -1) {
				require.Contains(t, string(help), "--"+string(m[1])+" ", file)
				found++
			}
		}
		require.GreaterOrEqual(t, found, least, file)
	}
}
