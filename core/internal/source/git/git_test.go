package git

import (
	"encoding/base64"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// history is a repository with all kinds of refs: first is tagged, second is main.
func history(t *testing.T) (r *repos, first, second string) {
	t.Helper()
	r = newRepos(t)
	r.make("a")
	first = r.commit("a", map[string]string{"f": "one", "run": "+x#!", "l": "->f", "out": "->/etc/passwd", "d/e/g": "g"})
	r.git("a", "tag", "light")
	r.git("a", "tag", "-a", "-m", "t", "heavy")
	r.git("a", "tag", "both")
	second = r.commit("a", map[string]string{"f": "two"})
	r.git("a", "branch", "both")
	r.git("a", "branch", "feature/x", first)
	r.git("a", "update-ref", "refs/pull/1/head", first)
	return r, first, second
}

func TestRefs(t *testing.T) {
	r, first, second := history(t)
	for protocol, options := range map[string][]string{"version 2": nil, "version 0": {old}} {
		web := r.serve("", options...)
		for ref, want := range map[string]string{
			"":                  "two",
			"#main":             "two",
			"#light":            "one",
			"#heavy":            "one",
			"#tags/heavy":       "one",
			"#heads/main":       "two",
			"#refs/heads/main":  "two",
			"#refs/tags/heavy":  "one",
			"#feature/x":        "one",
			"#pull/1/head":      "one",
			"#refs/pull/1/head": "one",
			"#both":             "two", // a branch comes before a tag
			"#" + second:        "two",
			"#" + first:         "one",
		} {
			t.Run(protocol+" "+ref, func(t *testing.T) {
				dir, err := checkOut(t, newSource(t), web.URL+"/a/.git"+ref)
				require.NoError(t, err)
				assert.Equal(t, map[string]string{"f": "644 " + want, "run": "755 #!", "l": "-> f", "out": "-> /etc/passwd",
					"d": "dir 755", "d/e": "dir 755", "d/e/g": "644 g"}, files(t, dir))
			})
		}
	}
}

func TestCommitOfNoRefComesFromEverything(t *testing.T) {
	r, first, _ := history(t)
	for _, ref := range []string{"light", "heavy", "both"} {
		r.git("a", "tag", "-d", ref)
	}
	r.git("a", "branch", "-D", "feature/x")
	r.git("a", "update-ref", "-d", "refs/pull/1/head")
	web := r.serve("", old) // which hands out only what refs point at
	s := newSource(t)
	dir, err := checkOut(t, s, web.URL+"/a/.git#"+first)
	require.NoError(t, err)
	require.Equal(t, "644 one", files(t, dir)["f"])
	require.FileExists(t, filepath.Join(dir, "d/e/g"))
}

func TestNothingIsFetchedTwice(t *testing.T) {
	r, first, _ := history(t)
	web := r.serve("")
	s := newSource(t)
	id, attrs := source(t, web.URL+"/a/.git#light")
	hash, err := s.Find(t.Context(), id, attrs)
	require.NoError(t, err)
	require.Equal(t, first, hash)
	require.Equal(t, 1, web.count("POST"), "only the refs were asked for")
	c, err := s.Resolve(t.Context(), id, attrs)
	require.NoError(t, err)
	require.Equal(t, first, c.Hash)
	require.Equal(t, "refs/tags/light", c.Ref)
	require.Contains(t, string(c.Object), "committer a <a@x.test> 1577934245 +0000")
	n := web.count("")
	r.git("a", "tag", "-f", "light", "main") // a ref means one commit in one build
	for range 2 {
		dir, err := checkOut(t, s, web.URL+"/a/.git#light")
		require.NoError(t, err)
		require.Equal(t, "644 one", files(t, dir)["f"])
	}
	_, err = checkOut(t, s, web.URL+"/a/.git#light:d")
	require.NoError(t, err)
	require.Equal(t, n, web.count(""))
}

func TestSubdirectory(t *testing.T) {
	r, _, _ := history(t)
	web := r.serve("")
	dir, err := checkOut(t, newSource(t), web.URL+"/a/.git#main:d", llb.KeepGitDir())
	require.NoError(t, err)
	require.Equal(t, map[string]string{"e": "dir 755", "e/g": "644 g"}, files(t, dir))
	require.NoDirExists(t, filepath.Join(dir, ".git"), "BuildKit keeps it for whole repositories only")
	for sub, want := range map[string]string{"zz": "has no directory", "d/zz": "has no directory", "l": "something else", "f": "something else", "f/x": "something else"} {
		_, err := checkOut(t, newSource(t), web.URL+"/a/.git#main:"+sub)
		require.ErrorContains(t, err, want, sub)
		requireFault(t, err, fault.User)
	}
}

func TestChecksum(t *testing.T) {
	r, first, second := history(t)
	tag := r.git("a", "rev-parse", "refs/tags/heavy")
	web := r.serve("")
	for _, c := range []struct {
		ref, sum string
		ok       bool
	}{
		{"", second, true}, {"", second[:7], true}, {"", first, false},
		{"#heavy", first, true}, {"#heavy", tag, true}, {"#heavy", second, false},
		{"#tags/heavy", tag, true}, {"#tags/heavy", first, false}, // as BuildKit
		{"#" + first, first[:9], true}, {"#" + first, second, false},
		{"", "xyz", false},
	} {
		_, err := checkOut(t, newSource(t), web.URL+"/a/.git"+c.ref, llb.GitChecksum(c.sum))
		if c.ok {
			require.NoError(t, err, c)
			continue
		}
		require.ErrorContains(t, err, "checksum", c)
		requireFault(t, err, fault.User)
	}
}

func TestFetchByCommit(t *testing.T) {
	r, first, _ := history(t)
	web := r.serve("")
	s := newSource(t)
	dir, err := checkOut(t, s, web.URL+"/a/.git#gone", llb.GitChecksum(first), llb.GitFetchByCommit(), llb.KeepGitDir())
	require.NoError(t, err)
	require.Equal(t, "644 one", files(t, dir)["f"])
	require.Equal(t, first, git(t, dir, "rev-parse", "gone"))
	_, err = checkOut(t, s, web.URL+"/a/.git#gone", llb.GitChecksum(first[:7]), llb.GitFetchByCommit())
	require.ErrorContains(t, err, "whole hash")
}

// git runs git in a checkout.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "safe.directory=*", "-C", dir}, args...)...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "git %v: %s", args, out)
	return strings.TrimSpace(string(out))
}

func TestKeptGitDirIsARepository(t *testing.T) {
	r, first, second := history(t)
	many := map[string]string{}
	for i := range 120 {
		many["n/"+strings.Repeat("x", i+1)] = strings.Repeat("y", i)
	}
	large := r.commit("a", many)
	web := r.serve("")
	for ref, c := range map[string]struct {
		head string
		refs []string
	}{
		"":             {large, []string{"refs/heads/main", "refs/tags/main"}},
		"#both":        {second, []string{"refs/heads/both", "refs/tags/both"}},
		"#light":       {first, []string{"refs/heads/light", "refs/tags/light"}},
		"#heavy":       {first, []string{"refs/tags/heavy"}},
		"#tags/heavy":  {first, []string{"refs/tags/tags/heavy"}},
		"#heads/both":  {second, []string{"refs/heads/both", "refs/tags/heads/both"}},
		"#" + first:    {first, nil},
		"#pull/1/head": {first, []string{"refs/heads/pull/1/head", "refs/tags/pull/1/head"}},
	} {
		dir, err := checkOut(t, newSource(t), web.URL+"/a/.git"+ref, llb.KeepGitDir())
		require.NoError(t, err, ref)
		require.Equal(t, c.head, git(t, dir, "rev-parse", "HEAD"), ref)
		require.Empty(t, git(t, dir, "status", "--porcelain"), ref)
		require.Empty(t, git(t, dir, "fsck", "--full", "--no-dangling"), ref)
		require.Equal(t, "1", git(t, dir, "rev-list", "--count", "HEAD"), ref)
		require.Equal(t, web.URL+"/a/.git", git(t, dir, "remote", "get-url", "origin"), ref)
		require.ElementsMatch(t, c.refs, strings.Fields(git(t, dir, "for-each-ref", "--format=%(refname)")), ref)
	}
}

func TestKeptGitDirIsTheSameTwice(t *testing.T) {
	r, _, _ := history(t)
	web := r.serve("")
	var seen []map[string]string
	for range 2 {
		dir, err := checkOut(t, newSource(t), web.URL+"/a/.git#heavy", llb.KeepGitDir())
		require.NoError(t, err)
		seen = append(seen, files(t, filepath.Join(dir, ".git")))
	}
	require.Equal(t, seen[0], seen[1])
}

func TestCommitTime(t *testing.T) {
	r, _, _ := history(t)
	web := r.serve("")
	at := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	dir, err := checkOut(t, newSource(t), web.URL+"/a/.git#main", llb.GitMTimeCommit())
	require.NoError(t, err)
	for _, name := range []string{".", "f", "l", "d", "d/e/g"} {
		fi, err := os.Lstat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.True(t, at.Equal(fi.ModTime()), "%s: %s", name, fi.ModTime())
	}
	dir, err = checkOut(t, newSource(t), web.URL+"/a/.git#main")
	require.NoError(t, err)
	fi, err := os.Lstat(filepath.Join(dir, "f"))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), fi.ModTime(), time.Minute)
}

func TestSubmodules(t *testing.T) {
	r := newRepos(t)
	r.make("inner")
	r.commit("inner", map[string]string{"i": "inner"})
	r.make("mid")
	r.commit("mid", map[string]string{"m/m": "mid"})
	r.git("mid", "submodule", "add", "-q", "../inner", "deep/inner")
	r.git("mid", "config", "-f", ".gitmodules", "submodule.deep/inner.url", "../../inner/.git")
	r.commit("mid", nil)
	r.commit("inner", map[string]string{"i": "newer"})
	r.make("a")
	r.commit("a", map[string]string{"f": "f"})
	r.git("a", "submodule", "add", "-q", "../mid", "mods/mid")
	r.git("a", "config", "-f", ".gitmodules", "submodule.mods/mid.url", "../../mid/.git")
	r.commit("a", nil)
	web := r.serve("")
	mid := map[string]string{".gitmodules": "", "deep": "dir 755", "deep/inner": "dir 755", "deep/inner/i": "644 inner", "m": "dir 755", "m/m": "644 mid"}
	got := func(url string, opts ...llb.GitOption) map[string]string {
		dir, err := checkOut(t, newSource(t), web.URL+"/a/.git"+url, opts...)
		require.NoError(t, err)
		list := files(t, dir)
		for n := range list {
			if filepath.Base(n) == ".gitmodules" {
				list[n] = ""
			}
		}
		return list
	}
	all := map[string]string{".gitmodules": "", "f": "644 f", "mods": "dir 755", "mods/mid": "dir 755"}
	require.Equal(t, all, got("#main", llb.GitSkipSubmodules()))
	require.Empty(t, got("#main:mods/mid", llb.GitSkipSubmodules()))
	require.Equal(t, mid, got("#main:mods/mid"))
	require.Equal(t, map[string]string{"i": "644 inner"}, got("#main:mods/mid/deep/inner"))
	for n, v := range mid {
		all["mods/mid/"+n] = v
	}
	require.Equal(t, all, got("#main"))

	dir, err := checkOut(t, newSource(t), web.URL+"/a/.git#main", llb.KeepGitDir())
	require.NoError(t, err)
	require.Empty(t, git(t, dir, "status", "--porcelain"))
	for _, sub := range []string{"mods/mid", "mods/mid/deep/inner"} {
		require.Empty(t, git(t, filepath.Join(dir, sub), "status", "--porcelain"), sub)
		require.Equal(t, filepath.Join(dir, sub), git(t, filepath.Join(dir, sub), "rev-parse", "--show-toplevel"))
	}
}

func TestLineEndsAndIdent(t *testing.T) {
	r := newRepos(t)
	r.make("a")
	r.commit("a", map[string]string{
		".gitattributes": "* text=auto\n*.dos eol=crlf\n*.bin binary eol=crlf\n/top/*.x text eol=crlf\n*.id ident\n[attr]d text eol=crlf\n**/deep/*.m d\n",
		"a":              "1\n2\n", "a.dos": "1\n2\n", "b.dos": "1\x002\n", "a.bin": "1\n", "top/a.x": "1\n", "x/top/a.x": "1\n", "a.id": "a $Id$ b",
		"q/deep/a.m": "1\n", "sub/.gitattributes": "*.dos -text\n", "sub/a.dos": "1\n",
	})
	web := r.serve("")
	dir, err := checkOut(t, newSource(t), web.URL+"/a/.git")
	require.NoError(t, err)
	got := files(t, dir)
	maps.DeleteFunc(got, func(_, v string) bool { return strings.HasPrefix(v, "dir") })
	for n := range got {
		got[n] = strings.TrimPrefix(got[n], "644 ")
	}
	id := r.git("a", "rev-parse", "HEAD:a.id")
	for n, want := range map[string]string{"a": "1\n2\n", "a.dos": "1\r\n2\r\n", "b.dos": "1\x002\n", "a.bin": "1\n", "top/a.x": "1\r\n", "x/top/a.x": "1\n",
		"a.id": "a $Id: " + id + " $ b", "q/deep/a.m": "1\r\n", "sub/a.dos": "1\n"} {
		assert.Equal(t, want, got[n], n)
	}
	// git itself agrees.
	to := t.TempDir()
	git(t, to, "clone", "-q", filepath.Join(r.dir, "a"), "c")
	theirs := files(t, filepath.Join(to, "c"))
	for n := range theirs {
		theirs[n] = strings.TrimLeft(theirs[n], "0123456789 ")
	}
	for n, v := range got {
		assert.Equal(t, theirs[n], strings.TrimLeft(v, "0123456789 "), n)
	}
}

func TestCredentials(t *testing.T) {
	r, _, _ := history(t)
	r.make("b")
	r.commit("b", map[string]string{"b": "b"})
	const token = "verysecrettoken"
	header := "basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+token))
	web := r.serve(header)
	host := strings.TrimPrefix(web.URL, "http://")
	for name, c := range map[string]struct {
		secrets map[string][]byte
		url     string
	}{
		"a token":                      {map[string][]byte{"GIT_AUTH_TOKEN": []byte(token + "\n")}, web.URL},
		"the host's token comes first": {map[string][]byte{"GIT_AUTH_TOKEN." + host: []byte(token), "GIT_AUTH_HEADER": []byte("wrong")}, web.URL},
		"a whole header":               {map[string][]byte{"GIT_AUTH_HEADER": []byte(header), "GIT_AUTH_TOKEN": []byte("wrong")}, web.URL},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSource(t)
			s.Secrets = c.secrets
			dir, err := checkOut(t, s, c.url+"/a/.git", llb.KeepGitDir())
			require.NoError(t, err)
			requireNowhere(t, dir, token)
			requireNowhere(t, s.Dir, token)
		})
	}
	t.Run("in the URL", func(t *testing.T) {
		basic := r.serve("Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+token)))
		s := newSource(t)
		dir, err := checkOut(t, s, "http://u:"+token+"@"+strings.TrimPrefix(basic.URL, "http://")+"/a/.git", llb.KeepGitDir())
		require.NoError(t, err)
		requireNowhere(t, dir, token)
	})
	t.Run("missing or wrong", func(t *testing.T) {
		s := newSource(t)
		_, err := checkOut(t, s, web.URL+"/a/.git")
		e := requireFault(t, err, fault.Registry)
		require.ErrorContains(t, err, "authentication is required")
		require.Contains(t, e.Remedy, "--secret id=GIT_AUTH_TOKEN")
		s.Secrets = map[string][]byte{"GIT_AUTH_TOKEN": []byte("other" + token)}
		_, err = checkOut(t, s, "http://u:p"+token+"@"+host+"/a/.git")
		e = requireFault(t, err, fault.Registry)
		require.NotContains(t, err.Error()+e.Remedy, token)
		require.Contains(t, e.Remedy, "do not open")
	})
}

// requireNowhere says that no file holds a text.
func requireNowhere(t *testing.T, dir, text string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		require.NotContains(t, string(data), text, p)
		return err
	}))
}

func TestSSH(t *testing.T) {
	r, _, _ := history(t)
	srv := r.serveSSH()
	url := "ssh://git@" + srv.address + filepath.Join(r.dir, "a")
	known := llb.KnownSSHHosts(knownhosts.Line([]string{srv.address}, srv.host))
	s := newSource(t)
	s.Agent = srv.open
	for name, opts := range map[string][]llb.GitOption{"known host": {known}, "whatever host the frontend found": nil} {
		t.Run(name, func(t *testing.T) {
			dir, err := checkOut(t, s, url+"#light", opts...)
			require.NoError(t, err)
			require.Equal(t, "644 one", files(t, dir)["f"])
		})
	}
	t.Run("version 0, and a commit that no ref points at", func(t *testing.T) {
		r.make("b")
		lost := r.commit("b", map[string]string{"f": "lost"})
		r.commit("b", map[string]string{"f": "kept"})
		plain := r.serveSSH(old)
		s := newSource(t)
		s.Agent = plain.open
		dir, err := checkOut(t, s, "ssh://git@"+plain.address+filepath.Join(r.dir, "b")+"#"+lost)
		require.NoError(t, err)
		require.Equal(t, "644 lost", files(t, dir)["f"])
	})
	t.Run("no keys", func(t *testing.T) {
		_, err := checkOut(t, newSource(t), url, known)
		e := requireFault(t, err, fault.Usage)
		require.Contains(t, e.Remedy, "--ssh default")
	})
	t.Run("a key that may not", func(t *testing.T) {
		other := newSource(t)
		other.Agent = r.serveSSH().open
		_, err := checkOut(t, other, url, known)
		e := requireFault(t, err, fault.Registry)
		require.ErrorContains(t, err, "refused")
		require.Contains(t, e.Remedy, "--ssh")
	})
	t.Run("another host key", func(t *testing.T) {
		_, err := checkOut(t, s, url+"#main", llb.KnownSSHHosts(knownhosts.Line([]string{srv.address}, r.serveSSH().host)))
		requireFault(t, err, fault.Registry)
		require.ErrorContains(t, err, "not the known one")
	})
	t.Run("no repository", func(t *testing.T) {
		_, err := checkOut(t, s, "ssh://git@"+srv.address+"/none", known)
		requireFault(t, err, fault.Registry)
		require.ErrorContains(t, err, "repository not found")
	})
}

func TestGitProtocol(t *testing.T) {
	r, _, _ := history(t)
	address := r.daemon()
	dir, err := checkOut(t, newSource(t), "git://"+address+"/a#light")
	require.NoError(t, err)
	require.Equal(t, "644 one", files(t, dir)["f"])
	_, err = checkOut(t, newSource(t), "git://"+address+"/none")
	requireFault(t, err, fault.Registry)
	require.ErrorContains(t, err, "repository not found")
}

func requireFault(t *testing.T, err error, kind fault.Kind) *fault.Error {
	t.Helper()
	e, ok := fault.As(err)
	require.True(t, ok, "%v", err)
	require.Equal(t, kind.String(), e.Kind.String(), "%v", err)
	require.NotEmpty(t, e.Remedy)
	return e
}

func TestURLs(t *testing.T) {
	for in, want := range map[[2]string]string{
		{"https://h/a/b.git", "../c.git"}:   "https://h/a/c.git",
		{"https://h/a/b.git/", "./c"}:       "https://h/a/b.git/c",
		{"https://h/a/b.git", "../../x/c"}:  "https://h/x/c",
		{"git@h:a/b.git", "../c.git"}:       "git@h:a/c.git",
		{"git@h:b.git", "../c.git"}:         "git@h:c.git",
		{"ssh://git@h:22/a/b", "../c.git/"}: "ssh://git@h:22/a/c.git",
	} {
		assert.Equal(t, want, joinURL(in[0], in[1]), in)
	}
	for raw, want := range map[string]string{
		"https://u:p@h.test/a.git": "https://h.test/a.git", "git@h.test:a/b": "git@h.test:a/b", "ssh://u@h.test:1/a": "ssh://h.test:1/a",
		"file:///x": "", "ext::sh": "", "/x/y": "", "https:///x": "",
	} {
		r, err := parseRemote(raw, &access{})
		if want == "" {
			requireFault(t, err, fault.User)
			continue
		}
		require.NoError(t, err, raw)
		assert.Equal(t, want, r.shown)
	}
	assert.True(t, slices.Equal([]string{"refs/x", "refs/heads/x", "refs/tags/x"}, namesOf("x")))
}
