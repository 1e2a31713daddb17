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
	"gopkg.in/yaml.v3"

	"github.com/layerwright/layerwright/tests/dronefile"
	"github.com/layerwright/layerwright/tests/parts"
)

// exampleCI is how a CI makes an environment of an example's job.
type exampleCI struct {
	recorded string
	// set is what this test says of the job beyond the recording: a tag v1.2.3.
	set map[string]string
	// jobs are the environments that the file comes to; one for each job of a
	// matrix.
	jobs func(t *testing.T, text string) []map[string]string
	// ext is what files' names end with.
	ext string
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

// ofGitLab makes variables of the jobs.
func ofGitLab(t *testing.T, text string) (out []map[string]string) {
	var doc map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(text), &doc))
	for _, job := range doc {
		services := []any{""}
		for _, m := range list(object(object(job)["parallel"])["matrix"]) {
			services = list(object(m)["SERVICE"])
		}
		for _, service := range services {
			env := map[string]string{}
			for name, value := range object(object(job)["variables"]) {
				env[name] = os.Expand(scalar(value), func(v string) string {
					return map[string]string{"CI_REGISTRY_IMAGE": "gitlab.example/team/app", "SERVICE": scalar(service), "OTHER_USER": "user", "OTHER_PASSWORD": "planted-secret-7"}[v]
				})
			}
			out = append(out, env)
		}
	}
	return out
}

// ofDrone makes the environments of the steps, as Drone and Woodpecker do.
func ofDrone(t *testing.T, text string) (out []map[string]string) {
	steps, err := dronefile.Steps(text, map[string]string{"DRONE_COMMIT_SHA": someCommit, "CI_COMMIT_SHA": someCommit}, map[string]string{"registry_username": "user", "registry_password": "planted-secret-7", "npm_token": "planted-secret-7",
		"logins": `[{"registry":"registry.example","username":"user","password":"planted-secret-7"}]`})
	require.NoError(t, err)
	for _, s := range steps {
		out = append(out, s.Environment)
	}
	return out
}

// TestExamplesOfCIs runs each example in default containers, with the environment
// that a runner of its CI gave a job, and looks for the images that it promises.
func TestExamplesOfCIs(t *testing.T) {
	base, reg, d := smallBase(t), parts.SharedRegistry(t), parts.Engine(t)
	for ci, c := range map[string]exampleCI{
		"gitlab": {"gitlab/testdata/runner.env", map[string]string{"CI_PROJECT_DIR": "/workspace", "CI_REGISTRY": "", "CI_REGISTRY_IMAGE": "gitlab.example/team/app", "CI_REGISTRY_USER": "", "CI_REGISTRY_PASSWORD": "",
			"CI_COMMIT_TAG": "v1.2.3", "CI_COMMIT_BRANCH": "", "CI_COMMIT_REF_NAME": "v1.2.3", "CI_COMMIT_REF_SLUG": "v1-2-3", "NPM_TOKEN": "planted-secret-7"}, ofGitLab, ".gitlab-ci.yml"},
		"drone":      {"drone/testdata/runner.env", map[string]string{"DRONE_WORKSPACE": "/workspace", "DRONE_TAG": "v1.2.3", "DRONE_BUILD_EVENT": "tag", "DRONE_COMMIT_REF": "refs/tags/v1.2.3"}, ofDrone, ".yml"},
		"woodpecker": {"drone/testdata/woodpecker.env", map[string]string{"CI_WORKSPACE": "/workspace", "CI_COMMIT_TAG": "v1.2.3", "CI_PIPELINE_EVENT": "tag", "CI_COMMIT_REF": "refs/tags/v1.2.3"}, ofDrone, ".yml"},
	} {
		for name, promised := range map[string][]string{
			"simple": {"/team/app:latest"}, "tags": {"/team/app:1.2.3"}, "cache": {"/team/app:latest"}, "secrets": {"/team/app:latest"},
			"registries": {"/team/app:latest", "/other/app:latest"}, "monorepo": {"/team/api:latest", "/team/web:latest"},
		} {
			t.Run(ci+" "+name, func(t *testing.T) {
				here := reg.Addr + "/ex-" + ci + "-" + name
				names := strings.NewReplacer("ghcr.io/team", here+"/team", "gitlab.example/team", here+"/team", "other.example/team", here+"/other", "registry.example/team", here+"/team", "registry.example", reg.Addr)
				if name == "registries" && ci != "drone" && ci != "woodpecker" { // the second registry is registry.example there
					names = strings.NewReplacer("ghcr.io/team", here+"/team", "gitlab.example/team", here+"/team", "registry.example/team/app:latest", here+"/other/app:latest", "registry.example/team", here+"/team", "registry.example", reg.Addr)
				}
				text, err := os.ReadFile(filepath.Join(parts.Repo(), "examples", ci, name+c.ext))
				require.NoError(t, err)
				word := "RUN --mount=type=secret,id=npm test ! -s /run/secrets/npm || { grep -q planted-secret-7 /run/secrets/npm && echo secret > /word; }\n"
				dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nRUN echo plain > /word\n" + word,
					"services/api/Dockerfile": "FROM " + base + "\nRUN echo api > /word\n", "services/web/Dockerfile": "FROM " + base + "\nRUN echo web > /word\n"})
				jobs := c.jobs(t, string(text))
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
					if ci == "gitlab" && name == "monorepo" {
						ref = strings.Replace(ref, "/team/", "/team/app/", 1)
					}
					if ci == "gitlab" && strings.HasSuffix(ref, ":latest") && name != "registries" && name != "monorepo" {
						ref = strings.TrimSuffix(ref, "latest") + "v1.2.3" // GitLab's own names, of a tag
					}
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
