package ops

import (
	"context"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/sandbox"
)

// TestADeviceThatIsNotRequiredIsLeftOut, as with BuildKit where no such device
// is registered.
func TestADeviceThatIsNotRequiredIsLeftOut(t *testing.T) {
	ran := 0
	r := newRig(t, &toySandbox{run: func(context.Context, sandbox.Step) error {
		ran++
		return nil
	}})
	device := &pb.CDIDevice{Name: "vendor.test/gpu=1", Optional: true}
	require.NoError(t, r.solve(t, r.exec(&pb.ExecOp{CdiDevices: []*pb.CDIDevice{device}, Mounts: []*pb.Mount{rootMount()}}, r.base())))
	require.Equal(t, 1, ran)
	require.Len(t, r.notices(), 1)
	require.Contains(t, r.notices()[0], `device "vendor.test/gpu=1" is not registered`)
}
