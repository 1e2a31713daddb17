package display

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/layerwright/layerwright/core"
)

const (
	// silence is after how long a step without output shows a sign of life.
	silence = time.Minute
	// transferEvery is how often a long transfer says how far it is.
	transferEvery = 30 * time.Second
	// A transfer gets a line of its own from this size or duration on;
	// smaller ones are only summed up.
	bigTransfer  = 1 << 20
	longTransfer = 5 * time.Second
	// reminder is after how many lines of others a step's name is repeated.
	reminder = 40
)

// plain appends lines, each with the number of its step.
type plain struct {
	o Options

	mu        sync.Mutex
	w         io.Writer
	out       strings.Builder // what one event has to say, written at once
	lines     int             // written so far
	steps     map[string]*plainStep
	transfers map[string]*plainTransfer
	moved     int64 // bytes of all transfers
	movedN    int
	seen      notices
	last      *plainStep // that the last line belonged to
	finished  bool
	ticker    *ticker
}

type plainStep struct {
	step     core.Step
	started  time.Time
	spoke    time.Time // when it last showed something
	lastLine int       // number of its last line
	streams  [2]lineBuffer
}

type plainTransfer struct {
	name            string
	started, spoke  time.Time
	current, before int64 // bytes; at the first event
}

func newPlain(w io.Writer, o Options) *plain {
	p := &plain{o: o, w: w, steps: map[string]*plainStep{}, transfers: map[string]*plainTransfer{}, seen: notices{}}
	if !o.still {
		p.ticker = startTicker(cmp.Or(o.every, 5*time.Second), func() { p.tick(o.Now()) })
	}
	return p
}

func (p *plain) Emit(e core.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.finished {
		return
	}
	if n, ok := e.(core.Notice); ok {
		if showNotice(p.o.Verbosity, n) && p.seen.first(n) {
			p.notice(n)
		}
	} else if p.o.Verbosity >= Normal {
		p.event(e)
	}
	p.flush()
}

func (p *plain) notice(n core.Notice) {
	s := noticeText(n)
	if n.Level == core.Warning {
		s = paint(p.o.Color, yellow, s)
	}
	p.line(s)
}

func (p *plain) event(e core.Event) {
	switch e := e.(type) {
	case core.Started:
		p.start(e.Step, e.Time)
	case core.Log:
		s := p.start(e.Step, e.Time)
		t := p.timeOr(e.Time)
		s.streams[streamIndex(e.Stream)].add(e.Data, func(l []byte) { p.output(s, t, l) })
	case core.Done:
		p.done(e)
	case core.Transfer:
		p.transfer(e)
	}
}

func streamIndex(stream int) int {
	if stream == 2 {
		return 1
	}
	return 0
}

func (p *plain) timeOr(t time.Time) time.Time {
	if t.IsZero() {
		return p.o.Now()
	}
	return t
}

// start shows a step's name the first time that it is heard of.
func (p *plain) start(step core.Step, t time.Time) *plainStep {
	s := p.steps[step.ID]
	if s == nil {
		t = p.timeOr(t)
		s = &plainStep{step: step, started: t, spoke: t}
		p.steps[step.ID] = s
		p.name(s)
	}
	return s
}

func (p *plain) name(s *plainStep) {
	p.line(paint(p.o.Color, blue, fmt.Sprintf("#%d %s", s.step.Number, oneLine(s.step.Name))))
	s.lastLine, p.last = p.lines, s
}

// say is a line of a step; its name is repeated where it has scrolled away.
func (p *plain) say(s *plainStep, text string) {
	if p.last != s && p.lines-s.lastLine > reminder {
		p.name(s)
	}
	p.line(strings.TrimRight(fmt.Sprintf("#%d %s", s.step.Number, text), " "))
	s.lastLine, p.last = p.lines, s
}

func (p *plain) output(s *plainStep, t time.Time, line []byte) {
	s.spoke = t
	p.say(s, fmt.Sprintf("%.3f %s", max(t.Sub(s.started), 0).Seconds(), clean(line, p.o.Color)))
}

func (p *plain) done(e core.Done) {
	s := p.start(e.Step, e.Time)
	t := p.timeOr(e.Time)
	for i := range s.streams {
		s.streams[i].flush(func(l []byte) { p.output(s, t, l) })
	}
	switch state(e) {
	case "cached":
		p.say(s, "CACHED")
	case "canceled":
		p.say(s, "CANCELED")
	case "error":
		p.say(s, paint(p.o.Color, red, "ERROR: "+oneLine(e.Err.Error())))
	default:
		p.say(s, "DONE "+duration(e.Duration))
	}
	delete(p.steps, e.Step.ID)
	p.last = nil
}

// state is how a step ended, in a word.
func state(e core.Done) string {
	switch {
	case e.Err == nil && e.Cached:
		return "cached"
	case e.Err == nil:
		return "done"
	case canceled(e.Err):
		return "canceled"
	}
	return "error"
}

// canceled says that err is no failure of its own: something else ended it.
func canceled(err error) bool {
	var e *core.Error
	if errors.As(err, &e) {
		return false
	}
	return errors.Is(err, context.Canceled)
}

func (p *plain) transfer(e core.Transfer) {
	now := p.timeOr(e.Time)
	t := p.transfers[e.ID]
	if t == nil {
		t = &plainTransfer{name: oneLine(e.Name), started: now, spoke: now, before: e.Current}
		if e.Finished { // heard of only now that it is over
			t.before = 0
		}
		p.transfers[e.ID] = t
	}
	t.current, t.name = e.Current, oneLine(e.Name) // what is sent may get its name on the way
	took := now.Sub(t.started)
	switch {
	case e.Finished:
		p.moved, p.movedN = p.moved+e.Current, p.movedN+1
		delete(p.transfers, e.ID)
		if e.Current >= bigTransfer || took >= longTransfer || p.o.Verbosity >= Debug {
			p.line(joinNonEmpty(t.name+":", size(e.Current), "in", duration(took), bracket(rate(e.Current-t.before, took))))
			p.last = nil
		}
	case now.Sub(t.spoke) >= transferEvery:
		t.spoke = now
		of := ""
		if e.Total > 0 {
			of = "of " + size(e.Total)
		}
		p.line(joinNonEmpty(t.name+":", size(e.Current), of, bracket(rate(e.Current-t.before, took))))
		p.last = nil
	}
}

func bracket(s string) string {
	if s == "" {
		return ""
	}
	return "(" + s + ")"
}

func joinNonEmpty(parts ...string) string {
	kept := parts[:0]
	for _, s := range parts {
		if s != "" {
			kept = append(kept, s)
		}
	}
	return strings.Join(kept, " ")
}

// tick gives signs of life.
func (p *plain) tick(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.finished || p.o.Verbosity < Normal {
		return
	}
	running := make([]*plainStep, 0, len(p.steps))
	for _, s := range p.steps {
		running = append(running, s)
	}
	sort.Slice(running, func(i, j int) bool { return running[i].step.Number < running[j].step.Number })
	for _, s := range running {
		quiet := now.Sub(s.spoke)
		if quiet < silence {
			continue
		}
		for i := range s.streams { // a line that waits for its end
			s.streams[i].flush(func(l []byte) { p.output(s, now, l) })
		}
		s.spoke = now
		p.say(s, fmt.Sprintf("%.3f … still running, silent for %s", now.Sub(s.started).Seconds(), duration(quiet)))
	}
	p.flush()
}

func (p *plain) line(s string) {
	p.out.WriteString(s)
	p.out.WriteByte('\n')
	p.lines++
}

func (p *plain) flush() {
	if p.out.Len() > 0 {
		_, _ = io.WriteString(p.w, p.out.String())
		p.out.Reset()
	}
}

func (p *plain) Finish(o Outcome) {
	p.ticker.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.finished {
		return
	}
	p.finished = true
	for _, s := range p.steps { // cut off in the middle
		for i := range s.streams {
			s.streams[i].flush(func(l []byte) { p.output(s, p.o.Now(), l) })
		}
	}
	if p.movedN > 0 && p.o.Verbosity >= Normal {
		plural := "s"
		if p.movedN == 1 {
			plural = ""
		}
		p.line(fmt.Sprintf("moved %s in %d transfer%s", size(p.moved), p.movedN, plural))
	}
	p.flush()
	writeOutcome(p.w, p.o, o)
}

// writeOutcome is the end that plain and TTY have in common.
func writeOutcome(w io.Writer, opts Options, o Outcome) {
	if o.Err != nil {
		_, _ = io.WriteString(w, "\n"+ErrorText(o.Err, opts.Color))
	} else if opts.Verbosity >= Normal {
		_, _ = io.WriteString(w, "\n"+summaryText(o))
	}
}

// ticker calls a function now and then until it is stopped.
type ticker struct {
	quit chan struct{}
	done chan struct{}
}

func startTicker(every time.Duration, f func()) *ticker {
	t := &ticker{quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(t.done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-t.quit:
				return
			case <-tick.C:
				f()
			}
		}
	}()
	return t
}

// stop returns when f is not running and will not run again.
func (t *ticker) stop() {
	if t == nil {
		return
	}
	select {
	case <-t.quit:
	default:
		close(t.quit)
	}
	<-t.done
}
