package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/plugin/recorded"
	"github.com/layerwright/layerwright/tests/parts"
)

// recordedJob reads an environment that a runner gave a job, without what says
// where things are on the runner's machine.
func recordedJob(t *testing.T, file string) map[string]string {
	t.Helper()
	env := recorded.Environment(t, filepath.Join("..", "..", file))
	for _, name := range []string{"PATH", "HOME", "HOSTNAME"} {
		delete(env, name)
	}
	return env
}

// TestWithoutArgumentsInACI replays jobs of the CIs in default containers: the
// program, without an argument, builds and pushes what the job describes, leaves
// the outputs that this CI reads, and shows no secret.
func TestWithoutArgumentsInACI(t *testing.T) {
	base := smallBase(t)
	reg := parts.SharedRegistry(t)
	dockerfile := "FROM " + base + "\nARG WORD\nRUN --mount=type=secret,id=tok grep -q planted-secret-7 /run/secrets/tok && echo $WORD > /word && ! env | grep -i -e github -e gitlab -e drone -e plugin\n"
	for host, c := range map[string]struct {
		file string
		set  map[string]string
		ref  string
		// results are files below the context, each with what it must hold.
		results map[string]string
	}{
		"github": {
			file: "github/testdata/tag.env",
			set: map[string]string{
				"GITHUB_WORKSPACE": "/workspace", "GITHUB_OUTPUT": "/workspace/output", "GITHUB_STEP_SUMMARY": "/workspace/summary", "GITHUB_EVENT_PATH": "",
				"INPUT_CONTEXT": "/workspace", "INPUT_IMAGES": reg.Addr + "/in-github", "INPUT_TAGS": "type=semver,pattern={{version}}",
				"INPUT_BUILD-ARGS": "WORD=spoken", "INPUT_SECRETS": "tok=planted-secret-7",
			},
			ref:     "/in-github:1.2.3",
			results: map[string]string{"output": "sha256:", "summary": "/in-github:1.2.3"},
		},
		"gitlab": {
			file: "gitlab/testdata/runner.env",
			set: map[string]string{
				"CI_PROJECT_DIR": "/workspace", "CI_REGISTRY": "", "CI_REGISTRY_IMAGE": reg.Addr + "/in-gitlab", "CI_REGISTRY_USER": "", "CI_REGISTRY_PASSWORD": "",
				"LAYERWRIGHT_TAGS": "one", "LAYERWRIGHT_BUILD_ARGS": "WORD=spoken", "LAYERWRIGHT_SECRETS": "tok=planted-secret-7",
			},
			ref:     "/in-gitlab:one",
			results: map[string]string{"build.env": "sha256:"},
		},
		"drone": {
			file: "drone/testdata/runner.env",
			set: map[string]string{
				"DRONE_WORKSPACE": "/workspace", "DRONE_OUTPUT": "/workspace/output", "PLUGIN_REPO": reg.Addr + "/in-drone", "PLUGIN_TAGS": "one",
				"PLUGIN_BUILD_ARGS": "WORD=spoken", "PLUGIN_SECRET_ENVS": "tok=TOK", "TOK": "planted-secret-7", "PLUGIN_CONTEXT": "/workspace", "PLUGIN_DOCKERFILE": "/workspace/Dockerfile",
			},
			ref:     "/in-drone:one",
			results: map[string]string{"output": "sha256:"},
		},
	} {
		t.Run(host, func(t *testing.T) {
			dir := buildContext(t, map[string]string{"Dockerfile": dockerfile})
			env := recordedJob(t, c.file)
			for name, value := range c.set {
				env[name] = value
			}
			var docker []string
			for name, value := range env {
				docker = append(docker, "-e", name+"="+value)
			}
			got := run(t, jobCommand(t.Context(), t, append(docker, "-w", "/workspace"), dir))
			require.Equal(t, 0, got.code, got.output)
			for line := range strings.Lines(got.output) {
				if !strings.HasPrefix(line, "::add-mask::") { // which is how GitHub is told what to hide
					require.NotContains(t, line, "planted-secret-7")
				}
			}
			for name, want := range c.results {
				data, err := os.ReadFile(filepath.Join(dir, name))
				require.NoError(t, err, got.output)
				require.Contains(t, string(data), want)
				require.NotContains(t, string(data), "planted-secret-7")
			}
			d := parts.Engine(t)
			d.Must(t, "pull", reg.Addr+c.ref)
			require.Equal(t, "spoken\n", d.Must(t, "run", "--rm", "--network", "none", reg.Addr+c.ref, "cat", "/word"), fmt.Sprint(host))
		})
	}
}
