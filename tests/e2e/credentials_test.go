package e2e_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

// TestCredentialsInAJob builds in default containers, where "/" is exchanged
// for each step, from and to a registry that demands a login, which comes from
// where pipelines of Kaniko have it. Steps see neither file nor variable.
func TestCredentialsInAJob(t *testing.T) {
	locked := parts.LockedRegistry(t)
	base := smallBase(t)
	conf := fmt.Sprintf(`{"auths":{%q:{"auth":%q}},"proxies":{"default":{"noProxy":"from.config.json"}}}`, locked.Addr, base64.StdEncoding.EncodeToString([]byte("user:"+parts.LockedPassword)))
	file := filepath.Join(t.TempDir(), "config.json")
	require.NoError(t, os.WriteFile(file, []byte(conf), 0o644))
	dir := buildContext(t, map[string]string{
		"first":  "FROM " + base + "\nRUN echo one > /one\n",
		"second": "FROM " + locked.Addr + "/app:1\nRUN cat /one && ! cat /kaniko/.docker/config.json && ! cat /creds/config.json && test -z \"$DOCKER_CONFIG\" && test \"$NO_PROXY\" = from.config.json\n",
	})
	ways := []struct {
		name         string
		docker, args []string
	}{
		{"inline DOCKER_CONFIG", []string{"-e", "DOCKER_CONFIG=" + conf}, nil},
		{"mounted config.json of Kaniko", []string{"-v", file + ":/kaniko/.docker/config.json:ro"}, nil},
		{"DOCKER_CONFIG of Kaniko's image", []string{"-v", file + ":/kaniko/.docker/config.json:ro", "-e", "DOCKER_CONFIG=/kaniko/.docker/"}, nil},
		{"a file as a bare secret", []string{"-v", file + ":/creds/config.json:ro"}, []string{"--secret", "/creds/config.json"}},
	}
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			for _, step := range []struct{ file, tag string }{{"first", ":1"}, {"second", ":2"}} {
				got := run(t, jobCommand(t.Context(), t, w.docker, dir, append([]string{"build", "--log-format", "plain", "--context", "/workspace",
					"--dockerfile", step.file, "--destination", locked.Addr + "/app" + step.tag, "--cache", "--cache-repo", locked.Addr + "/cache", "--no-cache"}, w.args...)...))
				require.Equal(t, 0, got.code, got.output)
				require.Contains(t, got.output, "isolation inplace")
				require.NotContains(t, got.output, parts.LockedPassword)
			}
			got := run(t, jobCommand(t.Context(), t, w.docker, dir, append([]string{"doctor", "--registry", locked.Addr}, credentialsFlag(w.args)...)...))
			require.Equal(t, 0, got.code, got.output)
			require.Contains(t, got.output, "The registry takes it.")
			require.NotContains(t, got.output, parts.LockedPassword)
		})
	}

	for name, mode := range hostModes { // the program may start itself again there
		t.Run("on a machine, "+name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), parts.Binary(t), append([]string{"build", "--log-format", "plain", "--context", dir, "--dockerfile", filepath.Join(dir, "second"),
				"--destination", locked.Addr + "/app:" + name, "--store", filepath.Join(t.TempDir(), "store")}, mode...)...)
			cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+conf)
			got := run(t, cmd)
			require.Equal(t, 0, got.code, got.output)
			require.NotContains(t, got.output, parts.LockedPassword)
		})
	}

	got := run(t, jobCommand(t.Context(), t, []string{"-e", `DOCKER_CONFIG={"auths":{"` + locked.Addr + `":{"auth":"dXNlcjpwbGFudGVkLXdyb25n"}}}`}, dir,
		"build", "--log-format", "plain", "--context", "/workspace", "--dockerfile", "first", "--destination", locked.Addr+"/app:3"))
	require.Equal(t, 3, got.code, got.output)
	for _, says := range []string{locked.Addr, "app", "the login is refused", "the variable DOCKER_CONFIG", "remedy: "} {
		require.Contains(t, got.output, says)
	}
	require.NotContains(t, got.output, "planted-wrong")
	require.NotContains(t, got.output, "echo one", "no step began")
}

// credentialsFlag is a bare --secret as doctor has it.
func credentialsFlag(args []string) (out []string) {
	for _, a := range args {
		if a == "--secret" {
			a = "--credentials"
		}
		out = append(out, a)
	}
	return out
}

// TestLoginInAJob logs in, builds and logs out, as a script of a job does.
func TestLoginInAJob(t *testing.T) {
	locked := parts.LockedRegistry(t)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	got := inShell(t, dir, `set -e
printf %s `+parts.LockedPassword+` | layerwright login -u user --password-stdin `+locked.Addr+`
stat -c %a ~/.docker/config.json
layerwright build --log-format plain -c /workspace -d `+locked.Addr+`/login:1
layerwright logout `+locked.Addr+`
layerwright build --log-format plain -c /workspace -d `+locked.Addr+`/login:2
`)
	require.Equal(t, 3, got.code, got.output)
	require.Contains(t, got.output, "no credentials: ")
	require.Contains(t, got.output, "login:1")
	require.Contains(t, got.output, "\n600\n")
	require.NotContains(t, got.output, parts.LockedPassword)
}
