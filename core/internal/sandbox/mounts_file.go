package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	cfs "github.com/containerd/continuity/fs"
)

// unixStat is what os.FileInfo.Sys holds.
type unixStat = syscall.Stat_t

// writeOwned creates a file, which must not be there, for its owner only until
// owner and mode are set.
func writeOwned(name string, data []byte, uid, gid int, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chown(uid, gid); err != nil {
		return fmt.Errorf("give file to user %d: %w", uid, err)
	}
	return f.Chmod(mode)
}

func setOwner(name string, uid, gid int, mode fs.FileMode) error {
	if err := os.Lchown(name, uid, gid); err != nil {
		return fmt.Errorf("give file to user %d: %w", uid, err)
	}
	return os.Chmod(name, mode)
}

// copyInto copies a directory or file with owner, mode, times and xattrs; target
// is not there yet.
func copyInto(source, target string) error {
	st, err := os.Stat(source)
	if err != nil {
		return err
	}
	if st.IsDir() {
		return cfs.CopyDir(target, source)
	}
	if err := cfs.CopyFile(target, source); err != nil {
		return err
	}
	sys := st.Sys().(*unixStat)
	if err := os.Lchown(target, int(sys.Uid), int(sys.Gid)); err != nil {
		return err
	}
	if err := os.Chmod(target, st.Mode()); err != nil {
		return err
	}
	return os.Chtimes(target, st.ModTime(), st.ModTime())
}

// replaceTree makes the directory at target what the one at source is. The old
// content is only removed when the new one is complete.
func replaceTree(source, target string) error {
	next := target + ".new"
	if err := removeAll(next); err != nil {
		return err
	}
	if err := cfs.CopyDir(next, source); err != nil {
		return errors.Join(err, removeAll(next))
	}
	old := target + ".old"
	if err := os.Rename(target, old); err != nil {
		return err
	}
	if err := os.Rename(next, target); err != nil {
		return err
	}
	return removeAll(old)
}

// wipe overwrites a secret. The step may have put anything at its place, so
// only a regular file is touched.
func wipe(name string) {
	f, err := os.OpenFile(name, os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
		_, _ = f.WriteAt(make([]byte, min(st.Size(), 1<<20)), 0)
	}
}

// removeAll removes a tree, also where a directory in it cannot be written
// (without CAP_DAC_OVERRIDE).
func removeAll(name string) error {
	if err := os.RemoveAll(name); err == nil {
		return nil
	}
	_ = filepath.WalkDir(name, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(name)
}
