package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// Prepare implements Sandbox. Directories of the container's own image, which
// overlayfs cannot rename, are made anew, once in a container: it is not done
// before a step is to run, since it costs seconds where the image is large. It
// waits until the builds have ended that hold handles on such directories.
func (s *inplace) Prepare(ctx context.Context, reopen func() error) error {
	if s.handles == nil {
		return nil
	}
	// Ours are opened anew, so others need not wait for us: two that prepare
	// would wait for each other.
	if err := s.handles.Close(); err != nil {
		return fmt.Errorf("unlock handles: %w", err)
	}
	s.handles = nil
	lock, err := s.handlesLock(ctx, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := s.lift(); err != nil {
		return err
	}
	return Outside(s.opts.Store, reopen)
}

// handlesLock waits for the lock on the directories of the container's image.
func (s *inplace) handlesLock(ctx context.Context, how int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(inplaceDir(s.opts.Store), "handles"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	patience := time.AfterFunc(time.Second, func() {
		s.opts.Notice("waiting for another build in this container (isolation inplace)")
	})
	defer patience.Stop()
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock handles: %w", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for /: %w", context.Cause(ctx)), f.Close())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lift sets every entry aside and back once, one after the other, so that the
// directories of the container's image are made anew.
func (s *inplace) lift() (err error) {
	lock, err := lockFile(s.opts.Store, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := repairLocked(s.opts.Store, "/"); err != nil {
		return err
	}
	// Now that "/" is the job's own.
	if !s.opts.Force {
		if err := checkDisposable(); err != nil {
			return err
		}
	}
	s.resolv = readResolv("/etc/resolv.conf")
	x, err := beginWithoutTree(s.opts.Store, s.keep, s.opts.Force)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, finishExchange(x)) }()
	mounts, err := x.ops.mounts()
	if err != nil {
		return err
	}
	own, err := readAttrs(x.Root)
	if err != nil {
		return err
	}
	if err := x.note(journalRecord{Merge: &mergedDir{Own: own}}); err != nil {
		return err
	}
	entries, err := os.ReadDir(x.Root)
	if err != nil {
		return fmt.Errorf("read directory: %w", err)
	}
	for _, e := range entries {
		if _, err := x.setAside(e.Name(), e, mounts); err != nil {
			return fault.Wrap(fault.Environment, err, "exchange /")
		}
		if exists(in(x.Aside, e.Name())) {
			if err := x.restoreEntry(e.Name(), e); err != nil {
				return fault.Wrap(fault.Environment, err, "exchange /")
			}
		}
	}
	return nil
}
