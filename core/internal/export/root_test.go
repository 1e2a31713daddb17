package export

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/needs"
)

// rootTree is a root file system with each kind of entry.
func rootTree(t *testing.T) string {
	t.Helper()
	needs.Root(t)
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "d/e"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d/file"), []byte("content"), 0o644))
	require.NoError(t, os.Chown(filepath.Join(dir, "d/file"), 70000, 5))
	require.NoError(t, unix.Chmod(filepath.Join(dir, "d/file"), 0o4755))
	require.NoError(t, os.Link(filepath.Join(dir, "d/file"), filepath.Join(dir, "d/link")))
	require.NoError(t, os.Symlink("/d/file", filepath.Join(dir, "sym")))
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	require.NoError(t, unix.Chmod(filepath.Join(dir, "d/e"), 0o1777))
	old := time.Unix(1000, 0)
	for _, p := range []string{"d/file", "d/e", "d"} {
		require.NoError(t, os.Chtimes(filepath.Join(dir, p), old, old))
	}
	return dir
}

func entriesOf(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	var out []string
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		out = append(out, fmt.Sprintf("%c %s %s %o %d:%d %d", h.Typeflag, h.Name, h.Linkname, h.Mode, h.Uid, h.Gid, h.Size))
	}
}

func TestRootTarKeepsOwnersAndLinks(t *testing.T) {
	dir := rootTree(t)
	path := filepath.Join(t.TempDir(), "root.tar")
	require.NoError(t, RootTar(t.Context(), path, nil, []Root{{Dir: dir}}))
	want := []string{
		"5 d/  755 0:0 0", "5 d/e/  1777 0:0 0", "0 d/file  4755 70000:5 7", "1 d/link d/file 4755 70000:5 0",
		"6 fifo  600 0:0 0", "2 sym /d/file 777 0:0 0",
	}
	require.Equal(t, want, entriesOf(t, path))

	t.Run("the same to a stream", func(t *testing.T) {
		var b bytes.Buffer
		require.NoError(t, RootTar(t.Context(), "-", &b, []Root{{Dir: dir}}))
		file, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(file, b.Bytes()))
	})
	t.Run("platforms are directories", func(t *testing.T) {
		require.NoError(t, RootTar(t.Context(), path, nil, []Root{{Dir: dir, Name: "linux_amd64"}, {Name: "linux_arm64"}}))
		require.Equal(t, []string{
			"5 linux_amd64/  755 0:0 0", "5 linux_amd64/d/  755 0:0 0", "5 linux_amd64/d/e/  1777 0:0 0", "0 linux_amd64/d/file  4755 70000:5 7",
			"1 linux_amd64/d/link linux_amd64/d/file 4755 70000:5 0", "6 linux_amd64/fifo  600 0:0 0", "2 linux_amd64/sym /d/file 777 0:0 0", "5 linux_arm64/  755 0:0 0",
		}, entriesOf(t, path))
	})
	t.Run("an empty root is an empty tar", func(t *testing.T) {
		require.NoError(t, RootTar(t.Context(), path, nil, []Root{{}}))
		require.Empty(t, entriesOf(t, path))
	})
	t.Run("the epoch is every file's time", func(t *testing.T) {
		at := time.Unix(77, 0)
		var b bytes.Buffer
		require.NoError(t, RootTar(t.Context(), "-", &b, []Root{{Dir: dir, Epoch: &at}}))
		r, n := tar.NewReader(&b), 0
		for h, err := r.Next(); err == nil; h, err = r.Next() {
			require.Equal(t, at.Unix(), h.ModTime.Unix(), h.Name)
			n++
		}
		require.Equal(t, len(want), n)
	})
}

func TestRootDirMergesAndBelongsToTheUser(t *testing.T) {
	from := rootTree(t)
	to := filepath.Join(t.TempDir(), "new", "dir")
	outside := t.TempDir()
	require.NoError(t, os.MkdirAll(to, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(to, "mine"), []byte("mine"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(to, "sym"), []byte("replaced"), 0o600))
	require.NoError(t, os.Symlink(outside, filepath.Join(to, "d"))) // must not lead out
	for range 2 {                                                   // again, onto itself
		require.NoError(t, RootDir(t.Context(), to, []Root{{Dir: from}}))
	}
	left, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Empty(t, left)
	for name, content := range map[string]string{"mine": "mine", "d/file": "content", "d/link": "content"} {
		data, err := os.ReadFile(filepath.Join(to, name))
		require.NoError(t, err)
		require.Equal(t, content, string(data))
	}
	var a, b, e unix.Stat_t
	require.NoError(t, unix.Lstat(filepath.Join(to, "d/file"), &a))
	require.NoError(t, unix.Lstat(filepath.Join(to, "d/link"), &b))
	require.NoError(t, unix.Lstat(filepath.Join(to, "d/e"), &e))
	require.Equal(t, a.Ino, b.Ino, "a hard link stays one")
	require.Equal(t, []uint32{uint32(os.Getuid()), uint32(os.Getgid()), 0o4755}, []uint32{a.Uid, a.Gid, a.Mode & 0o7777})
	require.Equal(t, uint32(0o1777), e.Mode&0o7777)
	require.Equal(t, int64(1000), a.Mtim.Sec)
	require.Equal(t, int64(1000), e.Mtim.Sec)
	link, err := os.Readlink(filepath.Join(to, "sym"))
	require.NoError(t, err)
	require.Equal(t, "/d/file", link)
}

func TestRootDirSaysThatItIsIncomplete(t *testing.T) {
	from := rootTree(t)
	to := filepath.Join(t.TempDir(), "file", "dir")
	require.NoError(t, os.WriteFile(filepath.Dir(to), nil, 0o600))
	f, ok := fault.As(RootDir(t.Context(), to, []Root{{Dir: from}}))
	require.True(t, ok)
	require.Equal(t, fault.Environment, f.Kind)
}
