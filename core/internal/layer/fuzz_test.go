package layer

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzOutside unpacks arbitrary streams beside a tree that must not change.
func FuzzOutside(f *testing.F) {
	for _, entries := range [][]*tar.Header{
		{dir("a"), dir("a/b"), symlink("a", "../out")},
		{symlink("a", "../out"), file("a/b/x"), hardlink("c", "a/b/f")},
		{symlink("a", "/"), file("a/../../out/x"), file(".wh.a"), file("a/.wh..wh..opq")},
		{file("../x"), hardlink("b", "../out/b/f")},
		{dir("d"), file("d/x"), file(".wh.d"), symlink("d", "../out"), dir("d")},
		{with(dir("d"), xattr("user.x", "y")), {Name: "d/p", Typeflag: tar.TypeFifo}},
	} {
		f.Add(archive(f, entries...).Bytes(), uint8(0))
		f.Add(archive(f, entries...).Bytes(), uint8(5))
	}
	f.Fuzz(func(t *testing.T, stream []byte, choice uint8) {
		// A header alone can claim any size; the stream is what is written.
		if len(stream) > 1<<20 || holes(stream) {
			t.Skip()
		}
		base := t.TempDir()
		root, out := filepath.Join(base, "root"), filepath.Join(base, "out")
		require.NoError(t, os.MkdirAll(filepath.Join(out, "b"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(out, "b", "f"), []byte("sentinel"), 0o600))
		require.NoError(t, os.Mkdir(root, 0o755))
		require.NoError(t, Apply(t.Context(), root, archive(t, symlink("low", "../out"), symlink("a", out), file("d/x")), ApplyOptions{}))
		before := outside(t, out)
		opts := ApplyOptions{Whiteouts: Whiteouts(choice % 3), Literal: choice&4 != 0, Observe: func(Observed) {}}
		_ = Apply(t.Context(), root, bytes.NewReader(stream), opts)
		require.Equal(t, before, outside(t, out))
		entries, err := os.ReadDir(base)
		require.NoError(t, err)
		require.Len(t, entries, 2)
	})
}

// holes says whether a stream is a sparse archive: a few bytes of it can stand
// for a disk full.
func holes(stream []byte) bool {
	r := tar.NewReader(bytes.NewReader(stream))
	for {
		h, err := r.Next()
		if err != nil {
			return false
		}
		if n, _ := io.Copy(io.Discard, io.LimitReader(r, 8<<20)); n >= 8<<20 || h.Typeflag == tar.TypeGNUSparse {
			return true
		}
	}
}

// FuzzComparePaths checks that the order is total and that a directory comes
// before what is in it.
func FuzzComparePaths(f *testing.F) {
	f.Add("a", "a/b", "a-b")
	f.Add("a/b/c", "a!/b", "a/b")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		require.Equal(t, ComparePaths(a, b), -ComparePaths(b, a))
		require.Negative(t, ComparePaths(a, a+"/x"))
		if ComparePaths(a, b) <= 0 && ComparePaths(b, c) <= 0 {
			require.LessOrEqual(t, ComparePaths(a, c), 0)
		}
	})
}
