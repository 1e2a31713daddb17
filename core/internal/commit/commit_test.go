package commit_test

import (
	"context"
	"errors"
	"io"
	"math/rand"
	"os"
	"runtime"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/commit"
	"github.com/layerwright/layerwright/core/internal/fault"
)

// sample writes bytes that compress a little, the same every time, in writes
// of odd sizes.
func sample(_ context.Context, w io.Writer) error {
	r := rand.New(rand.NewSource(1))
	buf := make([]byte, 77_777)
	for range 100 {
		for i := range buf {
			buf[i] = byte(r.Intn(20))
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

// TestTheSameBytesEverywhere pins the output: another digest means that layers
// of the same content get other digests than before, and that every cache
// misses. Change it only together with CHANGELOG.md.
func TestTheSameBytesEverywhere(t *testing.T) {
	golden := map[commit.Compression]string{
		commit.Gzip: "6036593477873c7a43b18fdbe0c1ce1302e2481da332a277d8b50edaae4fe4be",
		commit.Zstd: "975a02a8ae73af376cf7ec30681f0abe85e148a8c8f96254dd210d5bb228b824",
		commit.None: "40788a2db1f5e4355c03cdff3a983dd809661d5ef69a818cbc8d939531b2e518",
	}
	for c, want := range golden {
		for _, procs := range []int{1, 4} {
			before := runtime.GOMAXPROCS(procs)
			l, err := commit.New(t.TempDir(), commit.Options{Compression: c}).Layer(t.Context(), sample, nil)
			runtime.GOMAXPROCS(before)
			require.NoError(t, err)
			d, err := l.Digest()
			require.NoError(t, err)
			require.Equal(t, want, d.Hex, "compression %d with %d processors", c, procs)
		}
	}
}

func TestALayerIsWhatItSays(t *testing.T) {
	for _, c := range []commit.Compression{commit.Gzip, commit.Zstd, commit.None} {
		l, err := commit.New(t.TempDir(), commit.Options{Compression: c}).Layer(t.Context(), sample, nil)
		require.NoError(t, err)
		for _, x := range []struct {
			open func() (io.ReadCloser, error)
			hash func() (v1.Hash, error)
		}{{l.Compressed, l.Digest}, {l.Uncompressed, l.DiffID}} {
			r, err := x.open()
			require.NoError(t, err)
			got, n, err := v1.SHA256(r)
			require.NoError(t, err)
			require.NoError(t, r.Close())
			want, err := x.hash()
			require.NoError(t, err)
			require.Equal(t, want, got)
			if size, err := l.Size(); want != got {
				require.NoError(t, err)
				require.Equal(t, size, n)
			}
		}
	}
}

func TestMediaTypes(t *testing.T) {
	for _, c := range []struct {
		opts commit.Options
		want types.MediaType
	}{
		{commit.Options{}, types.OCILayer}, {commit.Options{Docker: true}, types.DockerLayer},
		{commit.Options{Compression: commit.Zstd}, types.OCILayerZStd}, {commit.Options{Compression: commit.None}, types.OCIUncompressedLayer},
		{commit.Options{Compression: commit.None, Docker: true}, types.DockerUncompressedLayer},
	} {
		l, err := commit.New(t.TempDir(), c.opts).Layer(t.Context(), sample, nil)
		require.NoError(t, err)
		got, err := l.MediaType()
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
}

func TestAFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	broken := errors.New("broken")
	_, err := commit.New(dir, commit.Options{}).Layer(t.Context(), func(context.Context, io.Writer) error { return broken }, nil)
	require.ErrorIs(t, err, broken)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestAFullDiskIsTheEnvironments(t *testing.T) {
	_, err := commit.New(t.TempDir(), commit.Options{}).Layer(t.Context(), func(context.Context, io.Writer) error { return unix.ENOSPC }, nil)
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.Environment, e.Kind)
	require.NotEmpty(t, e.Remedy)
}

func TestUnknownCompression(t *testing.T) {
	_, err := commit.ParseCompression("lzma")
	require.ErrorContains(t, err, "lzma")
}
