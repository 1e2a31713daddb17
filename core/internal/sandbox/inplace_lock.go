package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// inplaceDir is where everything about exchanging "/" is kept in a store.
func inplaceDir(store string) string { return filepath.Join(store, "inplace") }

func journalPath(store string) string { return filepath.Join(inplaceDir(store), "journal") }

// lockFile waits for the lock on "/". Closing the file gives it back. It is not
// inherited by steps.
func lockFile(store string, how int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(inplaceDir(store), "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock /: %w", err)
		}
	}
}

// Outside runs f while "/" is the job's own: it waits until no step of any build
// holds it, and no step starts before f returns. Several may run at once. f must
// not run a step.
func Outside(store string, f func() error) error {
	if !exists(inplaceDir(store)) {
		return f() // nobody exchanges /
	}
	for {
		lock, err := lockFile(store, unix.LOCK_SH)
		if err != nil {
			return err
		}
		if !exists(journalPath(store)) {
			err := f()
			return errors.Join(err, lock.Close())
		}
		// A supervisor has died.
		if err := errors.Join(lock.Close(), Repair(store)); err != nil {
			return err
		}
	}
}

// Repair puts "/" back where a supervisor was killed, after it has ended what is
// left of its step. While another build's step holds "/" it waits. To be called
// at every start, before anything else touches a path outside the store; it does
// nothing where the store has never been used for isolation inplace.
func Repair(store string) error {
	if !exists(inplaceDir(store)) {
		return nil
	}
	lock, err := lockFile(store, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer lock.Close()
	return repairLocked(store, "/")
}

func repairLocked(store, root string) error {
	j, records, err := openJournal(journalPath(store))
	if err != nil {
		return repairFault(err)
	}
	if j == nil {
		return nil
	}
	if len(records) == 0 { // nothing was begun
		return j.remove()
	}
	x := resumeExchange(j, records, realOps(root))
	x.forgetLife(currentLife())
	endProcesses(x.Processes, x.Life.MountNS)
	if err := errors.Join(finishExchange(x)); err != nil {
		return repairFault(err)
	}
	if x.Scratch == "" {
		return nil
	}
	return recoverPlacement(x.Scratch)
}

func repairFault(err error) error {
	return fault.Wrap(fault.Environment, err, "put / back after a build that was killed")
}

// endProcesses ends the processes that are named, and everything that their step
// has left. Its processes are known by their bounding set, which lacks
// CAP_SETPCAP for good, and by having "/" of that mount namespace as their root:
// only one step at a time has, and it is the one whose supervisor is dead.
func endProcesses(refs []processRef, mountNS string) {
	since := ^uint64(0)
	for _, r := range refs {
		since = min(since, r.Start)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		left := false
		for _, r := range append(stepProcesses(since, mountNS), refs...) {
			if now, ok := refProcess(r.PID); ok && now == r && r.PID != os.Getpid() {
				left = true
				_ = unix.Kill(r.PID, unix.SIGKILL)
			}
		}
		if !left {
			return
		}
	}
}

// stepProcesses are those of steps in place that have been started at or after
// since, in a mount namespace: other containers' can be in sight where the PID
// namespace is shared, and their roots read "/" too.
func stepProcesses(since uint64, mountNS string) []processRef {
	own, ok := boundingSet("self")
	if !ok || own&(1<<unix.CAP_SETPCAP) == 0 {
		return nil // ours lacks it too: nothing tells them apart
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var list []processRef
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		set, ok := boundingSet(e.Name())
		if !ok || set&(1<<unix.CAP_SETPCAP) != 0 {
			continue
		}
		if root, err := os.Readlink("/proc/" + e.Name() + "/root"); err != nil || root != "/" {
			continue
		}
		if ns, err := os.Readlink("/proc/" + e.Name() + "/ns/mnt"); err != nil || ns != mountNS {
			continue
		}
		if ref, ok := refProcess(pid); ok && ref.Start >= since {
			list = append(list, ref)
		}
	}
	return list
}

func boundingSet(pid string) (uint64, bool) {
	data, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return set, err == nil
		}
	}
	return 0, false
}

// realOps work on the filesystem.
func realOps(root string) exchangeOps {
	return exchangeOps{
		rename: os.Rename,
		mounts: func() ([]mountPoint, error) { return mountsBeneath(root) },
		held:   heldDirs(),
	}
}
