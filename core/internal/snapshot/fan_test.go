package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestFanGivesEveryReaderTheWholeStream(t *testing.T) {
	for _, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, (chunksAhead+3)*chunkSize + 7} {
		data := bytes.Repeat([]byte("0123456789abcde\n"), size/16+1)[:size]
		got := make([][]byte, 3)
		require.NoError(t, fan(t.Context(), iotest.HalfReader(bytes.NewReader(data)), 3, func(_ context.Context, i int, r io.Reader) (err error) {
			got[i], err = io.ReadAll(r)
			return err
		}))
		for i := range got {
			require.True(t, bytes.Equal(data, got[i]), "%d bytes, reader %d", size, i)
		}
	}
}

// A stream that was cut off ends with the error that decompressors give, which is
// also io.ReadFull's for a short end.
func TestFanHandsOnTheErrorOfItsStream(t *testing.T) {
	for _, broken := range []error{io.ErrUnexpectedEOF, errors.New("digest does not match")} {
		r := io.MultiReader(bytes.NewReader(make([]byte, chunkSize/2)), iotest.ErrReader(broken))
		seen := make([]error, 2)
		err := fan(t.Context(), r, 2, func(_ context.Context, i int, r io.Reader) error {
			_, seen[i] = io.Copy(io.Discard, r)
			return nil // even then
		})
		require.ErrorIs(t, err, broken)
	}
}

func TestAFailedReaderEndsTheFan(t *testing.T) {
	full := errors.New("disk full")
	err := fan(t.Context(), zeros{}, 2, func(_ context.Context, i int, r io.Reader) error {
		if i == 1 {
			return full
		}
		_, err := io.Copy(io.Discard, r)
		return fmt.Errorf("reader 0: %w", err)
	})
	require.ErrorIs(t, err, full)
}

func TestAFanEndsWithItsContext(t *testing.T) {
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	err := fan(ctx, zeros{}, 2, func(_ context.Context, _ int, r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	})
	require.ErrorIs(t, err, stop)
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
