package display

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/layerwright/layerwright/core"
)

// Format is how progress looks. A sealed choice.
type Format int

const (
	// Plain is lines that only ever get appended, each with its step.
	Plain Format = iota
	// TTY redraws what is running at the lower end of a terminal.
	TTY
	// JSON is one object a line: see the package comment.
	JSON
)

// Verbosity is how much is shown; JSON always has everything.
type Verbosity int

// Verbosities, least first. Normal is the zero value.
const (
	Errors   Verbosity = iota - 2 // only how a build failed
	Warnings                      // and warnings
	Normal                        // and steps, their output, the result
	Debug                         // and each transfer; all output also on a terminal
)

// Verbosities are the names that ParseVerbosity takes, least first.
var verbosities = []struct {
	name  string
	level Verbosity
}{
	{"error", Errors}, {"warn", Warnings}, {"info", Normal}, {"debug", Debug},
	// Kaniko's further names.
	{"panic", Errors}, {"fatal", Errors}, {"warning", Warnings}, {"trace", Debug},
}

// ParseVerbosity reads error, warn, info or debug, and Kaniko's further names.
func ParseVerbosity(s string) (Verbosity, error) {
	for _, v := range verbosities {
		if v.name == strings.ToLower(s) {
			return v.level, nil
		}
	}
	return Normal, fmt.Errorf("unknown verbosity %q: use error, warn, info or debug", s)
}

// Options are what the views can be told. The zero value works.
type Options struct {
	Verbosity Verbosity
	// Color allows colours: our own, and those in the output of steps.
	Color bool
	// Size is the terminal's width and height in cells, asked before each
	// drawing; 80 × 24 when nil or not positive. Only TTY uses it.
	Size func() (width, height int)
	// Secrets are values that are replaced by *** wherever text is shown.
	Secrets [][]byte
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// still stops the goroutine that redraws, for tests that call tick; every is
	// how often Plain looks for steps that are silent, for tests that wait for it.
	still bool
	every time.Duration
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Size == nil {
		o.Size = func() (int, int) { return 0, 0 }
	}
	return o
}

// Outcome is how a build ended.
type Outcome struct {
	// Result is nil when Err is not.
	Result *core.Result
	Err    error
	// Files are the local outputs that were written.
	Files []string
	// ExplainCache asks for more words about the cache.
	ExplainCache bool
	// Took is the whole build's time; 0 where nothing was built.
	Took time.Duration
}

// View shows one build. Emit may be called from many goroutines; events that
// come after Finish are dropped. Errors of the writer are ignored: a build does
// not fail because nobody looks.
type View interface {
	core.Sink
	// Finish ends the view and shows the outcome. It is called once, and
	// when it returns the view writes nothing more.
	Finish(Outcome)
}

// New starts a view on w.
func New(f Format, w io.Writer, o Options) View {
	o = o.withDefaults()
	var v View
	switch f {
	case TTY:
		v = newTTY(w, o)
	case JSON:
		v = newJSON(w, o)
	default:
		v = newPlain(w, o)
	}
	if r := NewRedactor(o.Secrets); r != nil {
		v = &masked{View: v, r: r, pending: map[streamKey][]byte{}}
	}
	return v
}

// Early shows a notice where there is no view yet.
func Early(f Format, w io.Writer, o Options, n core.Notice) {
	if f == JSON {
		newJSON(w, o.withDefaults()).Emit(n)
		return
	}
	_, _ = io.WriteString(w, noticeText(n)+"\n")
}

// notices remembers which notices were shown: a build of several platforms
// checks the same Dockerfile several times.
type notices map[string]bool

func (n notices) first(e core.Notice) bool {
	key := fmt.Sprint(e.Level, e.Rule, "\x00", e.Text)
	if e.Location != nil {
		key += "\x00" + e.Location.String()
	}
	if n[key] {
		return false
	}
	n[key] = true
	return true
}

func noticeText(e core.Notice) string {
	var b strings.Builder
	if e.Level == core.Warning {
		b.WriteString("WARN: ")
	} else {
		b.WriteString("NOTE: ")
	}
	if e.Rule != "" {
		b.WriteString(e.Rule + ": ")
	}
	b.WriteString(oneLine(e.Text))
	if e.Location != nil {
		fmt.Fprintf(&b, " (%s)", e.Location)
	}
	if e.URL != "" {
		b.WriteString(" " + e.URL)
	}
	return b.String()
}

func showNotice(v Verbosity, e core.Notice) bool {
	return v >= Normal || v == Warnings && e.Level == core.Warning
}
