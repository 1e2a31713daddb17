package sandbox

import (
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// TryNetworkNone finds out, by really doing it, whether steps can have a network
// of their own (NetworkNone): it is to be refused before any step of a build
// runs.
func TryNetworkNone() error {
	got := make(chan error, 1)
	go func() {
		// The thread has another network afterwards: it is not unlocked, so
		// it ends with this goroutine.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = loopbackUp()
		}
		got <- err
	}()
	if err := <-got; err != nil {
		return fault.New(fault.Environment, "RUN --network=none: a network namespace is refused here: %w", err).
			With("Leave out --network=none, or give the build's container CAP_SYS_ADMIN and CAP_NET_ADMIN.")
	}
	return nil
}
