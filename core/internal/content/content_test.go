package content_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/content"
)

// tree makes a directory: names that end in / are directories, "a -> b" a link.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "src/sub/empty"), 0o755))
	for name, text := range map[string]string{"src/main.go": "package main", "src/sub/a.txt": "a", "src/sub/b.md": "b", "top": "t"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	require.NoError(t, os.Symlink("src/sub", filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink("../../../../etc", filepath.Join(dir, "out")))
	return dir
}

// both gives the digest of a selection by both kinds of trees, which must agree
// but for owners: a context's files belong to root.
func both(t *testing.T, dir string, sel content.Selection) string {
	t.Helper()
	d, err := content.Digest(t.Context(), content.Dir(dir), sel)
	require.NoError(t, err)
	f, err := fsutil.NewFS(dir)
	require.NoError(t, err)
	l, err := content.List(t.Context(), f, dir)
	require.NoError(t, err)
	listed, err := content.Digest(t.Context(), l, sel)
	require.NoError(t, err)
	if sel.Path != "" && sel.Path != "/" { // the root itself has no attributes in a list
		require.Equal(t, d, listed)
	}
	return listed
}

func TestWhatCountsForADigest(t *testing.T) {
	src := content.Selection{Path: "/src", Follow: true}
	for _, c := range []struct {
		name    string
		sel     content.Selection
		change  func(t *testing.T, dir string) error
		differs bool
	}{
		{"content", src, func(_ *testing.T, d string) error {
			return os.WriteFile(d+"/src/main.go", []byte("package mine"), 0o644)
		}, true},
		{"mode", src, func(_ *testing.T, d string) error { return os.Chmod(d+"/src/main.go", 0o600) }, true},
		{"mode of a directory", src, func(_ *testing.T, d string) error { return os.Chmod(d+"/src/sub", 0o700) }, true},
		{"name", src, func(_ *testing.T, d string) error { return os.Rename(d+"/src/main.go", d+"/src/mine.go") }, true},
		{"new file", src, func(_ *testing.T, d string) error { return os.WriteFile(d+"/src/new", nil, 0o644) }, true},
		{"removed empty directory", src, func(_ *testing.T, d string) error { return os.Remove(d + "/src/sub/empty") }, true},
		{"file becomes a link", src, func(_ *testing.T, d string) error {
			if err := os.Remove(d + "/src/sub/a.txt"); err != nil {
				return err
			}
			return os.Symlink("b.md", d+"/src/sub/a.txt")
		}, true},
		{"link target", content.Selection{Path: "/"}, func(_ *testing.T, d string) error {
			if err := os.Remove(d + "/link"); err != nil {
				return err
			}
			return os.Symlink("src", d+"/link")
		}, true},
		{"extended attribute", src, func(t *testing.T, d string) error {
			err := unix.Setxattr(d+"/src/main.go", "user.x", []byte("1"), 0)
			if err == unix.ENOTSUP {
				t.Skip("no extended attributes here")
			}
			return err
		}, true},
		{"time", src, func(_ *testing.T, d string) error { return os.Chtimes(d+"/src/main.go", time.Now(), time.Unix(1, 0)) }, false},
		{"a file outside of the selection", src, func(_ *testing.T, d string) error { return os.WriteFile(d+"/top", []byte("x"), 0o644) }, false},
		{"an excluded file", content.Selection{Path: "/src", Exclude: []string{"**/*.md"}}, func(_ *testing.T, d string) error {
			return os.WriteFile(d+"/src/sub/b.md", []byte("x"), 0o644)
		}, false},
		{"a file that an exclusion takes back", content.Selection{Path: "/src", Exclude: []string{"**", "!sub/b.md"}}, func(_ *testing.T, d string) error {
			return os.WriteFile(d+"/src/sub/b.md", []byte("x"), 0o644)
		}, true},
		{"a file that is not included", content.Selection{Path: "/", Include: []string{"src/sub"}}, func(_ *testing.T, d string) error {
			return os.WriteFile(d+"/src/main.go", []byte("x"), 0o644)
		}, false},
		{"an included file", content.Selection{Path: "/", Include: []string{"src/sub"}}, func(_ *testing.T, d string) error {
			return os.WriteFile(d+"/src/sub/a.txt", []byte("x"), 0o644)
		}, true},
		{"mode of a directory above an included file", content.Selection{Path: "/", Include: []string{"src/sub/a.txt"}}, func(_ *testing.T, d string) error {
			return os.Chmod(d+"/src", 0o700)
		}, true},
		{"a file that a wildcard matches", content.Selection{Path: "/src/sub/*.txt", Wildcard: true}, func(_ *testing.T, d string) error {
			return os.WriteFile(d+"/src/sub/a.txt", []byte("x"), 0o644)
		}, true},
		{"a file that a wildcard does not match", content.Selection{Path: "/src/sub/*.txt", Wildcard: true}, func(_ *testing.T, d string) error {
			return os.WriteFile(d+"/src/sub/b.md", []byte("x"), 0o644)
		}, false},
		{"another file that a wildcard matches", content.Selection{Path: "/s*/sub/*.txt", Wildcard: true}, func(_ *testing.T, d string) error {
			return os.WriteFile(d+"/src/sub/new.txt", []byte("x"), 0o644)
		}, true},
		{"a file behind a link", content.Selection{Path: "/link/a.txt"}, func(_ *testing.T, d string) error {
			return os.WriteFile(d+"/src/sub/a.txt", []byte("x"), 0o644)
		}, true},
		{"what a link that is followed points at", content.Selection{Path: "/link", Follow: true}, func(_ *testing.T, d string) error {
			return os.WriteFile(d+"/src/sub/a.txt", []byte("x"), 0o644)
		}, true},
		{"what a link that is not followed points at", content.Selection{Path: "/link"}, func(_ *testing.T, d string) error {
			return os.WriteFile(d+"/src/sub/a.txt", []byte("x"), 0o644)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tree(t)
			before := both(t, dir, c.sel)
			require.Equal(t, before, both(t, dir, c.sel))
			require.NoError(t, c.change(t, dir))
			if after := both(t, dir, c.sel); c.differs {
				require.NotEqual(t, before, after)
			} else {
				require.Equal(t, before, after)
			}
		})
	}
}

func TestALinkNeverLeadsOutOfTheTree(t *testing.T) {
	dir := tree(t)
	_, err := content.Digest(t.Context(), content.Dir(dir), content.Selection{Path: "/out/passwd", Follow: true})
	require.ErrorIs(t, err, os.ErrNotExist, "the link means the tree's own /etc, which is not there")
	require.NotContains(t, err.Error(), dir)
	require.NoError(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	_, err = content.Digest(t.Context(), content.Dir(dir), content.Selection{Path: "/loop/x", Follow: true})
	require.ErrorContains(t, err, "too many links")
}

func TestTwoTreesOfTheSameBytesInOtherFilesDiffer(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(one+"/a", []byte("bc"), 0o644))
	require.NoError(t, os.WriteFile(two+"/ab", []byte("c"), 0o644))
	d1, err := content.Digest(t.Context(), content.Dir(one), content.Selection{})
	require.NoError(t, err)
	d2, err := content.Digest(t.Context(), content.Dir(two), content.Selection{})
	require.NoError(t, err)
	require.NotEqual(t, d1, d2)
}

func TestNothingSelectedIsADigestAndAMissingPathAnError(t *testing.T) {
	dir := tree(t)
	_, err := content.Digest(t.Context(), content.Dir(dir), content.Selection{Path: "/*.none", Wildcard: true})
	require.NoError(t, err)
	_, err = content.Digest(t.Context(), content.Dir(dir), content.Selection{Path: "/none"})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func BenchmarkDigest(b *testing.B) {
	dir := b.TempDir()
	for i := range 2000 {
		require.NoError(b, os.WriteFile(filepath.Join(dir, time.Duration(i).String()), make([]byte, 8<<10), 0o644))
	}
	b.ReportAllocs()
	for b.Loop() {
		_, err := content.Digest(b.Context(), content.Dir(dir), content.Selection{})
		require.NoError(b, err)
	}
}
