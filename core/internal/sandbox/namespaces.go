package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// NamespacesOptions are for NewNamespaces. The zero value is ready for use.
type NamespacesOptions struct {
	// ResolvConf is the file that steps get as /etc/resolv.conf; default
	// /etc/resolv.conf.
	ResolvConf string
}

// NewNamespaces makes the sandbox that gives each step its own mount, PID, IPC
// and UTS namespaces. The calling process must hold CAP_SYS_ADMIN in its user
// namespace: EnterNamespaces sees to that.
func NewNamespaces(opts NamespacesOptions) (Sandbox, error) {
	if !hasCap(unix.CAP_SYS_ADMIN) {
		return nil, fault.New(fault.Environment, "isolation namespaces: no CAP_SYS_ADMIN, and not in a user namespace of our own").
			With("Use --isolation auto, or run in a container whose seccomp profile allows user namespaces.")
	}
	if opts.ResolvConf == "" {
		opts.ResolvConf = "/etc/resolv.conf"
	}
	return &namespaces{opts: opts}, nil
}

type namespaces struct {
	opts NamespacesOptions
	// told are the notices that have been given: each is given once.
	told sync.Map
}

func (*namespaces) Isolation() Isolation { return Namespaces }
func (*namespaces) Exclusive() bool      { return false }
func (*namespaces) MovesBinds() bool     { return false }

func (*namespaces) Prepare(context.Context, func() error) error { return nil }
func (*namespaces) Close() error                                { return nil }

// Run implements Sandbox: a process of ours becomes PID 1 of the step's
// namespaces, prepares the root, starts the command and tells how it ended.
func (s *namespaces) Run(ctx context.Context, step Step) (_ Outcome, err error) {
	if err := checkStep(ctx, step); err != nil {
		return Outcome{}, err
	}
	stubs := planStubs(step.Root, step.Mounts)
	defer func() { err = errors.Join(err, stubs.remove()) }()
	spec, err := newChildSpec(step)
	if err != nil {
		return Outcome{}, err
	}
	if err := makeRuntimeDirs(step.Root); err != nil {
		return Outcome{}, err
	}
	if err := stubs.make(); err != nil {
		return Outcome{}, err
	}
	flags := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS)
	if step.Network == NetworkNone {
		flags |= unix.CLONE_NEWNET
	}
	if cgroupNamespaces() {
		flags |= unix.CLONE_NEWCGROUP
	}
	mounts := sortMounts(step.Mounts)
	for i, m := range mounts {
		if m.Kind == Tmpfs && stubs.has(m.Target) {
			mounts[i].Mode = 0o1777 // the kernel's default, not that of the stub
		}
	}
	cmd := reexec(ctx, initName)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Setsid: true}
	res, err := runSupervised(ctx, cmd, step, supervisedSpec{
		Child: spec, Root: step.Root, Scratch: step.Scratch, Hostname: hostname(step), Mounts: mounts,
		Hosts: hostsFile(step), Resolv: readResolv(s.opts.ResolvConf), Loopback: step.Network == NetworkNone,
	})
	notices := slices.DeleteFunc(res.Notices, func(n string) bool {
		_, again := s.told.LoadOrStore(n, true)
		return again
	})
	return Outcome{Notices: notices}, err
}

// supervisedSpec is what our own process inside or beside a step must know. It
// goes through a pipe, since it holds the step's secrets.
type supervisedSpec struct {
	Child         childSpec
	Root, Scratch string
	Hostname      string
	Mounts        []Mount
	Hosts, Resolv []byte
	// Loopback says to bring the loopback device of a new network up.
	Loopback bool
	// Inplace belongs to isolation inplace; nil in the others.
	Inplace *inplaceSpec `json:",omitempty"`
}

// supervisedResult is what it answers when the step has ended.
type supervisedResult struct {
	Fault            *startFault
	Code, Signal     int
	Suspect, Notices []string
	// Mounts is Outcome.Mounts.
	Mounts []string `json:",omitempty"`
	// Collision is set where isolation inplace met one.
	Collision *CollisionError `json:",omitempty"`
}

// runSupervised starts cmd with the step's streams, hands it the spec by
// descriptor 3 and takes the result from descriptor 4. Descriptor 3 stays open
// as long as we live: that it closes tells the process to end the step.
func runSupervised(ctx context.Context, cmd *exec.Cmd, step Step, spec supervisedSpec) (supervisedResult, error) {
	specR, specW, err := os.Pipe()
	if err != nil {
		return supervisedResult{}, fmt.Errorf("open pipe: %w", err)
	}
	defer specW.Close()
	resR, resW, err := os.Pipe()
	if err != nil {
		specR.Close()
		return supervisedResult{}, fmt.Errorf("open pipe: %w", err)
	}
	defer resR.Close()
	cmd.Stdout, cmd.Stderr = step.Stdout, step.Stderr
	cmd.ExtraFiles = []*os.File{specR, resW}
	if cmd.Cancel != nil && spec.cleansUp() {
		// Closing tells it; killing it is for when it does not listen.
		cmd.Cancel = func() error {
			// In case that the step has stopped it.
			return errors.Join(specW.Close(), cmd.Process.Signal(unix.SIGCONT))
		}
		cmd.WaitDelay = 20 * time.Second
	}
	err = cmd.Start()
	specR.Close()
	resW.Close()
	if err != nil {
		return supervisedResult{}, startFailed(err, step)
	}
	// An early death shows as a missing result below.
	_ = json.NewEncoder(specW).Encode(spec)
	answer, readErr := io.ReadAll(resR)
	if len(answer) == 0 && spec.Inplace != nil {
		// It was killed, and what is left of the step still holds the output.
		readErr = errors.Join(readErr, Repair(spec.Inplace.Store))
	}
	waitErr := cmd.Wait()
	var res supervisedResult
	switch {
	case ctx.Err() != nil:
		_ = json.Unmarshal(answer, &res)
		return res, fmt.Errorf("run step: %w", context.Cause(ctx))
	case readErr != nil:
		return res, fmt.Errorf("run step: %w", readErr)
	case len(answer) == 0:
		return res, fmt.Errorf("run step: its supervising process ended: %w", orEOF(waitErr))
	}
	if err := json.Unmarshal(answer, &res); err != nil {
		return res, fmt.Errorf("run step: %w", err)
	}
	if res.Fault != nil {
		return res, res.Fault.err()
	}
	if res.Code != 0 || res.Signal != 0 {
		return res, &ExitError{Code: res.Code, Signal: res.Signal}
	}
	return res, nil
}

// cleansUp is true where the tree is to be restored when the step is cancelled,
// so that the supervising process must not just be killed.
func (s supervisedSpec) cleansUp() bool { return s.Child.Root != "" || s.Inplace != nil }

func orEOF(err error) error {
	if err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}

func startFailed(err error, step Step) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EINVAL) {
		what := "isolate the step"
		remedy := "See layerwright doctor for what this environment allows."
		if step.Network == NetworkNone {
			what, remedy = "give the step a network of its own (--network=none)", "Leave out --network=none, or run where the kernel allows network namespaces."
		}
		return &fault.Error{Kind: fault.Environment, Op: what, Err: err, Remedy: remedy}
	}
	return fmt.Errorf("start step: %w", err)
}

// checkStep refuses what no mode can run.
func checkStep(ctx context.Context, step Step) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(step.Args) == 0 {
		return fault.New(fault.User, "no command given")
	}
	for _, l := range step.Ulimits {
		if _, ok := ulimitNumber(l.Name); !ok {
			return fault.New(fault.Usage, "unknown ulimit %q", l.Name)
		}
	}
	for _, m := range step.Mounts {
		if m.Target == "/" || m.Target == "" {
			return fault.New(fault.User, "mount target %q: the root cannot be mounted over", m.Target)
		}
	}
	return nil
}

// hasCap says whether this process has a capability effective.
func hasCap(c uint) bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	return data[c/32].Effective&(1<<(c%32)) != 0
}

func cgroupNamespaces() bool { return exists("/proc/self/ns/cgroup") }
