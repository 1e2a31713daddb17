package follow_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/follow"
)

func TestReadersFollowAndEndWithTheFile(t *testing.T) {
	at := filepath.Join(t.TempDir(), "f")
	out, err := os.Create(at)
	require.NoError(t, err)
	f := follow.New()
	got := make(chan string, 2)
	for range 2 {
		r, err := f.Open(at)
		require.NoError(t, err)
		go func() {
			data, err := io.ReadAll(r)
			got <- string(data)
			require.NoError(t, errors.Join(err, r.Close(), r.Close()))
		}()
	}
	size := 0
	for _, s := range []string{"one ", "two ", "three"} {
		n, err := out.WriteString(s)
		require.NoError(t, err)
		size += n
		f.Grow(int64(size))
	}
	_, err = out.WriteString(" and what nobody was told of")
	require.NoError(t, err)
	require.NoError(t, os.Rename(at, at+".done"))
	f.End(nil)
	require.Equal(t, "one two three", <-got)
	require.Equal(t, "one two three", <-got)
	r, err := f.Open(at, at+".done")
	require.NoError(t, err)
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "one two three", string(data))
	require.NoError(t, r.Close())
	_, err = f.Open(at)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, out.Close())
}

func TestAReaderEndsWithWhatWentWrong(t *testing.T) {
	at := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(at, []byte("half"), 0o600))
	broken, enough := errors.New("broken"), errors.New("enough")
	f := follow.New()
	f.Grow(4)
	results := map[string]chan error{"broken": make(chan error, 1), "stopped": make(chan error, 1), "closed": make(chan error, 1)}
	readers := map[string]*follow.Reader{}
	for name, c := range results {
		r, err := f.Open(at)
		require.NoError(t, err)
		readers[name] = r
		go func() {
			n, err := io.Copy(io.Discard, r)
			require.LessOrEqual(t, n, int64(4))
			c <- err
		}()
	}
	readers["stopped"].Stop(enough)
	require.ErrorIs(t, <-results["stopped"], enough)
	require.NoError(t, readers["closed"].Close())
	require.ErrorIs(t, <-results["closed"], fs.ErrClosed)
	ended, err := f.Result()
	require.False(t, ended)
	require.NoError(t, err)
	f.End(broken)
	require.ErrorIs(t, <-results["broken"], broken)
	ended, err = f.Result()
	require.True(t, ended)
	require.ErrorIs(t, err, broken)
}
