package profile

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/layerwright/layerwright/core"
)

// The groups of rows in a trace ("processes" in its format).
const (
	buildGroup = iota + 1
	stepGroup
	transferGroup
	memoryGroup
)

// entry is one event in Chrome's trace format: times are microseconds.
// https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
type entry struct {
	Name  string         `json:"name"`
	Kind  string         `json:"cat,omitempty"`
	Phase string         `json:"ph"`
	Start int64          `json:"ts"`
	Took  int64          `json:"dur,omitempty"`
	Group int            `json:"pid"`
	Row   int            `json:"tid"`
	Scope string         `json:"s,omitempty"`
	Args  map[string]any `json:"args,omitempty"`
}

// trace collects what a build did.
type trace struct {
	start   time.Time
	entries []entry
	// busy is until when each row of a group is in use.
	busy map[int][]time.Time
	// begun are transfers under way.
	begun map[string]core.Transfer
	steps map[int]bool
}

func newTrace(start time.Time) trace {
	return trace{start: start, busy: map[int][]time.Time{}, begun: map[string]core.Transfer{}, steps: map[int]bool{}}
}

func (t *trace) at(when time.Time) int64 { return max(0, when.Sub(t.start).Microseconds()) }

func (t *trace) event(e core.Event) {
	switch e := e.(type) {
	case core.Done:
		t.step(e)
	case core.Work:
		t.work(e)
	case core.Transfer:
		t.transfer(e)
	case core.Notice:
		t.entries = append(t.entries, entry{Name: e.Text, Kind: "notice", Phase: "i", Start: t.at(e.Time), Group: buildGroup, Scope: "g"})
	}
}

// step is a row of its own for each step that ran.
func (t *trace) step(e core.Done) {
	if e.Cached || e.Duration == 0 {
		return
	}
	t.name(e.Step)
	args := map[string]any{}
	if e.Step.Location != nil {
		args["file"], args["line"] = e.Step.Location.File, e.Step.Location.Start
	}
	if e.Err != nil {
		args["error"] = e.Err.Error()
	}
	t.span(stepGroup, e.Step.Number, e.Step.Name, "step", e.Time.Add(-e.Duration), e.Duration, args)
}

func (t *trace) name(s core.Step) {
	if !t.steps[s.Number] {
		t.steps[s.Number] = true
		t.label("thread_name", stepGroup, s.Number, s.Name)
	}
}

// work is in its step's row, within the step, or in the build's.
func (t *trace) work(e core.Work) {
	if e.Step.ID == "" {
		t.span(buildGroup, t.free(buildGroup, e.Start, e.Start.Add(e.Took)), e.Kind, "build", e.Start, e.Took, nil)
		return
	}
	t.name(e.Step)
	t.span(stepGroup, e.Step.Number, e.Kind, strings.ReplaceAll(e.Kind, " ", "-"), e.Start, e.Took, nil)
}

// transfer is a row from a blob's first byte to its last.
func (t *trace) transfer(e core.Transfer) {
	first, ok := t.begun[e.ID]
	if !ok {
		t.begun[e.ID], first = e, e
	}
	if !e.Finished {
		return
	}
	delete(t.begun, e.ID)
	row := t.free(transferGroup, first.Time, e.Time)
	t.span(transferGroup, row, e.Name, "transfer", first.Time, e.Time.Sub(first.Time), map[string]any{"bytes": e.Current})
}

// free is a row of a group where nothing else is between two times.
func (t *trace) free(group int, from, to time.Time) int {
	rows := t.busy[group]
	i := slices.IndexFunc(rows, func(until time.Time) bool { return !until.After(from) })
	if i < 0 {
		i = len(rows)
		rows = append(rows, to)
	}
	rows[i] = to
	t.busy[group] = rows
	return i
}

func (t *trace) span(group, row int, name, kind string, from time.Time, took time.Duration, args map[string]any) {
	t.entries = append(t.entries, entry{Name: name, Kind: kind, Phase: "X", Start: t.at(from), Took: max(1, took.Microseconds()), Group: group, Row: row, Args: args})
}

func (t *trace) counter(now time.Time, name string, values map[string]float64) {
	args := make(map[string]any, len(values))
	for k, v := range values {
		args[k] = v
	}
	t.entries = append(t.entries, entry{Name: name, Phase: "C", Start: t.at(now), Group: memoryGroup, Args: args})
}

func (t *trace) label(what string, group, row int, name string) {
	t.entries = append(t.entries, entry{Name: what, Phase: "M", Group: group, Row: row, Args: map[string]any{"name": name}})
}

// write gives the whole trace, in the order of time.
func (t *trace) write(w io.Writer) error {
	for group, name := range []string{"the build", "steps", "transfers", "this process"} {
		t.label("process_name", group+1, 0, name)
	}
	slices.SortStableFunc(t.entries, func(a, b entry) int { return int(a.Start - b.Start) })
	out := struct {
		Entries []entry `json:"traceEvents"`
		Unit    string  `json:"displayTimeUnit"`
	}{t.entries, "ms"}
	if err := json.NewEncoder(w).Encode(out); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	return nil
}
