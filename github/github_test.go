package github

import (
	"context"
	"errors"
	"flag"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin"
	"github.com/layerwright/layerwright/plugin/recorded"
)

var update = flag.Bool("update", false, "write action.yml and the documentation")

// run is one job's surroundings.
type run struct {
	env    map[string]string
	stdout strings.Builder
	files  map[string]string // written
	empty  bool              // nothing is checked out
	event  string
	read   map[string]string // files that are there to be read
}

func (r *run) adapter() *adapter {
	r.files = map[string]string{}
	return newAdapter(plugin.Job{
		Env: r.env, Stdout: &r.stdout,
		ReadFile: func(name string) ([]byte, error) {
			if name == r.env["GITHUB_EVENT_PATH"] && r.event != "" {
				return []byte(r.event), nil
			}
			if text, ok := r.read[name]; ok {
				return []byte(text), nil
			}
			return nil, fs.ErrNotExist
		},
		Exists: func(name string) bool { return !r.empty && name != "missing/Dockerfile" },
		Append: func(name string, data []byte) error { r.files[name] += string(data); return nil },
		Now:    func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) },
	})
}

// with adds inputs to an environment.
func with(env map[string]string, inputs map[string]string) map[string]string {
	for k, v := range inputs {
		env["INPUT_"+strings.ToUpper(k)] = v
	}
	return env
}

func (r *run) prepare(t *testing.T) *plugin.Plan {
	t.Helper()
	p, err := plugin.Prepare(r.adapter().Read())
	require.NoError(t, err)
	return p
}

func TestARecordedRunnerIsDetected(t *testing.T) {
	require.True(t, CI().Detect(jobOf(t, "tag")))
	require.True(t, CI().Detect(jobOf(t, "pull-request")))
	require.False(t, CI().Detect(map[string]string{"CI": "true"}))
}

func TestARecordedTagHasItsTags(t *testing.T) {
	r := &run{env: with(jobOf(t, "tag"), map[string]string{"images": "ghcr.io/NekTos/act", "tags": "type=semver,pattern={{version}}\ntype=semver,pattern={{major}}.{{minor}}", "github-token": "tok-en"})}
	p := r.prepare(t)
	require.Equal(t, []string{"ghcr.io/nektos/act:1.2.3", "ghcr.io/nektos/act:1.2", "ghcr.io/nektos/act:latest"}, p.Request.Outputs.Destinations)
	require.Equal(t, map[string]string{"A": "1", "B": "two words"}, p.Request.BuildArgs)
	require.False(t, p.Request.Outputs.NoPush)
	require.Equal(t, []core.Credential{{Host: "ghcr.io", Username: "nektos/act", Password: "tok-en"}}, p.Request.Registry.Credentials)
	require.Equal(t, "https://github.com/nektos/act", p.Labels["org.opencontainers.image.source"])
	require.Equal(t, "act", p.Labels["org.opencontainers.image.title"])
	require.Equal(t, "1.2.3", p.Labels["org.opencontainers.image.version"])
	require.Equal(t, ".", p.Request.Context)
}

func TestARecordedPullRequestHasItsTag(t *testing.T) {
	r := &run{env: with(jobOf(t, "pull-request"), map[string]string{"images": "o/a", "push": "false"})}
	p := r.prepare(t)
	require.Equal(t, []string{"o/a:pr-7"}, p.Request.Outputs.Destinations)
	require.True(t, p.Request.Outputs.NoPush)
	require.Empty(t, p.Login.Password)
}

func TestTheEventSaysMore(t *testing.T) {
	r := &run{
		env:   with(jobOf(t, "pull-request"), map[string]string{"images": "o/a", "tags": "type=raw,value=to-{{base_ref}}-{{commit_date 'YYYY'}}\ntype=raw,value=default,enable={{is_default_branch}}"}),
		event: `{"repository":{"name":"n","description":"d","html_url":"https://h/n","default_branch":"refs/pull/7/merge","license":{"spdx_id":"MIT"}},"pull_request":{"base":{"ref":"release"}},"head_commit":{"timestamp":"2024-05-06T07:08:09Z"}}`,
	}
	p := r.prepare(t)
	require.Equal(t, []string{"to-release-2024", "default"}, p.Names.Tags)
	require.Equal(t, "MIT", p.Labels["org.opencontainers.image.licenses"])
	require.Equal(t, "d", p.Labels["org.opencontainers.image.description"])
	require.Equal(t, "https://h/n", p.Labels["org.opencontainers.image.url"])
}

func TestAnUnknownInputIsNamed(t *testing.T) {
	r := &run{env: with(jobOf(t, "tag"), map[string]string{"build-arg": "A=b", "args": "x", "xyzzy": "x", "password": ""})}
	_, notices := r.adapter().values()
	require.Equal(t, []string{"input build-arg is unknown and has no effect: did you mean build-args?", "input xyzzy is unknown and has no effect"}, notices)
}

// TestMetadataActionsVariables are those of a step's env.
func TestMetadataActionsVariables(t *testing.T) {
	r := &run{env: with(jobOf(t, "pull-request"), map[string]string{"images": "o/a", "tags": "type=sha"}), event: `{"pull_request":{"head":{"sha":"0123456789abcdef0123456789abcdef01234567"}}}`}
	r.env["GITHUB_SHA"] = "ff4b754295d00f05ec652b63ff45996bdb335198"
	require.Equal(t, []string{"sha-ff4b754"}, r.prepare(t).Names.Tags)
	r.env["DOCKER_METADATA_PR_HEAD_SHA"], r.env["DOCKER_METADATA_SHORT_SHA_LENGTH"] = "true", "10"
	p := r.prepare(t)
	require.Equal(t, []string{"sha-0123456789"}, p.Names.Tags)
	require.Equal(t, "0123456789abcdef0123456789abcdef01234567", p.Labels["org.opencontainers.image.revision"])
}

func TestBuildPushActionsFormats(t *testing.T) {
	r := &run{env: with(jobOf(t, "tag"), map[string]string{
		"tags": "user/app:latest, user/app:1.0.0", "push": "true", "build-args": "A=1,2\n\"B=one\ntwo \"\"three\"\"\"\nC=\"x\"",
		"secrets": "tok=abc,def\n\"json={\"\"k\"\":\n1}\"", "platforms": "linux/amd64,linux/arm64", "labels": "a=b,c\nd=e", "file": "docker/Dockerfile",
		"cache-from": "type=gha", "cache-to": "type=gha,mode=max", "builder": "x", "pull": "true", "provenance": "false", "no-cache": "False",
	})}
	a := r.adapter()
	p, err := plugin.Prepare(a.Read())
	require.NoError(t, err)
	require.Empty(t, r.stdout.String(), "nothing comes before the masks")
	require.NoError(t, a.Report(plugin.Report{Plan: p}))
	require.Equal(t, []string{"user/app:latest", "user/app:1.0.0"}, p.Request.Outputs.Destinations)
	require.Equal(t, map[string]string{"A": "1,2", "B": "one\ntwo \"three\"", "C": `"x"`}, p.Request.BuildArgs)
	require.Equal(t, []core.Secret{{ID: "tok", Value: []byte("abc,def")}, {ID: "json", Value: []byte("{\"k\":\n1}")}}, p.Request.Secrets)
	require.Equal(t, []string{"linux/amd64", "linux/arm64"}, p.Request.Platforms)
	require.Equal(t, "b,c", p.Labels["a"])
	require.Contains(t, r.stdout.String(), "::notice::input builder has no effect: there is no builder to choose\n")
	require.Len(t, p.Notices, 2, "gha")
}

func TestKanikoActionsNames(t *testing.T) {
	r := &run{env: with(jobOf(t, "tag"), map[string]string{"tags": "o/a:1", "cache": "true", "cache-repository": "ghcr.io/o/cache", "cache-ttl": "72h", "registry-mirror": "mirror.local", "push-retry": "2"})}
	p := r.prepare(t)
	require.Equal(t, "ghcr.io/o/cache", p.Request.Cache.Repo)
	require.Equal(t, 72*time.Hour, p.Request.Cache.TTL)
	require.Equal(t, []string{"mirror.local"}, p.Request.Registry.Mirrors)
	require.Equal(t, 2, p.Request.Registry.PushRetries)
}

// TestKanikoActionsFlags: what has an input is as good as that, and nothing is dropped.
func TestKanikoActionsFlags(t *testing.T) {
	r := &run{env: with(jobOf(t, "tag"), map[string]string{"tags": "o/a:1", "build-args": "A=1", "verbosity": "debug",
		"kaniko-args": "--build-arg=B=2\n--skip-tls-verify\n--reproducible=true\n--snapshot-mode=redo\n--verbosity=info\n--registry-mirror=m\n--image-download-retry=4\n--cache-ttl=1h\n--destination=o/b:1"})}
	a := r.adapter()
	p, err := plugin.Prepare(a.Read())
	require.NoError(t, err)
	require.Equal(t, map[string]string{"A": "1", "B": "2"}, p.Request.BuildArgs)
	require.Equal(t, []string{"o/a:1", "o/b:1"}, p.Request.Outputs.Destinations)
	require.True(t, p.Request.Registry.SkipTLSVerify && p.Request.Outputs.Reproducible)
	require.Equal(t, []any{[]string{"m"}, 4, time.Hour}, []any{p.Request.Registry.Mirrors, p.Request.Registry.PullRetries, p.Settings.CacheTTL})
	require.Equal(t, []string{"input kaniko-args: --snapshot-mode has no effect: change times find changes, contents decide", "input kaniko-args: --verbosity has no effect beside verbosity"}, a.notices)

	r = &run{env: with(jobOf(t, "tag"), map[string]string{"tags": "o/a:1", "kaniko-args": "--build-arg A=geheim\n--what=geheim\n--target"})}
	_, err = plugin.Prepare(r.adapter().Read())
	require.ErrorContains(t, err, "input kaniko-args: there is no input for --build-arg A, --what, --target: write a flag a line")
	require.NotContains(t, err.Error(), "geheim")
}

func TestWithoutACheckoutTheContextIsTheRepositoryAtTheCommit(t *testing.T) {
	const repository = "https://github.com/nektos/act.git#ff4b754295d00f05ec652b63ff45996bdb335198"
	r := &run{env: with(jobOf(t, "tag"), map[string]string{"push": "false", "github-token": "tok-en"}), empty: true}
	p := r.prepare(t)
	require.Equal(t, repository, p.Request.Context)
	require.Empty(t, p.Request.Dockerfile)
	require.Equal(t, []core.Secret{{ID: "GIT_AUTH_TOKEN", Value: []byte("tok-en")}}, p.Request.Secrets)
	r = &run{env: with(jobOf(t, "tag"), map[string]string{"push": "false", "context": "{{defaultContext}}:sub"})}
	require.Equal(t, repository+":sub", r.prepare(t).Request.Context)

	// A login or an artifact in the workspace is no checkout; a Dockerfile is.
	for there, context := range map[string]string{".docker/config.json": repository, "Dockerfile": ".", ".git": "."} {
		r = &run{env: with(jobOf(t, "tag"), map[string]string{"push": "false"})}
		a := r.adapter()
		a.job.Exists = func(name string) bool { return name == there || name == "." }
		p, err := plugin.Prepare(a.Read())
		require.NoError(t, err)
		require.Equal(t, context, p.Request.Context, there)
	}
}

// TestTheJobsTokenIsALogin for GitHub's own registry, beside others, and for no
// other registry.
func TestTheJobsTokenIsALogin(t *testing.T) {
	const config = `{"auths":{"https://index.docker.io/v1/":{"auth":"eDp5"}}}`
	const known = `{"auths":{"ghcr.io":{"auth":"eDp5"}}}`
	own := core.Credential{Host: "ghcr.io", Username: "nektos/act", Password: "tok-en"}
	for name, c := range map[string]struct {
		inputs, env, read map[string]string
		own               bool
	}{
		"an image":                     {map[string]string{"images": "ghcr.io/o/a"}, nil, nil, true},
		"a tag in capitals":            {map[string]string{"tags": "GHCR.io/o/a:1"}, nil, nil, true},
		"only the cache":               {map[string]string{"tags": "o/a:1", "cache-repo": "ghcr.io/o/cache"}, nil, nil, true},
		"docker's cache":               {map[string]string{"tags": "o/a:1", "cache-from": "type=registry,ref=ghcr.io/o/a:cache"}, nil, nil, true},
		"a name of an output":          {map[string]string{"outputs": "type=image,name=ghcr.io/o/a,push=true"}, nil, nil, true},
		"another registry's login":     {map[string]string{"tags": "ghcr.io/o/a:1\nquay.io/o/a:1", "registry": "quay.io", "username": "u", "password": "own"}, nil, nil, true},
		"login-action, elsewhere":      {map[string]string{"images": "ghcr.io/o/a"}, map[string]string{"DOCKER_CONFIG": "/github/workspace/.docker"}, map[string]string{"/github/workspace/.docker/config.json": config}, true},
		"the image's own variable":     {map[string]string{"images": "ghcr.io/o/a"}, map[string]string{"DOCKER_CONFIG": "/kaniko/.docker/"}, nil, true},
		"another registry":             {map[string]string{"images": "quay.io/o/a"}, nil, nil, false},
		"an own password":              {map[string]string{"images": "ghcr.io/o/a", "registry": "ghcr.io", "username": "u", "password": "own"}, nil, nil, false},
		"login-action":                 {map[string]string{"images": "ghcr.io/o/a"}, map[string]string{"DOCKER_CONFIG": "/github/workspace/.docker"}, map[string]string{"/github/workspace/.docker/config.json": known}, false},
		"login-action into HOME":       {map[string]string{"images": "ghcr.io/o/a"}, map[string]string{"HOME": "/github/home"}, map[string]string{"/github/home/.docker/config.json": known}, false},
		"a file of credentials":        {map[string]string{"images": "ghcr.io/o/a", "docker-config": "/x/c.json"}, nil, map[string]string{"/x/c.json": known}, false},
		"a token of another server":    {map[string]string{"images": "ghcr.io/o/a"}, map[string]string{"GITHUB_SERVER_URL": "https://git.example"}, nil, false},
		"an own password for no other": {map[string]string{"images": "ghcr.io/o/a", "username": "u", "password": "own"}, nil, nil, false},
	} {
		c.inputs["github-token"] = "tok-en"
		r := &run{env: with(jobOf(t, "tag"), c.inputs), read: c.read}
		for k, v := range c.env {
			r.env[k] = v
		}
		got := r.prepare(t).Request.Registry.Credentials
		if c.own {
			require.Contains(t, got, own, name)
		} else if len(got) > 0 {
			require.NotEqual(t, "tok-en", got[0].Password, name)
		}
	}
}

func TestMistakesAreAnnotationsAndMasksComeFirst(t *testing.T) {
	r := &run{env: with(jobOf(t, "tag"), map[string]string{"load": "true", "builder": "x", "images": "a b", "password": "geheim-1", "secrets": "x=geheim-2\n\"y=one-one\ntwo-two\"", "sbom": "true"})}
	shown, err := plugin.Execute(t.Context(), r.adapter(), plugin.Process{}, func(context.Context, core.Request) (string, bool, error) {
		t.Fatal("nothing may start")
		return "", false, nil
	})
	require.Error(t, err)
	require.False(t, shown)
	out := r.stdout.String()
	for _, secret := range []string{"geheim-1", "geheim-2", "one-one", "two-two"} {
		require.Contains(t, out, "::add-mask::"+secret+"\n")
		require.Less(t, strings.LastIndex(out, secret), strings.Index(out, "::error"), "masks come before all else, and values in nothing else")
		require.Less(t, strings.LastIndex(out, secret), strings.Index(out, "::notice"))
	}
	for _, name := range []string{"load", "images", "sbom", "username"} {
		require.Contains(t, out, "::error title=input "+name+"::input "+name+": ")
	}
	require.Empty(t, r.files)
}

func ended(t *testing.T, r *run, a *adapter, result *core.Result, err error) {
	t.Helper()
	plan, perr := plugin.Prepare(a.Read())
	require.NoError(t, perr)
	at := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	a.Emit(core.Done{Step: core.Step{Name: "[1/2] FROM x"}, Cached: true, Time: at})
	a.Emit(core.Done{Step: core.Step{Name: "[2/2] RUN a | b: `c`;<d>"}, Time: at.Add(3 * time.Second), Duration: 2 * time.Second, Err: err})
	a.Emit(core.Notice{Level: core.Warning, Rule: "StageNameCasing", Text: "lowercase it", URL: "https://docs", Location: &core.Location{File: "Dockerfile", Start: 2, End: 3}})
	require.NoError(t, a.Report(plugin.Report{Plan: plan, Result: result, Err: err, Took: 4 * time.Second}))
}

func TestTheEndIsHandedOver(t *testing.T) {
	r := &run{env: with(jobOf(t, "tag"), map[string]string{"images": "h:5000/o/a", "labels": "evil=x\n\"multi=a\nb\"", "default-labels": "false"})}
	ended(t, r, r.adapter(), &core.Result{Digest: "sha256:d", ImageID: "sha256:i", Cache: []core.CachedStep{{Name: "[1/2] FROM x", Hit: true}, {Name: "[2/2] RUN a | b: `c`;<d>", Why: "a file changed"}},
		Layers: []core.StepLayer{{Name: "[2/2] RUN a | b: `c`;<d>", Size: 28_150_000}}}, nil)
	got := parseOutputs(t, r.files[r.env["GITHUB_OUTPUT"]])
	require.Equal(t, map[string]string{
		"digest": "sha256:d", "imageid": "sha256:i", "version": "v1.2.3", "tags": "h:5000/o/a:v1.2.3\nh:5000/o/a:latest", "image": "h:5000/o/a:v1.2.3",
		"image-with-digest": "h:5000/o/a@sha256:d", "cache-hits": "1", "labels": "evil=x\nmulti=a\nb",
		"metadata": `{"containerimage.config.digest":"sha256:i","containerimage.digest":"sha256:d","image.name":"h:5000/o/a:v1.2.3,h:5000/o/a:latest"}`,
	}, got)
	require.Equal(t, `### Image built in 4.0 s

| Image | Digest |
|---|---|
| `+"`h:5000/o/a:v1.2.3` | `sha256:d` |\n| `h:5000/o/a:latest` | `sha256:d`"+` |

| Step | Time | Cache | Size |
|---|---:|---|---:|
| `+"`[1/2] FROM x`"+` | 0.0 s | cached | – |
| `+"`[2/2] RUN a \\| b: 'c';&lt;d>`"+` | 2.0 s | a file changed | 28.1MB |

`+"```mermaid\ngantt\n  dateFormat x\n  axisFormat %M:%S\n  [2/2] RUN a | b c <d> :1000, 3000\n```\n", r.files[r.env["GITHUB_STEP_SUMMARY"]])
	require.Contains(t, r.stdout.String(), "::group::Image\nh:5000/o/a:v1.2.3 sha256:d\nh:5000/o/a:latest sha256:d\nDigest sha256:d\nImage ID sha256:i\n::endgroup::\n")
	require.Contains(t, r.stdout.String(), "::warning endLine=3,file=Dockerfile,line=2,title=StageNameCasing::lowercase it https://docs\n")
}

// parseOutputs reads GITHUB_OUTPUT as the runner does.
func parseOutputs(t *testing.T, text string) map[string]string {
	t.Helper()
	got, ends := map[string]string{}, map[string]bool{}
	for text != "" {
		line, rest, _ := strings.Cut(text, "\n")
		name, end, ok := strings.Cut(line, "<<")
		require.True(t, ok, line)
		require.False(t, ends[end], "no two outputs end alike")
		ends[end] = true
		value, after, ok := strings.Cut("\n"+rest, "\n"+end+"\n")
		require.True(t, ok)
		got[name], text = strings.TrimPrefix(value, "\n"), after
	}
	return got
}

func TestAFailingStepIsAnAnnotationOnItsLine(t *testing.T) {
	r := &run{env: with(jobOf(t, "tag"), map[string]string{"images": "o/a", "context": "missing", "file": "Dockerfile"})}
	a := r.adapter()
	a.job.Exists = func(name string) bool { return name != "Dockerfile" }
	ended(t, r, a, nil, &core.Error{Kind: core.KindStep, Err: errors.New("exit code 3"), Remedy: "Look.", Location: &core.Location{File: "Dockerfile", Start: 7, End: 7}})
	require.Contains(t, r.stdout.String(), "::error file=missing/Dockerfile,line=7,title=Layerwright::Dockerfile:7: exit code 3%0ALook.\n")
	require.Contains(t, r.files[r.env["GITHUB_STEP_SUMMARY"]], "### Build failed after 4.0 s")
	require.Contains(t, r.files[r.env["GITHUB_STEP_SUMMARY"]], " :crit, 1000, 3000\n")
	require.NotContains(t, r.files, r.env["GITHUB_OUTPUT"])
}

func TestMissingCredentialsExplainTheTrap(t *testing.T) {
	r := &run{env: with(jobOf(t, "tag"), map[string]string{"images": "o/a"})}
	ended(t, r, r.adapter(), nil, &core.Error{Kind: core.KindRegistry, Err: errors.New("401 (no credentials: none)")})
	require.Contains(t, r.stdout.String(), "A container action does not see ~/.docker of docker/login-action.")
	r = &run{env: with(jobOf(t, "tag"), map[string]string{"images": "ghcr.io/o/a", "github-token": "tok-en"})}
	ended(t, r, r.adapter(), nil, &core.Error{Kind: core.KindRegistry, Err: errors.New("ghcr.io/o/a: denied")})
	require.Contains(t, r.stdout.String(), "permissions: packages: write")
}

func TestASkippedBuildIsNoFailure(t *testing.T) {
	env := with(jobOf(t, "tag"), map[string]string{"images": "o/a", "auto-tag": "drone"})
	env["GITHUB_REF"] = "refs/heads/dev"
	r := &run{env: env}
	_, err := plugin.Execute(t.Context(), r.adapter(), plugin.Process{}, nil)
	require.NoError(t, err)
	require.Contains(t, r.stdout.String(), "::notice::nothing was built: ")
}

// TestActionYAMLAndSettingsAgree compares in both directions: every setting has
// an input, every input a setting or the reason why it has none.
func TestActionYAMLAndSettingsAgree(t *testing.T) {
	made := map[string]string{"../action.yml": ActionYAML(), "../docs/github.md": Documentation()}
	for name, text := range made {
		if *update {
			require.NoError(t, os.WriteFile(name, []byte(text), 0o644))
		}
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, text, string(data), "go test ./github -update writes %s", name)
	}
	var action struct {
		Inputs, Outputs map[string]struct{ Description, Default string }
		Runs            struct {
			Using string
			Args  []string
		}
	}
	data, err := os.ReadFile("../action.yml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(data, &action))
	require.Equal(t, "docker", action.Runs.Using)
	settings := map[string]bool{}
	for _, f := range plugin.Fields() {
		settings[f.Name] = true
		require.Contains(t, action.Inputs, f.Name, "a setting that nobody can reach")
	}
	for name, in := range action.Inputs {
		require.True(t, settings[name] || strings.HasPrefix(in.Description, "another name of ") || strings.HasPrefix(in.Description, "has no effect: ") || name == kanikoInput, "%s does nothing", name)
	}
	require.Len(t, action.Inputs, len(Inputs()), "no name twice")
	for _, in := range Inputs() {
		if in.Setting != "" {
			require.True(t, settings[in.Setting], in.Name)
			require.NotEmpty(t, in.Example, in.Name)
		}
		// Each reaches the program: nothing but reading it makes the difference.
		r := &run{env: with(map[string]string{}, map[string]string{in.Name: "value"})}
		values, notices := r.adapter().values()
		if in.Name == kanikoInput {
			continue // TestKanikoActionsFlags
		}
		if in.Setting == "" {
			require.Len(t, notices, 1, in.Name)
			continue
		}
		require.Equal(t, plugin.Given{Values: []string{"value"}, Source: "input " + in.Name}, values[in.Setting])
	}
}

func FuzzLines(f *testing.F) {
	f.Add("a\n\"b\nc\"\n\"\"\"\"\n\"open")
	f.Fuzz(func(t *testing.T, text string) {
		for _, v := range lines(text) {
			require.LessOrEqual(t, len(v), len(text))
		}
	})
}

// jobOf is the environment of a job that a runner has recorded.
func jobOf(t *testing.T, name string) map[string]string {
	t.Helper()
	return recorded.Environment(t, filepath.Join("testdata", name+".env"))
}

// TestTheJobsTokenIsAskedFor: the runner's own endpoint, with its own credential, and
// only where the job may.
func TestTheJobsTokenIsAskedFor(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer of-the-runner" || r.URL.Query().Get("api-version") != "2" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, `{"value": "for `+r.URL.Query().Get("audience")+`"}`)
	}))
	t.Cleanup(server.Close)
	r := &run{env: map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": server.URL + "/token?api-version=2", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-runner"}}
	_, _, host := r.adapter().Read()
	token, err := host.Token(t.Context(), "sts.amazonaws.com")
	require.NoError(t, err)
	require.Equal(t, "for sts.amazonaws.com", token)

	r.env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] = "other"
	_, err = host.Token(t.Context(), "x")
	require.Error(t, err)

	values, facts, host := (&run{env: map[string]string{"INPUT_IMAGES": "r.example/a", "INPUT_AZURE-CLIENT-ID": "c", "INPUT_AZURE-TENANT-ID": "t"}}).adapter().Read()
	require.Nil(t, host.Token)
	_, err = plugin.Prepare(values, facts, host)
	require.ErrorContains(t, err, "input azure-client-secret: it is missing: Azure wants a secret, a certificate or an OIDC token; the job gets a token with permissions: id-token: write")
}
