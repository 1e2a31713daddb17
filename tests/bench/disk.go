package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// diskSize is that of the file system that everything is measured on. Its file is
// sparse.
const diskSize = 24 << 30

// freshDisk mounts a new ext4 file system, in a file, on dir: an old one differs
// from minute to minute. Without a journal, as some machines in clouds have theirs,
// ext4 looks at every inode that was freed in the last minutes before it makes a
// file, which was seen to cost twenty times what making it does; and each builder
// frees many just before the next one is measured.
func freshDisk(ctx context.Context, dir string) (remove func(), err error) {
	image, err := os.CreateTemp("", "layerwright-bench-disk-*")
	if err != nil {
		return nil, err
	}
	drop := func() { _ = os.Remove(image.Name()) }
	if err = errors.Join(image.Truncate(diskSize), image.Close()); err == nil {
		err = mountFile(ctx, image.Name(), dir)
	}
	if err != nil {
		drop()
		return nil, fmt.Errorf("make a file system (or use the machine's: --disk machine): %w", err)
	}
	return func() {
		// Docker's mounts in it go later.
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		drop()
	}, nil
}

// mountFile makes a file system in a file and mounts it. The file is written without
// the kernel's cache: there each byte would be dirty twice, and what one builder has
// left be written while the next one is measured.
func mountFile(ctx context.Context, file, dir string) error {
	if _, err := output(ctx, "mkfs.ext4", "-q", "-F", "-i", "32768", "-E", "lazy_itable_init=0,lazy_journal_init=0", file); err != nil {
		return err
	}
	device, err := output(ctx, "losetup", "--find", "--show", "--direct-io=on", file)
	if err != nil {
		return err
	}
	_, mountErr := output(ctx, "mount", device, dir)
	// The kernel lets go of the device when it is mounted nowhere any more.
	_, err = output(context.WithoutCancel(ctx), "losetup", "--detach", device)
	if mountErr != nil {
		return errors.Join(mountErr, err)
	}
	if err = errors.Join(err, os.Chmod(dir, 0o755), os.Remove(filepath.Join(dir, "lost+found"))); err != nil {
		err = errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH))
	}
	return err
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
