package core

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// workdir is one build's own directory in the store, locked while it runs.
type workdir struct {
	dir  string
	lock *os.File
}

// newWorkdir makes a build's directory and removes those of builds that died.
func newWorkdir(store string) (*workdir, error) {
	builds := filepath.Join(store, "builds")
	if err := os.MkdirAll(builds, 0o755); err != nil {
		return nil, fault.New(fault.Environment, "make store: %w", err).With("Name a directory that can be written with --store.")
	}
	// The parent's lock keeps a starting build's directory, which is not
	// locked yet, from being taken for a dead one.
	gate, err := lockFile(filepath.Join(store, "builds.lock"), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer gate.Close()
	sweep(builds)
	dir, err := os.MkdirTemp(builds, "")
	if err != nil {
		return nil, fmt.Errorf("make store: %w", err)
	}
	lock, err := lockFile(dir+".lock", unix.LOCK_EX)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &workdir{dir: dir, lock: lock}, os.Chmod(dir, 0o755)
}

func lockFile(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fault.New(fault.Environment, "lock store: %w", err).With("Name a directory that can be written with --store.")
	}
	for {
		if err = unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock store: %w", err), f.Close())
	}
	return f, nil
}

// sweep removes what killed builds have left. Errors do not matter here: the
// next start tries again.
func sweep(builds string) {
	entries, err := os.ReadDir(builds)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		dir := filepath.Join(builds, e.Name())
		lock, err := lockFile(dir+".lock", unix.LOCK_EX|unix.LOCK_NB)
		if err != nil {
			continue // alive
		}
		_ = os.RemoveAll(dir)
		_ = os.Remove(dir + ".lock")
		_ = lock.Close()
	}
}

// sub makes a directory below.
func (w *workdir) sub(name string) (string, error) {
	dir := filepath.Join(w.dir, name)
	return dir, os.MkdirAll(dir, 0o755)
}

// close removes everything.
func (w *workdir) close() error {
	err := os.RemoveAll(w.dir)
	return errors.Join(err, os.Remove(w.dir+".lock"), w.lock.Close())
}
