package credentials

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// put writes a file and gives its path.
func put(t *testing.T, path, content string, mode os.FileMode) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), mode))
	return path
}

// auths is a config.json with a login of user for a key.
func auths(key, user string) string {
	return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, key, base64.StdEncoding.EncodeToString([]byte(user+":password-of-"+user)))
}

func find(t *testing.T, o Options, host, path string) Found {
	t.Helper()
	if o.Environment == nil {
		o.Environment = map[string]string{}
	}
	if o.Environment["HOME"] == "" {
		o.Environment["HOME"] = t.TempDir()
	}
	c, err := Load(o)
	require.NoError(t, err)
	f, err := c.Find(t.Context(), Place{Host: host, Path: path})
	require.NoError(t, err)
	return f
}

// TestTheOrderOfSources takes one source after the other away: always the first
// that is left wins.
func TestTheOrderOfSources(t *testing.T) {
	const host = "registry.example"
	home, dir := t.TempDir(), t.TempDir()
	helper := put(t, filepath.Join(dir, "bin", "docker-credential-planted"), "#!/bin/sh\necho '{\"Username\":\"helper\",\"Secret\":\"x\"}'\n", 0o755)
	file := put(t, filepath.Join(dir, "given.json"), auths(host, "file"), 0o600)
	put(t, filepath.Join(dir, "config", "config.json"), auths(host, "docker-config"), 0o600)
	put(t, filepath.Join(home, ".docker", "config.json"), strings.TrimSuffix(auths(host, "home"), "}")+`,"credsStore":"planted"}`, 0o600)
	named := put(t, filepath.Join(dir, "named.json"), auths(host, "registry-auth-file"), 0o600)
	put(t, filepath.Join(dir, "run", "containers", "auth.json"), auths(host, "runtime-dir"), 0o600)
	put(t, filepath.Join(home, ".config", "containers", "auth.json"), auths(host, "podman"), 0o600)
	o := Options{
		Explicit: []Explicit{{host, Login{Username: "explicit", Password: "x"}}}, Files: []string{file},
		Environment: map[string]string{
			"HOME": home, "PATH": filepath.Dir(helper), "DOCKER_CONFIG": filepath.Join(dir, "config"), "DOCKER_AUTH_CONFIG": auths(host, "docker-auth-config"),
			"REGISTRY_AUTH_FILE": named, "XDG_RUNTIME_DIR": filepath.Join(dir, "run"),
			"KANIKO_REGISTRY_EXAMPLE_USER": "env", "KANIKO_REGISTRY_EXAMPLE_PASSWORD": "x",
			"CI_REGISTRY": host, "CI_REGISTRY_USER": "gitlab", "CI_REGISTRY_PASSWORD": "x",
		},
	}
	unset := func(names ...string) func() {
		return func() {
			for _, n := range names {
				delete(o.Environment, n)
			}
		}
	}
	remove := func(parts ...string) func() {
		return func() { require.NoError(t, os.Remove(filepath.Join(parts...))) }
	}
	for _, step := range []struct {
		user, source string
		without      func()
	}{
		{"explicit", "the settings", func() { o.Explicit = nil }},
		{"file", file, func() { o.Files = nil }},
		{"docker-config", filepath.Join(dir, "config", "config.json"), unset("DOCKER_CONFIG")},
		{"docker-auth-config", "the variable DOCKER_AUTH_CONFIG", unset("DOCKER_AUTH_CONFIG")},
		{"home", filepath.Join(home, ".docker", "config.json"), func() {
			put(t, filepath.Join(home, ".docker", "config.json"), `{"credsStore":"planted","auths":{"registry.example":{}}}`, 0o600)
		}},
		{"registry-auth-file", named, unset("REGISTRY_AUTH_FILE")},
		{"runtime-dir", filepath.Join(dir, "run", "containers", "auth.json"), unset("XDG_RUNTIME_DIR")},
		{"podman", filepath.Join(home, ".config", "containers", "auth.json"), remove(home, ".config", "containers", "auth.json")},
		{"helper", "docker-credential-planted, which " + filepath.Join(home, ".docker", "config.json") + " names", remove(home, ".docker", "config.json")},
		{"env", "the variables KANIKO_REGISTRY_EXAMPLE_USER and _PASSWORD", unset("KANIKO_REGISTRY_EXAMPLE_USER")},
		{"gitlab", "the variables CI_REGISTRY_USER and CI_REGISTRY_PASSWORD", unset("CI_REGISTRY")},
		{"", "", func() {}},
	} {
		f := find(t, o, host, "team/app")
		require.Equal(t, step.user, f.Username)
		require.Equal(t, step.source, f.Source)
		if step.source != "" {
			last := f.Looked[len(f.Looked)-1]
			require.True(t, last.Used)
			require.Equal(t, step.source, last.Source)
		}
		step.without()
	}
}

func TestASourceWithoutAnEntryIsPassedOver(t *testing.T) {
	f := find(t, Options{Files: []string{put(t, filepath.Join(t.TempDir(), "f"), auths("other.example", "u"), 0o600)},
		Environment: map[string]string{"DOCKER_AUTH_CONFIG": auths("registry.example", "v")}}, "registry.example", "")
	require.Equal(t, "v", f.Username)
	require.Contains(t, f.Looked[0].Answer, "has none for registry.example")
}

func TestDockerConfigIsADirectoryAFileOrTheText(t *testing.T) {
	dir := t.TempDir()
	file := put(t, filepath.Join(dir, "config.json"), auths("r.example", "u"), 0o600)
	for value, source := range map[string]string{dir: file, dir + "/": file, file: file, " \n" + auths("r.example", "u"): "the variable DOCKER_CONFIG"} {
		f := find(t, Options{Environment: map[string]string{"DOCKER_CONFIG": value}}, "r.example", "")
		require.Equal(t, "u", f.Username)
		require.Equal(t, source, f.Source)
	}
	// Images have set DOCKER_CONFIG to what need not exist.
	f := find(t, Options{Environment: map[string]string{"DOCKER_CONFIG": filepath.Join(dir, "nothing")}}, "r.example", "")
	require.Empty(t, f.Source)
	require.Equal(t, "no such file", f.Looked[0].Answer)
}

func TestTheMostSpecificEntryWins(t *testing.T) {
	conf := `{"auths":{
		"registry.example":{"username":"host","password":"x"},
		"registry.example/group":{"username":"group","password":"x"},
		"registry.example/group/project":{"username":"project","password":"x"},
		"registry.example:5000":{"username":"port","password":"x"},
		"https://api.example/v2/":{"username":"api","password":"x"},
		"https://empty.example":{}, "http://empty.example":{"username":"second","password":"x"},
		"https://index.docker.io/v1/":{"username":"hub","password":"x"},
		"docker.io/team":{"username":"hub-team","password":"x"},
		"token.example":{"identitytoken":"it"}, "bearer.example":{"registrytoken":"rt"}, "user.example":{"username":"<token>","password":"it"}}}`
	for place, want := range map[string]Login{
		"registry.example/group/project":     {Username: "project", Password: "x"},
		"registry.example/group/project/sub": {Username: "project", Password: "x"},
		"registry.example/group/projects":    {Username: "group", Password: "x"},
		"registry.example/group-x/project":   {Username: "host", Password: "x"},
		"registry.example":                   {Username: "host", Password: "x"},
		"REGISTRY.example/x":                 {Username: "host", Password: "x"},
		"registry.example:5000/group/x":      {Username: "port", Password: "x"},
		"registry.example:5001/x":            {Username: "host"},
		"api.example/x":                      {Username: "api", Password: "x"},
		"empty.example/x":                    {Username: "second", Password: "x"},
		"docker.io/library/debian":           {Username: "hub", Password: "x"},
		"index.docker.io/library/debian":     {Username: "hub", Password: "x"},
		"registry-1.docker.io/x/y":           {Username: "hub", Password: "x"},
		"registry.hub.docker.com/x/y":        {Username: "hub", Password: "x"},
		"docker.io/team/app":                 {Username: "hub-team", Password: "x"},
		"token.example/x":                    {IdentityToken: "it"},
		"user.example/x":                     {IdentityToken: "it"},
		"bearer.example/x":                   {RegistryToken: "rt"},
	} {
		host, path, _ := strings.Cut(place, "/")
		f := find(t, Options{Environment: map[string]string{"DOCKER_CONFIG": conf}}, host, path)
		if place == "registry.example:5001/x" {
			require.True(t, f.Empty(), "another port is another registry")
			continue
		}
		require.Equal(t, want, f.Login, place)
	}
	for _, name := range []string{"docker.io", "index.docker.io", "https://registry-1.docker.io/v2/", "https://index.docker.io/v1", "registry.hub.docker.com"} {
		f := find(t, Options{Environment: map[string]string{"DOCKER_CONFIG": auths(name, "hub")}}, "docker.io", "library/debian")
		require.Equal(t, "hub", f.Username, name)
	}
}

func TestVariables(t *testing.T) {
	set := func(name string) map[string]string {
		return map[string]string{"KANIKO_" + name + "_USER": "u", "KANIKO_" + name + "_PASSWORD": "p"}
	}
	for name, c := range map[string]struct {
		host string
		env  map[string]string
		ok   bool
	}{
		"a dash and dots":   {"my-registry.example.com", set("MY_REGISTRY_EXAMPLE_COM"), true},
		"the domain":        {"my-registry.example.com", set("EXAMPLE_COM"), true},
		"a port":            {"registry.example:5000", set("REGISTRY_EXAMPLE_5000"), true},
		"a port left out":   {"registry.example:5000", set("REGISTRY_EXAMPLE"), true},
		"an address":        {"127.0.0.1:5000", set("127_0_0_1_5000"), true},
		"part of one":       {"127.0.0.1:5000", set("0_0_1"), false},
		"another host":      {"registry.example", set("OTHER_EXAMPLE"), false},
		"without password":  {"registry.example", map[string]string{"KANIKO_REGISTRY_EXAMPLE_USER": "u"}, false},
		"Docker Hub":        {"docker.io", set("DOCKER_IO"), true},
		"GitLab's registry": {"r.example:443", map[string]string{"CI_REGISTRY": "r.example", "CI_REGISTRY_USER": "u", "CI_REGISTRY_PASSWORD": "p"}, true},
		"GitLab's proxy":    {"g.example", map[string]string{"CI_DEPENDENCY_PROXY_SERVER": "g.example:443", "CI_DEPENDENCY_PROXY_USER": "u", "CI_DEPENDENCY_PROXY_PASSWORD": "p"}, true},
		"not GitLab's":      {"x.example", map[string]string{"CI_REGISTRY": "r.example", "CI_REGISTRY_USER": "u", "CI_REGISTRY_PASSWORD": "p"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := find(t, Options{Environment: c.env}, c.host, "x")
			require.Equal(t, c.ok, f.Login == Login{Username: "u", Password: "p"}, "%+v", f)
		})
	}
	f := find(t, Options{Environment: map[string]string{"CI_REGISTRY": "r.example", "CI_JOB_TOKEN": "t"}}, "r.example", "x")
	require.Equal(t, Login{Username: "gitlab-ci-token", Password: "t"}, f.Login)
}

func TestBuiltInHelpersCanBeSwitchedOff(t *testing.T) {
	env := map[string]string{"KANIKO_R_EXAMPLE_USER": "u", "KANIKO_R_EXAMPLE_PASSWORD": "p", "CI_REGISTRY": "r.example", "CI_REGISTRY_USER": "g", "CI_REGISTRY_PASSWORD": "p"}
	require.Equal(t, "u", find(t, Options{Environment: env}, "r.example", "").Username)
	require.Equal(t, "g", find(t, Options{Environment: env, Helpers: []string{"gitlab"}}, "r.example", "").Username)
	off := find(t, Options{Environment: env, Helpers: []string{}}, "r.example", "")
	require.Empty(t, off.Username)
	require.Contains(t, fmt.Sprint(off.Looked), "switched off")
	_, err := Load(Options{Helpers: []string{"envv"}, Environment: env})
	require.ErrorContains(t, err, "envv")
}

func TestMalformedConfigurations(t *testing.T) {
	const secret = "cGxhbnRlZDpwbGFudGVkLXNlY3JldA==" // planted:planted-secret
	for name, c := range map[string]struct{ text, says string }{
		"a comma too many":       {"{\n  \"auths\": {\n    \"r\": {\"auth\": \"" + secret + "\"},\n  }\n}", "line 4, column 3: not JSON"},
		"cut off":                {"{\n\"auths\":", "line 2, column 9: the text ends too early"},
		"no object":              {`["` + secret + `"]`, "column 1: this is a array"},
		"a number":               {"{\"auths\": {\"r\": {\n\"password\": 8446744}}}", "line 2, column"},
		"auth without colon":     {"{\"auths\": {\n  \"r.example\": {\"auth\": \"cGxhbnRlZC1zZWNyZXQ=\"}}}", "line 2, column 3: the entry for \"r.example\": auth is not user:password"},
		"auth that is no base64": {"{\"auths\": {\n  \"r.example\": {\"auth\": \"planted-secret\"}}}", "line 2, column 3: the entry for \"r.example\": auth is not base64"},
	} {
		t.Run(name, func(t *testing.T) {
			path := put(t, filepath.Join(t.TempDir(), "config.json"), c.text, 0o600)
			for _, env := range []map[string]string{{"DOCKER_CONFIG": path}, {"DOCKER_AUTH_CONFIG": c.text}} {
				_, err := Load(Options{Environment: env})
				require.ErrorContains(t, err, c.says)
				f, ok := fault.As(err)
				require.True(t, ok)
				require.NotEmpty(t, f.Remedy)
				for _, s := range []string{"planted-secret", secret, "8446744"} {
					require.NotContains(t, err.Error()+f.Remedy, s)
				}
			}
		})
	}
	_, err := Load(Options{Environment: map[string]string{"DOCKER_CONFIG": strings.Repeat("cGxhbnRlZA", 40)}})
	require.ErrorContains(t, err, "DOCKER_CONFIG is neither")
	require.NotContains(t, err.Error(), "cGxhbnRlZA")
	for _, text := range []string{"", "{}", `{"auths":{}} trailing`, `{"auths":null}`} { // as docker reads them
		_, err := Load(Options{Environment: map[string]string{"DOCKER_CONFIG": put(t, filepath.Join(t.TempDir(), "config.json"), text, 0o600)}})
		require.NoError(t, err, text)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	_, err := Load(Options{Files: []string{"/no/such/file"}, Environment: map[string]string{}})
	f, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.Usage, f.Kind)
	require.ErrorContains(t, err, "/no/such/file")

	home := t.TempDir() // a directory where a file is expected
	require.NoError(t, os.MkdirAll(filepath.Join(home, ".docker", "config.json"), 0o755))
	found := find(t, Options{Environment: map[string]string{"HOME": home}}, "r.example", "")
	require.Contains(t, fmt.Sprint(found.Looked), "cannot be read: is a directory")
	_, err = Load(Options{Environment: map[string]string{"REGISTRY_AUTH_FILE": home}})
	require.ErrorContains(t, err, home)
}

func TestExpired(t *testing.T) {
	token := func(exp int64) string {
		return "e30." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, exp)) + ".c2ln"
	}
	now := time.Unix(2000, 0)
	require.Equal(t, int64(1000), Login{Password: token(1000)}.Expired(now).Unix())
	require.True(t, Login{IdentityToken: token(3000)}.Expired(now).IsZero())
	require.True(t, Login{Password: "a.b.c"}.Expired(now).IsZero())
	require.True(t, Login{Password: "password"}.Expired(now).IsZero())
}

func TestProxies(t *testing.T) {
	c, err := Load(Options{Environment: map[string]string{"HOME": t.TempDir(),
		"DOCKER_CONFIG": `{"proxies":{"default":{"httpProxy":"http://p:1","noProxy":"x"},"tcp://other":{"httpProxy":"http://q"}}}`}})
	require.NoError(t, err)
	args, from := c.Proxies()
	require.Equal(t, map[string]string{"HTTP_PROXY": "http://p:1", "http_proxy": "http://p:1", "NO_PROXY": "x", "no_proxy": "x"}, args)
	require.Equal(t, "the variable DOCKER_CONFIG", from)
}

func FuzzParse(f *testing.F) {
	f.Add(`{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}},"credHelpers":{"a":"b"}}`)
	f.Add("{\n\"auths\": {,")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parse("x", []byte(text))
		if err == nil {
			_, err = c.find(t.Context(), Place{"a", "b/c"})
			require.NoError(t, err)
		}
	})
}
