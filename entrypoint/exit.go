package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/layerwright/layerwright/core"
)

// exitCodes is the one table from what went wrong to how the process ends.
// README.md has it for users.
var exitCodes = map[core.ErrorKind]int{
	core.KindStep:        1,
	core.KindUser:        1,
	core.KindUsage:       2,
	core.KindRegistry:    3,
	core.KindEnvironment: 4,
	core.KindInternal:    exitInternal,
}

const exitInternal = 70

// exitCode is 0 for no error, 128+n where signal n has ended ctx, and what the
// table says otherwise. An error that nobody classified is ours.
func exitCode(ctx context.Context, err error) int {
	if err == nil {
		return 0
	}
	var s *signalError
	if errors.As(context.Cause(ctx), &s) {
		return 128 + int(s.signal)
	}
	var late *timeoutError
	if errors.As(err, &late) {
		return exitTimeout
	}
	var e *core.Error
	if errors.As(err, &e) {
		if code, ok := exitCodes[e.Kind]; ok {
			return code
		}
	}
	return exitInternal
}

// signalError is the cause of a context that a signal has ended.
type signalError struct{ signal syscall.Signal }

var signalNames = map[syscall.Signal]string{
	syscall.SIGHUP: "SIGHUP", syscall.SIGINT: "SIGINT", syscall.SIGTERM: "SIGTERM",
}

func (e *signalError) Error() string {
	name, ok := signalNames[e.signal]
	if !ok {
		name = fmt.Sprintf("signal %d", int(e.signal))
	}
	return "the build was ended by " + name
}

// Is makes it a cancellation for whoever does not care for the reason.
func (e *signalError) Is(target error) bool { return target == context.Canceled }

// untilSignal is a context that ends at the first SIGINT, SIGTERM or SIGHUP,
// with a *signalError as its cause. Further signals change nothing: the build is
// already putting things back, and half of that would be worse than waiting.
func untilSignal(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	// A reader of our log that goes away is no reason to die in the middle of
	// a step. Caught instead of ignored, since steps would inherit the latter.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	go func() {
		select {
		case s := <-signals:
			if n, ok := s.(syscall.Signal); ok {
				cancel(&signalError{n})
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		signal.Stop(signals)
		signal.Stop(pipe)
	}
}
