package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

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
	err = errors.Join(image.Truncate(diskSize), image.Close())
	for _, command := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-i", "32768", "-E", "lazy_itable_init=0,lazy_journal_init=0", image.Name()},
		{"mount", "-o", "loop", image.Name(), dir},
		{"chmod", "755", dir},
		{"rmdir", dir + "/lost+found"},
	} {
		if err != nil {
			break
		}
		if out, failed := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); failed != nil {
			err = fmt.Errorf("%s: %w: %s", command[0], failed, out)
		}
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
