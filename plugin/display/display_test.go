package display

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares got with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

var zero = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(seconds float64) time.Time { return zero.Add(time.Duration(seconds * float64(time.Second))) }

const dockerfile = `FROM alpine AS build
RUN make
RUN make test
COPY . .
FROM scratch
COPY --from=build /x /
CMD ["/x"]
`

func step(n int, name string) core.Step {
	return core.Step{ID: fmt.Sprint("s", n), Number: n, Name: name,
		Location: &core.Location{File: "Dockerfile", Start: n, End: n, Source: []byte(dockerfile)}}
}

func failure() error {
	return &core.Error{
		Kind: core.KindStep, Op: "RUN make test", Err: errors.New("command exited with code 9"), ExitCode: 9,
		Location: &core.Location{File: "Dockerfile", Start: 3, End: 3, Source: []byte(dockerfile)},
		Output:   []byte("testing\rtesting 100%\r\n\x1b[31mFAIL\x1b[0m: hunter22\n"),
		Remedy:   "Look at the output above.",
	}
}

// scenario is a build of everything that there is to see.
func scenario(v View, err error) {
	from, mk, test, cp := step(1, "[build 1/3] FROM alpine"), step(2, "[build 2/3] RUN make"), step(3, "[build 3/3] RUN make test"), step(4, "[stage-1 1/1] COPY x")
	v.Emit(core.Plan{Steps: []core.Step{from, mk, test, cp}})
	v.Emit(core.Notice{Level: core.Warning, Rule: "JSONArgsRecommended", Text: "use JSON", URL: "https://docs.example/x", Location: from.Location, Time: at(0)})
	v.Emit(core.Notice{Level: core.Warning, Rule: "JSONArgsRecommended", Text: "use JSON", URL: "https://docs.example/x", Location: from.Location, Time: at(0)})
	v.Emit(core.Started{Step: from, Time: at(0)})
	v.Emit(core.Transfer{ID: "t", Name: "pull alpine sha256:1234", Current: 1 << 20, Total: 4 << 20, Time: at(0.5)})
	v.Emit(core.Transfer{ID: "t", Name: "pull alpine sha256:1234", Current: 2 << 20, Total: 4 << 20, Time: at(0.6)})
	v.Emit(core.Transfer{ID: "t", Name: "pull alpine sha256:1234", Current: 4 << 20, Total: 4 << 20, Finished: true, Time: at(1)})
	v.Emit(core.Done{Step: from, Cached: true, Time: at(1), Duration: time.Second})
	v.Emit(core.Started{Step: mk, Time: at(1)})
	v.Emit(core.Started{Step: cp, Time: at(1.1)})
	v.Emit(core.Log{Step: mk, Stream: 1, Data: []byte("cc ma"), Time: at(1.2)})
	v.Emit(core.Log{Step: mk, Stream: 2, Data: []byte("warning: \x1b]0;title\x07odd\x1b[2J\n"), Time: at(1.3)})
	v.Emit(core.Log{Step: mk, Stream: 1, Data: []byte("in.c\n10%\r20%\rdone\ntoken=hun"), Time: at(1.4)})
	v.Emit(core.Log{Step: mk, Stream: 1, Data: []byte("ter22 and more"), Time: at(1.5)})
	v.Emit(core.Done{Step: mk, Time: at(5.25), Duration: 4250 * time.Millisecond})
	v.Emit(core.Started{Step: test, Time: at(5.3)})
	v.Emit(core.Log{Step: test, Stream: 2, Data: []byte("FAIL: hunter22\n"), Time: at(5.4)})
	out := Outcome{Took: 6 * time.Second, Err: err}
	if err != nil {
		v.Emit(core.Done{Step: test, Err: err, Time: at(6), Duration: 700 * time.Millisecond})
		v.Emit(core.Done{Step: cp, Err: fmt.Errorf("stop: %w", context.Canceled), Time: at(6), Duration: 5 * time.Second})
	} else {
		v.Emit(core.Done{Step: test, Time: at(6), Duration: 700 * time.Millisecond})
		v.Emit(core.Done{Step: cp, Time: at(6), Duration: 5 * time.Second})
		out.Result = &core.Result{Digest: "sha256:feed", ImageID: "sha256:cafe", Destinations: []string{"r.example/x:1"}, MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 500}
		out.Files = []string{"out.tar"}
	}
	v.Finish(out)
	v.Emit(core.Log{Step: test, Data: []byte("too late\n")})
}

func options(secret bool) Options {
	o := Options{still: true, Now: func() time.Time { return at(2) }}
	if secret {
		o.Secrets = [][]byte{[]byte("hunter22\n")}
	}
	return o
}

func TestViews(t *testing.T) {
	for _, c := range []struct {
		name   string
		format Format
		err    error
		change func(*Options)
	}{
		{"plain-done", Plain, nil, nil},
		{"plain-failed", Plain, failure(), nil},
		{"plain-warn", Plain, failure(), func(o *Options) { o.Verbosity = Warnings }},
		{"plain-color", Plain, failure(), func(o *Options) { o.Color = true }},
		{"json-done", JSON, nil, nil},
		{"json-failed", JSON, failure(), nil},
		{"tty-done", TTY, nil, func(o *Options) { o.Size = func() (int, int) { return 60, 12 } }},
		{"tty-failed", TTY, failure(), func(o *Options) { o.Color = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			o := options(true)
			if c.change != nil {
				c.change(&o)
			}
			scenario(New(c.format, &b, o), c.err)
			require.NotContains(t, b.String(), "hunter22", "secrets are masked, also in pieces")
			require.NotContains(t, b.String(), "too late")
			if c.format != JSON { // whose readers get the output as it was
				require.NotContains(t, b.String(), "title")
			}
			golden(t, c.name+".golden", b.String())
		})
	}
}

func TestJSONIsOneValidObjectALine(t *testing.T) {
	var b bytes.Buffer
	scenario(New(JSON, &b, options(false)), failure())
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	var last map[string]any
	for _, l := range lines {
		last = nil
		require.NoError(t, json.Unmarshal([]byte(l), &last), l)
		require.NotEmpty(t, last["type"])
		require.NotEmpty(t, last["time"])
	}
	require.Equal(t, "error", last["type"])
	require.EqualValues(t, 9, last["exit_code"])
	require.Equal(t, "step", last["kind"])
}

func TestJSONCanceled(t *testing.T) {
	var b bytes.Buffer
	New(JSON, &b, options(false)).Finish(Outcome{Err: fmt.Errorf("ended: %w", context.Canceled)})
	require.Contains(t, b.String(), `"kind":"canceled"`)
}

// TestTTYLive: what a terminal shows while steps run, and that what is redrawn
// never is wider or higher than it.
func TestTTYLive(t *testing.T) {
	var b bytes.Buffer
	o := options(false)
	o.Size = func() (int, int) { return 50, 9 }
	v := newTTY(&b, o.withDefaults())
	for i := 1; i <= 4; i++ {
		s := step(i, fmt.Sprintf("[%d/4] RUN something that is rather long, over %d columns", i, 50))
		v.Emit(core.Started{Step: s, Time: at(0)})
		v.Emit(core.Log{Step: s, Stream: 1, Data: []byte("one\ntwo 漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字\nthree"), Time: at(1)})
	}
	v.Emit(core.Transfer{ID: "x", Name: "pull y", Current: 5 << 20, Total: 10 << 20, Time: at(1)})
	lines := v.live(at(2))
	require.LessOrEqual(t, len(lines), 8)
	for _, l := range lines {
		require.LessOrEqual(t, columns(l), 49, l)
	}
	v.tick(at(2))
	v.tick(at(3))
	v.Finish(Outcome{Took: time.Second})
	golden(t, "tty-live.golden", b.String())
}

func TestPlainSignsOfLife(t *testing.T) {
	var b bytes.Buffer
	o := options(false).withDefaults()
	p := newPlain(&b, o)
	p.Emit(core.Started{Step: step(2, "RUN slow"), Time: at(0)})
	p.tick(at(30))
	p.Emit(core.Log{Step: step(2, "RUN slow"), Stream: 1, Data: []byte("no line end"), Time: at(31)})
	p.tick(at(95))
	p.tick(at(96))
	p.Emit(core.Transfer{ID: "t", Name: "push x", Current: 10, Total: 100 << 20, Time: at(100)})
	p.Emit(core.Transfer{ID: "t", Name: "push x", Current: 50 << 20, Total: 100 << 20, Time: at(131)})
	p.Finish(Outcome{Err: errors.New("x")})
	golden(t, "plain-life.golden", b.String())
}

// TestATransferIsCalledWhatItIsAtItsEnd: one of a layer in the making has a digest then,
// or was given up.
func TestATransferIsCalledWhatItIsAtItsEnd(t *testing.T) {
	var b bytes.Buffer
	p := newPlain(&b, options(false).withDefaults())
	p.Emit(core.Transfer{ID: "t", Name: "push r a layer in the making", Current: 10, Time: at(0)})
	p.Emit(core.Transfer{ID: "t", Name: "push r sha256:1234", Current: 10 << 20, Finished: true, Time: at(1)})
	require.Contains(t, b.String(), "push r sha256:1234: ")
	require.NotContains(t, b.String(), "in the making")
}

// TestASilentStepIsHeardOfWithoutAnyEvent: after a minute of the clock, and again
// after the next; nothing but time passes.
func TestASilentStepIsHeardOfWithoutAnyEvent(t *testing.T) {
	var shown lockedBuffer
	var passed atomic.Int64
	v := New(Plain, &shown, Options{Now: func() time.Time { return at(float64(passed.Load())) }, every: time.Millisecond})
	v.Emit(core.Started{Step: step(2, "RUN slow"), Time: at(0)})
	passed.Store(59)
	time.Sleep(20 * time.Millisecond)
	require.NotContains(t, shown.String(), "still running")
	for i, second := range []int64{60, 120} {
		passed.Store(second)
		require.Eventually(t, func() bool { return strings.Count(shown.String(), "still running, silent for 1m00s") == i+1 }, 10*time.Second, time.Millisecond)
	}
	v.Finish(Outcome{Err: errors.New("x")})
}

// lockedBuffer is written by a view and read by a test at the same time.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestPlainRepeatsNameThatHasScrolledAway(t *testing.T) {
	var b bytes.Buffer
	p := newPlain(&b, options(false).withDefaults())
	one, two := step(1, "RUN one"), step(2, "RUN two")
	p.Emit(core.Started{Step: one, Time: at(0)})
	for range reminder + 5 {
		p.Emit(core.Log{Step: two, Stream: 1, Data: []byte("x\n"), Time: at(0)})
	}
	p.Emit(core.Log{Step: one, Stream: 1, Data: []byte("y\n"), Time: at(1)})
	require.Equal(t, 2, strings.Count(b.String(), "#1 RUN one\n"))
	p.Finish(Outcome{})
}

func TestErrorText(t *testing.T) {
	long := &core.Error{Kind: core.KindStep, Err: errors.New("killed"), ExitCode: 137, Output: []byte(strings.Repeat("line\n", 50))}
	text := ErrorText(long, false)
	require.Equal(t, outputLines, strings.Count(text, "  | line\n"))
	require.Contains(t, text, "exit code: 137 (killed: often the memory limit)")

	beyond := &core.Error{Kind: core.KindUser, Err: errors.New("x"), Location: &core.Location{File: "D", Start: 99, Source: []byte("FROM a\n")}}
	require.Equal(t, "ERROR: D:99: x\n", ErrorText(beyond, false))

	several := ErrorText(errors.Join(errors.New("a\x1b[2J"), errors.New("b")), false)
	require.Equal(t, "ERROR: a\n  b\n", several)
}

func TestRedactor(t *testing.T) {
	r := NewRedactor([][]byte{[]byte("abcd"), []byte("abcdef\n"), []byte("no"), []byte("line one\nline two\n")})
	require.Equal(t, "*** *** no *** ***", r.String("abcdef abcd no line one line two"))
	require.Nil(t, NewRedactor([][]byte{[]byte("x"), nil}))
	require.Equal(t, "x", NewRedactor(nil).String("x"))

	masked := r.Error(fmt.Errorf("around abcd: %w", &core.Error{Kind: core.KindRegistry, Op: "login", Err: errors.New("abcdef is wrong"), Remedy: "use abcd"}))
	require.Equal(t, "around ***: login: *** is wrong", masked.Error())
	var e *core.Error
	require.ErrorAs(t, masked, &e)
	require.Equal(t, core.KindRegistry, e.Kind)
	require.Equal(t, "use ***", e.Remedy)

	plain := r.Error(errors.New("abcd"))
	require.EqualError(t, plain, "***")
}

func TestText(t *testing.T) {
	require.Equal(t, "3m07s", duration(187*time.Second))
	require.Equal(t, "1h02m", duration(62*time.Minute))
	require.Equal(t, "4.2s", duration(4290*time.Millisecond))
	require.Equal(t, "28.2MB", size(28_200_000))
	require.Empty(t, rate(100, time.Millisecond))
	require.Equal(t, "red", clean([]byte("\x1b[31mred"), false))
	require.Equal(t, "\x1b[31mred\x1b[0m", clean([]byte("\x1b[31mred\x1b[5A"), true))
	require.Equal(t, "ab", clean([]byte("a\x1b"+"]8;;http://x\x1b\\b\x07"), true))
	for _, s := range []string{"error", "WARN", "info", "debug", "trace", "panic"} {
		_, err := ParseVerbosity(s)
		require.NoError(t, err)
	}
	_, err := ParseVerbosity("loud")
	require.Error(t, err)
	s, left := fit("漢字漢字", 5)
	require.Equal(t, "漢字…", s)
	require.Zero(t, left)
}

func TestLongLinesAreCut(t *testing.T) {
	var got int
	var l lineBuffer
	l.add(bytes.Repeat([]byte("x"), maxLine+1), func(b []byte) { got += len(b) })
	require.Equal(t, maxLine+1, got)
}

// TestManyAtOnce: Emit is called from many goroutines while the view redraws.
func TestManyAtOnce(t *testing.T) {
	for _, f := range []Format{Plain, TTY, JSON} {
		var b bytes.Buffer
		v := New(f, &b, Options{Secrets: [][]byte{[]byte("hunter22")}})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				s := step(i+1, "RUN x")
				v.Emit(core.Started{Step: s, Time: at(0)})
				for range 100 {
					v.Emit(core.Log{Step: s, Stream: 1, Data: []byte("hunt"), Time: at(1)})
					v.Emit(core.Log{Step: s, Stream: 1, Data: []byte("er22\n"), Time: at(1)})
				}
				v.Emit(core.Done{Step: s, Time: at(2)})
			})
		}
		wg.Wait()
		v.Finish(Outcome{})
		require.NotContains(t, b.String(), "hunter22")
	}
}

// A secret may stand in the name of a step: an instruction has the values of
// build arguments in it.
func TestNoSecretInWhatIsSaidOfSteps(t *testing.T) {
	for _, format := range []Format{Plain, TTY, JSON} {
		var out bytes.Buffer
		v := New(format, &out, Options{Secrets: [][]byte{[]byte("planted")}, Size: func() (int, int) { return 80, 24 }})
		s := core.Step{ID: "1", Number: 1, Name: "[1/1] RUN echo planted"}
		v.Emit(core.Plan{Steps: []core.Step{s}})
		v.Emit(core.Started{Step: s, Time: time.Now()})
		v.Emit(core.Log{Step: s, Stream: 1, Data: []byte("said\n"), Time: time.Now()})
		v.Emit(core.Transfer{ID: "t", Name: "pull planted", Time: time.Now(), Finished: true, Current: 1, Total: 1})
		v.Emit(core.Done{Step: s, Time: time.Now()})
		v.Finish(Outcome{ExplainCache: true, Result: &core.Result{Cache: []core.CachedStep{{Name: s.Name, Why: "planted", Details: []string{"planted"}}}}})
		require.Contains(t, out.String(), "***")
		require.NotContains(t, out.String(), "planted")
	}
}
