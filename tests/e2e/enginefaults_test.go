package e2e_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

// with names the files of a client for an engine.
func with(b *parts.BuildKit, ca string, client *parts.Authority) string {
	s := b.Addr + ",ca=" + ca
	if client != nil {
		s += ",cert=" + client.Cert + ",key=" + client.Key
	}
	return s
}

// TestAnEngineThatCannotBeUsed: what is said of certificates, addresses and files, and
// that a second engine helps.
func TestAnEngineThatCannotBeUsed(t *testing.T) {
	a, stranger := parts.NewAuthority(t), parts.NewAuthority(t)
	engine, plain := parts.NewBuildKit(t, "tls", a), parts.Oracle(t)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /f\n", "f": "x"})
	nobody := filepath.Join(t.TempDir(), "nobody.sock")
	for name, c := range map[string]struct {
		engines []string
		code    int
		says    []string
	}{
		"both know each other":          {[]string{with(engine, a.CA, a)}, 0, []string{"engine: BuildKit"}},
		"no certificates at all":        {[]string{engine.Addr}, 4, []string{"cannot be used", "remedy: ", "ca=FILE,cert=FILE,key=FILE"}},
		"no client certificate":         {[]string{with(engine, a.CA, nil)}, 4, []string{"wants a certificate of an authority that it trusts"}},
		"another authority":             {[]string{with(engine, stranger.CA, a)}, 4, []string{"unknown authority", "Name the authority"}},
		"a stranger's certificate":      {[]string{with(engine, a.CA, stranger)}, 4, []string{"remedy: The engine wants a certificate"}},
		"another name":                  {[]string{with(engine, a.CA, a) + ",servername=elsewhere.example"}, 4, []string{"remedy: Use a name that the engine's certificate is for"}},
		"no such file":                  {[]string{with(engine, "/no/such/ca.pem", a)}, 2, []string{"ca /no/such/ca.pem: no such file", "remedy: "}},
		"what is no certificate":        {[]string{with(engine, a.Key, a)}, 2, []string{"holds no certificate"}},
		"a key that is not its own":     {[]string{engine.Addr + ",ca=" + a.CA + ",cert=" + a.Cert + ",key=" + stranger.Key}, 2, []string{"private key does not match"}},
		"nobody there":                  {[]string{"unix://" + nobody}, 4, []string{"no such file or directory", "remedy: Is buildkitd running there"}},
		"nobody there, and another one": {[]string{"unix://" + nobody, plain.Addr}, 0, []string{"building without an engine that does not answer"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := byEngine(t, c.engines, "--no-push", dir)
			require.Equal(t, c.code, got.code, got.output)
			for _, s := range c.says {
				require.Contains(t, got.output, s)
			}
		})
	}
}

// TestAnEngineThatGoesAway: alone it is an error and nothing has a tag; where there is
// another one, that builds.
func TestAnEngineThatGoesAway(t *testing.T) {
	base, reg := smallBase(t), parts.SharedRegistry(t).Addr
	for name, second := range map[string]bool{"alone": false, "with another": true} {
		t.Run(name, func(t *testing.T) {
			dir := buildContext(t, map[string]string{"Dockerfile": fmt.Sprintf("FROM %s\nRUN echo begun; sleep 5\nRUN echo done >/done\n", base)})
			engines := []*parts.BuildKit{parts.NewBuildKit(t, "first", nil)}
			addresses := []string{engines[0].Addr + ",platforms=linux/amd64"}
			if second {
				addresses = append(addresses, parts.NewBuildKit(t, "second", nil).Addr)
			}
			done := make(chan outcome)
			tag := strings.ReplaceAll(name, " ", "-")
			go func() {
				done <- byEngine(t, addresses, "--platform", "linux/amd64", "-d", reg+"/lost/app:"+tag, dir)
			}()
			time.Sleep(3 * time.Second) // it takes the engine's whole sleep to finish before
			engines[0].Kill(t)
			got := <-done
			require.Contains(t, got.output, "went away")
			if !second {
				require.Equal(t, 4, got.code, got.output)
				require.Contains(t, got.output, "remedy: Nothing was tagged.")
				require.NotContains(t, tagsOf(t, reg+"/lost/app"), tag)
				return
			}
			require.Zero(t, got.code, got.output)
			require.Contains(t, got.output, "another engine builds instead")
			require.Contains(t, tagsOf(t, reg+"/lost/app"), tag)
		})
	}
}

// TestWhatAnEngineCannotDo is refused at once, before anything is asked.
func TestWhatAnEngineCannotDo(t *testing.T) {
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	nobody := "unix://" + filepath.Join(t.TempDir(), "nobody.sock")
	for flag, says := range map[string]string{
		"--isolation=chroot": "there is no --isolation", "--snapshots=flat": "there is no --snapshots", "--single-snapshot": "there is no --single-snapshot",
		"--ignore-path=/x": "there is no --ignore-path", "--dryrun": "there is no --dryrun", "--cache-repo=oci:" + dir: "there is no --cache-repo oci:",
		"--cache --cache-repo=a/b --cache-run-layers=false": "there is no --cache-run-layers=false", "--build-context=x=target:y": "there is no --build-context x=target:y",
		"--cache-ttl=1h": "--cache-ttl has no meaning with --engine", "--force": "--force has no meaning", "--engine=buildkit=ftp://x": "unknown scheme ftp://",
		"--engine=docker=x": "write buildkit=ADDRESS", "--engine=buildkit=tcp://h:1,what=x": `unknown key "what"`, "--engine=buildkit=tcp://h:1,cert=x": "cert and key belong together",
	} {
		got := byEngine(t, []string{nobody}, append(strings.Fields(flag), "--no-push", dir)...)
		require.Equal(t, 2, got.code, "%s: %s", flag, got.output)
		require.Contains(t, got.output, says)
		require.Contains(t, got.output, "remedy: ")
	}
}

// TestErrorsOfAnEngineAreOurs: kind, place and exit code are those that a build without
// an engine has.
func TestErrorsOfAnEngineAreOurs(t *testing.T) {
	base, reg := smallBase(t), parts.SharedRegistry(t).Addr
	for name, c := range map[string]struct {
		dockerfile string
		code       int
		says       []string
	}{
		"step":        {"FROM " + base + "\nRUN echo last words; exit 9\n", 1, []string{"Dockerfile:2: process", "| last words", "exit code: 9"}},
		"file":        {"FROM scratch\nCOPY nothing /\n", 1, []string{`Dockerfile:2: "/nothing": not found`, "remedy: Check the path"}},
		"instruction": {"FROM scratch\nCOPPY x /\n", 1, []string{"Dockerfile:2: dockerfile parse error", "did you mean COPY?"}},
		"image":       {"FROM " + reg + "/no/such:1\n", 3, []string{"Dockerfile:1: ", "not found", "remedy: "}},
		"empty":       {"", 1, []string{"the Dockerfile cannot be empty"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := buildContext(t, map[string]string{"Dockerfile": c.dockerfile})
			got := byEngine(t, []string{parts.Oracle(t).Addr}, "-d", reg+"/engineerrors/"+name+":1", dir)
			require.Equal(t, c.code, got.code, got.output)
			for _, s := range c.says {
				require.Contains(t, got.output, s)
			}
			require.Empty(t, tagsOf(t, reg+"/engineerrors/"+name))
			here := onHost(t, "build", "--log-format", "plain", "--isolation", "chroot", "-d", reg+"/engineerrors/"+name+":2", dir)
			require.Equal(t, here.code, got.code, "without an engine: %s", here.output)
		})
	}
	got := byEngine(t, []string{parts.Oracle(t).Addr}, "--no-push", "--exit-code-from-step", buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nRUN exit 9\n"}))
	require.Equal(t, 9, got.code, got.output)
}
