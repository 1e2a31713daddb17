package e2e_test

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/layerwright/layerwright/tests/parts"
)

// matrixJobs are the environments of an example with a matrix of platforms, in the order
// in which its jobs run.
func matrixJobs(t *testing.T, ci, file string) (out []map[string]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(parts.Repo(), "examples", ci, file))
	require.NoError(t, err)
	for _, part := range bytes.Split(text, []byte("\n---\n")) { // Drone's pipelines
		var doc map[string]any
		require.NoError(t, yaml.Unmarshal(part, &doc))
		switch ci {
		case "github":
			jobs := object(doc["jobs"])
			for _, m := range list(object(object(object(jobs["build"])["strategy"])["matrix"])["include"]) {
				out = append(out, inputsOf(jobs["build"], object(m)))
			}
			out = append(out, inputsOf(jobs["merge"], nil))
		default:
			out = append(out, ofDrone(t, string(part))...)
		}
	}
	return out
}

// inputsOf are the inputs of a GitHub job's step that uses this action.
func inputsOf(job any, matrix map[string]any) map[string]string {
	env := map[string]string{}
	for _, step := range list(object(job)["steps"]) {
		if object(step)["uses"] != "layerwright/layerwright@v1" {
			continue
		}
		for name, value := range object(object(step)["with"]) {
			env["INPUT_"+strings.ToUpper(name)] = expression.ReplaceAllStringFunc(scalar(value), func(e string) string {
				return scalar(matrix[strings.TrimPrefix(expression.FindStringSubmatch(e)[1], "matrix.")])
			})
		}
	}
	return env
}

// TestMatrixExamples runs the jobs of each CI's matrix, and the job that merges twice:
// one image for both platforms, the same when it is done again. An image of another
// commit is refused.
func TestMatrixExamples(t *testing.T) {
	reg := parts.SharedRegistry(t)
	for ci, c := range map[string]struct {
		recorded, file, tag, sha string
		set                      map[string]string
	}{
		"github":     {"github/testdata/tag.env", "platforms.yml", "latest", "GITHUB_SHA", map[string]string{"GITHUB_WORKSPACE": "/workspace", "GITHUB_OUTPUT": "/workspace/outputs", "GITHUB_STEP_SUMMARY": "", "GITHUB_EVENT_PATH": ""}},
		"drone":      {"drone/testdata/runner.env", "platforms.yml", "latest", "DRONE_COMMIT_SHA", map[string]string{"DRONE_WORKSPACE": "/workspace"}},
		"woodpecker": {"drone/testdata/woodpecker.env", "platforms.yml", "latest", "CI_COMMIT_SHA", map[string]string{"CI_WORKSPACE": "/workspace"}},
	} {
		t.Run(ci, func(t *testing.T) {
			repo := reg.Addr + "/matrix-" + ci + "/team/app"
			sha := someCommit
			names := strings.NewReplacer("ghcr.io/team/app", repo, "registry.example/team/app", repo)
			dir := buildContext(t, map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY f /f\n", "f": "x"})
			require.NoError(t, os.Mkdir(filepath.Join(dir, "digests"), 0o755))
			job := func(env, more map[string]string) outcome {
				runner := recordedJob(t, c.recorded)
				maps.DeleteFunc(runner, func(k, _ string) bool { // settings of the recorded job
					return strings.HasPrefix(k, "INPUT_") || strings.HasPrefix(k, "PLUGIN_") || strings.HasPrefix(k, "LAYERWRIGHT_")
				})
				docker := []string{"-w", "/workspace"}
				for k, v := range merged(runner, map[string]string{c.sha: sha, "DRONE_COMMIT_SHA": sha}, c.set, env, more) {
					if k == "DRONE_COMMIT_SHA" && ci != "drone" && ci != "woodpecker" {
						continue
					}
					docker = append(docker, "-e", k+"="+names.Replace(v))
				}
				return run(t, jobCommand(t.Context(), t, docker, dir))
			}
			jobs := matrixJobs(t, ci, c.file)
			require.Len(t, jobs, 3)
			for _, env := range jobs {
				got := job(env, nil)
				require.Equal(t, 0, got.code, got.output)
			}
			tags := tagsOf(t, repo)
			require.Contains(t, tags, c.tag)
			index := manifestOf(t, repo, c.tag)
			var archs []string
			for _, m := range index.Manifests {
				archs = append(archs, m.Platform.Architecture)
			}
			slices.Sort(archs)
			require.Equal(t, []string{"amd64", "arm64"}, archs)
			require.Equal(t, sha, index.Annotations["org.opencontainers.image.revision"])
			got := job(jobs[2], nil)
			require.Equal(t, 0, got.code, got.output)
			require.Equal(t, index, manifestOf(t, repo, c.tag), "again: the same")
			if ci == "github" {
				text, err := os.ReadFile(filepath.Join(dir, "outputs"))
				require.NoError(t, err)
				require.GreaterOrEqual(t, strings.Count(string(text), "sha256:"), 3, "the digest is an output")
			}
			got = job(jobs[2], map[string]string{c.sha: strings.Repeat("6", 40), "DRONE_COMMIT_SHA": strings.Repeat("6", 40)})
			require.Equal(t, 1, got.code, got.output)
			require.Contains(t, got.output, "is of commit "+sha)
		})
	}
}
