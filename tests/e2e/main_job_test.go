package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/conformance"
	"github.com/layerwright/layerwright/tests/parts"
)

// hostModes are the modes other than inplace, which run on the machine.
var hostModes = map[string][]string{
	"overlay": {"--isolation", "namespaces", "--snapshots", "overlay"},
	"flat":    {"--isolation", "namespaces", "--snapshots", "flat"},
	"chroot":  {"--isolation", "chroot"},
}

// TestMainJob is the job that this program exists for: a multi-stage
// Dockerfile on Debian, built in a default container, pushed, pulled by a
// Docker engine, and run. Every other isolation mode makes the same image.
func TestMainJob(t *testing.T) {
	reg := parts.SharedRegistry(t)
	base := reg.Addr + "/debian:1"
	parts.PushDebian(t, base)
	d := parts.Engine(t)
	dir, err := filepath.Abs("testdata/debian")
	require.NoError(t, err)
	secret := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(secret, []byte("planted-secret-1"), 0o600))

	ref := reg.Addr + "/main:inplace"
	got := run(t, jobCommand(t.Context(), t, []string{"-v", secret + ":/token:ro"}, dir,
		"build", "--log-format", "plain", "--isolation", "inplace", "--context", "/workspace", "--build-arg", "BASE="+base,
		"--secret", "id=token,src=/token", "--destination", ref))
	require.Equal(t, 0, got.code, got.output)
	require.NotContains(t, got.output, "planted-secret-1")

	d.Must(t, "pull", ref)
	out := d.Must(t, "run", "--rm", "--network", "none", ref)
	require.Equal(t, "hello from a default container: it works\n", out)
	out = d.Must(t, "run", "--rm", "--network", "none", ref, "sh", "-c", "id -un; cat /etc/token-length; stat -c %U greeting.txt; ls -A /run/secrets 2>/dev/null | wc -l; pwd")
	require.Equal(t, "greeter\n16\ngreeter\n0\n/home/greeter\n", out)

	want, err := conformance.Load(t.Context(), ref)
	require.NoError(t, err)
	for name, args := range hostModes {
		t.Run(name, func(t *testing.T) {
			ref := reg.Addr + "/main:" + name
			got := onHost(t, append([]string{"build", "--log-format", "plain", "--context", dir, "--build-arg", "BASE=" + base,
				"--secret", "id=token,src=" + secret, "--destination", ref}, args...)...)
			require.Equal(t, 0, got.code, got.output)
			image, err := conformance.Load(t.Context(), ref)
			require.NoError(t, err)
			// The steps' own output differs from run to run in logs and
			// caches that hold times; config and names must not.
			require.Equal(t, want.Config["config"], image.Config["config"])
			require.Len(t, image.Layers, len(want.Layers))
			for i := range want.Layers {
				require.ElementsMatch(t, want.Order[i], image.Order[i], "layer %d", i)
				for n, w := range want.Layers[i] {
					g := image.Layers[i][n]
					require.Equal(t, []any{w.Type, w.Mode, w.UID, w.GID, w.Link, w.Dev, w.Xattrs}, []any{g.Type, g.Mode, g.UID, g.GID, g.Link, g.Dev, g.Xattrs}, "layer %d: %s", i, n)
				}
			}
		})
	}
}

// TestKanikoIntroduction is the example of Kaniko's own introduction, in every
// mode.
func TestKanikoIntroduction(t *testing.T) {
	reg := parts.SharedRegistry(t)
	base := reg.Addr + "/debian:1"
	parts.PushDebian(t, base)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nRUN apt-get update && apt-get install -y curl\nCMD [\"curl\", \"--version\"]\n"})
	ref := reg.Addr + "/intro:1"
	got := inJob(t, dir, "build", "--log-format", "plain", "--context", "/workspace", "--destination", ref)
	require.Equal(t, 0, got.code, got.output)
	d := parts.Engine(t)
	d.Must(t, "pull", ref)
	require.Contains(t, d.Must(t, "run", "--rm", "--network", "none", ref), "curl ")
	for name, args := range hostModes {
		t.Run(name, func(t *testing.T) {
			ref := reg.Addr + "/intro:" + name
			got := onHost(t, append([]string{"build", "--log-format", "plain", "--context", dir, "--destination", ref}, args...)...)
			require.Equal(t, 0, got.code, got.output)
			d.Must(t, "pull", ref)
			require.Contains(t, d.Must(t, "run", "--rm", "--network", "none", ref), "curl ")
		})
	}
}

// TestBigLayerInLittleMemory: memory does not grow with a layer's size.
func TestBigLayerInLittleMemory(t *testing.T) {
	reg := parts.SharedRegistry(t)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + smallBase(t) + "\nRUN dd if=/dev/urandom of=/big bs=1M count=2048 2>/dev/null\n"})
	ref := reg.Addr + "/big:1"
	began := time.Now()
	got := run(t, jobCommand(t.Context(), t, []string{"--memory", "256m", "--memory-swap", "256m"}, dir,
		"build", "--log-format", "plain", "--context", "/workspace", "--destination", ref, "--profile", "/workspace/profile"))
	require.Equal(t, 0, got.code, got.output)
	t.Logf("2 GB in 256 MB took %s", time.Since(began).Round(time.Second))
	trace, err := os.ReadFile(filepath.Join(dir, "profile", "trace.json"))
	require.NoError(t, err)
	require.True(t, json.Valid(trace))
	for _, name := range []string{`"name":"command"`, `"name":"compress layer"`, `"name":"push `, `"name":"memory in MiB"`} {
		require.Contains(t, string(trace), name)
	}
}
