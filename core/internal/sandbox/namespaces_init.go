package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

const (
	superviseSpecFD   = 3
	superviseResultFD = 4
)

// initMain is PID 1 of a step's namespaces. When it ends, for whatever reason,
// the kernel ends everything in them.
func initMain() int {
	return supervise(func(s *supervision) *startFault {
		go func() {
			s.awaitBuilder()
			os.Exit(128 + int(unix.SIGKILL))
		}()
		if err := prepareRoot(s); err != nil {
			return faultOf(err)
		}
		return s.runCommand()
	})
}

// supervision is the state of a process of ours that supervises one step.
type supervision struct {
	control *os.File
	spec    supervisedSpec
	child   *child
	result  supervisedResult
	// ended is set when the builder has gone or has cancelled.
	ended atomic.Bool
}

// supervise does what all supervising processes have in common: take the spec,
// start the child early, hand back the result.
func supervise(run func(*supervision) *startFault) int {
	closeOnExec(3)
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	// A step may signal us; ignored signals would be inherited by it.
	signal.Notify(make(chan os.Signal, 1), unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2)
	unix.Umask(0o022)
	s := &supervision{control: os.NewFile(superviseSpecFD, "control")}
	out := os.NewFile(superviseResultFD, "result")
	var err error
	if s.child, err = newChild(os.Stdin, os.Stdout, os.Stderr); err != nil {
		s.result.Fault = faultOf(err)
	} else if err := json.NewDecoder(s.control).Decode(&s.spec); err != nil {
		s.child.abandon()
		return 1 // the builder has died
	} else {
		s.result.Fault = run(s)
	}
	if err := json.NewEncoder(out).Encode(s.result); err != nil {
		return 1
	}
	return 0
}

// awaitBuilder returns when the builder has closed its end of the pipe.
func (s *supervision) awaitBuilder() {
	_, _ = io.Copy(io.Discard, s.control)
	s.ended.Store(true)
}

// runCommand lets the child become the command and waits for its end, reaping
// what else is inherited meanwhile.
func (s *supervision) runCommand() *startFault {
	runErr := s.child.run(s.spec.Child)
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return faultOf(fmt.Errorf("wait for command: %w", err))
		}
		if pid != s.child.pid {
			continue
		}
		if runErr != nil {
			return faultOf(runErr)
		}
		if ws.Signaled() {
			s.result.Signal = int(ws.Signal())
			s.result.Code = 128 + s.result.Signal
		} else {
			s.result.Code = ws.ExitStatus()
		}
		return nil
	}
}

// faultOf makes an error fit for the pipe.
func faultOf(err error) *startFault {
	f := &startFault{Kind: fault.Internal, Message: err.Error()}
	if e, ok := fault.As(err); ok {
		f.Kind, f.Remedy, f.Code = e.Kind, e.Remedy, e.ExitCode
	}
	return f
}

// endDescendants kills every process that descends from this one, which must
// be a subreaper, and reaps until none is left.
func endDescendants() {
	for {
		killDescendants()
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if errors.Is(err, unix.ECHILD) {
				return
			}
			if err == nil && pid == 0 {
				break
			}
		}
		time.Sleep(time.Millisecond)
	}
}
