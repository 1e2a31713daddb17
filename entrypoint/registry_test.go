package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
)

func TestRegistryFlags(t *testing.T) {
	env := map[string]string{"KANIKO_REGISTRY_MIRROR": "m2", "KANIKO_REGISTRY_MAP": "a.example=d.example"}
	s, err := parse(t, env, "-d", "a.example/x", "--insecure", "--insecure-pull", "--insecure-registry", "r1", "--insecure-registry=r2",
		"--skip-tls-verify", "--skip-tls-verify-pull", "--skip-tls-verify-registry", "r3",
		"--registry-certificate", "a.example=/a.pem", "--registry-certificate=a.example=/b.pem", "--registry-client-cert", "a.example=/c.pem,/k.pem",
		"--registry-map", "a.example=b.example;a.example=c.example/p;x.example=y.example", "--registry-mirror", "m1", "--skip-default-registry-fallback",
		"--push-retry", "7", "--push-ignore-immutable-tag-errors", "--skip-push-permission-check",
		"--credentials", "/one.json", "--secret", "/two.json", "--secret", "three.json", "--secret", "id=x,env=KANIKO_REGISTRY_MIRROR", "--credential-helpers", "env,ecr", "--credential-helpers=gitlab")
	require.NoError(t, err)
	require.Equal(t, core.Registry{
		Insecure: true, InsecurePull: true, InsecureRegistries: []string{"r1", "r2"}, SkipTLSVerify: true, SkipTLSVerifyPull: true, SkipTLSVerifyRegistries: []string{"r3"},
		Certificates:       map[string][]string{"a.example": {"/a.pem", "/b.pem"}},
		ClientCertificates: map[string]core.ClientCertificate{"a.example": {Cert: "/c.pem", Key: "/k.pem"}},
		Maps:               map[string][]string{"a.example": {"b.example", "c.example/p", "d.example"}, "x.example": {"y.example"}},
		Mirrors:            []string{"m1", "m2"}, NoFallback: true, PushRetries: 7, IgnoreImmutableTags: true, SkipPushCheck: true,
		Environment: env, CredentialFiles: []string{"/one.json", "/two.json", "three.json"}, CredentialHelpers: []string{"env", "ecr", "gitlab"},
	}, s.Registry)
	require.Equal(t, []core.Secret{{ID: "x", Value: []byte("m2")}}, s.Secrets)

	s, err = parse(t, nil, "--no-push", "--credential-helpers", "")
	require.NoError(t, err)
	require.Equal(t, []string{}, s.Registry.CredentialHelpers, "all of them are off")
	s, err = parse(t, nil, "--no-push", "--credential-helpers", "default,env")
	require.NoError(t, err)
	require.Equal(t, []string{"env"}, s.Registry.CredentialHelpers)

	_, err = parse(t, nil, "--no-push", "--credential-helpers", "gcr", "--registry-map", "a", "--registry-certificate", "a", "--registry-client-cert", "a=b", "--secret", "src=/f")
	for _, says := range []string{"5 problems", "--credential-helpers: gcr", "--registry-map: a", "--registry-certificate: a: write HOST=FILE", "--registry-client-cert: a=b: write HOST=CERT,KEY", "an id is missing"} {
		require.ErrorContains(t, err, says)
	}
}

// behindPassword is a registry that takes one login and nothing else.
func behindPassword(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "u" || password != "planted-password" {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// command runs the program and gives its exit code and all that it said.
func command(t *testing.T, env map[string]string, stdin string, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	p := &process{args: append([]string{"layerwright"}, args...), env: env, stdin: strings.NewReader(stdin), stdout: &out, stderr: &out}
	code := p.run(t.Context())
	require.NotContains(t, out.String(), "planted", args)
	require.NotContains(t, out.String(), "dTpwbGFudGVkLXBhc3N3b3Jk", args) // base64 of u:planted-password
	return code, out.String()
}

func TestLoginDoctorLogout(t *testing.T) {
	host, dir := behindPassword(t), t.TempDir()
	env := map[string]string{"DOCKER_CONFIG": dir, "HOME": t.TempDir()}
	file := filepath.Join(dir, "config.json")

	code, out := command(t, env, "", "doctor", "--registry", host)
	require.Equal(t, 3, code, out)
	require.Regexp(t, `(?m)^-\s+`+file+`\s+no such file`, out)
	require.Contains(t, out, "A build would use no login.")
	require.Contains(t, out, "layerwright login "+host)

	code, out = command(t, env, "planted-wrong\n", "login", "-u", "u", "--password-stdin", host)
	require.Equal(t, 3, code, out)
	require.Contains(t, out, "the login is refused")
	require.NoFileExists(t, file)

	code, out = command(t, env, "planted-password\n", "login", "-u", "u", "--password-stdin", host)
	require.Equal(t, 0, code, out)
	require.Contains(t, out, file)
	fi, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())

	code, out = command(t, env, "", "doctor", "--registry", host+"/team/app:1")
	require.Equal(t, 0, code, out)
	require.Regexp(t, `(?m)^used\s+`+file+`\s+has an entry for `+host, out)
	require.Contains(t, out, "The registry takes it.")

	other := filepath.Join(t.TempDir(), "other.json")
	require.NoError(t, os.WriteFile(other, []byte(`{"auths":{"`+host+`":{"username":"u","password":"planted-old"}}}`), 0o600))
	code, out = command(t, env, "", "doctor", "--registry", host, "--credentials", other)
	require.Equal(t, 3, code, out)
	require.Regexp(t, `(?m)^used\s+`+other, out)
	require.NotContains(t, out, file, "nothing behind it was looked at")

	code, out = command(t, env, "", "logout", host)
	require.Equal(t, 0, code, out)
	require.Contains(t, out, "removed")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NotContains(t, string(text), host)
	code, out = command(t, env, "", "logout", host)
	require.Equal(t, 0, code, out)
	require.Contains(t, out, "no such login")
}

func TestLoginUsage(t *testing.T) {
	env := map[string]string{"DOCKER_CONFIG": `{"auths":{}}`}
	host := behindPassword(t)
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"login", host}, "--username is missing"},
		{[]string{"login", "-u", "u", host}, "--password-stdin"},
		{[]string{"login", "-u", "u", "-p", "x", "--password-stdin", host}, "give one of them"},
		{[]string{"login", "-u", "u", "-p", "x", "a", "b"}, "give one registry"},
		{[]string{"login", "-u", "u", "--password-stdin", host}, "DOCKER_CONFIG is itself"},
		{[]string{"login", "-u", "u", "-p", "", host}, "empty"},
		{[]string{"logout", "a", "b"}, "give one registry"},
		{[]string{"doctor", "--registry", "UPPER/case"}, "UPPER"},
		{[]string{"doctor", "--registry", "x.example", "--credentials", "/no/such/file"}, "/no/such/file"},
	} {
		code, out := command(t, env, "planted-password", c.args...)
		require.NotZero(t, code, out)
		require.Contains(t, out, c.says)
	}
}

func TestDoctorSaysWhereAConfigurationIsMalformed(t *testing.T) {
	code, out := command(t, map[string]string{"DOCKER_CONFIG": "{\n  \"auths\": {,\n", "HOME": t.TempDir()}, "", "doctor", "--registry", "x.example")
	require.Equal(t, 3, code)
	require.Contains(t, out, "the variable DOCKER_CONFIG: line 2, column 13")
	require.Contains(t, out, "docker login writes it")
}

// TestEveryCommandThatSpeaksToRegistriesHasTheirFlags: what is reached by a build
// must be by the others.
func TestEveryCommandThatSpeaksToRegistriesHasTheirFlags(t *testing.T) {
	p := &process{}
	push := []string{"push-retry", "push-ignore-immutable-tag-errors", "skip-push-permission-check"}
	for _, args := range [][]string{{"build"}, {"warmer"}, {"cache", "ls"}, {"cache", "prune"}, {"doctor"}, {"login"}} {
		c, rest, err := p.command().Find(args)
		require.NoError(t, err)
		require.Empty(t, rest)
		for _, name := range append(slices.Clone(registryGroup.names), registryGroup.more...) {
			if args[0] == "build" || !slices.Contains(push, name) {
				require.NotNil(t, c.Flags().Lookup(name), "%v --%s", args, name)
			}
		}
	}
}
