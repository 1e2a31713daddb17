package commit_test

import (
	"context"
	"errors"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/commit"
)

var random = sync.OnceValue(func() []byte {
	data := make([]byte, 10<<20)
	rand.New(rand.NewSource(7)).Read(data) //nolint:gosec // repeatable
	return data
})

// tar gives a writer of size bytes, the one at changed excepted the same for everybody,
// in writes of odd sizes, and counts how often it is asked.
func tar(size, changed int, asked *atomic.Int32) func(context.Context, io.Writer) error {
	data := slices.Clone(random()[:size])
	if changed >= 0 {
		data[changed]++
	}
	return func(_ context.Context, w io.Writer) error {
		asked.Add(1)
		for rest, n := data, 1; len(rest) > 0; n = n*3%400_001 + 1 {
			k := min(n, len(rest))
			if _, err := w.Write(rest[:k]); err != nil {
				return err
			}
			rest = rest[k:]
		}
		return nil
	}
}

// store makes a layer and says how many growing blobs there were: none for what is
// found to be there.
func store(t *testing.T, w *commit.Writer, write func(context.Context, io.Writer) error) (l v1.Layer, compressed int) {
	t.Helper()
	l, err := w.Layer(t.Context(), write, func(context.Context, *commit.Growing) { compressed++ })
	require.NoError(t, err)
	return l, compressed
}

// sameAsAlone checks a layer against what a writer that knows no others makes.
func sameAsAlone(t *testing.T, l v1.Layer, write func(context.Context, io.Writer) error) {
	t.Helper()
	alone, _ := store(t, commit.New(t.TempDir(), commit.Options{}), write)
	for _, of := range []func(v1.Layer) (v1.Hash, error){v1.Layer.Digest, v1.Layer.DiffID} {
		want, err := of(alone)
		require.NoError(t, err)
		got, err := of(l)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	rc, err := l.Compressed()
	require.NoError(t, err)
	got, _, err := v1.SHA256(rc)
	require.NoError(t, errors.Join(err, rc.Close()))
	want, err := alone.Digest()
	require.NoError(t, err)
	require.Equal(t, want, got, "the bytes")
}

const sharedSize = 9<<20 + 12345

func TestARepeatedLayerIsNotCompressedAgain(t *testing.T) {
	w := commit.New(t.TempDir(), commit.Options{Share: true})
	var asked atomic.Int32
	first, compressed := store(t, w, tar(sharedSize, -1, &asked))
	require.Equal(t, 1, compressed)
	again, compressed := store(t, w, tar(sharedSize, -1, &asked))
	require.Zero(t, compressed)
	require.EqualValues(t, 2, asked.Load(), "each is asked for once")
	require.NotSame(t, first, again, "what is known of one layer is not known of the other")
	sameAsAlone(t, again, tar(sharedSize, -1, &asked))
}

func TestALayerThatOnlySeemsToRepeat(t *testing.T) {
	const size = 2<<20 + 12345
	for name, c := range map[string]struct{ length, changed int }{
		"first byte":     {size, 0},
		"in the middle":  {size, 1<<20 + 5},
		"last byte":      {size, size - 1},
		"longer":         {size + 1, -1},
		"longer, blocks": {3 << 20, -1},
		"shorter":        {size - 1, -1},
		"whole blocks":   {2 << 20, -1},
		"one block":      {1 << 20, -1},
		"small":          {1000, -1},
		"nothing":        {0, -1},
	} {
		t.Run(name, func(t *testing.T) {
			w := commit.New(t.TempDir(), commit.Options{Share: true})
			var asked atomic.Int32
			store(t, w, tar(size, -1, &asked))
			for range 2 {
				l, _ := store(t, w, tar(c.length, c.changed, &asked))
				sameAsAlone(t, l, tar(c.length, c.changed, &asked))
			}
		})
	}
}

func TestEqualLayersAtTheSameTime(t *testing.T) {
	dir := t.TempDir()
	w := commit.New(dir, commit.Options{Share: true})
	var asked, compressed atomic.Int32
	layers := make([]v1.Layer, 4)
	var wg sync.WaitGroup
	for i := range layers {
		wg.Go(func() {
			layers[i], _ = w.Layer(t.Context(), tar(sharedSize, -1, &asked), func(context.Context, *commit.Growing) { compressed.Add(1) })
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, compressed.Load())
	for _, l := range layers {
		require.NotNil(t, l)
		sameAsAlone(t, l, tar(sharedSize, -1, &asked))
	}
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 1)
}

// TestAfterAFailureTheNextOneIsMade: who waits for a layer in the making is not held
// up, nor failed, by what ends that one.
func TestAfterAFailureTheNextOneIsMade(t *testing.T) {
	dir := t.TempDir()
	w := commit.New(dir, commit.Options{Share: true})
	broken, begun, fail := errors.New("the disk is on fire"), make(chan struct{}), make(chan struct{})
	var asked atomic.Int32
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := w.Layer(t.Context(), func(ctx context.Context, to io.Writer) error {
			if err := tar(2<<20, -1, &asked)(ctx, to); err != nil {
				return err
			}
			close(begun)
			<-fail
			return broken
		}, nil)
		require.ErrorIs(t, err, broken)
	})
	<-begun
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the build was cancelled")
	wg.Go(func() {
		_, err := w.Layer(ctx, tar(sharedSize, -1, &asked), nil)
		require.ErrorIs(t, err, gone)
	})
	cancel(gone)
	var l v1.Layer
	wg.Go(func() { l, _ = w.Layer(t.Context(), tar(sharedSize, -1, &asked), nil) })
	close(fail)
	wg.Wait()
	require.NotNil(t, l)
	sameAsAlone(t, l, tar(sharedSize, -1, &asked))
	_, compressed := store(t, w, tar(sharedSize, -1, &asked))
	require.Zero(t, compressed, "the one that was made is known")
	leftovers, err := filepath.Glob(filepath.Join(dir, ".tmp-*"))
	require.NoError(t, err)
	require.Empty(t, leftovers)
}
