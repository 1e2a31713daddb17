package e2e_test

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

// TestRealApplications builds applications as people write them, in default
// containers, and runs what came of it with a real Docker engine.
func TestRealApplications(t *testing.T) {
	reg := parts.SharedRegistry(t)
	base := reg.Addr + "/debian:1"
	parts.PushDebian(t, base)
	d := parts.Engine(t)
	for _, c := range []struct{ name, answers string }{
		{"go", "go as user 1000\n"},
		{"node", "node says 1m\n"},
		{"python", "python in /home/web\n"},
		{"nginx", "a page of nginx\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ref := reg.Addr + "/apps/" + c.name + ":1"
			buildApp(t, c.name, base, ref)
			d.Must(t, "pull", ref)
			port := freePort(t)
			id := strings.TrimSpace(d.Must(t, "run", "-d", "--network", "host", "-e", "PORT="+port, ref))
			defer func() { _ = d.Command(t.Context(), "rm", "-f", id).Run() }()
			var got string
			eventually(t, "an answer of the application", func() bool {
				resp, err := http.Get("http://127.0.0.1:" + port + "/") //nolint:noctx // a test
				if err != nil {
					return false
				}
				defer resp.Body.Close()
				b, err := io.ReadAll(resp.Body)
				got = string(b)
				return err == nil && resp.StatusCode == http.StatusOK
			})
			require.Equal(t, c.answers, got)
		})
	}
	t.Run("c", func(t *testing.T) {
		ref := reg.Addr + "/apps/c:1"
		buildApp(t, "c", base, ref)
		d.Must(t, "pull", ref)
		require.Equal(t, "hello world from C\n", d.Must(t, "run", "--rm", "--network", "none", ref))
	})
}

func buildApp(t *testing.T, name, base, ref string) {
	t.Helper()
	dir, err := filepath.Abs("testdata/apps/" + name)
	require.NoError(t, err)
	secrets := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(secrets, "npmrc"), npmrc(t, name), 0o600))
	// The machine's certificates: a package that a step installs may have made
	// the image's anew.
	ca, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	require.NoError(t, os.WriteFile(filepath.Join(secrets, "ca"), ca, 0o600))
	got := run(t, jobCommand(t.Context(), t, []string{"-v", secrets + ":/secrets:ro"}, dir, "build", "--log-format", "plain", "--isolation", "inplace",
		"--context", "/workspace", "--build-arg", "BASE="+base, "--secret", "id=npmrc,src=/secrets/npmrc", "--secret", "id=ca,src=/secrets/ca", "--destination", ref))
	require.Equal(t, 0, got.code, got.output)
}

// npmrc has the registry that this machine's npm uses.
func npmrc(t *testing.T, name string) []byte {
	t.Helper()
	if name != "node" {
		return []byte("\n")
	}
	registry := cmp.Or(os.Getenv("NPM_CONFIG_REGISTRY"), os.Getenv("npm_config_registry"))
	if npm, err := exec.LookPath("npm"); err == nil && registry == "" {
		out, err := exec.CommandContext(t.Context(), npm, "config", "get", "registry").Output()
		require.NoError(t, err)
		registry = strings.TrimSpace(string(out))
	}
	if registry == "" {
		return []byte("\n") // npm's own default
	}
	return fmt.Appendf(nil, "registry=%s\ncafile=/root/ca.crt\n", registry)
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return port
}
