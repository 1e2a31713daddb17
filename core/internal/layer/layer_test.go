package layer_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/layer"
	"github.com/layerwright/layerwright/core/internal/needs"
)

var old = time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)

func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		h.Format = tar.FormatPAX
		if h.ModTime.IsZero() {
			h.ModTime = old
		}
		data := ""
		if h.Typeflag == tar.TypeReg {
			data = h.Linkname
			h.Linkname, h.Size = "", int64(len(data))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		require.NoError(t, w.WriteHeader(&h))
		_, err := w.Write([]byte(data))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return buf.Bytes()
}

func file(name, data string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: data}
}
func dir(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name} }
func link(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
}
func hard(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
}

func apply(t testing.TB, root string, opts layer.ApplyOptions, headers ...tar.Header) error {
	t.Helper()
	return layer.Apply(t.Context(), root, bytes.NewReader(archive(t, headers...)), opts)
}

func read(t *testing.T, parts ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	require.NoError(t, err)
	return string(b)
}

func TestEntriesThatTryToLeaveTheRoot(t *testing.T) {
	needs.Root(t)
	cases := map[string][]tar.Header{
		"dots in a name":                  {file("../escaped", "x")},
		"dots in the middle":              {file("a/../../escaped", "x")},
		"hardlink to the outside":         {hard("h", "../secret")},
		"link, then a file through it":    {link("l", "../"), file("l/escaped", "x")},
		"absolute link, then through it":  {link("l", "/"), file("l/escaped-abs", "x")},
		"link chain":                      {link("a", "b"), link("b", ".."), file("a/escaped", "x")},
		"hardlink through a link":         {link("l", ".."), hard("h", "l/secret")},
		"directory through a link":        {link("l", ".."), dir("l/escaped/")},
		"whiteout through a link":         {link("l", ".."), file("l/.wh.secret", "")},
		"opaque marker through a link":    {link("l", ".."), file("l/.wh..wh..opq", "")},
		"whiteout of the parent":          {file(".wh...", "")},
		"replacing a file through a link": {link("l", "../secret"), file("l", "x")},
	}
	for name, headers := range cases {
		t.Run(name, func(t *testing.T) {
			outer := t.TempDir()
			root := filepath.Join(outer, "root")
			require.NoError(t, os.Mkdir(root, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(outer, "secret"), []byte("s"), 0o600))
			err := apply(t, root, layer.ApplyOptions{}, headers...)
			if err != nil && errors.Is(err, layer.ErrEscape) {
				e, ok := fault.As(err)
				require.True(t, ok)
				require.Equal(t, fault.Registry, e.Kind)
				require.NotEmpty(t, e.Remedy)
			}
			entries, err := os.ReadDir(outer)
			require.NoError(t, err)
			require.Len(t, entries, 2, "nothing new outside")
			require.Equal(t, "s", read(t, outer, "secret"))
			require.NoFileExists(t, "/escaped-abs")
			if fi, err := os.Lstat(filepath.Join(root, "h")); err == nil {
				var a, b unix.Stat_t
				require.NoError(t, unix.Lstat(filepath.Join(root, "h"), &a))
				require.NoError(t, unix.Lstat(filepath.Join(outer, "secret"), &b))
				require.NotEqual(t, a.Ino, b.Ino, fi.Name())
			}
		})
	}
}

func TestAttributesAreExact(t *testing.T) {
	needs.Root(t)
	root := t.TempDir()
	h := file("su", "x")
	h.Mode, h.Uid, h.Gid, h.ModTime = 0o6751, 123456, 654321, old.Add(123456789)
	d := dir("d/")
	d.Mode, d.Uid, d.Gid = 0o1770, 7, 8
	xattr := file("x", "x")
	xattr.PAXRecords = map[string]string{"SCHILY.xattr.user.colour": "blue"}
	capable := file("c", "x")
	capable.Uid = 9
	capable.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	require.NoError(t, apply(t, root, layer.ApplyOptions{}, d, file("d/later", "y"), h, xattr, capable,
		tar.Header{Typeflag: tar.TypeFifo, Name: "p", Mode: 0o600}, tar.Header{Typeflag: tar.TypeChar, Name: "n", Devmajor: 1, Devminor: 3, Mode: 0o666}, link("l", "su")))
	var st unix.Stat_t
	require.NoError(t, unix.Lstat(root+"/su", &st))
	require.Equal(t, uint32(unix.S_IFREG|0o6751), st.Mode)
	require.Equal(t, []uint32{123456, 654321}, []uint32{st.Uid, st.Gid})
	require.Equal(t, old.Add(123456789).UnixNano(), st.Mtim.Nano())
	require.NoError(t, unix.Lstat(root+"/d", &st))
	require.Equal(t, uint32(unix.S_IFDIR|0o1770), st.Mode)
	require.Equal(t, old.UnixNano(), st.Mtim.Nano(), "what came later did not move the directory's time")
	require.NoError(t, unix.Lstat(root+"/n", &st))
	require.Equal(t, unix.Mkdev(1, 3), st.Rdev)
	require.NoError(t, unix.Lstat(root+"/p", &st))
	require.Equal(t, uint32(unix.S_IFIFO|0o600), st.Mode)
	require.NoError(t, unix.Lstat(root+"/l", &st))
	require.Equal(t, old.UnixNano(), st.Mtim.Nano())
	buf := make([]byte, 64)
	n, err := unix.Lgetxattr(root+"/x", "user.colour", buf)
	require.NoError(t, err)
	require.Equal(t, "blue", string(buf[:n]))
	_, err = unix.Lgetxattr(root+"/c", "security.capability", buf)
	require.NoError(t, err, "capabilities survive the change of owner")
}

func TestWhiteouts(t *testing.T) {
	needs.Root(t)
	root := t.TempDir()
	require.NoError(t, apply(t, root, layer.ApplyOptions{}, dir("d/"), file("d/a", "1"), file("d/b", "1"), dir("o/"), file("o/x", "1"), dir("o/s/"), file("o/s/y", "1"), file("gone", "1")))
	// The opaque marker comes after an entry of its own layer: that one stays.
	require.NoError(t, apply(t, root, layer.ApplyOptions{}, file("d/.wh.a", ""), file(".wh.gone", ""), file(".wh.never-there", ""), dir("o/"), dir("o/s/"), file("o/s/new", "2"), file("o/.wh..wh..opq", "")))
	require.NoFileExists(t, root+"/d/a")
	require.FileExists(t, root+"/d/b")
	require.NoFileExists(t, root+"/gone")
	require.NoFileExists(t, root+"/o/x")
	require.NoFileExists(t, root+"/o/s/y")
	require.Equal(t, "2", read(t, root, "o/s/new"))
	require.NoFileExists(t, root+"/.wh.gone")
}

func TestOneKindReplacesAnother(t *testing.T) {
	needs.Root(t)
	root := t.TempDir()
	require.NoError(t, apply(t, root, layer.ApplyOptions{}, dir("d/"), file("d/in", "1"), file("f", "1"), link("l", "f")))
	require.NoError(t, apply(t, root, layer.ApplyOptions{}, file("d", "2"), dir("f/"), file("f/in", "2"), file("l", "2")))
	require.Equal(t, "2", read(t, root, "d"))
	require.Equal(t, "2", read(t, root, "f/in"))
	require.Equal(t, "2", read(t, root, "l"))
}

func TestLiteralNames(t *testing.T) {
	needs.Root(t)
	root := t.TempDir()
	require.NoError(t, apply(t, root, layer.ApplyOptions{Literal: true, Owner: &layer.Owner{UID: 3, GID: 4}}, file(".wh.a", "1")))
	require.Equal(t, "1", read(t, root, ".wh.a"))
	var st unix.Stat_t
	require.NoError(t, unix.Lstat(root+"/.wh.a", &st))
	require.Equal(t, []uint32{3, 4}, []uint32{st.Uid, st.Gid})
}

func TestATruncatedLayerIsAnError(t *testing.T) {
	needs.Root(t)
	data := archive(t, file("a", strings.Repeat("x", 5000)))
	require.Error(t, layer.Apply(t.Context(), t.TempDir(), bytes.NewReader(data[:2000]), layer.ApplyOptions{}))
}

// TestRoundTrip: what is written and applied again is what was there.
func TestRoundTrip(t *testing.T) {
	needs.Root(t)
	from, to := t.TempDir(), t.TempDir()
	long := strings.Repeat(strings.Repeat("d", 240)+"/", 15) + strings.Repeat("f", 240)
	require.NoError(t, os.MkdirAll(filepath.Join(from, filepath.Dir(long)), 0o755))
	paths := []string{"däh", "ä b\n", "hard", "su", long}
	for _, p := range paths {
		require.NoError(t, os.WriteFile(filepath.Join(from, p), []byte(p), 0o644))
	}
	require.NoError(t, os.Link(from+"/hard", from+"/zz"))
	require.NoError(t, os.Chmod(from+"/su", os.ModeSetuid|0o755))
	require.NoError(t, os.Truncate(from+"/däh", 1<<20))
	require.NoError(t, unix.Mknod(from+"/sock", unix.S_IFSOCK|0o600, 0))
	var changes []layer.Change
	for _, p := range append(paths, "zz", "sock") {
		changes = append(changes, layer.Change{Path: p})
	}
	changes = append(changes, layer.Change{Path: "removed", Delete: true})
	var one, two bytes.Buffer
	require.NoError(t, layer.Write(t.Context(), &one, from, changes, layer.WriteOptions{}))
	require.NoError(t, layer.Write(t.Context(), &two, from, changes, layer.WriteOptions{}))
	require.Equal(t, one.Bytes(), two.Bytes(), "the same tree gives the same bytes")
	require.NoError(t, layer.Apply(t.Context(), to, &one, layer.ApplyOptions{}))
	require.Equal(t, long, read(t, to, long))
	fi, err := os.Stat(to + "/däh")
	require.NoError(t, err)
	require.EqualValues(t, 1<<20, fi.Size())
	fi, err = os.Stat(to + "/su")
	require.NoError(t, err)
	require.NotZero(t, fi.Mode()&os.ModeSetuid)
	var a, b unix.Stat_t
	require.NoError(t, unix.Lstat(to+"/hard", &a))
	require.NoError(t, unix.Lstat(to+"/zz", &b))
	require.Equal(t, a.Ino, b.Ino)
	require.NoFileExists(t, to+"/sock")
}

func TestPathsAreOrderedAsAWalkMeetsThem(t *testing.T) {
	require.Negative(t, layer.ComparePaths("a", "a/b"))
	require.Negative(t, layer.ComparePaths("a/b", "a.b"))
	require.Negative(t, layer.ComparePaths("a/z", "b"))
	require.Positive(t, layer.ComparePaths("b", "a/z"))
	require.Zero(t, layer.ComparePaths("a/b", "a/b"))
}

// FuzzApply: whatever a stream says, nothing outside of the root changes.
func FuzzApply(f *testing.F) {
	for _, seed := range [][]tar.Header{
		{link("l", ".."), file("l/x", "x")}, {hard("h", "../s"), file("../x", "")}, {dir("d/"), file("d/.wh..wh..opq", "")},
		{link("a", "b/../.."), dir("a/x/"), file(".wh.a", "")},
	} {
		f.Add(archive(f, seed...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		outer := t.TempDir()
		root := filepath.Join(outer, "root")
		require.NoError(t, os.Mkdir(root, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(outer, "s"), []byte("s"), 0o600))
		_ = layer.Apply(t.Context(), root, io.LimitReader(bytes.NewReader(data), 1<<20), layer.ApplyOptions{Observe: func(layer.Observed) {}})
		entries, err := os.ReadDir(outer)
		require.NoError(t, err)
		require.Len(t, entries, 2)
		b, err := os.ReadFile(filepath.Join(outer, "s"))
		require.NoError(t, err)
		require.Equal(t, "s", string(b))
	})
}

func BenchmarkApply(b *testing.B) {
	needs.Root(b)
	var headers []tar.Header
	for i := range 2000 {
		if i%100 == 0 {
			headers = append(headers, dir(fmt.Sprintf("d%d/", i/100)))
		}
		headers = append(headers, file(fmt.Sprintf("d%d/f%d", i/100, i), strings.Repeat("x", 4000)))
	}
	data := archive(b, headers...)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		dir, err := os.MkdirTemp(b.TempDir(), "")
		require.NoError(b, err)
		require.NoError(b, layer.Apply(b.Context(), dir, bytes.NewReader(data), layer.ApplyOptions{Observe: func(layer.Observed) {}}))
	}
}
