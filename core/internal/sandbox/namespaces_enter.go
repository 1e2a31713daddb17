package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// Inside says whether this process is the one that EnterNamespaces has started.
// Main takes the mark off args, so ask before.
func Inside(args []string) bool {
	return len(args) > 0 && strings.HasPrefix(args[0], insidePrefix)
}

// EnterNamespaces runs this program again, with args and env, in a mount
// namespace of its own (and, without CAP_SYS_ADMIN, a user namespace), as
// isolation namespaces and overlay snapshots need it. It passes signals on,
// returns the exit code (128+n after signal n), and when this process dies the
// other one does. To be called by the entrypoint when Report.Choose has chosen
// Namespaces, before secrets are loaded, and not when Inside.
func EnterNamespaces(ctx context.Context, args, env []string) (code int, err error) {
	// The kernel ends the other process when this thread does.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)

	cmd := exec.CommandContext(ctx, selfExe)
	cmd.Args = append([]string{insidePrefix + args[0]}, args[1:]...)
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	alive, err := startMapped(ctx, cmd, unix.CLONE_NEWNS)
	if err != nil {
		return 0, err
	}
	defer alive.Close()
	// Our environment holds what the other one's does.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if !fromTerminal(s) {
				_ = cmd.Process.Signal(s)
			}
		case err := <-done:
			return exitCode(err)
		}
	}
}

func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if err != nil {
			return 0, fmt.Errorf("wait for build: %w", err)
		}
		return 0, nil
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// fromTerminal says whether a signal is one that a terminal sends to the whole
// foreground group: then the other process has it already.
func fromTerminal(s os.Signal) bool {
	if s != unix.SIGINT && s != unix.SIGQUIT {
		return false
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	pgrp, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && pgrp == unix.Getpgrp()
}

// startInside is what the process in the new namespaces does before it goes on
// as the program that it is.
func startInside() error {
	closeOnExec(3)
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	alive := os.NewFile(3, "alive")
	go func() {
		_, _ = io.Copy(io.Discard, alive)
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}()
	return nil
}

// startMapped starts cmd, a call of our own binary, in new namespaces, with as
// many user ids mapped as is allowed. The process gets the reading end of a pipe
// as descriptor 3; alive is the writing end. Without CAP_SYS_ADMIN a user
// namespace is added to flags.
func startMapped(ctx context.Context, cmd *exec.Cmd, flags uintptr) (alive *os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("open pipe: %w", err)
	}
	defer r.Close()
	cmd.ExtraFiles = append([]*os.File{r}, cmd.ExtraFiles...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	var ids idMappings
	if !hasCap(unix.CAP_SYS_ADMIN) {
		ids = findMappings()
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		if ids.helper {
			cmd.Args[0] = mappedPrefix + cmd.Args[0]
		} else {
			cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids.uid, ids.gid
			cmd.SysProcAttr.GidMappingsEnableSetgroups = !ids.single
		}
	}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, fault.New(fault.Environment, "enter namespaces: %w", err).
			With("Use --isolation auto, or run in a container whose seccomp profile allows user namespaces.")
	}
	if ids.helper {
		err := ids.apply(ctx, cmd.Process.Pid)
		if err == nil {
			_, err = w.Write([]byte{1})
		}
		if err != nil {
			w.Close()
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			return nil, fault.New(fault.Environment, "map user ids: %w", err).
				With("Check the user's entries in /etc/subuid and /etc/subgid, and that newuidmap may use them (in a container it needs the file capability cap_setuid instead of the setuid bit); or run as root in the container.")
		}
	}
	return w, nil
}

// mappedMain waits until the starter has mapped our ids and then executes
// ourselves again, which gives root in the new user namespace its capabilities.
func mappedMain(name string, args []string) int {
	var b [1]byte
	if n, err := unix.Read(3, b[:]); n != 1 || err != nil {
		return 1
	}
	err := syscall.Exec(selfExe, append([]string{name}, args[1:]...), syscall.Environ())
	fmt.Fprintln(os.Stderr, "execute ourselves:", err)
	return 1
}
