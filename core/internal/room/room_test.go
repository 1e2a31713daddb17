package room

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
)

func TestThereIsALimitEverywhere(t *testing.T) {
	l := Of(t.TempDir())
	require.Greater(t, l.Bytes, int64(0))
	require.LessOrEqual(t, l.Bytes, int64(most))
	require.Equal(t, Limit{Bytes: most}, Of("/nowhere at all"))
}

func TestWhoseFaultItIs(t *testing.T) {
	for l, kind := range map[Limit]fault.Kind{{Bytes: 64 << 30}: fault.User, {Bytes: 3 << 20, Disk: true}: fault.Environment} {
		e, ok := fault.As(l.Exceeded("the archive"))
		require.True(t, ok)
		require.Equal(t, kind, e.Kind)
		require.NotEmpty(t, e.Remedy)
	}
	require.ErrorContains(t, Limit{Bytes: 64 << 30}.Exceeded("x"), "more than 64 GiB")
	require.ErrorContains(t, Limit{Bytes: 5, Disk: true}.Exceeded("x"), "more than the 5 bytes that are free")
}
