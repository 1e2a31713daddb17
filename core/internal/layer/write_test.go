package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
	containerd "github.com/containerd/containerd/v2/pkg/archive"
	cfs "github.com/containerd/continuity/fs"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/needs"
)

// everything is a tree with each kind of file.
func everything(t testing.TB) string {
	needs.Root(t)
	return apply(t, ApplyOptions{}, archive(t,
		with(dir("d"), func(h *tar.Header) { h.Mode, h.Uid = 0o1777, 70000 }), dir("d/empty"), file("d/z"), file("d.x"), file("d/e/f"),
		with(file("suid"), func(h *tar.Header) { h.Mode, h.Gid = 0o6755, 4000000000 }), hardlink("suid2", "suid"), with(hardlink("d/e/suid3", "suid"), func(h *tar.Header) { h.Mode = 0o6755 }),
		with(file("cap"), xattr(capability, capNetBind)), with(hardlink("d/cap2", "cap"), xattr(capability, capNetBind)),
		with(file("user"), xattr("user.lost", "1")),
		symlink("l", "d/z"), hardlink("l2", "l"), symlink("ä", "日本"),
		&tar.Header{Name: "null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: when},
		&tar.Header{Name: "loop", Typeflag: tar.TypeBlock, Mode: 0o660, Devmajor: 7, Devminor: 300, ModTime: when},
		&tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o620, ModTime: when},
		file("long/"+string(bytes.Repeat([]byte("n"), 250))+"/"+string(bytes.Repeat([]byte("m"), 250))),
	))
}

func all(t testing.TB, root string) []Change {
	var out []Change
	for _, p := range paths(t, root) {
		out = append(out, Change{Path: p})
	}
	return out
}

// reference is what containerd's writer makes of changes.
func reference(t testing.TB, root string, changes []Change) []byte {
	t.Helper()
	changes = slices.Clone(changes)
	slices.SortFunc(changes, func(a, b Change) int { return ComparePaths(a.Path, b.Path) })
	var b bytes.Buffer
	w := containerd.NewChangeWriter(&b, root)
	for _, c := range changes {
		if c.Delete {
			require.NoError(t, w.HandleChange(cfs.ChangeKindDelete, "/"+c.Path, nil, nil))
			continue
		}
		fi, err := os.Lstat(filepath.Join(root, c.Path))
		require.NoError(t, err)
		require.NoError(t, w.HandleChange(cfs.ChangeKindModify, "/"+c.Path, fi, nil))
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func write(t testing.TB, root string, changes []Change, opts WriteOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, Write(t.Context(), &b, root, changes, opts))
	return b.Bytes()
}

func TestWriteIsContainerdsByteForByte(t *testing.T) {
	root := everything(t)
	require.NoError(t, unix.Mknod(filepath.Join(root, "socket"), unix.S_IFSOCK|0o600, 0))
	for rule, changes := range map[string][]Change{
		"everything":                           all(t, root),
		"a file brings its parents":            {{Path: "d/e/f"}},
		"parents once":                         {{Path: "d/z"}, {Path: "d/e/f"}, {Path: "d/e/suid3"}},
		"whiteouts":                            {{Path: "gone", Delete: true}, {Path: "d/e/gone", Delete: true}, {Path: "d/z"}},
		"a whiteout with a long name":          {{Path: "long/" + string(bytes.Repeat([]byte("n"), 250)) + "/gone", Delete: true}},
		"one of several names is a file":       {{Path: "suid2"}},
		"the first of several names is a file": {{Path: "suid"}, {Path: "suid2"}, {Path: "d/e/suid3"}},
		"a directory without what is below":    {{Path: "d"}},
		"sockets are skipped":                  {{Path: "socket"}, {Path: "suid"}},
		"nothing":                              nil,
	} {
		t.Run(rule, func(t *testing.T) {
			want, got := reference(t, root, changes), write(t, root, changes, WriteOptions{})
			require.Equal(t, list(t, want), list(t, got))
			require.True(t, bytes.Equal(want, got))
		})
	}
}

// list shows a stream.
func list(t testing.TB, stream []byte) []string {
	t.Helper()
	var out []string
	r := tar.NewReader(bytes.NewReader(stream))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		out = append(out, fmt.Sprintf("%c %s -> %s %o %d:%d %d %v %d,%d %v", h.Typeflag, h.Name, h.Linkname, h.Mode, h.Uid, h.Gid, h.Size, h.ModTime.UTC(), h.Devmajor, h.Devminor, h.PAXRecords))
	}
}

func TestWriteOrderAndRepetitionOfChangesDoNotMatter(t *testing.T) {
	root := everything(t)
	changes := all(t, root)
	want := write(t, root, changes, WriteOptions{})
	slices.Reverse(changes)
	require.True(t, bytes.Equal(want, write(t, root, append(changes, changes...), WriteOptions{})))
}

func TestWriteThenApplyIsTheSameTree(t *testing.T) {
	root := everything(t)
	layer := write(t, root, all(t, root), WriteOptions{})
	back := apply(t, ApplyOptions{}, bytes.NewBuffer(layer))
	require.Equal(t, tree(t, root), tree(t, back))
	require.True(t, bytes.Equal(layer, write(t, back, all(t, back), WriteOptions{})))
	require.Equal(t, lstat(t, back, "suid").Ino, lstat(t, back, "d/e/suid3").Ino)
	require.Equal(t, "70000:0", owner(lstat(t, back, "d")))
}

func TestWriteOpaque(t *testing.T) {
	root := everything(t)
	require.Equal(t, []string{"d/", "d/.wh..wh..opq", "d/z"}, names(t, write(t, root, []Change{{Path: "d", Opaque: true}, {Path: "d/z"}}, WriteOptions{})))
	require.Equal(t, []string{"d/", "d/.wh.a"}, names(t, write(t, root, []Change{{Path: "d/a", Delete: true}}, WriteOptions{})))
}

func names(t testing.TB, stream []byte) []string {
	t.Helper()
	var out []string
	r := tar.NewReader(bytes.NewReader(stream))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		out = append(out, h.Name)
	}
}

func TestWriteSums(t *testing.T) {
	root := everything(t)
	require.NoError(t, os.WriteFile(filepath.Join(root, "nothing"), nil, 0o644))
	got := map[string]uint64{}
	write(t, root, []Change{{Path: "d/e/f"}, {Path: "suid"}, {Path: "suid2"}, {Path: "nothing"}, {Path: "l"}}, WriteOptions{Sum: func(p string, s uint64) { got[p] = s }})
	require.Equal(t, map[string]uint64{"d/e/f": xxhash.Sum64String("d/e/f"), "suid": xxhash.Sum64String("suid"), "nothing": xxhash.Sum64(nil)}, got)
}

func TestWriteNeverFollowsALinkOutOfTheTree(t *testing.T) {
	base := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(base, "root"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(base, "out"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(base, "out", "secret"), []byte("secret"), 0o644))
	require.NoError(t, os.Symlink("../out", filepath.Join(base, "root", "l")))
	for _, p := range []string{"l/secret", "../out/secret"} {
		var b bytes.Buffer
		require.Error(t, Write(t.Context(), &b, filepath.Join(base, "root"), []Change{{Path: p}}, WriteOptions{}))
		require.NotContains(t, b.String(), "secret\x00")
	}
}

func TestWriteSparseFilesAreWrittenOutWithConstantMemory(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(root, "big"), nil, 0o644))
	const size = 2 << 30
	require.NoError(t, os.Truncate(filepath.Join(root, "big"), size))
	before := heap()
	var n count
	require.NoError(t, Write(t.Context(), &n, root, []Change{{Path: "big"}}, WriteOptions{}))
	require.Greater(t, int64(n), int64(size))
	require.Less(t, heap()-before, uint64(8<<20), "bytes allocated for a layer of 2 GB")
}

type count int64

func (c *count) Write(p []byte) (int, error) { *c += count(len(p)); return len(p), nil }

func TestWriteStops(t *testing.T) {
	cause := errors.New("signal")
	ctx, cancel := context.WithCancelCause(t.Context())
	root := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(root, "a"), make([]byte, 1<<20), 0o644))
	w := writerFunc(func(p []byte) (int, error) { cancel(cause); return len(p), nil })
	require.ErrorIs(t, Write(ctx, w, root, []Change{{Path: "a"}}, WriteOptions{}), cause)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestComparePaths(t *testing.T) {
	want := []string{"a", "a/b", "a/b/c", "a/c", "a!", "a-b", "a.b", "b"}
	got := slices.Clone(want)
	slices.Sort(got)
	slices.SortFunc(got, ComparePaths)
	require.Equal(t, want, got)
}

func BenchmarkWrite(b *testing.B) {
	root := b.TempDir()
	var changes []Change
	var size int64
	for d := range 100 {
		dir := fmt.Sprintf("d%d", d)
		require.NoError(b, os.Mkdir(filepath.Join(root, dir), 0o755))
		changes = append(changes, Change{Path: dir})
		for f := range 50 {
			p := filepath.Join(dir, fmt.Sprintf("f%d", f))
			require.NoError(b, os.WriteFile(filepath.Join(root, p), make([]byte, 10000), 0o644))
			changes, size = append(changes, Change{Path: p}), size+10000
		}
	}
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, Write(b.Context(), io.Discard, root, changes, WriteOptions{Sum: func(string, uint64) {}}))
	}
}
