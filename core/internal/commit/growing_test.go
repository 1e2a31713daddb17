package commit_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/commit"
)

// large writes 20 MiB that cannot be compressed; at half of it halfway is called.
func large(halfway func() error) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		r := rand.New(rand.NewSource(1)) //nolint:gosec // repeatable
		buf := make([]byte, 1<<20)
		for i := range 20 {
			if i == 14 {
				if err := halfway(); err != nil {
					return err
				}
			}
			r.Read(buf)
			if _, err := w.Write(buf); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestABlobIsReadWhileItGrows(t *testing.T) {
	type reading struct {
		hash v1.Hash
		err  error
	}
	got, begun := make(chan reading, 1), make(chan struct{})
	heads := map[string]bool{}
	for range 2 {
		told := 0
		l, err := commit.New(t.TempDir(), commit.Options{}).Layer(t.Context(), large(func() error { <-begun; return nil }), func(ctx context.Context, g *commit.Growing) {
			told++
			heads[g.Head()] = true
			_, complete := g.Digest()
			require.False(t, complete)
			rc, err := g.Open(ctx)
			require.NoError(t, err)
			go func() {
				buf := make([]byte, 1)
				_, err := io.ReadFull(rc, buf)
				select {
				case <-begun:
				default:
					close(begun) // some of it is there before all of it is
				}
				all, _, rerr := v1.SHA256(io.MultiReader(bytes.NewReader(buf), rc))
				got <- reading{all, errors.Join(err, rerr, rc.Close())}
			}()
		})
		require.NoError(t, err)
		want, err := l.Digest()
		require.NoError(t, err)
		r := <-got
		require.NoError(t, r.err)
		require.Equal(t, want, r.hash)
		require.Equal(t, 1, told)
	}
	require.Len(t, heads, 1, "the same bytes have the same head")
}

func TestAReaderLearnsThatABlobIsNotComing(t *testing.T) {
	broken := errors.New("broken")
	got := make(chan error, 1)
	_, err := commit.New(t.TempDir(), commit.Options{}).Layer(t.Context(), large(func() error { return broken }), func(ctx context.Context, g *commit.Growing) {
		rc, err := g.Open(ctx)
		require.NoError(t, err)
		go func() {
			_, err := io.Copy(io.Discard, rc)
			got <- errors.Join(err, rc.Close())
		}()
	})
	require.ErrorIs(t, err, broken)
	require.ErrorIs(t, <-got, broken)
}

func TestAReaderEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	got, read := make(chan error, 1), make(chan struct{})
	_, err := commit.New(t.TempDir(), commit.Options{}).Layer(t.Context(), large(func() error { cancel(); <-read; return nil }), func(_ context.Context, g *commit.Growing) {
		rc, err := g.Open(ctx)
		require.NoError(t, err)
		go func() {
			_, err := io.Copy(io.Discard, rc)
			got <- errors.Join(err, rc.Close())
			close(read)
		}()
	})
	require.NoError(t, err)
	require.ErrorIs(t, <-got, context.Canceled)
}

func TestASmallBlobIsNotWorthIt(t *testing.T) {
	_, err := commit.New(t.TempDir(), commit.Options{}).Layer(t.Context(), sample, func(context.Context, *commit.Growing) { t.Error("told") })
	require.NoError(t, err)
}
