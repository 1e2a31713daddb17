package gitlab

import (
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin"
	"github.com/layerwright/layerwright/plugin/recorded"
)

var update = flag.Bool("update", false, "write the documentation")

func with(env map[string]string, kv ...string) map[string]string {
	for i := 0; i < len(kv); i += 2 {
		env[kv[i]] = kv[i+1]
	}
	return env
}

func job(env map[string]string) (*adapter, *strings.Builder, map[string]string) {
	var out strings.Builder
	files := map[string]string{}
	return &adapter{job: plugin.Job{
		Env: env, Stdout: &out, ReadFile: func(string) ([]byte, error) { return nil, fs.ErrNotExist }, Exists: func(string) bool { return false },
		WriteFile: func(name string, data []byte) error { files[name] = string(data); return nil },
		Now:       func() time.Time { return time.Unix(1700000000, 0) },
	}}, &out, files
}

func prepare(t *testing.T, env map[string]string) *plugin.Plan {
	t.Helper()
	a, _, _ := job(env)
	p, err := plugin.Prepare(a.Read())
	require.NoError(t, err)
	return p
}

func TestRecordedJobsAreDetected(t *testing.T) {
	require.True(t, CI().Detect(jobOf(t, "gitlab-ci-local")))
	require.True(t, CI().Detect(jobOf(t, "runner")))
	require.False(t, CI().Detect(map[string]string{"CI": "true"}))
}

func TestARecordedJobBuildsTheProject(t *testing.T) {
	p := prepare(t, with(jobOf(t, "gitlab-ci-local"), "CI_JOB_TOKEN", "job-token"))
	require.Equal(t, "/builds/grp/prj", p.Request.Context)
	require.Equal(t, []string{"local-registry.gitlab.com/grp/prj:main", "local-registry.gitlab.com/grp/prj:latest"}, p.Request.Outputs.Destinations)
	require.False(t, p.Request.Outputs.NoPush)
	require.Equal(t, "https://gitlab.com/grp/prj", p.Labels["org.opencontainers.image.source"])
	require.Equal(t, "prj", p.Labels["org.opencontainers.image.title"])
	require.Equal(t, "daad367dfca3c927bc23e1e475400a5dc8f74234", p.Labels["org.opencontainers.image.revision"])
	require.Empty(t, p.Request.Registry.Mirrors, "the dependency proxy has no password here")
	require.Contains(t, p.Secrets, []byte("job-token"))
}

func TestTheTagsOfGitLabsEvents(t *testing.T) {
	for name, c := range map[string]struct {
		kv   []string
		want string
	}{
		"a branch":        {[]string{"CI_COMMIT_REF_NAME", "feature/X_y", "CI_COMMIT_BRANCH", "feature/X_y"}, "feature-x-y"},
		"a tag":           {[]string{"CI_COMMIT_TAG", "v1.2.3"}, "v1.2.3"},
		"a merge request": {[]string{"CI_MERGE_REQUEST_IID", "7", "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "feature/z"}, "feature-z"},
		"a merge request from a fork's default branch": {[]string{"CI_MERGE_REQUEST_IID", "7", "CI_COMMIT_REF_NAME", "main"}, "main"},
		"metadata's rules":         {[]string{"LAYERWRIGHT_AUTO_TAG", "none", "CI_COMMIT_TAG", "v1.2.3", "LAYERWRIGHT_TAGS", "type=semver,pattern={{version}}\ntype=sha"}, "1.2.3 sha-daad367 latest"},
		"metadata's merge request": {[]string{"LAYERWRIGHT_AUTO_TAG", "none", "CI_MERGE_REQUEST_IID", "7", "LAYERWRIGHT_TAGS", "type=ref,event=pr"}, "pr-7"},
		"a schedule":               {[]string{"LAYERWRIGHT_AUTO_TAG", "none", "CI_PIPELINE_SOURCE", "schedule", "LAYERWRIGHT_TAGS", "type=schedule"}, "nightly"},
		"own and automatic ones":   {[]string{"LAYERWRIGHT_TAGS", "stable"}, "stable main latest"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, strings.Join(prepare(t, with(jobOf(t, "gitlab-ci-local"), c.kv...)).Names.Tags, " "))
		})
	}
}

func TestWholeReferencesTakeThePlaceOfTheProjectsImage(t *testing.T) {
	for _, name := range []string{"LAYERWRIGHT_TAGS", "DOCKER_SNAPSHOT_IMAGE"} {
		p := prepare(t, with(jobOf(t, "gitlab-ci-local"), name, "h/o/a:1"))
		require.Equal(t, []string{"h/o/a:1"}, p.Request.Outputs.Destinations)
	}
}

func TestVariablesOverride(t *testing.T) {
	p := prepare(t, with(jobOf(t, "gitlab-ci-local"), "LAYERWRIGHT_BUILD_ARGS", "A=1\nB=two words", "DOCKER_FILE", "docker/Dockerfile", "LAYERWRIGHT_PUSH", "false", "LAYERWRIGHT_CONTEXT", "sub",
		"CI_DEPENDENCY_PROXY_PASSWORD", "proxy-word", "CI_REGISTRY_USER", "u", "CI_REGISTRY_PASSWORD", "reg-word", "LAYERWRIGHT_REGISTRY", "h", "LAYERWRIGHT_USERNAME", "x", "LAYERWRIGHT_PASSWORD", "own-word"))
	require.Equal(t, map[string]string{"A": "1", "B": "two words"}, p.Request.BuildArgs)
	require.Equal(t, "docker/Dockerfile", p.Request.Dockerfile)
	require.Equal(t, "sub", p.Request.Context)
	require.True(t, p.Request.Outputs.NoPush)
	require.Equal(t, []string{"gitlab.com:443/grp/dependency_proxy/containers"}, p.Request.Registry.Mirrors)
	require.Equal(t, plugin.Login{Registry: "h", Username: "x", Password: "own-word"}, p.Login)
	for _, s := range []string{"proxy-word", "reg-word", "own-word"} {
		require.Contains(t, p.Secrets, []byte(s))
	}
}

// TestPiecesOfACommandLine are variables of to-be-continuous, which are flags of Kaniko.
func TestPiecesOfACommandLine(t *testing.T) {
	p := prepare(t, with(jobOf(t, "gitlab-ci-local"), "DOCKER_BUILD_ARGS", "--build-arg A=$(id) --build-arg=B", "B", "2", "DOCKER_METADATA", "--label a.b=c", "DOCKER_BUILD_CACHE_DISABLED", "true"))
	require.Equal(t, map[string]string{"A": "$(id)", "B": "2"}, p.Request.BuildArgs)
	require.Equal(t, "c", p.Labels["a.b"])
	require.True(t, p.Request.NoCache)
	p = prepare(t, with(jobOf(t, "gitlab-ci-local"), "DOCKER_BUILD_ARGS", "--squash", "LAYERWRIGHT_BUILD_ARGS", "A=own"))
	require.Equal(t, map[string]string{"A": "own"}, p.Request.BuildArgs)
	for _, text := range []string{"--squash", "--build-arg", `--build-arg A="two words"`} {
		a, _, _ := job(with(jobOf(t, "gitlab-ci-local"), "DOCKER_BUILD_ARGS", text))
		_, err := plugin.Prepare(a.Read())
		require.ErrorContains(t, err, "LAYERWRIGHT_BUILD_ARGS: of DOCKER_BUILD_ARGS only --build-arg NAME=VALUE is read")
	}
}

// TestImagesOfToBeContinuous: the snapshot always, the release where the template
// publishes one, with its extra tags, and logins at their registries.
func TestImagesOfToBeContinuous(t *testing.T) {
	both := []string{"DOCKER_SNAPSHOT_IMAGE", "s.example/o/a/snapshot:feature/x", "DOCKER_RELEASE_IMAGE", "r.example:5000/o/a:v1.2.3+b"}
	for name, c := range map[string]struct {
		set  []string
		want []string
	}{
		"a branch":                             {[]string{"CI_COMMIT_BRANCH", "topic"}, []string{"s.example/o/a/snapshot:feature-x"}},
		"the default branch":                   {[]string{"CI_COMMIT_BRANCH", "main"}, []string{"s.example/o/a/snapshot:feature-x"}},
		"the default branch, published":        {[]string{"CI_COMMIT_BRANCH", "main", "DOCKER_PROD_PUBLISH_STRATEGY", "auto"}, []string{"s.example/o/a/snapshot:feature-x", "r.example:5000/o/a:v1.2.3-b"}},
		"another branch, published":            {[]string{"CI_COMMIT_BRANCH", "topic", "DOCKER_PROD_PUBLISH_STRATEGY", "auto"}, []string{"s.example/o/a/snapshot:feature-x"}},
		"a tag":                                {[]string{"CI_COMMIT_TAG", "v1.2.3"}, []string{"s.example/o/a/snapshot:feature-x", "r.example:5000/o/a:v1.2.3-b"}},
		"a tag, no snapshot":                   {[]string{"CI_COMMIT_TAG", "v1.2.3", "DOCKER_SNAPSHOT_IMAGE", ""}, []string{"r.example:5000/o/a:v1.2.3-b"}},
		"own tags":                             {[]string{"CI_COMMIT_TAG", "v1.2.3", "LAYERWRIGHT_TAGS", "h/o/own:1"}, []string{"h/o/own:1"}},
		"extra tags":                           {[]string{"CI_COMMIT_TAG", "v1.2.3", "DOCKER_RELEASE_IMAGE", "r.example/o/a:v1.2.3", "DOCKER_SNAPSHOT_IMAGE", "", "DOCKER_RELEASE_EXTRA_TAGS", `latest \g<major>.\g<minor>  \1\g<build>`}, []string{"r.example/o/a:v1.2.3", "r.example/o/a:latest", "r.example/o/a:1.2", "r.example/o/a:1"}},
		"extra tags of what is no version":     {[]string{"CI_COMMIT_TAG", "x", "DOCKER_RELEASE_IMAGE", "r.example/o/a:x", "DOCKER_SNAPSHOT_IMAGE", "", "DOCKER_RELEASE_EXTRA_TAGS", "latest"}, []string{"r.example/o/a:x"}},
		"extra tags with a pattern of its own": {[]string{"CI_COMMIT_TAG", "x", "DOCKER_RELEASE_IMAGE", "r.example/o/a:x-1", "DOCKER_SNAPSHOT_IMAGE", "", "DOCKER_RELEASE_EXTRA_TAGS_PATTERN", "^x-(.)$", "DOCKER_RELEASE_EXTRA_TAGS", `y\1$1`}, []string{"r.example/o/a:x-1", "r.example/o/a:y1-1"}},
	} {
		env := with(jobOf(t, "gitlab-ci-local"), append(both, "CI_COMMIT_TAG", "", "CI_COMMIT_BRANCH", "", "CI_DEFAULT_BRANCH", "main")...)
		require.Equal(t, c.want, prepare(t, with(env, c.set...)).Request.Outputs.Destinations, name)
	}
	a, _, _ := job(with(jobOf(t, "gitlab-ci-local"), append(both, "CI_COMMIT_TAG", "v1", "DOCKER_RELEASE_EXTRA_TAGS", "latest", "DOCKER_RELEASE_EXTRA_TAGS_PATTERN", "(")...))
	_, err := plugin.Prepare(a.Read())
	require.ErrorContains(t, err, "LAYERWRIGHT_TAGS: DOCKER_RELEASE_EXTRA_TAGS_PATTERN: ")

	p := prepare(t, with(jobOf(t, "gitlab-ci-local"), append(both, "DOCKER_REGISTRY_USER", "u", "DOCKER_REGISTRY_PASSWORD", "word-1", "DOCKER_REGISTRY_RELEASE_USER", "v", "DOCKER_REGISTRY_RELEASE_PASSWORD", "word-2")...))
	require.Equal(t, []core.Credential{{Host: "s.example", Username: "u", Password: "word-1"}, {Host: "r.example:5000", Username: "v", Password: "word-2"}}, p.Request.Registry.Credentials)
	require.Contains(t, p.Secrets, []byte("word-2"))
}

// TestALoginThatIsNotJSON is said with all other mistakes, and not shown.
func TestALoginThatIsNotJSON(t *testing.T) {
	a, _, _ := job(with(jobOf(t, "gitlab-ci-local"), "DOCKER_AUTH_CONFIG", "{planted", "LAYERWRIGHT_LOAD", "true"))
	_, err := plugin.Prepare(a.Read())
	require.Len(t, plugin.Problems(err), 2)
	require.ErrorContains(t, err, "DOCKER_AUTH_CONFIG is not JSON")
	require.NotContains(t, err.Error(), "planted")
}

func TestAnUnknownVariableIsNamed(t *testing.T) {
	a, _, _ := job(with(jobOf(t, "gitlab-ci-local"), "LAYERWRIGHT_BUILD_ARG", "A=b", "LAYERWRIGHT_HOST", "gitlab", "LAYERWRIGHT_XYZZY", "x"))
	_, facts, _ := a.Read()
	require.Equal(t, []string{"variable LAYERWRIGHT_BUILD_ARG is unknown and has no effect: did you mean LAYERWRIGHT_BUILD_ARGS?"}, facts.Notices[:1])
	require.Len(t, facts.Notices, 2)
}

func TestACloudWithoutATokenSaysWhatGivesOne(t *testing.T) {
	a, _, _ := job(with(jobOf(t, "gitlab-ci-local"), "LAYERWRIGHT_AZURE_CLIENT_ID", "c", "LAYERWRIGHT_AZURE_TENANT_ID", "t", "LAYERWRIGHT_AWS_ROLE", "arn"))
	p, err := plugin.Prepare(a.Read())
	require.ErrorContains(t, err, "OIDC token; the job gets a token in a variable with id_tokens:, and LAYERWRIGHT_OIDC_TOKEN takes it")
	require.Contains(t, p.Request.Registry.Clouds.NoToken, "id_tokens:")
}

// TestTheJobsLogin: the engine has the job's variables, and what the user sets
// comes first.
func TestTheJobsLogin(t *testing.T) {
	p := prepare(t, with(jobOf(t, "gitlab-ci-local"), "CI_REGISTRY_USER", "u", "CI_REGISTRY_PASSWORD", "reg-word", "DOCKER_AUTH_CONFIG", "{}"))
	require.Empty(t, p.Request.Registry.Credentials)
	for _, name := range []string{"CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD", "DOCKER_AUTH_CONFIG"} {
		require.NotEmpty(t, p.Request.Registry.Environment[name])
	}
	p = prepare(t, with(jobOf(t, "gitlab-ci-local"), "CI_REGISTRY", "r.example:5000", "CI_SERVER_TLS_CA_FILE", "/ca.pem"))
	require.Equal(t, map[string][]string{"r.example:5000": {"/ca.pem"}}, p.Request.Registry.Certificates)
	p = prepare(t, with(jobOf(t, "gitlab-ci-local"), "LAYERWRIGHT_REGISTRY", "h", "LAYERWRIGHT_USERNAME", "x", "LAYERWRIGHT_PASSWORD", "own-word"))
	require.Equal(t, []core.Credential{{Host: "h", Username: "x", Password: "own-word"}}, p.Request.Registry.Credentials)
}

func TestMistakesAreASection(t *testing.T) {
	a, out, files := job(with(jobOf(t, "gitlab-ci-local"), "LAYERWRIGHT_LOAD", "true", "LAYERWRIGHT_LABELS", "x\r\x1b[0Ksection_end:1:y"))
	_, err := plugin.Execute(t.Context(), a, plugin.Process{}, nil)
	require.Error(t, err)
	require.Contains(t, out.String(), "\x1b[0Ksection_start:1700000000:layerwright_settings\r\x1b[0KMistakes in the settings\nLAYERWRIGHT_L")
	require.Contains(t, out.String(), "LAYERWRIGHT_LOAD: there is no Docker engine")
	require.Equal(t, 4, strings.Count(out.String(), "\x1b"), "nothing that was set ends the section")
	require.Empty(t, files)
}

func TestTheEndIsHandedOver(t *testing.T) {
	a, out, files := job(jobOf(t, "gitlab-ci-local"))
	plan, err := plugin.Prepare(a.Read())
	require.NoError(t, err)
	warning := core.Notice{Level: core.Warning, Rule: "StageNameCasing", Text: "lowercase it", Location: &core.Location{File: "Dockerfile", Start: 2}}
	a.Emit(warning)
	a.Emit(warning)
	a.Emit(core.Notice{Text: "no lint"})
	require.NoError(t, a.Report(plugin.Report{Plan: plan, Result: &core.Result{Digest: "sha256:d", ImageID: "sha256:i"}}))
	const image = "local-registry.gitlab.com/grp/prj"
	require.Equal(t, "IMAGE_DIGEST=sha256:d\nIMAGE_ID=sha256:i\nIMAGE="+image+":main\nIMAGE_WITH_DIGEST="+image+"@sha256:d\nIMAGE_TAGS="+image+":main "+image+":latest\n", files["/builds/grp/prj/build.env"])
	var found []finding
	require.NoError(t, json.Unmarshal([]byte(files["/builds/grp/prj/gl-code-quality-report.json"]), &found))
	require.Len(t, found, 1)
	require.Len(t, found[0].Fingerprint, 64)
	found[0].Fingerprint = ""
	require.Equal(t, finding{Description: "lowercase it", CheckName: "StageNameCasing", Severity: "minor", Location: location{"Dockerfile", lines{2}}}, found[0])
	require.Contains(t, out.String(), image+":main sha256:d\n")
}

func TestTheDotenvStaysSmall(t *testing.T) {
	a, _, files := job(jobOf(t, "gitlab-ci-local"))
	var references []string
	for i := range 200 {
		references = append(references, "registry.example/group/project/with/a/long/name:"+strconv.Itoa(i))
	}
	require.NoError(t, a.dotenv(references, &core.Result{Digest: "sha256:d"}))
	text := files["/builds/grp/prj/build.env"]
	require.LessOrEqual(t, len(text), 5<<10)
	require.Contains(t, text, "name:50 ")
	require.True(t, strings.HasSuffix(text, "\n"))
}

func TestAFileThatCannotBeWrittenIsSaid(t *testing.T) {
	a, _, _ := job(jobOf(t, "gitlab-ci-local"))
	a.job.WriteFile = func(string, []byte) error { return errors.New("read-only") }
	plan, err := plugin.Prepare(a.Read())
	require.NoError(t, err)
	require.ErrorContains(t, a.Report(plugin.Report{Plan: plan, Result: &core.Result{}}), "write build.env: read-only")
}

// TestEverySettingHasAVariable also holds the documentation to the code.
func TestEverySettingHasAVariable(t *testing.T) {
	for _, f := range plugin.Fields() {
		a, _, _ := job(map[string]string{variable(f.Name): "a/value"})
		values, _, host := a.Read()
		require.Equal(t, plugin.Given{Values: []string{"a/value"}, Source: variable(f.Name)}, values[f.Name])
		require.Equal(t, variable(f.Name), host.Spell(f.Name))
		require.NotEmpty(t, exampleOf(f), f.Name)
	}
	for setting, names := range aliases() {
		for _, alias := range names {
			a, _, _ := job(map[string]string{alias: "a/value"})
			values, _, _ := a.Read()
			require.Equal(t, plugin.Given{Values: []string{"a/value"}, Source: alias}, values[setting])
		}
	}
	for setting, names := range further() {
		for _, alias := range names {
			env := map[string]string{"DOCKER_SNAPSHOT_IMAGE": "r/o/a", "DOCKER_RELEASE_IMAGE": "r/o/a:v1.2.3", "CI_COMMIT_TAG": "v1.2.3"}
			of := func() plugin.Given {
				a, _, _ := job(env)
				values, _, _ := a.Read()
				return values[setting]
			}
			before := of()
			env[alias] = map[string]string{"DOCKER_BUILD_ARGS": "--build-arg A=b", "DOCKER_METADATA": "--label a=b"}[alias] + map[bool]string{true: "r/o/b:2"}[setting == "tags"]
			require.NotEqual(t, before, of(), alias)
		}
	}
	if *update {
		require.NoError(t, os.WriteFile("../docs/gitlab.md", []byte(Documentation()), 0o644))
	}
	data, err := os.ReadFile("../docs/gitlab.md")
	require.NoError(t, err)
	require.Equal(t, Documentation(), string(data), "go test ./gitlab -update writes it")
}

// TestTheComponentsInputsReachTheSettings compares templates/build.yml with the
// table: each of its variables is one, and each input is used.
func TestTheComponentsInputsReachTheSettings(t *testing.T) {
	data, err := os.ReadFile("../templates/build.yml")
	require.NoError(t, err)
	head, body, ok := strings.Cut(string(data), "\n---\n")
	require.True(t, ok)
	var spec struct {
		Spec struct{ Inputs map[string]any }
	}
	require.NoError(t, yaml.Unmarshal([]byte(head), &spec))
	for name := range spec.Spec.Inputs {
		require.Contains(t, body, "$[[ inputs."+name+" ]]")
	}
	known := map[string]bool{}
	for _, f := range plugin.Fields() {
		known[variable(f.Name)] = true
	}
	for line := range strings.Lines(body) {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && strings.HasPrefix(name, "LAYERWRIGHT_") {
			require.True(t, known[name], name)
		}
	}
}

// jobOf is the environment of a job that a runner has recorded.
func jobOf(t *testing.T, name string) map[string]string {
	t.Helper()
	return recorded.Environment(t, filepath.Join("testdata", name+".env"))
}
