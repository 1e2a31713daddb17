package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// childSpec is what the last stage of a step must know. It goes to the child
// through a pipe; it holds no secrets of ours.
type childSpec struct {
	Args []string
	// Env is the step's, with HOME added where it had none.
	Env []string
	// Cwd is created where it is missing (in a mount, for instance).
	Cwd      string
	UID, GID uint32
	// Groups are the supplementary groups, GID among them.
	Groups  []uint32
	Ulimits []Ulimit
	// Root is entered by chroot(2) first; empty where the process's root is
	// the tree already.
	Root string
}

// newChildSpec resolves what a step asks for against the tree at step.Root,
// before anything is mounted or placed there, as BuildKit does: it finds the
// user and creates the working directory.
func newChildSpec(step Step) (childSpec, error) {
	u, err := lookupUser(step.Root, step.User)
	if err != nil {
		return childSpec{}, fault.Wrap(fault.User, err, "")
	}
	cwd := step.Cwd
	if cwd == "" {
		cwd = "/"
	}
	if err := makeCwd(step.Root, cwd, u); err != nil {
		return childSpec{}, err
	}
	return childSpec{
		Args:    step.Args,
		Env:     withHome(step.Env, u.home),
		Cwd:     cwd,
		UID:     u.uid,
		GID:     u.gid,
		Groups:  u.groups,
		Ulimits: step.Ulimits,
	}, nil
}

// startFault is why a child could not become the step's command.
type startFault struct {
	Kind    fault.Kind
	Message string
	Remedy  string
	// Code is the exit code that a shell would give: 127 not found, 126 not
	// executable.
	Code int
}

// StartError is a command that could not be started: it is not there, or is
// not a program. It comes wrapped in a *fault.Error of kind Step.
type StartError struct {
	// Code is 127 where the command was not found, 126 where it cannot be
	// executed.
	Code    int
	Message string
}

func (e *StartError) Error() string { return e.Message }

func (f startFault) err() error {
	if f.Kind == fault.Step {
		return &fault.Error{Kind: fault.Step, ExitCode: f.Code, Err: &StartError{Code: f.Code, Message: f.Message}}
	}
	return &fault.Error{Kind: f.Kind, Err: errors.New(f.Message), Remedy: f.Remedy}
}

// child is a process of ours that waits to become the step's command.
type child struct {
	// pid is for whoever reaps: the starter calls wait4 for it.
	pid    int
	spec   *os.File
	status *os.File
	// begun is set when it has said that it runs.
	begun bool
}

// awaitBegun returns when the child has begun to run: before that a change of
// the root could keep it from being loaded, and its end would be taken for that
// of the step's command.
func (c *child) awaitBegun() error {
	if c.begun {
		return nil
	}
	if _, err := io.ReadFull(c.status, make([]byte, 1)); err != nil {
		return fmt.Errorf("start command: its process ended before it began: %w", err)
	}
	c.begun = true
	return nil
}

// newChild starts the waiting process with the three files as its standard
// streams and its working directory in dir (empty: ours). It costs a few
// milliseconds, so it is worth doing before a root is ready.
func newChild(stdin, stdout, stderr *os.File) (*child, error) {
	specR, specW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("open pipe: %w", err)
	}
	defer specR.Close()
	statusR, statusW, err := os.Pipe()
	if err != nil {
		specW.Close()
		return nil, fmt.Errorf("open pipe: %w", err)
	}
	defer statusW.Close()
	pid, err := syscall.ForkExec(selfExe, []string{childName}, &syscall.ProcAttr{
		Env:   []string{},
		Files: []uintptr{stdin.Fd(), stdout.Fd(), stderr.Fd(), specR.Fd(), statusW.Fd()},
	})
	if err != nil {
		specW.Close()
		statusR.Close()
		return nil, fmt.Errorf("start %s: %w", childName, err)
	}
	return &child{pid: pid, spec: specW, status: statusR}, nil
}

// run gives the child its spec and returns when the step's command runs (nil),
// or why it cannot: a *fault.Error. The child is to be reaped in both cases.
func (c *child) run(spec childSpec) error {
	defer c.status.Close()
	err := c.awaitBegun()
	if err == nil {
		err = json.NewEncoder(c.spec).Encode(spec)
	}
	if cerr := c.spec.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("hand over command: %w", err)
	}
	answer, err := io.ReadAll(c.status)
	if err != nil {
		return fmt.Errorf("start command: %w", err)
	}
	if len(answer) == 0 {
		return nil
	}
	var f startFault
	if err := json.Unmarshal(answer, &f); err != nil {
		return fmt.Errorf("start command: %w", err)
	}
	return f.err()
}

// abandon ends a child that will not be needed; it is to be reaped.
func (c *child) abandon() {
	_ = c.spec.Close()
	_ = c.status.Close()
	_ = unix.Kill(c.pid, unix.SIGKILL)
}

// childMain is the process that newChild starts.
func childMain() int {
	const specFD, statusFD = 3, 4
	closeOnExec(3)
	in := os.NewFile(specFD, "spec")
	status := os.NewFile(statusFD, "status")
	if _, err := status.Write([]byte{0}); err != nil {
		return 125 // the starter has died
	}
	var spec childSpec
	if err := json.NewDecoder(in).Decode(&spec); err != nil {
		return 125 // the starter has died, or has no more use for us
	}
	// Only returns when it fails.
	f := runChild(spec)
	_ = json.NewEncoder(status).Encode(f)
	return 125
}

// closeOnExec marks every descriptor from first on, so that a step inherits
// nothing that a CI may have left open in the builder.
func closeOnExec(first uint) {
	if err := unix.CloseRange(first, ^uint(0)>>33, unix.CLOSE_RANGE_CLOEXEC); err == nil {
		return
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		for fd := int(first); fd < 1024; fd++ {
			unix.CloseOnExec(fd)
		}
		return
	}
	for _, e := range fds {
		var fd int
		if _, err := fmt.Sscanf(e.Name(), "%d", &fd); err == nil && fd >= int(first) {
			unix.CloseOnExec(fd)
		}
	}
}
