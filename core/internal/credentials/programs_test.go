package credentials

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// helper is a credential helper that knows good.example and keeps a list of what
// it was asked.
const helper = `#!/bin/sh
read h
echo "$1 $h" >> "$LOG"
echo noise >&2
case "$h" in
good.example) echo '{"Username":"u","Secret":"planted-secret"}';;
token.example) echo '{"Username":"<token>","Secret":"planted-token"}';;
https://index.docker.io/v1/) echo '{"Username":"hub","Secret":"x"}';;
bad.example) echo leaked-secret; exit 1;;
odd.example) echo leaked-secret;;
*) echo 'credentials not found in native keychain'; exit 1;;
esac
`

func withHelper(t *testing.T, config string) (o Options, log string, outside *int) {
	t.Helper()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "docker-credential-planted"), helper, 0o755)
	log, outside = filepath.Join(dir, "log"), new(int)
	return Options{Environment: map[string]string{"HOME": dir, "PATH": ".:" + dir + ":/bin:/usr/bin", "LOG": log, "DOCKER_CONFIG": config},
		Outside: func(f func() error) error { *outside++; return f() }}, log, outside
}

func TestHelpersAreAskedOutsideAndStayQuiet(t *testing.T) {
	// The process' own variables are nobody's business.
	t.Setenv("DOCKER_AUTH_CONFIG", `{"auths":{"good.example":{"auth":"ZW52OmVudg=="}}}`)
	o, log, outside := withHelper(t, `{"credsStore":"planted","credHelpers":{"none.example":"missing","docker.io":"planted","plain.example":""}}`)
	c, err := Load(o)
	require.NoError(t, err)
	require.Equal(t, 1, *outside, "files are read while the job's are there")

	for host, want := range map[string]Login{
		"good.example": {Username: "u", Password: "planted-secret"}, "token.example": {IdentityToken: "planted-token"},
		"docker.io": {Username: "hub", Password: "x"}, "unknown.example": {}, "plain.example": {},
	} {
		f, err := c.Find(t.Context(), Place{host, "x"})
		require.NoError(t, err, host)
		require.Equal(t, want, f.Login, host)
		if !f.Empty() {
			require.Contains(t, f.Source, "docker-credential-planted, which the variable DOCKER_CONFIG names")
			require.False(t, f.Expires.IsZero())
		}
	}
	require.Equal(t, 5, *outside, "and each helper was started so")

	before := readAll(t, log)
	_, err = c.Find(t.Context(), Place{"good.example", "x"})
	require.NoError(t, err)
	require.Equal(t, before, readAll(t, log), "an answer is remembered")

	for _, host := range []string{"bad.example", "odd.example"} {
		_, err = c.Find(t.Context(), Place{host, "x"})
		require.ErrorContains(t, err, "docker-credential-planted")
		require.NotContains(t, err.Error(), "leaked-secret")
	}
	f, err := c.Find(t.Context(), Place{"none.example", "x"})
	require.NoError(t, err)
	require.Empty(t, f.Source)
	at := slices.IndexFunc(f.Looked, func(l Look) bool { return l.Trouble })
	require.GreaterOrEqual(t, at, 0)
	require.Equal(t, Look{Source: "docker-credential-missing, which the variable DOCKER_CONFIG names", Answer: "is not on PATH", Exists: true, Trouble: true}, f.Looked[at])
}

func TestAHelperIsAProgramOfPathOnly(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "docker-credential-x"), helper, 0o755)
	t.Chdir(dir)
	for _, path := range []string{".", "", "sub"} {
		_, err := (&Program{Name: "docker-credential-x", Environment: map[string]string{"PATH": path}}).Find()
		require.Error(t, err, path)
	}
	_, err := (&Program{Name: "docker-credential-../x", Environment: map[string]string{"PATH": dir}}).Find()
	require.Error(t, err)
}

func TestStoreAndErase(t *testing.T) {
	dir := t.TempDir()
	env := map[string]string{"DOCKER_CONFIG": dir}
	path := filepath.Join(dir, "config.json")
	where, err := Store(t.Context(), env, "r.example:5000", Login{Username: "u", Password: "p"})
	require.NoError(t, err)
	require.Equal(t, path, where)
	fi, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())
	require.Equal(t, "u", find(t, Options{Environment: map[string]string{"DOCKER_CONFIG": dir}}, "r.example:5000", "x").Username)

	// What else is in the file stays; its mode becomes the owner's only; other
	// spellings of the name go.
	put(t, path, `{"auths":{"https://r.example:5000/v2/":{"auth":"YTpi"},"other":{"auth":"Yzpk"}},"proxies":{"default":{"httpProxy":"h"}}}`, 0o644)
	require.NoError(t, os.Chmod(path, 0o644)) //nolint:gosec // what is to be put right
	_, err = Store(t.Context(), env, "r.example:5000", Login{Username: "v", Password: "p"})
	require.NoError(t, err)
	fi, err = os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())
	text := readAll(t, path)
	require.Contains(t, text, "httpProxy")
	require.Contains(t, text, "Yzpk")
	require.NotContains(t, text, "YTpi")

	_, found, err := Erase(t.Context(), env, "r.example:5000")
	require.NoError(t, err)
	require.True(t, found)
	require.NotContains(t, readAll(t, path), "r.example")
	_, found, err = Erase(t.Context(), env, "r.example:5000")
	require.NoError(t, err)
	require.False(t, found)

	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing else is left")
}

func TestStoreKeepsALinkAndRefusesWhatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	real := put(t, filepath.Join(dir, "real.json"), "{}", 0o600)
	require.NoError(t, os.Symlink(real, filepath.Join(dir, "config.json")))
	_, err := Store(t.Context(), map[string]string{"DOCKER_CONFIG": dir}, "r.example", Login{Username: "u", Password: "p"})
	require.NoError(t, err)
	require.Contains(t, readAll(t, real), "r.example")

	broken := put(t, filepath.Join(dir, "broken.json"), "{\n,", 0o600)
	_, err = Store(t.Context(), map[string]string{"DOCKER_CONFIG": broken}, "r.example", Login{Username: "u", Password: "p"})
	require.ErrorContains(t, err, "line 2, column 1")
	require.Equal(t, "{\n,", readAll(t, broken))
	_, err = Store(t.Context(), map[string]string{"DOCKER_CONFIG": "{}"}, "r.example", Login{Username: "u", Password: "p"})
	require.ErrorContains(t, err, "DOCKER_CONFIG is itself")
}

func TestStoreUsesTheHelperThatIsThere(t *testing.T) {
	o, log, _ := withHelper(t, "")
	dir := t.TempDir()
	path := put(t, filepath.Join(dir, "config.json"), `{"credsStore":"planted"}`, 0o600)
	o.Environment["DOCKER_CONFIG"] = dir
	put(t, filepath.Join(filepath.SplitList(o.Environment["PATH"])[1], "docker-credential-planted"), "#!/bin/sh\ncat >> \"$LOG\"\necho \" $1\" >> \"$LOG\"\n", 0o755)
	where, err := Store(t.Context(), o.Environment, "r.example", Login{Username: "u", Password: "planted-secret"})
	require.NoError(t, err)
	require.Equal(t, "docker-credential-planted", where)
	require.NotContains(t, readAll(t, path), "r.example")
	require.Contains(t, readAll(t, log), "planted-secret")
	require.True(t, strings.HasSuffix(readAll(t, log), " store\n"))
}

func readAll(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(data)
}
