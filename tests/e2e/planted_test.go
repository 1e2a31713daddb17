package e2e_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

// plant gives a secret for every source of logins that there is, as variables of
// a job and a file; all of them begin with "planted-".
func plant(host, password string) (env []string, file string) {
	auth := func(user, password string) string {
		return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	}
	conf := func(password string) string {
		return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, auth("user", password))
	}
	name := strings.NewReplacer(".", "_", ":", "_").Replace(host)
	return []string{
		"DOCKER_CONFIG=" + strings.TrimSuffix(conf("planted-inline"), "}") + fmt.Sprintf(`,"proxies":{"default":{"ftpProxy":"http://u:p@x"}},"HttpHeaders":{"X-Meta-Token":%q}}`, "planted-header"),
		"DOCKER_AUTH_CONFIG=" + fmt.Sprintf(`{"auths":{%q:{"identitytoken":"planted-identity"}}}`, host),
		"KANIKO_" + name + "_USER=user", "KANIKO_" + name + "_PASSWORD=planted-variable",
		"CI_REGISTRY=" + host, "CI_REGISTRY_USER=user", "CI_REGISTRY_PASSWORD=planted-gitlab", "CI_JOB_TOKEN=planted-job",
		"AWS_ACCESS_KEY_ID=planted-id", "AWS_SECRET_ACCESS_KEY=planted-aws", "AWS_SESSION_TOKEN=planted-session",
		"AZURE_CLIENT_ID=c", "AZURE_TENANT_ID=t", "AZURE_CLIENT_SECRET=planted-azure", "GOOGLE_APPLICATION_CREDENTIALS=/planted/none",
	}, conf(password)
}

// planted looks for secrets in data, plain and in base64.
func planted(data []byte) string {
	for _, s := range []string{"planted-", base64.StdEncoding.EncodeToString([]byte("user:planted-"))[:16]} {
		if i := bytes.Index(data, []byte(s)); i >= 0 {
			return string(data[max(0, i-40):min(len(data), i+40)])
		}
	}
	return ""
}

// TestPlantedSecretsAreNowhere has every source of logins hold a secret, while
// steps look for them and builds succeed and fail: none is in a log, an image, a
// record of the cache or a history entry.
func TestPlantedSecretsAreNowhere(t *testing.T) {
	locked := parts.LockedRegistry(t)
	env, conf := plant(locked.Addr, parts.LockedPassword)
	file := filepath.Join(t.TempDir(), "config.json")
	require.NoError(t, os.WriteFile(file, []byte(conf), 0o644))
	// The instruction's own text must not match.
	search := `RUN env > /env; grep -s "plant""ed-" /proc/[0-9]*/environ /proc/[0-9]*/cmdline > /found; cp -r /secrets /kaniko /root/.docker /copy 2>/dev/null; grep -rs "plant""ed-" /run /tmp /var >> /found; true`
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + smallBase(t) + "\n" + search + "\n"})
	docker := []string{"-v", file + ":/secrets/config.json:ro", "-v", file + ":/kaniko/.docker/config.json:ro"}
	for _, e := range env {
		docker = append(docker, "-e", e)
	}
	build := func(extra ...string) []string {
		return append([]string{"build", "--log-format", "json", "-v", "debug", "--context", "/workspace", "--destination", locked.Addr + "/app:1", "--cache-repo", locked.Addr + "/cache"}, extra...)
	}
	got := run(t, jobCommand(t.Context(), t, docker, dir, build("--credentials", "/secrets/config.json", "--metadata-file", "/workspace/metadata.json")...))
	require.Equal(t, 0, got.code, got.output)
	require.Empty(t, planted([]byte(got.output)))
	metadata, err := os.ReadFile(filepath.Join(dir, "metadata.json"))
	require.NoError(t, err)
	require.Empty(t, planted(metadata))
	require.Greater(t, scanBlobs(t, locked.Dir), 5)

	// Without the file the others are used, one after the other, which are wrong.
	for len(env) > 0 {
		cmd := exec.CommandContext(t.Context(), parts.Binary(t), "build", "--log-format", "plain", "-v", "debug", "--isolation", "chroot", "--context", dir,
			"--destination", locked.Addr+"/app:2", "--registry-mirror", locked.Addr, "--store", filepath.Join(t.TempDir(), "store"))
		cmd.Env = append(os.Environ(), env...)
		got := run(t, cmd)
		require.Equal(t, 3, got.code, got.output)
		require.Empty(t, planted([]byte(got.output)), env[0])
		cmd = exec.CommandContext(t.Context(), parts.Binary(t), "doctor", "--registry", locked.Addr+"/app")
		cmd.Env = append(os.Environ(), env...)
		got = run(t, cmd)
		require.Equal(t, 3, got.code, got.output)
		require.Empty(t, planted([]byte(got.output)), env[0])
		env = env[1:]
	}
}

// scanBlobs looks into all that a registry has stored, unpacked.
func scanBlobs(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "docker", "registry", "v2", "blobs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		n++
		require.Empty(t, planted(data), path)
		if r, err := gzip.NewReader(bytes.NewReader(data)); err == nil {
			data, err = io.ReadAll(r)
			require.NoError(t, err)
		} else if r, err := zstd.NewReader(bytes.NewReader(data)); err == nil {
			if unpacked, err := io.ReadAll(r); err == nil {
				data = unpacked
			}
			r.Close()
		}
		require.Empty(t, planted(data), path)
		return nil
	})
	require.NoError(t, err)
	return n
}
