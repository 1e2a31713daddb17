package ops

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/sandbox"
)

// keeper remembers which cache mounts it was to keep.
type keeper struct{ saved []string }

func (k *keeper) Restore(context.Context, string, string, string) bool { return false }
func (k *keeper) Adopt(context.Context, string, string)                {}
func (k *keeper) Save(_ context.Context, id, _, _ string)              { k.saved = append(k.saved, id) }

// TestACacheMountThatAnotherBuildHoldsIsNotSavedInSilence.
func TestACacheMountThatAnotherBuildHoldsIsNotSavedInSilence(t *testing.T) {
	r := newRig(t, &toySandbox{run: func(context.Context, sandbox.Step) error { return nil }})
	kept := &keeper{}
	r.CacheMounts, r.lockPatience = kept, 50*time.Millisecond
	mount := &pb.Mount{Dest: "/kept", MountType: pb.MountType_CACHE, Input: -1, Output: -1, CacheOpt: &pb.CacheOpt{ID: "one"}}
	require.NoError(t, r.solve(t, r.exec(&pb.ExecOp{Mounts: []*pb.Mount{rootMount(), mount}}, r.base())))
	locks, err := filepath.Glob(filepath.Join(r.Caches, "*.lock"))
	require.NoError(t, err)
	require.Len(t, locks, 1)
	other, err := os.Open(locks[0])
	require.NoError(t, err)
	require.NoError(t, unix.Flock(int(other.Fd()), unix.LOCK_SH), "another build's step, which shares the mount")

	r.SaveCaches(t.Context())
	require.Empty(t, kept.saved)
	require.Len(t, r.notices(), 1)
	require.Contains(t, r.notices()[0], "cache mount /kept is not saved by this build")

	require.NoError(t, other.Close())
	r.SaveCaches(t.Context())
	require.Len(t, kept.saved, 1)
	require.Len(t, r.notices(), 1)
}
