package local

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/needs"
)

func attrs(t *testing.T, exclude, follow []string) map[string]string {
	m := map[string]string{}
	for k, v := range map[string][]string{pb.AttrExcludePatterns: exclude, pb.AttrFollowPaths: follow} {
		if v != nil {
			b, err := json.Marshal(v)
			require.NoError(t, err)
			m[k] = string(b)
		}
	}
	return m
}

func list(t *testing.T, dir string) []string {
	out := []string{}
	require.NoError(t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, p); rel != "." && !e.IsDir() {
			out = append(out, rel)
		}
		return err
	}))
	slices.Sort(out)
	return out
}

func TestLinkToAnExcludedFileIsAFile(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(from, "a"), []byte("text"), 0o644))
	require.NoError(t, os.Link(filepath.Join(from, "a"), filepath.Join(from, "b")))
	require.NoError(t, os.Link(filepath.Join(from, "a"), filepath.Join(from, "c")))
	require.NoError(t, Copy(t.Context(), from, attrs(t, []string{"a"}, nil), to))
	require.Equal(t, []string{"b", "c"}, list(t, to))
	data, err := os.ReadFile(filepath.Join(to, "b"))
	require.NoError(t, err)
	require.Equal(t, "text", string(data))
}

// As BuildKit sends it; git's fsmonitor keeps one in .git.
func TestSocketBecomesAnEmptyFile(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	l, err := net.Listen("unix", filepath.Join(from, "s"))
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, Copy(t.Context(), from, nil, to))
	fi, err := os.Lstat(filepath.Join(to, "s"))
	require.NoError(t, err)
	require.True(t, fi.Mode().IsRegular())
	require.Zero(t, fi.Size())
}

func tree(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		at := filepath.Join(dir, f)
		require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o755))
		require.NoError(t, os.WriteFile(at, []byte(f), 0o644))
	}
	return dir
}

func TestDockerignoreRules(t *testing.T) {
	files := []string{".dockerignore", ".git/config", "Dockerfile", "a.log", "a/b.log", "a/b/c.log", "a/keep.log", "dir/x", "dir/y", "node_modules/m/i.js", "sub/node_modules/m/i.js", "z"}
	dir := tree(t, files...)
	without := func(names ...string) []string {
		return slices.DeleteFunc(slices.Clone(files), func(f string) bool { return slices.Contains(names, f) })
	}
	for name, c := range map[string]struct {
		ignore string
		want   []string
	}{
		"nothing ignored":                      {"", files},
		"a comment is no rule":                 {"# a.log\n", files},
		"a star stays in its directory":        {"*.log\n", without("a.log")},
		"two stars cross directories":          {"**/*.log\n", without("a.log", "a/b.log", "a/b/c.log", "a/keep.log")},
		"an exception after a rule":            {"**/*.log\n!a/keep.log\n", without("a.log", "a/b.log", "a/b/c.log")},
		"a rule after an exception":            {"!a/keep.log\n**/*.log\n", without("a.log", "a/b.log", "a/b/c.log", "a/keep.log")},
		"a directory takes its files":          {"dir\n", without("dir/x", "dir/y")},
		"a trailing slash says the same":       {"dir/\n", without("dir/x", "dir/y")},
		"a leading slash is the context":       {"/dir/x\n", without("dir/x")},
		"an exception inside a directory":      {"dir\n!dir/y\n", without("dir/x")},
		"everything but":                       {"*\n!z\n!dir/x\n", []string{"dir/x", "z"}},
		"one name at the top only":             {"node_modules\n", without("node_modules/m/i.js")},
		"one name everywhere":                  {"**/node_modules\n", without("node_modules/m/i.js", "sub/node_modules/m/i.js")},
		"a question mark is one character":     {"dir/?\n", without("dir/x", "dir/y")},
		"a character class":                    {"dir/[x]\n", without("dir/x")},
		"hidden files are like others":         {".git\n.dockerignore\n", without(".git/config", ".dockerignore")},
		"spaces around a rule do not count":    {"  z  \n\n", without("z")},
		"dots in a path are cleaned":           {"./dir/../z\n", without("z")},
		"the Dockerfile itself can be ignored": {"Dockerfile\n", without("Dockerfile")},
	} {
		t.Run(name, func(t *testing.T) {
			rules, err := ignorefile.ReadAll(strings.NewReader(c.ignore))
			require.NoError(t, err)
			to := t.TempDir()
			require.NoError(t, Copy(t.Context(), dir, attrs(t, rules, nil), to))
			require.Equal(t, c.want, list(t, to))
		})
	}
}

func TestOnlyPathsThatAreAskedForAreRead(t *testing.T) {
	dir := tree(t, "a", "b", "d/x", "d/y", "e/f")
	require.NoError(t, os.Symlink("d/x", filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "out")))
	for name, c := range map[string]struct{ follow, want []string }{
		"one file":                    {[]string{"a"}, []string{"a"}},
		"a directory":                 {[]string{"d"}, []string{"d/x", "d/y"}},
		"a wildcard":                  {[]string{"[ab]"}, []string{"a", "b"}},
		"a link brings its target":    {[]string{"link"}, []string{"d/x", "link"}},
		"a link out stays a link":     {[]string{"out"}, []string{"out"}},
		"what is missing is no error": {[]string{"nope"}, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			to := t.TempDir()
			require.NoError(t, Copy(t.Context(), dir, attrs(t, nil, c.follow), to))
			require.Equal(t, c.want, list(t, to))
		})
	}
	to := t.TempDir()
	require.NoError(t, Copy(t.Context(), dir, nil, to))
	target, err := os.Readlink(filepath.Join(to, "out"))
	require.NoError(t, err)
	require.Equal(t, "/etc/passwd", target)
}

func TestAttributesAreKeptAndOwnersAreRoot(t *testing.T) {
	if os.Getuid() != 0 {
		needs.Missing(t, "root to give files other owners")
	}
	dir := tree(t, "f", "d/g")
	old := time.Unix(1_000_000_000, 123456789)
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "p"), 0o640))
	require.NoError(t, os.Chmod(filepath.Join(dir, "p"), 0o640))
	require.NoError(t, os.Link(filepath.Join(dir, "f"), filepath.Join(dir, "h")))
	for _, f := range []string{"f", "d/g", "d"} {
		require.NoError(t, os.Chown(filepath.Join(dir, f), 1234, 5678))
	}
	require.NoError(t, os.Chmod(filepath.Join(dir, "f"), 0o750|fs.ModeSetuid))
	require.NoError(t, os.Chmod(filepath.Join(dir, "d"), 0o700|fs.ModeSticky))
	for _, f := range []string{"f", "d/g", "d"} {
		require.NoError(t, os.Chtimes(filepath.Join(dir, f), old, old))
	}
	to := t.TempDir()
	// as package hostview names a directory
	h, err := os.Open(dir)
	require.NoError(t, err)
	defer h.Close()
	require.NoError(t, Copy(t.Context(), fmt.Sprintf("/proc/self/fd/%d", h.Fd()), nil, to))
	modes := map[string]fs.FileMode{"f": 0o750 | fs.ModeSetuid, "d": 0o700 | fs.ModeSticky | fs.ModeDir, "d/g": 0o644, "p": 0o640 | fs.ModeNamedPipe}
	for name, mode := range modes {
		fi, err := os.Lstat(filepath.Join(to, name))
		require.NoError(t, err)
		require.Equal(t, mode, fi.Mode(), name)
		st := fi.Sys().(*syscall.Stat_t)
		require.Zero(t, st.Uid+st.Gid, name)
		if name != "p" {
			require.True(t, fi.ModTime().Equal(old), "%s: %s", name, fi.ModTime())
		}
	}
	a, err := os.Stat(filepath.Join(to, "f"))
	require.NoError(t, err)
	b, err := os.Stat(filepath.Join(to, "h"))
	require.NoError(t, err)
	require.True(t, os.SameFile(a, b), "hard links stay hard links")
}

func TestUnreadableFileIsTheUsersToMend(t *testing.T) {
	if os.Getuid() == 0 {
		t.Log("root reads everything: only the words are tested")
	}
	err := contextError("ctx", &fs.PathError{Op: "open", Path: "x", Err: fs.ErrPermission})
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.User, e.Kind)
	require.NotEmpty(t, e.Remedy)
}

func TestCancelledCopyEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, Copy(ctx, tree(t, "a"), nil, t.TempDir()))
}

func BenchmarkCopy(b *testing.B) {
	dir := b.TempDir()
	for i := range 11_500 {
		at := filepath.Join(dir, fmt.Sprintf("d%d/e%d", i%50, i%7))
		if err := os.MkdirAll(at, 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, fmt.Sprint(i)), []byte("x"), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := Copy(b.Context(), dir, nil, b.TempDir()); err != nil {
			b.Fatal(err)
		}
	}
}
