// Package progress owns the events that a running build emits. It has no
// opinion on how they look: the engine emits, only adapters print.
package progress

import (
	"time"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// Sink takes events. Emit is called from many goroutines, must not block for
// long, and must not keep a Log's Data after it returns.
type Sink interface{ Emit(Event) }

// Event is one of the types of this package.
type Event interface{ event() }

// Step is what an event says of the vertex that it belongs to.
type Step struct {
	// ID is unique in a build and stable between builds of one definition.
	ID string
	// Number counts the build's vertices from 1 in the order of the graph.
	Number int
	// Name is what BuildKit's users know: "[build 2/4] RUN make".
	Name string
	// Location is the instruction; nil for vertices without one.
	Location *fault.Location
}

// Plan is the first event of a solve: every step that may run, in graph order.
type Plan struct{ Steps []Step }

// Started says that a step has begun.
type Started struct {
	Step Step
	Time time.Time
}

// Log is output of a step's command, as it came: not necessarily whole lines.
type Log struct {
	Step Step
	// Stream is 1 for standard output, 2 for standard error.
	Stream int
	Data   []byte
	Time   time.Time
}

// Done says that a step has ended.
type Done struct {
	Step Step
	// Err is nil on success; a canceled step has the cancellation's cause.
	Err error
	// Cached means that the step did not run because its result was known.
	Cached bool
	Time   time.Time
	// Duration is wall time since Started.
	Duration time.Duration
}

// Transfer reports bytes that moved for one blob or file.
type Transfer struct {
	// ID is unique for the transfer, Name is for people: "pull debian:12
	// sha256:1234".
	ID, Name string
	// Current and Total are bytes; Total is 0 where it is not known.
	Current, Total int64
	Finished       bool
	Time           time.Time
}

// Notice is one thing that the user should know: a fallback that was taken, a
// flag without effect, a lint warning.
type Notice struct {
	Level Level
	// Rule is the lint rule's name where the notice is a lint warning.
	Rule string
	// Text is one sentence; URL leads to more, may be empty.
	Text, URL string
	Location  *fault.Location
	Time      time.Time
}

// Work says what time was spent on, once that is over: for profiles.
type Work struct {
	// Step is whose work it was; zero for the build's own.
	Step Step
	// Kind is what was done, in one or two words: "command", "unpack".
	Kind  string
	Start time.Time
	Took  time.Duration
}

// Timed begins a Work; calling what it returns ends and emits it.
func Timed(sink Sink, step Step, kind string) (end func()) {
	start := time.Now()
	return func() { sink.Emit(Work{Step: step, Kind: kind, Start: start, Took: time.Since(start)}) }
}

// Level is how much a Notice matters.
type Level int

// Levels, least first.
const (
	Info Level = iota
	Warning
)

func (Plan) event()     {}
func (Started) event()  {}
func (Log) event()      {}
func (Done) event()     {}
func (Transfer) event() {}
func (Notice) event()   {}
func (Work) event()     {}

// Discard is a Sink that drops everything.
var Discard Sink = discard{}

type discard struct{}

func (discard) Emit(Event) {}
