package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
)

func TestATimeoutSaysWhatRan(t *testing.T) {
	w := &running{sink: &recorder{}}
	for _, s := range []string{"a", "b", "c"} {
		w.Emit(core.Started{Step: core.Step{ID: s, Name: "RUN " + s}})
	}
	w.Emit(core.Done{Step: core.Step{ID: "b"}})
	err := &timeoutError{time.Minute, w.names()}
	require.EqualError(t, err, "the build took longer than --timeout 1m0s; running then: RUN a; RUN c")
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, w.sink.(*recorder).events, 4, "events are passed on")
	wrapped := &core.Error{Kind: core.KindStep, Err: err}
	require.Equal(t, 124, exitCode(t.Context(), wrapped))
	require.Equal(t, 124, stepCode(wrapped, 124), "no command has a code")
}

func TestTheCodeOfAStep(t *testing.T) {
	require.Equal(t, 42, stepCode(&core.Error{Kind: core.KindStep, ExitCode: 42, Err: errors.New("x")}, 1))
	require.Equal(t, 3, stepCode(&core.Error{Kind: core.KindRegistry, Err: errors.New("x")}, 3))
	require.Equal(t, 0, stepCode(nil, 0))
	require.Equal(t, 137, enteredCode(t.Context(), 137), "of a step, and not of a signal to us")
}

func TestLimitsAreChecked(t *testing.T) {
	s, err := parse(t, nil, "--no-push", "--min-free", "2g", "--ignore-path", "/var/cache/", "--ignore-path=/a,b")
	require.NoError(t, err)
	require.Equal(t, int64(2<<30), s.MinFree)
	require.Equal(t, []string{"/var/cache", "/a,b"}, s.IgnorePaths)
	s, err = parse(t, nil, "--no-push", "--min-free", "0")
	require.NoError(t, err)
	require.Equal(t, int64(-1), s.MinFree)
	_, err = parse(t, nil, "--no-push", "--min-free", "much", "--timeout", "-1s", "--ignore-path", "tmp", "--ignore-path", "/")
	for _, want := range []string{"--min-free much: write a size", "--timeout -1s", "--ignore-path tmp: write an absolute path", "--ignore-path /:"} {
		require.ErrorContains(t, err, want)
	}
}

type recorder struct{ events []core.Event }

func (r *recorder) Emit(e core.Event) { r.events = append(r.events, e) }
