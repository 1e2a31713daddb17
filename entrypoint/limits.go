package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/syntax"
)

// allowance is what a build may take of this machine.
func (f *flags) allowance(c *checker, r *core.Request) {
	var err error
	if r.MinFree, err = syntax.MinFree(f.minFree); err != nil {
		c.add("--min-free %s: %w", f.minFree, err)
	}
	if f.timeout < 0 {
		c.add("--timeout %s: write a duration such as 30m", f.timeout)
	}
}

// exitTimeout is the exit code of timeout(1).
const exitTimeout = 124

// timeoutError is the cause of a context that --timeout has ended.
type timeoutError struct {
	limit time.Duration
	// steps are those that ran then.
	steps []string
}

func (e *timeoutError) Error() string {
	running := "no step ran then"
	if len(e.steps) > 0 {
		running = "running then: " + strings.Join(e.steps, "; ")
	}
	return fmt.Sprintf("the build took longer than --timeout %s; %s", e.limit, running)
}

// Is makes it a cancellation for whoever does not care for the reason.
func (e *timeoutError) Is(target error) bool { return target == context.Canceled }

// limited carries out a build, and ends it when it takes longer than limit; 0 is
// no limit.
func limited(ctx context.Context, limit time.Duration, r core.Request) (*core.Result, error) {
	if limit == 0 {
		return core.Build(ctx, r)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &running{sink: r.Progress}
	r.Progress = w
	t := time.AfterFunc(limit, func() { cancel(&timeoutError{limit, w.names()}) })
	defer t.Stop()
	res, err := core.Build(ctx, r)
	var late *timeoutError
	if err != nil && errors.As(context.Cause(ctx), &late) {
		return nil, &core.Error{Kind: core.KindStep, Err: late, Remedy: "Give it more time, or look at what the step waits for; --profile DIR says where the time went."}
	}
	return res, err
}

// running passes events on and knows which steps have begun and not ended.
type running struct {
	sink  core.Sink
	mu    sync.Mutex
	steps []core.Step
}

// Emit implements core.Sink.
func (w *running) Emit(e core.Event) {
	w.mu.Lock()
	switch e := e.(type) {
	case core.Started:
		w.steps = append(w.steps, e.Step)
	case core.Done:
		w.steps = slices.DeleteFunc(w.steps, func(s core.Step) bool { return s.ID == e.Step.ID })
	}
	w.mu.Unlock()
	w.sink.Emit(e)
}

func (w *running) names() (list []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.steps {
		list = append(list, s.Name)
	}
	return list
}

// stepCode is the exit code of the command that failed, where --exit-code-from-step
// asks for it; otherwise code.
func stepCode(err error, code int) int {
	var e *core.Error
	if errors.As(err, &e) && e.Kind == core.KindStep && e.ExitCode > 0 {
		return e.ExitCode
	}
	return code
}
