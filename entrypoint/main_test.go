package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/display"
	"github.com/layerwright/layerwright/plugin/syntax"
)

func TestMain(m *testing.M) {
	if handled, code := core.Main(os.Args); handled {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// invoke runs the program in this process, as if inside of namespaces already.
func invoke(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	p := &process{
		args: append([]string{"layerwright"}, args...), env: map[string]string{"HOME": t.TempDir()},
		inside: true, stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs,
	}
	code = p.run(t.Context())
	return code, out.String(), errs.String()
}

// parse reads a build's flags without building.
func parse(t *testing.T, env map[string]string, args ...string) (settings, error) {
	t.Helper()
	f := &flags{set: map[string]bool{}}
	fs := pflag.NewFlagSet("build", pflag.ContinueOnError)
	f.register(fs)
	require.NoError(t, fs.Parse(args))
	fs.Visit(func(x *pflag.Flag) { f.set[x.Name] = true })
	return f.settings(fs.Args(), env)
}

func TestExitCodes(t *testing.T) {
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(&signalError{syscall.SIGTERM})
	wrapped := func(k core.ErrorKind) error {
		return fmt.Errorf("around: %w", &core.Error{Kind: k, Err: errors.New("x")})
	}
	cases := []struct {
		name string
		ctx  context.Context //nolint:containedctx // of a test case
		err  error
		want int
	}{
		{"done", t.Context(), nil, 0},
		{"a failed step", t.Context(), wrapped(core.KindStep), 1},
		{"a wrong Dockerfile", t.Context(), wrapped(core.KindUser), 1},
		{"wrong usage", t.Context(), wrapped(core.KindUsage), 2},
		{"a registry", t.Context(), wrapped(core.KindRegistry), 3},
		{"the environment", t.Context(), wrapped(core.KindEnvironment), 4},
		{"our defect", t.Context(), wrapped(core.KindInternal), 70},
		{"what nobody classified is ours", t.Context(), errors.New("x"), 70},
		{"a signal wins over what it broke", ended, wrapped(core.KindStep), 143},
		{"a build that was done before the signal is done", ended, nil, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, exitCode(c.ctx, c.err)) })
	}
}

func TestSignalEndsContextWithItsName(t *testing.T) {
	ctx, stop := untilSignal(t.Context())
	defer stop()
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the signal did not end the context")
	}
	require.EqualError(t, context.Cause(ctx), "the build was ended by SIGHUP")
	require.ErrorIs(t, context.Cause(ctx), context.Canceled)
	require.Equal(t, 129, exitCode(ctx, context.Cause(ctx)))
}

func TestRequestOfFlags(t *testing.T) {
	env := map[string]string{"HOME": "/home/me", "VERSION": "7", "TOKEN": "s3cret", "http_proxy": "http://p"}
	s, err := parse(t, env,
		"-f", "D", "-d", "a.example/x:1", "-t", "b.example/y", "--tag", "c.example/z:2",
		"--build-arg", "VERSION", "--build-arg", "NOT_SET", "--build-arg", "A=b=c", "--build-arg", "E=",
		"--target", "test", "--custom-platform", "linux/arm64/v8,linux/amd64", "--label", "k=v",
		"--build-context", "base=docker-image://x", "--secret", "id=t,env=TOKEN", "--secret", "id=f,src=/f",
		"--secret", "id=TOKEN", "--secret", "type=env,id=k,src=TOKEN", "--add-host", "h:10.0.0.1", "--add-host", "six=[::1]",
		"--ulimit", "nofile=10:20", "--shm-size", "64m", "--network", "none", "--hostname", "box",
		"--no-cache", "--no-cache-filter", "test", "--tar-path", "t.tar", "--oci-layout-path", "l", "--digest-file", "d",
		"--image-format", "docker", "--compression", "none", "--insecure", "--insecure-registry", "r1",
		"--skip-tls-verify", "--skip-tls-verify-registry", "r2", "--registry-mirror", "m",
		"--push-retry", "0", "--image-download-retry", "5", "--isolation", "chroot", "--snapshots", "flat",
		"--store", "/s", "--force", "-v", "debug", "ctx")
	require.NoError(t, err)
	require.Equal(t, core.Request{
		Context: "ctx", Dockerfile: "D", Target: "test", Platforms: []string{"linux/arm64", "linux/amd64"},
		BuildArgs: map[string]string{"VERSION": "7", "A": "b=c", "E": ""}, Labels: map[string]string{"k": "v"},
		NamedContexts: map[string]string{"base": "docker-image://x"},
		NoCache:       true, NoCacheFilter: []string{"test"},
		Secrets: []core.Secret{
			{ID: "t", Value: []byte("s3cret")}, {ID: "f", File: "/f"},
			{ID: "TOKEN", Value: []byte("s3cret")}, {ID: "k", Value: []byte("s3cret")},
		},
		ExtraHosts: []string{"h:10.0.0.1", "six:::1"}, Ulimits: []string{"nofile=10:20"}, ShmSize: 64 << 20,
		Network: "none", Hostname: "box",
		Outputs: core.Outputs{
			Destinations: []string{"a.example/x:1", "b.example/y", "c.example/z:2"},
			OCILayout:    "l", DockerTar: "t.tar", DigestFile: "d", ImageFormat: "docker", Compression: "none",
		},
		Registry: core.Registry{
			Insecure: true, InsecureRegistries: []string{"r1"}, SkipTLSVerify: true, SkipTLSVerifyRegistries: []string{"r2"},
			Mirrors: []string{"m"}, Environment: env, PullRetries: 5, PushRetries: -1,
		},
		Cache: core.Cache{Dir: "/cache"}, Isolation: "chroot", Snapshots: "flat", Store: "/s", Force: true,
	}, s.Request)
	require.Equal(t, display.Debug, s.verbosity)
	require.Equal(t, []string{"l", "t.tar", "d"}, s.files())
}

func TestDefaults(t *testing.T) {
	s, err := parse(t, map[string]string{"DOCKER_CONFIG": "/dc", "HOME": "/h"}, "--no-push")
	require.NoError(t, err)
	require.Equal(t, ".", s.Context)
	require.Equal(t, "Dockerfile", s.Dockerfile)
	require.Equal(t, "/dc", s.Registry.Environment["DOCKER_CONFIG"])
	require.Zero(t, s.Registry.PushRetries)
	require.Equal(t, "auto", s.Isolation)

	s, err = parse(t, nil, "--no-push", "-c", "dir:///work", "-f", "-")
	require.NoError(t, err)
	require.Equal(t, "/work", s.Context)
	require.True(t, s.fromStdin)
}

func TestUsageErrors(t *testing.T) {
	cases := []struct {
		name string
		args []string
		says []string
	}{
		{"an unknown flag suggests the nearest", []string{"build", "--destinatoin", "x"}, []string{"--destinatoin", "Did you mean --destination?"}},
		{"also an alias", []string{"build", "--custom-platfrom", "x"}, []string{"--custom-platform?"}},
		{"flags without a command are of build", []string{"--destinatoin=x"}, []string{"Did you mean --destination?", "layerwright build --help"}},
		{"an unknown command suggests the nearest", []string{"bild"}, []string{`"bild"`, "layerwright build?"}},
		{"a value that is none of the choices", []string{"build", "--isolation", "chrot"}, []string{"inplace", "did you mean chroot?"}},
		{"nowhere to put the image", []string{"build", "."}, []string{"--destination", "--no-push"}},
		{"contradiction", []string{"build", "-d", "x", "--image-format", "docker", "--compression", "zstd"}, []string{"zstd"}},
		{"invalid reference", []string{"build", "-d", "UPPER/case"}, []string{"UPPER/case"}},
		{"digest as destination", []string{"build", "-d", "x@sha256:" + strings.Repeat("a", 64)}, []string{"digest"}},
		{"two contexts", []string{"build", "--no-push", "-c", "a", "b"}, []string{"two contexts"}},
		{"bucket without an object", []string{"build", "--no-push", "s3://x"}, []string{"s3://BUCKET/ARCHIVE"}},
		{"zstd in Docker's format", []string{"build", "--no-push", "--image-format", "docker", "--compression", "zstd"}, []string{"zstd"}},
		{"secret without id", []string{"build", "--no-push", "--secret", "src=x"}, []string{"id"}},
		{"secret twice", []string{"build", "--no-push", "--secret", "id=a,src=x", "--secret", "id=a,src=y"}, []string{"two secrets"}},
		{"secret of an unset variable", []string{"build", "--no-push", "--secret", "id=a,env=NOPE"}, []string{"NOPE"}},
		{"secret file that is not there", []string{"build", "--no-push", "--secret", "id=a,src=/no/such"}, []string{"/no/such"}},
		{"negative retries", []string{"build", "--no-push", "--push-retry", "-1"}, []string{"--push-retry"}},
		{"verbosity", []string{"build", "--no-push", "-v", "loud"}, []string{"loud"}},
		{"doctor takes no argument", []string{"doctor", "x"}, []string{"x"}},
		{"help of nothing", []string{"help", "nothing"}, []string{"nothing"}},
		{
			"all problems at once",
			[]string{"build", "-d", "UPPER/case", "--add-host", "x", "--ulimit", "y", "--shm-size", "z", "--platform", "a b", "--label", "l", "--build-context", "c", "--build-arg", "=v"},
			[]string{"UPPER/case", "--add-host x", "--ulimit y", "--shm-size z", "--platform a b", "--label: l: write KEY=VALUE", "--build-context: c: write NAME=WHERE", "--build-arg: number 1: write KEY=VALUE"},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			code, stdout, stderr := invoke(t, "", c.args...)
			require.Equal(t, 2, code, stderr)
			require.Empty(t, stdout)
			require.Contains(t, stderr, "ERROR:")
			for _, s := range c.says {
				require.Contains(t, stderr, s)
			}
		})
	}
}

// TestMistakesDoNotRepeatSecrets: what was meant as a value may stand anywhere.
func TestMistakesDoNotRepeatSecrets(t *testing.T) {
	for _, args := range [][]string{{"--build-arg", "=s3cret"}, {"--build-arg", "s3cret with spaces"}, {"--secret", "TOKEN=s3cret"}, {"--secret", "id=a,s3cret"}, {"--ssh", "s3cret"}} {
		code, _, stderr := invoke(t, "", append([]string{"build", "--no-push"}, args...)...)
		require.Equal(t, 2, code, args)
		require.Contains(t, stderr, args[0]+": number 1: ")
		require.NotContains(t, stderr, "s3cret")
	}
	code, _, stderr := invoke(t, "", "build", "--no-push", "--secret", "id=a,src=/no/such", "--secret", "id=b,src=/not/there")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "/no/such")
	require.Contains(t, stderr, "/not/there")
}

func TestTheCommandThatFlagsAreOf(t *testing.T) {
	root := (&process{args: []string{"layerwright"}}).command()
	for _, c := range []struct{ args, want string }{
		{"layerwright", ""},
		{"layerwright --help", "--help"},
		{"layerwright --print-settings", "--print-settings"},
		{"layerwright doctor", "doctor"},
		{"layerwright --context=. -d x", "build --context=. -d x"},
		{"/kaniko/executor", "build"},
		{"/kaniko/executor -c . --destination=x", "build -c . --destination=x"},
		{"/kaniko/executor version", "version"},
		{"/kaniko/executor --help", "--help"},
		{"/kaniko/warmer", "warmer"},
		{"/kaniko/warmer --image x", "warmer --image x"},
		{"/kaniko/warmer --help", "warmer --help"},
	} {
		require.Equal(t, c.want, strings.Join(withCommand(root, strings.Fields(c.args)), " "), c.args)
	}
}

func TestUsageErrorAsJSON(t *testing.T) {
	code, _, stderr := invoke(t, "", "build", "--log-format", "json", "-d", "UPPER")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, `"type":"error"`)
	require.Contains(t, stderr, `"kind":"usage"`)
}

func TestHelp(t *testing.T) {
	code, stdout, stderr := invoke(t, "", "build", "--help")
	require.Zero(t, code)
	require.Empty(t, stderr)
	require.LessOrEqual(t, strings.Count(stdout, "\n"), 60, "it fits on a screen")
	f := &flags{}
	fs := pflag.NewFlagSet("build", pflag.ContinueOnError)
	f.register(fs)
	code, everything, _ := invoke(t, "", "build", "--help-all")
	require.Zero(t, code)
	fs.VisitAll(func(x *pflag.Flag) {
		if !slices.ContainsFunc(syntax.KanikoFlags(), func(k syntax.KanikoFlag) bool { return k.Name == x.Name }) {
			require.Contains(t, stdout, "--"+x.Name, "every flag that does something is in the help")
		}
		if x.Name != "tag" && x.Name != "help-all" {
			require.Regexp(t, `(?m)^  .*--`+x.Name+` .*\w`, everything)
		}
	})
	for alias := range aliases {
		require.NotNil(t, fs.Lookup(alias), alias)
	}
	for _, line := range strings.Split(stdout+everything, "\n") {
		require.LessOrEqual(t, len(line), 100, line)
	}
	for _, args := range [][]string{{}, {"--help"}, {"help"}, {"help", "build"}, {"help", "doctor"}, {"version"}} {
		code, stdout, stderr := invoke(t, "", args...)
		require.Zero(t, code)
		require.Empty(t, stderr)
		require.Contains(t, stdout, "layerwright")
	}
}

func TestLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte("from a file"), 0o600))
	s := settings{fromStdin: true, Request: core.Request{Secrets: []core.Secret{{ID: "f", File: file}, {ID: "v", Value: []byte("value")}}}}
	masks, err := s.load(strings.NewReader("FROM scratch\n"))
	require.NoError(t, err)
	require.Equal(t, "FROM scratch\n", string(s.DockerfileData))
	require.Equal(t, [][]byte{[]byte("from a file"), []byte("value")}, masks)

	_, err = s.load(strings.NewReader(""))
	require.NoError(t, err)
	require.NotNil(t, s.DockerfileData, "an empty Dockerfile is not the same as none")

	_, err = s.load(strings.NewReader(strings.Repeat("#", maxDockerfile+1)))
	require.ErrorContains(t, err, "2 MiB")

	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	_, err = w.WriteString("from a pipe")
	require.NoError(t, err)
	require.NoError(t, w.Close())
	pipe := settings{Request: core.Request{Secrets: []core.Secret{{ID: "p", File: fmt.Sprintf("/dev/fd/%d", r.Fd())}}}}
	_, err = pipe.load(nil)
	require.NoError(t, err)
	require.Equal(t, []core.Secret{{ID: "p", Value: []byte("from a pipe")}}, pipe.Secrets, "a pipe can be read only once")

	require.NoError(t, os.WriteFile(file, make([]byte, syntax.MaxSecret+1), 0o600))
	s.fromStdin, s.Secrets = false, []core.Secret{{ID: "f", File: file}}
	_, err = s.load(nil)
	require.ErrorContains(t, err, "500 KiB")
}

func TestReport(t *testing.T) {
	var b bytes.Buffer
	r := core.DoctorReport{Chosen: "inplace", Snapshots: "flat"}
	writeReport(&b, r)
	require.Contains(t, b.String(), "isolation inplace with flat snapshots")
	b.Reset()
	writeReport(&b, core.DoctorReport{})
	require.Contains(t, b.String(), "No isolation mode works here.")
}

func TestEnteredCode(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	require.Equal(t, 1, enteredCode(ctx, 1))
	cancel(&signalError{syscall.SIGINT})
	require.Equal(t, 130, enteredCode(ctx, 143), "the first signal counts")
	require.Equal(t, 0, enteredCode(ctx, 0))
}

// TestWhereTheDockerfileIs: docker build DIR takes DIR's, Kaniko's executor looks
// into the working directory first.
func TestWhereTheDockerfileIs(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"ctx"}, ""},
		{[]string{"--context", "ctx"}, "Dockerfile"},
		{[]string{"-f", "Dockerfile", "ctx"}, "Dockerfile"},
		{[]string{"--context", "https://example.com/a.git"}, ""},
		{nil, "Dockerfile"},
	} {
		s, err := parse(t, nil, append(c.args, "--no-push")...)
		require.NoError(t, err)
		require.Equal(t, c.want, s.Dockerfile, "%q", c.args)
	}
}
