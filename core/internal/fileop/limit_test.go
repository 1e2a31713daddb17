package fileop_test

import (
	"archive/tar"
	"bytes"
	"os"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/fileop"
	"github.com/layerwright/layerwright/core/internal/room"
)

// A small archive that is large when it is unpacked.
func TestAnArchiveBombIsRefusedBeforeItWritesMuch(t *testing.T) {
	x := newTrees(t)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	zeros := make([]byte, 1<<20)
	for _, name := range []string{"a", "b", "c", "d"} {
		require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(zeros)), Mode: 0o644}))
		_, err := w.Write(zeros)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	require.NoError(t, os.WriteFile(x.src+"/archive", b.Bytes(), 0o600))
	for limit, kind := range map[room.Limit]fault.Kind{{Bytes: 5 << 19}: fault.User, {Bytes: 5 << 19, Disk: true}: fault.Environment} {
		_, err := fileop.Run(t.Context(), fileop.Op{Root: x.root, Source: x.src, Action: add("/archive", "/t/"), Limit: limit})
		e, ok := fault.As(err)
		require.True(t, ok, "%v", err)
		require.Equal(t, kind, e.Kind)
		require.ErrorContains(t, err, "2.5 MiB")
		require.FileExists(t, x.root+"/t/b")
		require.NoFileExists(t, x.root+"/t/c")
	}
	_, err := fileop.Run(t.Context(), fileop.Op{Root: x.root, Source: x.src, Action: add("/archive", "/t/"), Limit: room.Limit{Bytes: 4 << 20}})
	require.NoError(t, err)
}

// The header alone is enough to refuse: a sparse file's size costs no bytes.
func TestASizeBeyondTheLimitIsNotWaitedFor(t *testing.T) {
	x := newTrees(t)
	var b bytes.Buffer
	require.NoError(t, tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "huge", Size: 1 << 50, Mode: 0o644}))
	require.NoError(t, os.WriteFile(x.src+"/archive", b.Bytes(), 0o600))
	_, err := x.do(t, add("/archive", "/t/"))
	require.ErrorContains(t, err, "has more than")
	require.NoFileExists(t, x.root+"/t/huge")
}

func TestADamagedArchiveSaysSo(t *testing.T) {
	x := newTrees(t)
	data := tarball(t, tar.Header{Typeflag: tar.TypeReg, Name: "one", Linkname: "1"})
	require.NoError(t, os.WriteFile(x.src+"/archive", data[:512], 0o600))
	_, err := x.do(t, add("/archive", "/t/"))
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.User, e.Kind)
	require.Contains(t, e.Remedy, "damaged")
}
