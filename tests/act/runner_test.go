package act_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/plugin/recorded"
	"github.com/layerwright/layerwright/tests/parts"
)

// runner is a job as GitHub's own runner gives it to a container action
// (actions/runner, ContainerActionHandler.cs), where act differs: HOME is a directory
// of its own, everything is mounted below /github, and the Docker socket is there.
type runner struct {
	// temp is the runner's directory, workspace the checkout.
	temp, workspace string
	// inputs are what the step has below with, env further variables.
	inputs, env map[string]string
	event       string
}

func newRunner(t *testing.T, files map[string]string) *runner {
	t.Helper()
	r := &runner{temp: t.TempDir(), workspace: repository(t, files, "v1.2.3"), env: map[string]string{},
		event: `{"ref":"refs/tags/v1.2.3","repository":{"name":"app","default_branch":"main","html_url":"https://github.com/team/app"}}`}
	for _, d := range []string{"_github_home", "_github_workflow", "_runner_file_commands"} {
		require.NoError(t, os.Mkdir(filepath.Join(r.temp, d), 0o755))
	}
	return r
}

// run runs the action's container.
func (r *runner) run(t *testing.T, w *world) (output string, code int) {
	t.Helper()
	env := recorded.Environment(t, filepath.Join(parts.Repo(), "github/testdata/tag.env"))
	for name := range env { // what act adds, and what the container has of itself
		if name == "ACT" || name == "PATH" || name == "HOSTNAME" || strings.HasPrefix(name, "INPUT_") || strings.ToLower(name) == name {
			delete(env, name)
		}
	}
	for name, value := range map[string]string{
		"HOME": "/github/home", "GITHUB_WORKSPACE": "/github/workspace", "GITHUB_EVENT_PATH": "/github/workflow/event.json", "GITHUB_ACTOR": actor,
		"GITHUB_OUTPUT": "/github/file_commands/set_output_1", "GITHUB_STEP_SUMMARY": "/github/file_commands/step_summary_1",
		"GITHUB_ENV": "/github/file_commands/set_env_1", "GITHUB_PATH": "/github/file_commands/add_path_1", "GITHUB_STATE": "/github/file_commands/save_state_1",
		"RUNNER_TEMP": "/home/runner/work/_temp", "RUNNER_WORKSPACE": "/home/runner/work/app", "ACTIONS_RUNTIME_TOKEN": token, "INPUT_GITHUB-TOKEN": token,
	} {
		env[name] = value
	}
	require.NoError(t, os.WriteFile(filepath.Join(r.temp, "_github_workflow/event.json"), []byte(r.event), 0o644))
	args := append([]string{"run", "--rm", "--network", "host", "--workdir", "/github/workspace",
		"-v", strings.TrimPrefix(w.docker.Host, "unix://") + ":/var/run/docker.sock", "-v", r.temp + "/_github_home:/github/home", "-v", r.temp + "/_github_workflow:/github/workflow",
		"-v", r.temp + "/_runner_file_commands:/github/file_commands", "-v", r.workspace + ":/github/workspace"}, w.names()...)
	for name, value := range env {
		args = append(args, "-e", name+"="+value)
	}
	for name, value := range r.inputs {
		args = append(args, "-e", "INPUT_"+strings.ToUpper(name)+"="+value)
	}
	for name, value := range r.env {
		args = append(args, "-e", name+"="+value)
	}
	cmd := w.docker.Command(t.Context(), append(args, published, "github")...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// commands is a file of the runner's commands.
func (r *runner) commands(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.temp, "_runner_file_commands", name))
	require.NoError(t, err)
	return string(data)
}

// TestGitHubsOwnValues: what the runner mounts is out of a step's sight, the token
// opens ghcr.io, and outputs and summary are where the runner looks.
func TestGitHubsOwnValues(t *testing.T) {
	w := inWorld(t)
	dockerfile := "FROM " + w.base + "\nRUN ! test -e /github && ! test -e /var/run/docker.sock && ! env | grep -e ghs_ -e GITHUB -e INPUT && ! grep -r ghs_ /proc/[0-9]*/environ && echo seen > /word\n"
	r := newRunner(t, map[string]string{"Dockerfile": dockerfile})
	r.inputs = map[string]string{"images": "ghcr.io/Team/Values", "tags": "type=semver,pattern={{version}}", "push": "true", "cache": "true"}
	out, code := r.run(t, w)
	require.Zero(t, code, out)
	require.Contains(t, out, "isolation inplace")
	require.Equal(t, 0, strings.Index(out, "::add-mask::"), "masks come first")
	for line := range strings.Lines(out) {
		require.False(t, strings.Contains(line, token) && !strings.HasPrefix(line, "::add-mask::"), line)
	}
	img := w.pushed(t, "ghcr.io/team/values:1.2.3")
	digest, err := img.Digest()
	require.NoError(t, err)
	require.Equal(t, "seen\n", file(t, img, "word"))
	require.Equal(t, "https://github.com/team/app", labels(t, img)["org.opencontainers.image.url"])
	outputs := r.commands(t, "set_output_1")
	for _, want := range []string{"digest<<", digest.String(), "image-with-digest<<", "ghcr.io/team/values@" + digest.String(), "cache-hits<<"} {
		require.Contains(t, outputs, want)
	}
	summary := r.commands(t, "step_summary_1")
	for _, want := range []string{"`ghcr.io/team/values:1.2.3` | `" + digest.String(), "RUN ! test -e /github", "```mermaid"} {
		require.Contains(t, summary, want)
	}
	require.Regexp(t, `RUN ! test -e /github.*\| [0-9.]+ s \| .+ \| [0-9.]+k?B \|\n`, summary, "time, why it ran, size")
	require.Contains(t, out, "::group::Image\nghcr.io/team/values:1.2.3 "+digest.String()+"\n")
	require.NotContains(t, outputs+summary, token)
}

// TestLoginActionsLogin: the ways of docs/github.md let a container action see what
// docker/login-action has written; without them the error says so.
func TestLoginActionsLogin(t *testing.T) {
	w := inWorld(t)
	files := map[string]string{"Dockerfile": "FROM " + w.base + "\nCOPY . /all\nRUN ! find /all /root -name config.json | grep . && ! test -e /github\n", ".dockerignore": ".docker\n.git\n"}
	login := fmt.Sprintf(`{"auths":{"registry.example":{"username":%q,"password":%q}}}`, account, password)
	push := map[string]string{"push": "true", "tags": "registry.example/team/login:1"}

	t.Run("without", func(t *testing.T) {
		r := newRunner(t, files)
		r.inputs = push
		out, code := r.run(t, w)
		require.Equal(t, 3, code, out)
		require.Contains(t, out, "::error title=Layerwright::registry.example/team/login:1")
		require.Contains(t, out, "A container action does not see ~/.docker of docker/login-action.")
	})
	for name, c := range map[string]struct{ file, env string }{
		"the action's home": {"_github_home/.docker", "/github/home/.docker"}, // as the runner translates it
		"only the file":     {"_github_home/.docker", ""},                     // where the variable is set for login-action alone
		"the workspace":     {"workspace/.docker", "/github/workspace/.docker"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRunner(t, files)
			r.inputs = push
			if c.env != "" {
				r.env["DOCKER_CONFIG"] = c.env
			}
			dir := filepath.Join(r.temp, c.file)
			if rest, ok := strings.CutPrefix(c.file, "workspace/"); ok {
				dir = filepath.Join(r.workspace, rest)
			}
			require.NoError(t, os.MkdirAll(dir, 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(login), 0o600))
			out, code := r.run(t, w)
			require.Zero(t, code, out)
			require.NotContains(t, out, password)
		})
	}
}
