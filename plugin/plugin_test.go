package plugin

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/tags"
)

// of makes values of "name", "value\nvalue", …
func of(kv ...string) Values {
	v := Values{}
	for i := 0; i < len(kv); i += 2 {
		v[kv[i]] = Given{Values: strings.Split(kv[i+1], "\n"), Source: "test"}
	}
	return v
}

func facts() Facts {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return Facts{
		Event:   tags.Event{Name: "push", Ref: "refs/tags/v1.2.3", SHA: "0123456789abcdef", DefaultBranch: "main", Now: now},
		Project: tags.Project{Source: "https://h/o/app"},
	}
}

func host(env map[string]string) Host {
	return Host{
		Spell: func(s string) string { return "PLUGIN_" + strings.ToUpper(s) }, Env: env,
		ReadFile: func(name string) ([]byte, error) {
			switch name {
			case "there":
				return []byte("content"), nil
			case "json":
				return []byte("{}"), nil
			}
			return nil, errors.New("there is no such file")
		},
	}
}

func prepare(t *testing.T, env map[string]string, kv ...string) *Plan {
	t.Helper()
	p, err := Prepare(of(kv...), facts(), host(env))
	require.NoError(t, err)
	return p
}

func TestEveryFieldOfTheSettingsIsInTheTable(t *testing.T) {
	var s Settings
	v := reflect.ValueOf(&s).Elem()
	reached := map[uintptr]string{}
	for _, f := range Fields() {
		require.NotContains(t, reached, reflect.ValueOf(f.at(&s)).Pointer(), f.Name)
		reached[reflect.ValueOf(f.at(&s)).Pointer()] = f.Name
		require.NotEmpty(t, f.Help, f.Name)
		require.False(t, f.Default == "" && f.Example == "" && !f.Secret && f.Name != "cgroup-parent" && f.Name != "attests", "%s has neither default nor example", f.Name)
		require.Regexp(t, `^[a-z-]+$`, f.Name)
	}
	for i := range v.NumField() {
		require.Contains(t, reached, v.Field(i).Addr().Pointer(), "nobody can set %s", v.Type().Field(i).Name)
	}
}

// TestEverySettingDoesSomething changes each setting alone and looks for a
// difference in the plan, or for the error that says why there is none.
func TestEverySettingDoesSomething(t *testing.T) {
	base := []string{"images", "r.example/o/app", "push", "true"}
	plain := prepare(t, map[string]string{"SSH_AUTH_SOCK": "/agent", "API_TOKEN": "abcdef"}, base...)
	again := prepare(t, map[string]string{"SSH_AUTH_SOCK": "/agent", "API_TOKEN": "abcdef"}, base...)
	require.Equal(t, plain, again, "what did not change is equal")
	other := map[string][]string{
		"ssh-key": {"geheim"}, "skip-if-tag-exists": {"true"}, "ignore-paths": {"/tmp"}, "expand-tags": {"true", "tags", "v1.2.3"}, "single-snapshot": {"true"}, "insecure-pull": {"true"}, "skip-tls-verify-pull": {"true"},
		"skip-default-registry-fallback": {"true"}, "create-repository": {"true"}, "scan-on-push": {"true"}, "repository-policy": {"json"}, "lifecycle-policy": {"json"},
		"aws-access-key-id": {"K", "aws-secret-access-key", "geheim"}, "aws-secret-access-key": {"geheim", "aws-access-key-id", "K"}, "aws-session-token": {"geheim", "aws-access-key-id", "K", "aws-secret-access-key", "geheim"},
		"aws-external-id": {"x", "aws-role", "r"}, "google-key": {"geheim"}, "google-access-token": {"geheim"},
		"google-project-number": {"1", "google-access-token", "geheim"}, "google-pool-id": {"p", "google-access-token", "geheim"}, "google-provider-id": {"p", "google-access-token", "geheim"}, "google-service-account": {"a", "google-access-token", "geheim"},
		"azure-client-id": {"c", "azure-tenant-id", "t", "azure-client-secret", "geheim"}, "azure-tenant-id": {"t", "azure-client-id", "c", "azure-client-secret", "geheim"}, "azure-client-secret": {"geheim", "azure-client-id", "c", "azure-tenant-id", "t"},
		"azure-client-certificate": {"geheim", "azure-client-id", "c", "azure-tenant-id", "t"}, "azure-authority-host": {"https://login.example", "azure-client-id", "c", "azure-tenant-id", "t", "azure-client-secret", "geheim"},
		"oidc-token": {"geheim", "aws-role", "r"},
		"context":    {"sub"}, "secrets": {"token=abcdef"}, "secret-files": {"x=there"}, "no-cache": {"true"}, "auto-tag-suffix": {"arm", "auto-tag", "drone"},
		"default-labels": {"false"}, "push": {"false"}, "image-format": {"docker"}, "compression": {"zstd"}, "reproducible": {"true"},
		"load": {"true"}, "provenance": {"true"}, "sbom": {"true"}, "attests": {"type=sbom"}, "network": {"none"}, "cgroup-parent": {"x"},
		"registry": {"ghcr.io", "username", "u", "password", "geheim"}, "username": {"u", "password", "geheim"}, "password": {"geheim", "username", "u"},
		"insecure": {"true"}, "skip-tls-verify": {"true"}, "cache": {"true"}, "cache-ttl": {"1h", "cache", "true"}, "isolation": {"chroot"}, "verbosity": {"debug"},
		"log-format": {"json"}, "docker-config": {"dir"}, "github-token": {"geheim", "context", "https://h.example/o/r.git"}, "file": {"other"},
		"annotations": {"a=b"}, "push-retry": {"0"}, "pull-retry": {"7"}, "skip-push-permission-check": {"true"},
		"no-push-cache": {"true", "cache", "true"}, "cache-mounts": {"on", "cache", "true"}, "cache-mount-max-size": {"5m", "cache", "true"}, "cache-scope": {"main", "cache", "true"}, "platforms": {"linux/arm64"}, "flavor": {"latest=true", "tags", "type=sha"},
		"cache-run-layers": {"false", "cache", "true"}, "cache-copy-layers": {"false", "cache", "true"}, "rewrite-timestamp": {"true"}, "explain-cache": {"true"}, "short-sha-length": {"12", "tags", "type=sha"}, "push-ignore-immutable-tag-errors": {"true"},
		"push-by-digest": {"true"}, "merge": {"true", "digests", "sha256:0"}, "digests": {"sha256:0", "merge", "true"},
	}
	for _, f := range Fields() {
		t.Run(f.Name, func(t *testing.T) {
			kv := other[f.Name]
			if kv == nil {
				kv = []string{f.Example}
			}
			values := of(append(append([]string{}, base...), append([]string{f.Name}, kv...)...)...)
			p, err := Prepare(values, facts(), host(map[string]string{"SSH_AUTH_SOCK": "/agent", "API_TOKEN": "abcdef"}))
			if err != nil {
				require.Contains(t, []string{"load", "provenance", "sbom", "attests", "secret-files"}, f.Name, "%v", err)
				require.Equal(t, f.Name, Problems(err)[0].Setting)
				return
			}
			p.Settings, plain.Settings = Settings{}, Settings{}
			require.NotEqual(t, plain, p)
		})
	}
}

func TestEverythingThatIsWrongIsSaidAtOnce(t *testing.T) {
	_, err := Prepare(of(
		"context", "-", "build-args", "A=secret-value\n=secret-value", "platforms", "what/is/this/thing", "images", "Org/App:1", "tags", "type=nothing\nok",
		"load", "true", "provenance", "mode=max", "secrets", "no-value", "secret-envs", "a=NOT_SET", "secret-files", "b=missing", "ssh", "default",
		"add-hosts", "x", "ulimit", "x", "shm-size", "much", "network", "bridge", "isolation", "magic", "engine", "tcp://x", "outputs", "type=docker\ntype=what\ntype=oci,dest", "compression-level", "99",
		"username", "u", "cache-repo", "a/b:c", "cache-from", "type=what", "cache-ttl", "soon", "push", "perhaps", "verbosity", "loud", "colour", "red", "labels", "x", "annotations", "x",
	), facts(), host(nil))
	var e *core.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, core.KindUsage, e.Kind)
	require.NotContains(t, err.Error(), "secret-value")
	said := map[string]int{}
	for _, p := range Problems(err) {
		said[p.Setting]++
		require.Equal(t, "PLUGIN_"+strings.ToUpper(p.Setting), p.Spelled)
		require.Contains(t, err.Error(), p.Error())
	}
	for _, name := range []string{
		"context", "build-args", "platforms", "images", "tags", "load", "provenance", "secrets", "secret-envs", "secret-files", "ssh", "add-hosts", "ulimit", "shm-size",
		"network", "isolation", "engine", "compression-level", "password", "cache-repo", "cache-from", "cache-ttl", "push", "verbosity", "colour", "labels", "annotations",
	} {
		require.Positive(t, said[name], name)
	}
	require.Equal(t, 3, said["outputs"])
}

func TestTagsBecomeDestinations(t *testing.T) {
	for name, c := range map[string]struct {
		kv   []string
		want string
	}{
		"references of build-push-action":  {[]string{"tags", "user/app:latest,user/app:1.0.0\nghcr.io/o/app:1"}, "user/app:latest user/app:1.0.0 ghcr.io/o/app:1"},
		"the default rules":                {[]string{"images", "ghcr.io/o/app", "auto-tag", "metadata"}, "ghcr.io/o/app:v1.2.3 ghcr.io/o/app:latest"},
		"rules":                            {[]string{"images", "o/app", "tags", "type=semver,pattern={{major}}\ntype=sha"}, "o/app:1 o/app:sha-0123456 o/app:latest"},
		"rules and a word are in order":    {[]string{"images", "o/app", "tags", "edge\ntype=semver,pattern={{major}}"}, "o/app:1 o/app:edge o/app:latest"},
		"words":                            {[]string{"images", "o/app", "tags", "a,b"}, "o/app:a o/app:b"},
		"words beside Drone's":             {[]string{"images", "o/app", "tags", "a", "auto-tag", "drone"}, "o/app:a o/app:1 o/app:1.2 o/app:1.2.3"},
		"nothing but a name":               {[]string{"images", "o/app"}, "o/app:latest"},
		"explicit tags, no metadata rules": {[]string{"images", "o/app", "tags", "a", "auto-tag", "metadata"}, "o/app:a"},
		"names of an output":               {[]string{"outputs", "type=image,\"name=o/a,o/b\",push=true"}, "o/a o/b"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, strings.Join(prepare(t, nil, c.kv...).Request.Outputs.Destinations, " "))
		})
	}
}

// TestTheEpochOfTheJob is a build argument, as Docker's documentation has it for its
// action.
func TestTheEpochOfTheJob(t *testing.T) {
	env := map[string]string{"SOURCE_DATE_EPOCH": "5"}
	require.Equal(t, map[string]string{"SOURCE_DATE_EPOCH": "5"}, prepare(t, env, "images", "o/a").Request.BuildArgs)
	require.Equal(t, "6", prepare(t, env, "images", "o/a", "build-args", "SOURCE_DATE_EPOCH=6").Request.BuildArgs["SOURCE_DATE_EPOCH"])
}

func TestWithoutAPlaceThereIsAnError(t *testing.T) {
	_, err := Prepare(of("context", "."), facts(), host(nil))
	require.ErrorContains(t, err, "PLUGIN_TAGS: nowhere to push to")
	prepare(t, nil, "push", "false")
	prepare(t, nil, "tar-path", "x.tar")
}

func TestDronesSkipIsNoError(t *testing.T) {
	f := facts()
	f.Event.Ref = "refs/heads/dev"
	p, err := Prepare(of("images", "o/app", "auto-tag", "drone", "cache", "true"), f, host(nil))
	require.NoError(t, err)
	require.NotEmpty(t, p.Skip())
}

func TestOwnLabelsComeOverThoseOfOCI(t *testing.T) {
	p := prepare(t, nil, "images", "o/app", "tags", "type=semver,pattern={{version}}", "labels", "org.opencontainers.image.source=mine\nx=y=z")
	require.Equal(t, "mine", p.Labels["org.opencontainers.image.source"])
	require.Equal(t, "y=z", p.Labels["x"])
	require.Equal(t, "1.2.3", p.Labels["org.opencontainers.image.version"])
	require.Contains(t, p.Request.Outputs.Annotations, core.Annotation{Key: "org.opencontainers.image.revision", Value: "0123456789abcdef"})
	p = prepare(t, nil, "images", "o/app", "default-labels", "false")
	require.Empty(t, p.Labels)
	require.Empty(t, p.Request.Outputs.Annotations)
	require.Empty(t, prepare(t, nil, "images", "o/app", "image-format", "docker").Request.Outputs.Annotations)
}

func TestTheCacheRepositoryIsInferred(t *testing.T) {
	for name, c := range map[string]struct {
		kv         []string
		repo, from string
	}{
		"beside the first destination": {[]string{"cache", "true"}, "r.example/o/app/cache", ""},
		"named":                        {[]string{"cache", "true", "cache-repo", "r.example/cache"}, "r.example/cache", ""},
		"docker's image of a cache":    {[]string{"cache-from", "type=registry,ref=r.example/o/app:buildcache", "cache-to", "type=registry,ref=r.example/o/app:buildcache,mode=max"}, "r.example/o/app/cache", ""},
		"docker's, of Docker Hub":      {[]string{"cache-from", "type=registry,ref=user/app:buildcache"}, "", "docker.io/user/app-cache"},
		"gha has no effect":            {[]string{"cache-from", "type=gha", "cache-to", "type=gha,mode=max"}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := prepare(t, nil, append([]string{"images", "r.example/o/app"}, c.kv...)...)
			require.Equal(t, c.repo, p.Request.Cache.Repo)
			require.Equal(t, c.from, strings.Join(p.Request.Cache.From, " "))
			require.Equal(t, strings.Contains(name, "docker's") || strings.Contains(name, "gha"), len(p.Notices) > 0)
		})
	}
}

func TestSecretsAreHidden(t *testing.T) {
	kv := []string{"images", "ghcr.io/o/app", "secrets", "a=value-a", "secret-envs", "b=B", "secret-files", "c=there", "username", "u", "password", "value-p", "build-args", "TOKEN=value-t", "context", "https://u:value-url@h/o/r.git", "build-contexts", "b=https://value-token@h/o/r.git"}
	p := prepare(t, map[string]string{"B": "value-b"}, kv...)
	require.Equal(t, Login{"ghcr.io", "u", "value-p"}, p.Login, "the registry is that of the first image")
	var all []string
	for _, s := range p.Secrets {
		all = append(all, string(s))
	}
	require.Subset(t, all, []string{"value-a", "value-b", "content", "value-p", "value-url", "value-token"})
	var b strings.Builder
	require.NoError(t, WriteSettings(&b, of(kv...)))
	require.NotContains(t, b.String(), "value-")
	require.Contains(t, b.String(), "secrets: a=***  (test)\n")
	require.Contains(t, b.String(), "build-args: TOKEN=***  (test)\n")
	require.Contains(t, b.String(), "push: true  (default)\n")
}

// TestPullRequestsOnlyReadTheCache, unless the user says otherwise: docs/cache.md
// has the reason.
func TestPullRequestsOnlyReadTheCache(t *testing.T) {
	for _, c := range []struct {
		event tags.Event
		set   string
		want  bool
	}{
		{tags.Event{Name: "push", Ref: "refs/heads/main"}, "", false},
		{tags.Event{Name: "push", Ref: "refs/heads/main"}, "true", true},
		{tags.Event{Name: "pull_request", Ref: "refs/pull/1/merge"}, "", true},
		{tags.Event{Name: "pull_request_target", Ref: "refs/heads/main"}, "", true},
		{tags.Event{Name: "pull_request", Ref: "refs/pull/1/merge"}, "false", false},
	} {
		p, err := Prepare(of("images", "h.example/a", "cache-repo", "h.example/c", "no-push-cache", c.set), Facts{Event: c.event}, Host{})
		require.NoError(t, err)
		require.Equal(t, c.want, p.Request.Cache.NoPush, c)
		require.Equal(t, c.want && c.set == "", strings.Contains(strings.Join(p.Notices, " "), "pull request"), p.Notices)
	}
	_, err := Prepare(of("images", "h.example/a", "cache", "true", "no-push-cache", "perhaps"), facts(), Host{})
	require.ErrorContains(t, err, "neither true nor false")
}

func TestLoginsComeInOrder(t *testing.T) {
	env := map[string]string{"DOCKER_CONFIG": "/home/config", "HOME": "/home"}
	host := Host{Env: env}
	p, err := Prepare(of("images", "h.example/a", "username", "u", "password", "p"), Facts{
		Logins: []Login{{"docker.io", "v", "q"}, {"none.example", "", ""}}, AuthConfig: []byte(`{"auths":{}}`)}, host)
	require.NoError(t, err)
	r := p.Request.Registry
	require.Equal(t, []core.Credential{{Host: "h.example", Username: "u", Password: "p"}, {Host: "docker.io", Username: "v", Password: "q"}}, r.Credentials)
	require.Equal(t, map[string]string{"DOCKER_CONFIG": `{"auths":{}}`, "HOME": "/home"}, r.Environment)
	require.Equal(t, "/home/config", env["DOCKER_CONFIG"], "the job's own environment stays")

	p, err = Prepare(of("images", "h.example/a", "docker-config", "/set"), Facts{AuthConfig: []byte("{}")}, host)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"DOCKER_CONFIG": "/set", "DOCKER_AUTH_CONFIG": "{}", "HOME": "/home"}, p.Request.Registry.Environment)
}

// TestAMatrixPushesByDigest, as Docker's documentation has it for its action.
func TestAMatrixPushesByDigest(t *testing.T) {
	p := prepare(t, nil, "images", "r.example/o/app", "tags", "type=raw,value=1\ntype=raw,value=2", "push", "false", "outputs", "type=image,push-by-digest=true,name-canonical=true,push=true")
	require.True(t, p.Request.Outputs.PushByDigest)
	require.False(t, p.Request.Outputs.NoPush)
	require.Equal(t, []string{"r.example/o/app"}, p.Request.Outputs.Destinations)
	_, err := Prepare(of("images", "o/app", "outputs", "type=image,push-by-digest=perhaps"), facts(), host(nil))
	require.ErrorContains(t, err, "push-by-digest is neither true nor false")
}

// TestADockerfileThatNobodyNames is the context's, whatever the working directory has.
func TestADockerfileThatNobodyNames(t *testing.T) {
	require.Empty(t, prepare(t, nil, "images", "h.example/a", "context", "sub").Request.Dockerfile)
	require.Equal(t, "Dockerfile", prepare(t, nil, "images", "h.example/a", "context", "sub", "file", "Dockerfile").Request.Dockerfile)
}

// TestOutputsAsOnTheCommandLine: docker's outputs have the same keys in every CI.
func TestOutputsAsOnTheCommandLine(t *testing.T) {
	three := 3
	p := prepare(t, nil, "images", "o/app", "push", "true", "outputs", "type=image,compression=zstd,compression-level=3,annotation-index.k=v\n./out")
	o := p.Request.Outputs
	require.Equal(t, []string{"o/app:latest"}, o.Destinations)
	require.Equal(t, []any{"zstd", &three, "./out", false}, []any{o.Compression, o.CompressionLevel, o.RootDir, o.NoPush})
	require.Equal(t, core.Annotation{Index: true, Key: "k", Value: "v"}, o.Annotations[len(o.Annotations)-1], "over the default ones")
	o = prepare(t, nil, "images", "o/app", "outputs", "type=docker,dest=x,oci-mediatypes=false").Request.Outputs
	require.Equal(t, "docker", o.ImageFormat)
	require.Empty(t, o.Annotations, "of which Docker's format has none")
	o = prepare(t, nil, "push", "false", "outputs", "type=image,name=o/a\ntype=oci,dest=f,name=o/b").Request.Outputs
	require.Equal(t, []any{[]string{"o/a", "o/b"}, true}, []any{o.Destinations, o.NoPush})
	require.False(t, prepare(t, nil, "push", "false", "outputs", "type=registry,name=o/a").Request.Outputs.NoPush)
	_, err := Prepare(of("images", "o/app", "push", "true", "outputs", "-\ntype=oci,dest=x,name=o/b", "ssh", "default=/agent", "ssh-key", "geheim"), facts(), host(nil))
	for _, text := range []string{"PLUGIN_OUTPUTS: standard output is the log", "PLUGIN_OUTPUTS: name=o/b", "PLUGIN_SSH-KEY: it is the agent default, and PLUGIN_SSH has one"} {
		require.ErrorContains(t, err, text)
	}
}

// TestWhatElseTheEngineOffers: settings that the command line has, too.
func TestWhatElseTheEngineOffers(t *testing.T) {
	p := prepare(t, nil, "images", "o/app", "hostname", "box", "min-free", "0", "snapshots", "flat", "registry-maps", "quay.io=m/a;quay.io=n\ngcr.io=m", "credential-helpers", "none",
		"destination-policy", "any", "image-id-file", "iid", "cache-repo", "o/cache", "cache-run-layers", "false")
	r := p.Request
	require.Equal(t, []any{"box", int64(-1), "flat", true, "iid"}, []any{r.Hostname, r.MinFree, r.Snapshots, r.Outputs.AnyDestination, r.Outputs.ImageIDFile})
	require.Equal(t, map[string][]string{"quay.io": {"m/a", "n"}, "gcr.io": {"m"}}, r.Registry.Maps)
	require.Equal(t, []string{}, r.Registry.CredentialHelpers)
	require.Equal(t, []bool{true, false}, []bool{r.Cache.NoRunLayers, r.Cache.NoCopyLayers})
	_, err := Prepare(of("images", "o/app", "min-free", "x", "snapshots", "x", "registry-maps", "x", "credential-helpers", "x", "destination-policy", "x", "short-sha-length", "0"), facts(), host(nil))
	require.Len(t, Problems(err), 6)
}
