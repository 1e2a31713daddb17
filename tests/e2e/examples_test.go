package e2e_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/dronefile"
	"github.com/layerwright/layerwright/tests/parts"
)

// exampleCI is how a CI makes an environment of an example's job.
type exampleCI struct {
	recorded string
	// set is what this test says of the job beyond the recording: a tag v1.2.3.
	set map[string]string
}

// someCommit is what the jobs of examples build.
const someCommit = "5555555555555555555555555555555555555555"

// list and object are parts of a document.
func list(v any) []any            { l, _ := v.([]any); return l }
func object(v any) map[string]any { m, _ := v.(map[string]any); return m }
func scalar(v any) string         { return strings.TrimSpace(fmt.Sprint(v)) }
func merged(m ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range m {
		maps.Copy(out, m)
	}
	return out
}

var expression = regexp.MustCompile(`\$\{\{\s*([^}]*?)\s*\}\}`)

// ofDrone makes the environments of the steps, as Drone and Woodpecker do.
func ofDrone(t *testing.T, text string) (out []map[string]string) {
	steps, err := dronefile.Steps(text, map[string]string{"DRONE_COMMIT_SHA": someCommit, "CI_COMMIT_SHA": someCommit}, map[string]string{
		"registry_username": "user", "registry_password": "planted-secret-7", "npm_token": "planted-secret-7",
		"logins": `[{"registry":"registry.example","username":"user","password":"planted-secret-7"}]`,
	})
	require.NoError(t, err)
	for _, s := range steps {
		out = append(out, s.Environment)
	}
	return out
}

// TestExamplesOfCIs runs each example of Drone and Woodpecker, whose runners are not
// here (tests/act runs GitHub's, tests/gitlab GitLab's), in default containers, with
// the environment that a runner of its CI gave a job, and looks for the images that it
// promises.
func TestExamplesOfCIs(t *testing.T) {
	base, reg, d := smallBase(t), parts.SharedRegistry(t), parts.Engine(t)
	for ci, c := range map[string]exampleCI{
		"drone":      {"drone/testdata/runner.env", map[string]string{"DRONE_WORKSPACE": "/workspace", "DRONE_TAG": "v1.2.3", "DRONE_BUILD_EVENT": "tag", "DRONE_COMMIT_REF": "refs/tags/v1.2.3"}},
		"woodpecker": {"drone/testdata/woodpecker.env", map[string]string{"CI_WORKSPACE": "/workspace", "CI_COMMIT_TAG": "v1.2.3", "CI_PIPELINE_EVENT": "tag", "CI_COMMIT_REF": "refs/tags/v1.2.3"}},
	} {
		for name, promised := range map[string][]string{
			"simple": {"/team/app:latest"}, "tags": {"/team/app:1.2.3"}, "cache": {"/team/app:latest"}, "secrets": {"/team/app:latest"},
			"registries": {"/team/app:latest", "/other/app:latest"}, "monorepo": {"/team/api:latest", "/team/web:latest"},
		} {
			t.Run(ci+" "+name, func(t *testing.T) {
				here := reg.Addr + "/ex-" + ci + "-" + name
				names := strings.NewReplacer("other.example/team", here+"/other", "registry.example/team", here+"/team", "registry.example", reg.Addr)
				text, err := os.ReadFile(filepath.Join(parts.Repo(), "examples", ci, name+".yml"))
				require.NoError(t, err)
				word := "RUN --mount=type=secret,id=npm test ! -s /run/secrets/npm || { grep -q planted-secret-7 /run/secrets/npm && echo secret > /word; }\n"
				dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nRUN echo plain > /word\n" + word,
					"services/api/Dockerfile": "FROM " + base + "\nRUN echo api > /word\n", "services/web/Dockerfile": "FROM " + base + "\nRUN echo web > /word\n"})
				jobs := ofDrone(t, string(text))
				require.Len(t, jobs, map[bool]int{true: 2, false: 1}[name == "monorepo"])
				for _, job := range jobs {
					var docker []string
					runner := recordedJob(t, c.recorded)
					maps.DeleteFunc(runner, func(k, _ string) bool { // settings of the recorded job
						return strings.HasPrefix(k, "INPUT_") || strings.HasPrefix(k, "PLUGIN_") || strings.HasPrefix(k, "LAYERWRIGHT_")
					})
					for k, v := range merged(runner, c.set, job) {
						docker = append(docker, "-e", k+"="+names.Replace(v))
					}
					got := run(t, jobCommand(t.Context(), t, append(docker, "-w", "/workspace"), dir))
					require.Equal(t, 0, got.code, got.output)
				}
				want := map[string]string{"secrets": "secret\n", "monorepo": ""}[name]
				for _, ref := range promised {
					d.Must(t, "pull", here+ref)
					got := d.Must(t, "run", "--rm", "--network", "none", here+ref, "cat", "/word")
					switch {
					case want != "":
						require.Equal(t, want, got)
					case name == "monorepo":
						require.Contains(t, ref, strings.TrimSpace(got))
					default:
						require.Equal(t, "plain\n", got)
					}
				}
			})
		}
	}
}
