// Package emulation finds out whether this machine runs programs of another
// architecture, by running one. It registers no emulator, and refuses to conclude
// anything from names or from /proc: in a container binfmt_misc is not to be seen,
// and works all the same.
//
// BuildKit's util/archutil does the same, but tries every architecture that it knows
// in the directory for temporary files, which our image does not have, and does not
// say what the kernel answered.
package emulation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// Try runs a program of an architecture (as Go and OCI call it) in an empty root
// directory below dir. An emulator has to be one that the kernel holds open (flag F of
// binfmt_misc): a step's root does not have it. The error says what stood in the way.
func Try(ctx context.Context, dir, arch string) (err error) {
	if arch == runtime.GOARCH || arch == "386" && runtime.GOARCH == "amd64" {
		return nil
	}
	p, ok := programs()[arch]
	if !ok {
		return fmt.Errorf("there is no program of architecture %q to try it with", arch)
	}
	root, err := os.MkdirTemp(dir, "emulation")
	if err != nil {
		return fmt.Errorf("try to run a program: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	if err := os.WriteFile(filepath.Join(root, "program"), p.elf(), 0o700); err != nil {
		return fmt.Errorf("try to run a program: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/program")
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	err = cmd.Run()
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return errors.New("no emulator is registered (exec format error)")
	case errors.Is(err, syscall.ENOENT):
		return errors.New("the emulator is registered without the flag F, so that it would have to be in the image (no such file or directory)")
	case err != nil:
		return fmt.Errorf("a program of that architecture does not run: %w", err)
	}
	return nil
}
