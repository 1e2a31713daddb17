package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/plugin/recorded"
)

func TestTheHostIsRecognised(t *testing.T) {
	for name, c := range map[string]struct {
		file, program, override, want string
	}{
		"a recorded tag on GitHub":          {file: "github/testdata/tag", want: "github"},
		"a recorded pull request on GitHub": {file: "github/testdata/pull-request", want: "github"},
		"a recorded job of gitlab-ci-local": {file: "gitlab/testdata/gitlab-ci-local", want: "gitlab"},
		"a recorded job of GitLab's runner": {file: "gitlab/testdata/runner", want: "gitlab"},
		"a recorded step of Woodpecker":     {file: "drone/testdata/woodpecker", want: "woodpecker"},
		"a recorded step of drone exec":     {file: "drone/testdata/exec", want: "drone"},
		"a recorded step of Drone's runner": {file: "drone/testdata/runner", want: "drone"},
		"Drone where Woodpecker looks on":   {file: "drone/testdata/woodpecker", override: "drone", want: "drone"},
		"the override to the command line":  {file: "github/testdata/tag", override: "none"},
		"the name executor":                 {file: "github/testdata/tag", program: "/kaniko/executor"},
		"the name warmer":                   {file: "github/testdata/tag", program: "/kaniko/warmer", override: "github"},
		"an override without variables":     {override: "github", want: "github"},
		"no CI":                             {},
	} {
		t.Run(name, func(t *testing.T) {
			p := &process{args: []string{"layerwright"}, env: map[string]string{}}
			if c.file != "" {
				p.env = jobOf(t, c.file)
			}
			if c.program != "" {
				p.args[0] = c.program
			}
			if c.override != "" {
				p.env[hostVariable] = c.override
			}
			h, err := p.host()
			require.NoError(t, err)
			if c.want == "" {
				require.Nil(t, h)
				return
			}
			require.Equal(t, c.want, h.Name)
		})
	}
}

// inCI runs the program in an environment.
func inCI(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	p := &process{args: append([]string{"layerwright"}, args...), env: env, inside: true, stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
	code = p.run(t.Context())
	return code, out.String(), errs.String()
}

func TestAnUnknownHostIsAnError(t *testing.T) {
	code, _, stderr := inCI(t, map[string]string{hostVariable: "jenkins"})
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "LAYERWRIGHT_HOST=jenkins: unknown")
	require.Contains(t, stderr, "Use github, gitlab, woodpecker, drone")
}

func TestSettingsAreShownWithTheirSources(t *testing.T) {
	env := jobOf(t, "github/testdata/tag")
	env["INPUT_PASSWORD"] = "geheim"
	for _, args := range [][]string{{"--print-settings"}, {"github", "--print-settings"}} {
		code, stdout, stderr := inCI(t, env, args...)
		require.Equal(t, 0, code, stderr)
		require.Contains(t, stdout, "push: true  (input push)\n")
		require.Contains(t, stdout, "build-args: B=***  (input build-args)\n")
		require.Contains(t, stdout, "password: ***  (input password)\n")
		require.Contains(t, stdout, "isolation: auto  (default)\n")
		require.NotContains(t, stdout, "geheim")
	}
}

func TestArgumentsAlwaysMeanTheCommandLine(t *testing.T) {
	code, stdout, _ := inCI(t, jobOf(t, "github/testdata/tag"), "version")
	require.Equal(t, 0, code)
	require.Contains(t, stdout, "layerwright ")
	code, _, stderr := inCI(t, jobOf(t, "github/testdata/tag"), "build", "--no-such-flag")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "no-such-flag")
}

func TestMistakesInACIEndWithCode2(t *testing.T) {
	env := jobOf(t, "github/testdata/tag")
	env["INPUT_LOAD"], env["INPUT_TAGS"] = "true", "type=what"
	code, stdout, stderr := inCI(t, env)
	require.Equal(t, 2, code)
	require.Contains(t, stdout, "::error title=input load::")
	require.Contains(t, stderr, "input tags: type=what")
	require.Contains(t, stderr, "2 problems with the settings")
}

// TestABuildInACI builds a Dockerfile without RUN to a layout, and finds outputs
// and summary where GitHub reads them.
func TestABuildInACI(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY Dockerfile /\n"), 0o600))
	env := jobOf(t, "github/testdata/tag")
	env["GITHUB_OUTPUT"], env["GITHUB_STEP_SUMMARY"] = filepath.Join(dir, "output"), filepath.Join(dir, "summary")
	env["HOME"], env["INPUT_CONTEXT"], env["INPUT_PUSH"] = dir, dir, "false"
	env["INPUT_IMAGES"], env["INPUT_OCI-LAYOUT-PATH"], env["INPUT_STORE"] = "o/a", filepath.Join(dir, "layout"), t.TempDir()
	env["INPUT_ISOLATION"], env["INPUT_BUILD-ARGS"] = "chroot", ""
	code, _, stderr := inCI(t, env)
	require.Equal(t, 0, code, stderr)
	output, err := os.ReadFile(env["GITHUB_OUTPUT"])
	require.NoError(t, err)
	require.Regexp(t, `digest<<\S+\nsha256:[0-9a-f]{64}\n`, string(output))
	require.Contains(t, string(output), "o/a:v1.2.3\no/a:latest\n")
	summary, err := os.ReadFile(env["GITHUB_STEP_SUMMARY"])
	require.NoError(t, err)
	require.Contains(t, string(summary), "COPY Dockerfile /")
	require.FileExists(t, filepath.Join(dir, "layout", "index.json"))
}

// jobOf is the environment of a job that a runner has recorded.
func jobOf(t *testing.T, name string) map[string]string {
	t.Helper()
	return recorded.Environment(t, filepath.Join("..", name+".env"))
}
