package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// mountOverlay mounts lower (base first) at dir, with upper and work where it
// is to be changed. The options of mount(2) fit one page only, so the newer
// calls, which take one lower directory at a time, come first.
//
// What is written is not synchronised to the disk when the mount ends (volatile):
// a store does not outlive a crash. work is good for one mount.
func mountOverlay(dir string, lower []string, upper, work string, userXattr bool) error {
	err := mountByCalls(dir, lower, upper, work, userXattr, upper != "")
	if err == nil {
		return nil
	}
	if upper != "" && mountByCalls(dir, lower, upper, work, userXattr, false) == nil {
		return nil // Linux before 5.10
	}
	if old := mountByOptions(dir, lower, upper, work, userXattr); old == nil {
		return nil
	}
	return &fault.Error{Kind: fault.Environment, Op: "mount overlay", Err: err,
		Remedy: "Use --snapshots flat, or put the store on a file system that overlayfs accepts: see layerwright doctor."}
}

func mountByCalls(dir string, lower []string, upper, work string, userXattr, volatile bool) error {
	fsfd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fsfd)
	set := func(key, value string) {
		if err == nil {
			if err = unix.FsconfigSetString(fsfd, key, value); err != nil {
				err = fmt.Errorf("%s=%s: %w", key, value, err)
			}
		}
	}
	for _, l := range slices.Backward(lower) {
		set("lowerdir+", l)
	}
	if upper != "" {
		set("upperdir", upper)
		set("workdir", work)
	}
	set("index", "off")
	set("metacopy", "off")
	if volatile && err == nil {
		err = unix.FsconfigSetFlag(fsfd, "volatile")
	}
	if userXattr {
		if err == nil {
			err = unix.FsconfigSetFlag(fsfd, "userxattr")
		}
	} else {
		set("redirect_dir", "off")
	}
	if err != nil {
		return err
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	var attrs int
	if upper == "" {
		attrs = unix.MOUNT_ATTR_RDONLY
	}
	mfd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return fmt.Errorf("fsmount: %w", err)
	}
	defer unix.Close(mfd)
	if err := unix.MoveMount(mfd, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move mount: %w", err)
	}
	return nil
}

// mountByOptions is for kernels before 6.8. Names relative to the store keep the
// options of a hundred layers within their page, and a store's path with a
// colon or comma out of them.
func mountByOptions(dir string, lower []string, upper, work string, userXattr bool) error {
	base := filepath.Dir(lower[0])
	relative := func(p string) string {
		if filepath.Dir(p) == base {
			return filepath.Base(p)
		}
		return p
	}
	var names []string
	for _, l := range slices.Backward(lower) {
		names = append(names, relative(l))
	}
	options := "lowerdir=" + strings.Join(names, ":")
	var flags uintptr
	if upper != "" {
		options += ",upperdir=" + relative(upper) + ",workdir=" + relative(work)
	} else {
		flags = unix.MS_RDONLY
	}
	if userXattr {
		options += ",userxattr"
	} else {
		options += ",index=off,metacopy=off,redirect_dir=off"
	}
	if len(options) >= os.Getpagesize() {
		return fmt.Errorf("%d layers do not fit the options of mount", len(lower))
	}
	return inDirectory(base, func() error { return unix.Mount("overlay", dir, "overlay", flags, options) })
}

// inDirectory runs f in a thread with a working directory of its own. The
// thread ends with it, as no other goroutine may get it.
func inDirectory(dir string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- fmt.Errorf("unshare working directory: %w", err)
			return
		}
		if err := unix.Chdir(dir); err != nil {
			done <- &os.PathError{Op: "chdir", Path: dir, Err: err}
			return
		}
		done <- f()
	}()
	return <-done
}

// unmount waits for a moment where something still holds the mount: writes of a
// process that has just been killed.
func unmount(dir string) error {
	var err error
	for range 100 {
		if err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}
