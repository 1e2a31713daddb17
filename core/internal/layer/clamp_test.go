package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestClampOnlyCutsLaterTimes(t *testing.T) {
	root := everything(t)
	at := func(latest time.Time) []byte {
		var b bytes.Buffer
		c := Clamp(&b, latest)
		require.NoError(t, Write(t.Context(), c, root, all(t, root), WriteOptions{}))
		require.NoError(t, c.Close())
		return b.Bytes()
	}
	plain := write(t, root, all(t, root), WriteOptions{})
	require.True(t, bytes.Equal(plain, at(time.Now().Add(time.Hour))), "nothing is later: the same bytes")
	latest := time.Unix(5, 0)
	r := tar.NewReader(bytes.NewReader(at(latest)))
	n := 0
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.False(t, h.ModTime.After(latest), h.Name)
		n++
	}
	require.Len(t, names(t, plain), n)
}

func TestClampHandsOnErrors(t *testing.T) {
	cause := errors.New("disk")
	root := everything(t)
	c := Clamp(writerFunc(func([]byte) (int, error) { return 0, cause }), time.Unix(0, 0))
	require.ErrorIs(t, Write(t.Context(), c, root, all(t, root), WriteOptions{}), cause)
	require.ErrorIs(t, c.Close(), cause)
}
