package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// when is a time with a part of a second.
var when = time.Unix(1700000000, 123456789)

func dir(name string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: when, Uid: os.Geteuid(), Gid: os.Getegid()}
}

func file(name string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, ModTime: when, Uid: os.Geteuid(), Gid: os.Getegid()}
}

func symlink(name, target string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777, ModTime: when, Uid: os.Geteuid(), Gid: os.Getegid()}
}

func hardlink(name, target string) *tar.Header {
	h := file(name)
	h.Typeflag, h.Linkname = tar.TypeLink, target
	return h
}

// with changes a header.
func with(h *tar.Header, f func(*tar.Header)) *tar.Header {
	f(h)
	return h
}

func xattr(key, value string) func(*tar.Header) {
	return func(h *tar.Header) { h.PAXRecords = map[string]string{xattrPrefix + key: value} }
}

// archive makes a stream; a regular file's content is its name.
func archive(t testing.TB, headers ...*tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h := *h
		h.Format = tar.FormatPAX
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		require.NoError(t, w.WriteHeader(&h))
		if h.Typeflag == tar.TypeReg {
			_, err := w.Write([]byte(h.Name))
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	return &b
}

// apply unpacks layers onto each other and gives the tree.
func apply(t testing.TB, opts ApplyOptions, layers ...*bytes.Buffer) string {
	t.Helper()
	root := t.TempDir()
	for _, l := range layers {
		require.NoError(t, Apply(t.Context(), root, l, opts))
	}
	return root
}

// tree lists everything below root: path and, in a word, what it is.
func tree(t testing.TB, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		rel := p[len(root)+1:]
		switch {
		case d.IsDir():
			out[rel] = "dir"
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			out[rel] = "-> " + target
			return err
		case d.Type().IsRegular():
			b, err := os.ReadFile(p)
			out[rel] = string(b)
			return err
		default:
			out[rel] = d.Type().String()
		}
		return nil
	}))
	return out
}

func paths(t testing.TB, root string) []string {
	return slices.Sorted(maps.Keys(tree(t, root)))
}

func lstat(t testing.TB, elem ...string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, unix.Lstat(filepath.Join(elem...), &st))
	return st
}

func owner(st unix.Stat_t) string { return fmt.Sprintf("%d:%d", st.Uid, st.Gid) }

// heap is how many bytes were ever allocated.
func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
