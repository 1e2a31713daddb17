package git

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// entry is a line of a tree as nobody's git would write it.
type entry struct{ mode, name, hash string }

// tree stores a tree without any check, and gives its hash.
func (r *repos) tree(name string, entries ...entry) string {
	r.t.Helper()
	var b strings.Builder
	for _, e := range entries {
		raw, err := hex.DecodeString(e.hash)
		require.NoError(r.t, err)
		b.WriteString(e.mode + " " + e.name + "\x00" + string(raw))
	}
	return r.gitWith(b.String(), name, "hash-object", "-t", "tree", "-w", "--stdin", "--literally")
}

func (r *repos) blob(name, text string) string {
	return r.gitWith(text, name, "hash-object", "-w", "--stdin")
}

// branch makes a branch of one tree.
func (r *repos) branch(name, branch, tree string) {
	r.git(name, "update-ref", "refs/heads/"+branch, r.git(name, "commit-tree", "-m", "x", tree))
}

func TestRepositoryCannotWriteOutside(t *testing.T) {
	r := newRepos(t)
	outside := t.TempDir()
	r.make("a")
	r.commit("a", map[string]string{"f": "f"})
	f, link := r.blob("a", "harm"), r.blob("a", outside)
	dir := r.tree("a", entry{"100644", "harm", f})
	commit := r.git("a", "rev-parse", "HEAD")
	for name, entries := range map[string][]entry{
		"dot-git":            {{"100644", ".git", f}},
		"dot-git-dir":        {{"40000", ".Git", dir}},
		"dot-dot":            {{"40000", "..", dir}},
		"dot":                {{"40000", ".", dir}},
		"slash":              {{"100644", "../harm", f}},
		"link-then-dir":      {{"120000", "x", link}, {"40000", "x", dir}},
		"link-then-file":     {{"120000", "x", r.blob("a", outside+"/harm")}, {"100644", "x", f}},
		"link-then-module":   {{"120000", "x", link}, {"160000", "x", commit}},
		"dir-then-link":      {{"40000", "x", dir}, {"120000", "x", link}},
		"empty-name":         {{"100644", "", f}},
		"mode-of-no-meaning": {{"10644", "x", f}},
	} {
		r.branch("a", name, r.tree("a", entries...))
	}
	modules := func(name, url string) []entry {
		text := "[submodule \"" + name + "\"]\n\tpath = m\n\turl = " + url + "\n"
		return []entry{{"100644", ".gitmodules", r.blob("a", text)}, {"160000", "m", commit}}
	}
	r.branch("a", "module-name", r.tree("a", modules("../../harm", "./")...))
	r.branch("a", "module-file", r.tree("a", modules("m", "file://"+r.dir+"/a")...))
	r.branch("a", "module-path", r.tree("a", modules("m", r.dir+"/a")...))
	r.branch("a", "module-ext", r.tree("a", modules("m", "ext::touch "+outside+"/harm")...))
	r.branch("a", "module-flag", r.tree("a", modules("m", "--upload-pack=touch")...))
	r.branch("a", "module-unknown", r.tree("a", entry{"160000", "m", commit}))
	web := r.serve("")
	refs := strings.Fields(r.git("a", "for-each-ref", "--format=%(refname:short)", "refs/heads"))
	require.Len(t, refs, 18)
	for _, ref := range refs {
		if ref == "main" {
			continue
		}
		t.Run(ref, func(t *testing.T) {
			s := newSource(t)
			target := t.TempDir()
			to := filepath.Join(target, "to")
			require.NoError(t, os.Mkdir(to, 0o755))
			id, attrs := source(t, web.URL+"/a/.git#"+ref, llb.KeepGitDir())
			err := s.Checkout(t.Context(), id, attrs, to)
			e, ok := fault.As(err)
			require.True(t, ok, "%v", err)
			require.NotEqual(t, fault.Internal, e.Kind)
			left, err := os.ReadDir(outside)
			require.NoError(t, err)
			require.Empty(t, left)
			left, err = os.ReadDir(target)
			require.NoError(t, err)
			require.Len(t, left, 1)
			require.NoFileExists(t, filepath.Join(to, ".git/harm"))
		})
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	r, _, _ := history(t)
	r.make("empty")
	web := r.serve("")
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
	t.Cleanup(page.Close)
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	t.Cleanup(broken.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := l.Addr().String()
	require.NoError(t, l.Close())
	for name, c := range map[string]struct {
		url  string
		kind fault.Kind
		want string
	}{
		"no such ref":        {web.URL + "/a/.git#none", fault.User, `/a/.git has no branch or tag "none"`},
		"abbreviated commit": {web.URL + "/a/.git#1234567", fault.User, "no branch or tag"},
		"no such commit":     {web.URL + "/a/.git#" + strings.Repeat("1", 40), fault.User, "has no commit 1111"},
		"SHA-256 commit":     {web.URL + "/a/.git#" + strings.Repeat("1", 64), fault.User, "SHA-256"},
		"ref like a flag":    {web.URL + "/a/.git#-x", fault.User, "invalid ref"},
		"no repository":      {web.URL + "/none.git", fault.Registry, "/none.git: repository not found"},
		"empty repository":   {web.URL + "/empty/.git", fault.User, "no default branch"},
		"a page":             {page.URL + "/a.git", fault.Registry, "smart protocol"},
		"a broken server":    {broken.URL + "/a.git", fault.Registry, "502"},
		"nobody there":       {"http://" + nobody + "/a.git", fault.Registry, "connection refused"},
		"nobody there, git":  {"git://" + nobody + "/a.git", fault.Registry, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := checkOut(t, newSource(t), c.url)
			require.ErrorContains(t, err, c.want)
			requireFault(t, err, c.kind)
		})
	}
	for name, opt := range map[string]llb.GitOption{"a bundle": llb.GitBundleURL("docker-image+blob://x/y@sha256:" + strings.Repeat("1", 64))} {
		_, err := checkOut(t, newSource(t), web.URL+"/a/.git", opt)
		require.ErrorContains(t, err, "not supported", name)
	}
}

func TestSHA256RepositoryIsRefused(t *testing.T) {
	r := newRepos(t)
	require.NoError(t, os.Mkdir(filepath.Join(r.dir, "s"), 0o755))
	r.git("s", "init", "-q", "-b", "main", "--object-format=sha256")
	r.commit("s", map[string]string{"f": "f"})
	for _, web := range []*server{r.serve(""), r.serve("", old)} {
		_, err := checkOut(t, newSource(t), web.URL+"/s/.git")
		require.ErrorContains(t, err, "SHA-256")
		requireFault(t, err, fault.User)
	}
}

func TestCredentialsDoNotFollowARedirect(t *testing.T) {
	r, _, _ := history(t)
	var seen []string
	inner := r.serve("")
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		seen = append(seen, q.Method+" "+q.Header.Get("Authorization"))
		inner.Config.Handler.ServeHTTP(w, q)
	}))
	t.Cleanup(other.Close)
	moved := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		require.NotEmpty(t, q.Header.Get("Authorization"))
		to := *q.URL
		to.Path = strings.Replace(to.Path, "/old.git", "/a/.git", 1)
		http.Redirect(w, q, other.URL+to.String(), http.StatusMovedPermanently)
	}))
	t.Cleanup(moved.Close)
	s := newSource(t)
	s.Secrets = map[string][]byte{"GIT_AUTH_TOKEN": []byte("token")}
	dir, err := checkOut(t, s, moved.URL+"/old.git#light")
	require.NoError(t, err)
	require.Equal(t, "644 one", files(t, dir)["f"])
	require.Contains(t, seen, "POST ")
	for _, q := range seen {
		require.Equal(t, 1, len(strings.Fields(q)), q)
	}
}

func TestTokenIsForItsRepositoryOnly(t *testing.T) {
	s := &Source{Secrets: map[string][]byte{"T": []byte("t")}}
	for _, c := range []struct {
		main, module string
		sent         bool
	}{
		{"https://h.test/a.git", "https://h.test/a.git", true},
		{"https://h.test/a.git", "https://h.test/b.git", false},
		{"https://h.test/a.git", "https://h.test/a.gitx", false},
		{"https://h.test/a.git", "http://h.test/a.git", false},
		{"https://github.com/a/a.git", "https://github.com/b/b.git", true},
		{"https://github.com/a/a.git", "https://github.com.test/b/b.git", false},
	} {
		req, err := s.request("git://x/y", map[string]string{"git.fullurl": c.main, "git.authtokensecret": "T"})
		require.NoError(t, err)
		r, err := parseRemote(c.module, req.remote.access)
		require.NoError(t, err)
		require.Equal(t, c.sent, r.authorization() != "", c)
	}
}

func TestCancelEndsWaiting(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() }) // nobody ever answers
	keys := (&repos{t: t, dir: t.TempDir()}).serveSSH()
	for _, scheme := range []string{"http", "git", "ssh"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("why")
		time.AfterFunc(100*time.Millisecond, func() { cancel(why) })
		s := newSource(t)
		s.Agent = keys.open
		begin := time.Now()
		err := s.Checkout(ctx, "git://x/a.git", map[string]string{"git.fullurl": scheme + "://" + l.Addr().String() + "/a.git"}, t.TempDir())
		require.ErrorIs(t, err, why, scheme)
		require.Less(t, time.Since(begin), 2*time.Second)
	}
}

// bytesPeer answers everything from one text.
type bytesPeer struct{ in io.Reader }

func (p bytesPeer) hello(context.Context) (io.Reader, error)       { return p.in, nil }
func (p bytesPeer) ask(context.Context, []byte) (io.Reader, error) { return p.in, nil }
func (bytesPeer) Close()                                           {}

func FuzzConversation(f *testing.F) {
	f.Add("000eversion 2\n0012fetch=shallow\n00000032" + strings.Repeat("1", 40) + " HEAD\n0000000dpackfile\n0005\x010000")
	f.Add("001e# service=git-upload-pack\n0000004e" + strings.Repeat("1", 40) + " HEAD\x00symref=HEAD:refs/heads/main shallow\n00000008NAK\n0009ERR x")
	f.Add("<html>")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := greet(t.Context(), bytesPeer{strings.NewReader(text)})
		if err != nil {
			return
		}
		refs, err := c.list(t.Context(), "HEAD")
		if err != nil {
			return
		}
		defaultBranch(refs)
		st, err := openStore(t.TempDir())
		require.NoError(t, err)
		_ = c.fetch(t.Context(), []string{strings.Repeat("1", 40)}, true, st)
	})
}

func FuzzAttributes(f *testing.F) {
	f.Add("*.a text eol=crlf\n\"q \\\" x\" -text\n[attr]m eol=crlf\n[!a]/**/[ ident\n", "a/b")
	f.Fuzz(func(_ *testing.T, text, name string) {
		a := parseAttributes([]byte(text), "", map[string][][2]string{})
		c := a.match(name)
		_, _ = c.apply(strings.NewReader(text), "hash")
	})
}
