package fileop_test

import (
	"archive/tar"
	"bytes"
	"os"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/moby/buildkit/solver/pb"
)

// What buildkitd 0.34 makes of the same archives.
func TestAddOntoWhatIsThere(t *testing.T) {
	dir := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name} }
	reg := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: "new"} }
	for rule, c := range map[string]struct {
		dest    string
		archive []tar.Header
		check   func(t *testing.T, x trees)
		err     error
	}{
		"a link in a parent's place is followed": {"/", []tar.Header{reg("link/x")}, func(t *testing.T, x trees) {
			require.Equal(t, "new", x.read(t, "real/x"))
			to, err := os.Readlink(x.root + "/link")
			require.NoError(t, err)
			require.Equal(t, "real", to)
		}, nil},
		"a listed directory replaces a link": {"/", []tar.Header{dir("link/"), reg("link/x")}, func(t *testing.T, x trees) {
			fi, err := os.Lstat(x.root + "/link")
			require.NoError(t, err)
			require.True(t, fi.IsDir())
			require.NoFileExists(t, x.root+"/real/x")
		}, nil},
		"a destination that is a link is followed": {"/link", []tar.Header{reg("x")}, func(t *testing.T, x trees) {
			require.Equal(t, "new", x.read(t, "real/x"))
		}, nil},
		"absolute names are below the destination": {"/d", []tar.Header{reg("/sub/x")}, func(t *testing.T, x trees) {
			require.Equal(t, "new", x.read(t, "d/sub/x"))
		}, nil},
		"the archive's own root says nothing about the destination": {"/d", []tar.Header{dir("./"), reg("./one")}, func(t *testing.T, x trees) {
			require.Equal(t, "755 0:0", x.stat(t, "d"))
			require.Equal(t, "new", x.read(t, "d/one"))
			require.Equal(t, "keep", x.read(t, "d/keep"))
		}, nil},
		"directories that are not listed are root's": {"/d", []tar.Header{reg("imp/x")}, func(t *testing.T, x trees) {
			require.Equal(t, "755 0:0", x.stat(t, "d/imp"))
			require.Equal(t, "640 12:34", x.stat(t, "d/imp/x"))
		}, nil},
		"a file in a parent's place is an error": {"/d", []tar.Header{reg("one/x")}, nil, unix.ENOTDIR},
	} {
		t.Run(rule, func(t *testing.T) {
			x := newTrees(t)
			require.NoError(t, os.WriteFile(x.src+"/archive", tarball(t, c.archive...), 0o644))
			_, err := x.do(t, add("/archive", c.dest))
			require.ErrorIs(t, err, c.err)
			if c.check != nil {
				c.check(t, x)
			}
		})
	}
}

func TestAddChown(t *testing.T) {
	x := newTrees(t)
	require.NoError(t, os.WriteFile(x.src+"/archive", tarball(t, tar.Header{Typeflag: tar.TypeDir, Name: "d/"}, tar.Header{Typeflag: tar.TypeReg, Name: "imp/x"}), 0o644))
	_, err := x.do(t, cp("/archive", "/t/", func(c *pb.FileActionCopy) {
		c.AttemptUnpackDockerCompatibility, c.Owner = true, byName("app", "staff")
	}))
	require.NoError(t, err)
	require.Equal(t, "755 1000:50", x.stat(t, "t"))
	require.Equal(t, "640 1000:50", x.stat(t, "t/d"))
	require.Equal(t, "640 1000:50", x.stat(t, "t/imp/x"))
	require.Equal(t, "755 0:0", x.stat(t, "t/imp"), "as in BuildKit")
}

func TestAddUnpacksZstdThatBeginsWithASkippableFrame(t *testing.T) {
	x := newTrees(t)
	w, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0}, "skip"...)
	data := bytes.Join([][]byte{skippable, w.EncodeAll(tarball(t, tar.Header{Typeflag: tar.TypeReg, Name: "one", Linkname: "1"}), nil)}, nil)
	require.NoError(t, os.WriteFile(x.src+"/archive", data, 0o644))
	_, err = x.do(t, add("/archive", "/t/"))
	require.NoError(t, err)
	require.Equal(t, "1", x.read(t, "t/one"))
}
