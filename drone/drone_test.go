package drone

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin"
	"github.com/layerwright/layerwright/plugin/recorded"
)

func job(env, files map[string]string) (*adapter, *strings.Builder) {
	var out strings.Builder
	return &adapter{job: plugin.Job{
		Env: env, Stdout: &out, Exists: func(string) bool { return true }, Now: func() time.Time { return time.Unix(1700000000, 0) },
		ReadFile: func(name string) ([]byte, error) {
			if text, ok := files[name]; ok {
				return []byte(text), nil
			}
			return nil, fs.ErrNotExist
		},
		Append:    func(name string, data []byte) error { files[name] += string(data); return nil },
		WriteFile: func(name string, data []byte) error { files[name] = string(data); return nil },
	}}, &out
}

// step is a step's environment on the default branch, with settings.
func step(kv ...string) map[string]string {
	env := map[string]string{"DRONE": "true", "DRONE_COMMIT_REF": "refs/heads/main", "DRONE_REPO_BRANCH": "main", "PLUGIN_REPO": "o/a"}
	for i := 0; i < len(kv); i += 2 {
		env["PLUGIN_"+kv[i]] = kv[i+1]
	}
	return env
}

func prepare(t *testing.T, env map[string]string) *plugin.Plan {
	t.Helper()
	a, _ := job(env, map[string]string{})
	p, err := plugin.Prepare(a.Read())
	require.NoError(t, err)
	return p
}

func TestRecordedStepsAreDetected(t *testing.T) {
	for _, name := range []string{"exec", "runner"} {
		require.True(t, CI().Detect(jobOf(t, name)), name)
		require.False(t, Woodpecker().Detect(jobOf(t, name)), name)
	}
	require.True(t, Woodpecker().Detect(jobOf(t, "woodpecker")))
	require.False(t, CI().Detect(map[string]string{"CI": "true"}))
	require.True(t, CI().Detect(map[string]string{"CI": "true", "HARNESS_PIPELINE_ID": "p"}))
}

func TestRecordedStepsHaveTheirTags(t *testing.T) {
	for name, want := range map[string]string{
		"exec":       "foo/bar:a foo/bar:b foo/bar:1 foo/bar:1.2 foo/bar:1.2.3",
		"woodpecker": "foo/bar:a foo/bar:b foo/bar:1 foo/bar:1.2 foo/bar:1.2.3",
		"runner":     "foo/bar:a foo/bar:b",
	} {
		env := jobOf(t, name)
		if env["PLUGIN_PASSWORD"] != "" {
			env["PLUGIN_USERNAME"] = "u"
		}
		p := prepare(t, env)
		require.Equal(t, want, strings.Join(p.Request.Outputs.Destinations, " "), name)
		require.False(t, p.Request.Outputs.NoPush)
		if name != "runner" {
			require.Equal(t, map[string]string{"A": "1", "B": "x,y"}, p.Request.BuildArgs, "commas are not escaped")
		}
		if name != "woodpecker" {
			require.Equal(t, []string{"m1", "m2"}, p.Request.Registry.Mirrors, "Drone keeps hyphens")
		} else {
			require.Contains(t, p.Secrets, []byte("s3cr3t"))
		}
	}
}

func TestADockerfileThatNobodyNamesMayBeBesideTheContext(t *testing.T) {
	require.Equal(t, "Dockerfile", prepare(t, step("CONTEXT", "d", "NO_PUSH", "true")).Request.Dockerfile)
}

func TestSettingsOfDronesPlugins(t *testing.T) {
	p := prepare(t, step("DOCKERFILE", "d/Dockerfile", "CONTEXT", "d", "NO_PUSH", "true", "ENABLE_CACHE", "true", "CACHE_REPO", "o/cache", "CACHE_TTL", "6",
		"BUILD_ARGS_NEW", "A=1,2;B=3", "BUILD_ARGS_FROM_ENV", "DRONE,MISSING", "CUSTOM_LABELS", "x=1,y=2,3", "PLATFORM", "linux/amd64", "TARGET", "t", "TAR_PATH", "i.tar", "MIRROR", "m"))
	r := p.Request
	require.Equal(t, "d/Dockerfile", r.Dockerfile)
	require.Equal(t, "d", r.Context)
	require.True(t, r.Outputs.NoPush)
	require.Equal(t, 6*time.Hour, r.Cache.TTL)
	require.Equal(t, map[string]string{"A": "1,2", "B": "3", "DRONE": "true"}, r.BuildArgs)
	require.Equal(t, "2,3", p.Labels["y"])
	require.Equal(t, []string{"o/a:latest"}, r.Outputs.Destinations)
	require.Equal(t, []string{"m"}, r.Registry.Mirrors)
	require.Equal(t, []string{"r.example:5000/o/a:latest"}, prepare(t, step("REGISTRY", "r.example:5000", "EXPAND_REPO", "true")).Request.Outputs.Destinations)
	require.Equal(t, []string{"o/a:1", "o/b:1"}, prepare(t, step("REPO", "o/a,o/b", "TAGS", "1")).Request.Outputs.Destinations, "several repositories, as in Woodpecker")
	require.Equal(t, []string{"v1", "sha-x"}, prepare(t, step("TAGS", "type=raw,value=v1,type=raw,value=sha-x")).Names.Tags, "rules in a list")
}

func TestAutoTagSkipsOtherBranches(t *testing.T) {
	env := step("AUTO_TAG", "true")
	env["DRONE_COMMIT_REF"] = "refs/heads/dev"
	a, out := job(env, map[string]string{})
	_, err := plugin.Execute(t.Context(), a, plugin.Process{}, nil)
	require.NoError(t, err)
	require.Contains(t, out.String(), "nothing is built: ")
	env["PLUGIN_USERNAME"], env["PLUGIN_PASSWORD"] = "u", "geheim" // at the registry of an image that there is not
	require.NotEmpty(t, prepare(t, env).Skip())
	require.Equal(t, []string{"arm"}, prepare(t, step("AUTO_TAG", "true", "AUTO_TAG_SUFFIX", "arm")).Names.Tags)
	require.Equal(t, []string{"latest"}, prepare(t, step("AUTO_TAG", "false")).Names.Tags)
}

func TestTheTagsFile(t *testing.T) {
	a, _ := job(step(), map[string]string{".tags": " 1.0 ,1\r\nlatest"})
	p, err := plugin.Prepare(a.Read())
	require.NoError(t, err)
	require.Equal(t, []string{"1.0", "1", "latest"}, p.Names.Tags)
}

func TestUnknownAndUselessSettingsAreSaid(t *testing.T) {
	p := prepare(t, step("BULD_ARGS", "A=1", "STORAGE_DRIVER", "vfs", "SNAPSHOT_MODE", "redo", "SOMETHING_ELSE_ALTOGETHER", "1"))
	require.Equal(t, []string{
		"setting buld_args is unknown and has no effect: did you mean build_args?",
		"setting snapshot_mode has no effect: it tunes Kaniko, which this is not",
		"setting something_else_altogether is unknown and has no effect",
		"setting storage_driver has no effect: there is no Docker daemon",
	}, p.Notices)
}

func TestAllMistakesAreSaidAtOnceInDronesWords(t *testing.T) {
	a, _ := job(step("LOGINS", "{geheim", "NO_PUSH", "maybe", "TAGS_FILE", "missing", "REPO", "a b", "LOAD", "true", "USERNAME", "u"), map[string]string{})
	_, err := plugin.Prepare(a.Read())
	for _, text := range []string{"setting logins: not a JSON list", `setting no_push: "maybe" is neither true nor false`, "setting tags_file: read missing", "setting repo: a b", "setting load: ", "setting password: it is missing"} {
		require.ErrorContains(t, err, text)
	}
	require.NotContains(t, err.Error(), "geheim")
}

func TestLoginsAreHidden(t *testing.T) {
	p := prepare(t, step("LOGINS", `[{"registry":"r1","username":"u","password":"geheim-1"}]`, "CONFIG", `{"auths":{}}`))
	require.Contains(t, p.Secrets, []byte("geheim-1"))
}

func TestTheEndIsHandedOver(t *testing.T) {
	files := map[string]string{}
	env := step("TAGS", "1,2", "REPO", "r.example/o/a", "ARTIFACT_FILE", "artifact.json")
	env["DRONE_OUTPUT"] = "output"
	a, _ := job(env, files)
	plan, err := plugin.Prepare(a.Read())
	require.NoError(t, err)
	require.NoError(t, a.Report(plugin.Report{Plan: plan, Result: &core.Result{Digest: "sha256:d", ImageID: "sha256:i"}}))
	require.Equal(t, "digest=sha256:d\nimageid=sha256:i\nimage=r.example/o/a:1\ntags=r.example/o/a:1,r.example/o/a:2\n", files["output"])
	require.JSONEq(t, `{"kind":"docker/v1","data":{"registryType":"Docker","registryUrl":"https://r.example","images":[{"image":"r.example/o/a:1","digest":"sha256:d"},{"image":"r.example/o/a:2","digest":"sha256:d"}]}}`, files["artifact.json"])
	a.job.WriteFile = func(string, []byte) error { return errors.New("read-only") }
	require.ErrorContains(t, a.Report(plugin.Report{Plan: plan, Result: &core.Result{}}), "write artifact_file: read-only")
}

func TestEverySettingCanBeReached(t *testing.T) {
	known := map[string]bool{}
	for _, f := range plugin.Fields() {
		known[f.Name] = true
		require.NotEmpty(t, exampleOf(f), "%s has no example", f.Name)
		for _, name := range append([]string{variable(f.Name)}, names()[f.Name]...) {
			if f.Name == "auto-tag" || name == "SOURCE_TAR_PATH" {
				continue // true means drone; of no effect without push_only
			}
			env := map[string]string{"PLUGIN_REPO": "o/a", "PLUGIN_" + strings.ReplaceAll(name, "_", "-"): "a=value"}
			if f.Name == "images" && name != "REPO" {
				delete(env, "PLUGIN_REPO")
			}
			a, _ := job(env, map[string]string{})
			values, _, _ := a.Read()
			require.Equal(t, []string{"a=value"}, values[f.Name].Values, name)
		}
		require.NotContains(t, ignored(), variable(f.Name))
	}
	for _, o := range ownSettings() {
		require.NotEmpty(t, o.help, o.name)
		require.NotEmpty(t, o.example, o.name)
	}
	for setting := range names() {
		require.True(t, known[setting], setting)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("build-args", ",A=1,x")
	f.Add("tags", `["a",1]`)
	f.Add("labels", `{"a":"b"}`)
	f.Fuzz(func(t *testing.T, setting, text string) {
		list, err := split(setting, text)
		require.False(t, err != nil && len(list) > 0)
	})
}

var update = flag.Bool("update", false, "write the documentation")

func TestTheDocumentationIsOfTheCode(t *testing.T) {
	if *update {
		require.NoError(t, os.WriteFile("../docs/drone.md", []byte(Documentation()), 0o644))
	}
	data, err := os.ReadFile("../docs/drone.md")
	require.NoError(t, err)
	require.Equal(t, Documentation(), string(data), "go test ./drone -update writes it")
}

// jobOf is the environment of a job that a runner has recorded.
func jobOf(t *testing.T, name string) map[string]string {
	t.Helper()
	return recorded.Environment(t, filepath.Join("testdata", name+".env"))
}
