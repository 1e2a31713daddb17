package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// ChrootOptions are for NewChroot. The zero value is ready for use.
type ChrootOptions struct {
	// ResolvConf is the file that steps get as /etc/resolv.conf; default
	// /etc/resolv.conf.
	ResolvConf string
}

// NewChroot makes the sandbox that runs a step by chroot(2) in its tree: without
// /proc, with device nodes made for the step, and with its mounts put into the
// tree and taken out again.
func NewChroot(opts ChrootOptions) (Sandbox, error) {
	if !hasCap(unix.CAP_SYS_CHROOT) {
		return nil, fault.New(fault.Environment, "isolation chroot: no CAP_SYS_CHROOT").
			With("Run as root with the container's default capabilities, or use another isolation: see layerwright doctor.")
	}
	if opts.ResolvConf == "" {
		opts.ResolvConf = "/etc/resolv.conf"
	}
	return &chroot{opts: opts}, nil
}

type chroot struct{ opts ChrootOptions }

func (*chroot) Isolation() Isolation { return Chroot }
func (*chroot) Exclusive() bool      { return false }
func (*chroot) MovesBinds() bool     { return true }

func (*chroot) Prepare(context.Context, func() error) error { return nil }
func (*chroot) Close() error                                { return nil }

// Run implements Sandbox. A process of ours beside the step places and takes
// out its mounts and ends every process that the step leaves, also when the
// builder dies.
func (c *chroot) Run(ctx context.Context, step Step) (_ Outcome, err error) {
	if err := checkStep(ctx, step); err != nil {
		return Outcome{}, err
	}
	spec, err := newChildSpec(step)
	if err != nil {
		return Outcome{}, err
	}
	spec.Root = step.Root
	if err := makeRuntimeDirs(step.Root); err != nil {
		return Outcome{}, err
	}
	cmd := reexec(ctx, chrootName)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if step.Network == NetworkNone {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNET
	}
	res, err := runSupervised(ctx, cmd, step, supervisedSpec{
		Child: spec, Root: step.Root, Scratch: step.Scratch, Hostname: step.Hostname, Mounts: sortMounts(step.Mounts),
		Hosts: hostsFile(step), Resolv: readResolv(c.opts.ResolvConf), Loopback: step.Network == NetworkNone,
	})
	// Where the supervisor itself was killed, its journal is still there.
	err = errors.Join(err, recoverPlacement(step.Scratch))
	return Outcome{Suspect: res.Suspect, Notices: res.Notices}, err
}

// chrootMain is the process beside the step.
func chrootMain() int {
	return supervise(func(s *supervision) *startFault {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return faultOf(fmt.Errorf("become subreaper: %w", err))
		}
		if s.spec.Loopback {
			if err := loopbackUp(); err != nil {
				return faultOf(loopbackFault(err))
			}
		}
		placed, err := place(s.spec.Root, s.spec.Scratch, s.chrootMounts())
		if err != nil {
			s.child.abandon()
			endDescendants()
			return faultOf(err)
		}
		go func() {
			s.awaitBuilder()
			for {
				killDescendants()
				time.Sleep(2 * time.Millisecond)
			}
		}()
		f := s.runCommand()
		endDescendants()
		// What a step has spliced from a secret into its output is still the
		// secret's own page until it is read: it must not be wiped before.
		awaitDrained(&s.ended, 1, 2)
		s.result.Suspect = placed.Suspect()
		if err := placed.Undo(); err != nil && f == nil {
			f = faultOf(err)
		}
		return f
	})
}

// chrootMounts are what goes into the tree: /dev, the generated files, and the
// step's own mounts.
func (s *supervision) chrootMounts() []placedMount {
	list := []placedMount{{Mount: Mount{Target: "/dev"}, make: func(target string) error {
		if err := os.Mkdir(target, 0o755); err != nil {
			return err
		}
		if err := makeDevices(target, false); err != nil {
			// Empty, and thrown away afterwards as any /dev: what is written
			// to /dev/null must not become a file of the image.
			s.notice("Device nodes cannot be made here (" + err.Error() + "); the step has an empty /dev.")
			return emptyDir(target)
		}
		return nil
	}, optional: true}}
	for _, f := range []struct {
		target string
		data   []byte
	}{{"/etc/hosts", s.spec.Hosts}, {"/etc/resolv.conf", s.spec.Resolv}} {
		if !hasTarget(s.spec.Mounts, f.target) {
			list = append(list, placedMount{Mount: Mount{Target: f.target}, make: func(target string) error {
				return writeOwned(target, f.data, 0, 0, 0o644)
			}})
		}
	}
	for _, m := range s.spec.Mounts {
		if m.Kind == Tmpfs && m.Size > 0 && m.Target != "/dev/shm" {
			s.notice("The size of the tmpfs at " + m.Target + " is not limited with isolation chroot.")
		}
		list = append(list, placedMount{Mount: m})
	}
	if s.spec.Hostname != "" {
		s.notice("The hostname " + strconv.Quote(s.spec.Hostname) + " cannot be set with isolation chroot; /etc/hosts has it.")
	}
	return list
}

// emptyDir removes what is in a directory.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

func (s *supervision) notice(text string) { s.result.Notices = append(s.result.Notices, text) }

// awaitDrained waits until nothing is left in pipes that we write to, for at
// most a second, and not at all when nobody reads them any more.
func awaitDrained(ended *atomic.Bool, fds ...int) {
	for _, fd := range fds {
		for i := 0; i < 1000 && !ended.Load(); i++ {
			if n, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err != nil || n == 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// killDescendants sends SIGKILL to every process that descends from this one.
func killDescendants() {
	parents := map[int]int{}
	dir, err := os.Open("/proc")
	if err != nil {
		return
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return
	}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if ppid, ok := parentOf(name); ok {
				parents[pid] = ppid
			}
		}
	}
	self := os.Getpid()
	for pid := range parents {
		for p, n := pid, 0; p > 1 && n < len(parents); p, n = parents[p], n+1 {
			if parents[p] == self {
				_ = unix.Kill(pid, unix.SIGKILL)
				break
			}
		}
	}
}

// parentOf reads a process's parent; false for one that has ended.
func parentOf(pid string) (int, bool) {
	data, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, false
	}
	// The name in parentheses may hold anything.
	_, rest, ok := strings.Cut(string(data[max(0, strings.LastIndexByte(string(data), ')')):]), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 2 {
		return 0, false
	}
	ppid, err := strconv.Atoi(fields[1])
	return ppid, err == nil
}
