package display

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/layerwright/layerwright/core"
)

const (
	// redraw is the shortest time between two drawings.
	redraw = 100 * time.Millisecond
	// tailLines is how much of a running step's output is shown.
	tailLines = 4
)

// tty keeps what is running at the lower end of a terminal; what has ended
// scrolls up and stays.
type tty struct {
	o       Options
	started time.Time

	mu        sync.Mutex
	w         io.Writer
	steps     []*ttyStep     // running, in the order that they started
	transfers []*ttyTransfer // likewise
	planned   map[string]bool
	ended     map[string]bool
	seen      notices
	scroll    []string // lines to put above the live part
	drawn     []int    // columns of each line of the live part
	hidden    bool     // the cursor
	finished  bool
	ticker    *ticker
}

type ttyStep struct {
	step    core.Step
	started time.Time
	streams [2]lineBuffer
	tail    []string
}

type ttyTransfer struct {
	core.Transfer
	started time.Time
	before  int64
}

func newTTY(w io.Writer, o Options) *tty {
	t := &tty{o: o, started: o.Now(), w: w, planned: map[string]bool{}, ended: map[string]bool{}, seen: notices{}}
	if !o.still {
		t.ticker = startTicker(redraw, func() { t.tick(o.Now()) })
	}
	return t
}

func (t *tty) Emit(e core.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.finished {
		return
	}
	if n, ok := e.(core.Notice); ok {
		if showNotice(t.o.Verbosity, n) && t.seen.first(n) {
			s := noticeText(n)
			if n.Level == core.Warning {
				s = paint(t.o.Color, yellow, s)
			}
			t.scroll = append(t.scroll, s)
		}
		return
	}
	if t.o.Verbosity < Normal {
		return
	}
	switch e := e.(type) {
	case core.Plan:
		for _, s := range e.Steps {
			t.planned[s.ID] = true
		}
	case core.Started:
		t.step(e.Step, e.Time)
	case core.Log:
		s := t.step(e.Step, e.Time)
		s.streams[streamIndex(e.Stream)].add(e.Data, func(l []byte) { t.output(s, l) })
	case core.Done:
		t.done(e)
	case core.Transfer:
		t.transfer(e)
	}
}

func (t *tty) timeOr(at time.Time) time.Time {
	if at.IsZero() {
		return t.o.Now()
	}
	return at
}

func (t *tty) step(step core.Step, at time.Time) *ttyStep {
	for _, s := range t.steps {
		if s.step.ID == step.ID {
			return s
		}
	}
	s := &ttyStep{step: step, started: t.timeOr(at)}
	t.steps = append(t.steps, s)
	t.planned[step.ID] = true
	return s
}

func (t *tty) output(s *ttyStep, line []byte) {
	text := clean(line, false)
	if t.o.Verbosity >= Debug {
		t.scroll = append(t.scroll, fmt.Sprintf("#%d %s", s.step.Number, clean(line, t.o.Color)))
		return
	}
	if s.tail = append(s.tail, text); len(s.tail) > tailLines {
		s.tail = slices.Delete(s.tail, 0, len(s.tail)-tailLines)
	}
}

func (t *tty) done(e core.Done) {
	s := t.step(e.Step, e.Time)
	for i := range s.streams {
		s.streams[i].flush(func(l []byte) { t.output(s, l) })
	}
	t.steps = slices.DeleteFunc(t.steps, func(o *ttyStep) bool { return o == s })
	t.ended[e.Step.ID] = true
	name, took := oneLine(e.Step.Name), duration(e.Duration)
	w := t.width()
	switch state(e) {
	case "cached":
		t.scroll = append(t.scroll, paint(t.o.Color, blue, row("=> CACHED "+name, "", w)))
	case "canceled":
		t.scroll = append(t.scroll, paint(t.o.Color, yellow, row("=> CANCELED "+name, took, w)))
	case "error":
		t.scroll = append(t.scroll, paint(t.o.Color, red, row("=> ERROR "+name, took, w)))
	default:
		t.scroll = append(t.scroll, paint(t.o.Color, blue, row("=> "+name, took, w)))
	}
}

func (t *tty) transfer(e core.Transfer) {
	now := t.timeOr(e.Time)
	i := slices.IndexFunc(t.transfers, func(o *ttyTransfer) bool { return o.ID == e.ID })
	if i < 0 {
		x := &ttyTransfer{Transfer: e, started: now, before: e.Current}
		if e.Finished {
			x.before = 0
		}
		t.transfers = append(t.transfers, x)
		i = len(t.transfers) - 1
	}
	x := t.transfers[i]
	x.Transfer = e
	if !e.Finished {
		return
	}
	t.transfers = slices.Delete(t.transfers, i, i+1)
	if e.Current >= bigTransfer || now.Sub(x.started) >= longTransfer || t.o.Verbosity >= Debug {
		t.scroll = append(t.scroll, paint(t.o.Color, faint, x.row(now, t.width())))
	}
}

func (x *ttyTransfer) row(now time.Time, w int) string {
	took := now.Sub(x.started)
	amount := size(x.Current)
	if x.Total > 0 && !x.Finished {
		amount += "/" + size(x.Total)
	}
	return row("=> "+oneLine(x.Name), joinNonEmpty(amount, rate(x.Current-x.before, took), duration(took)), w)
}

// row is a line with something at its right end, w columns wide.
func row(left, right string, w int) string {
	if right == "" {
		left, _ = fit(left, w)
		return left
	}
	right, _ = fit(right, w/2)
	_, unused := fit(right, w)
	left, rest := fit(left, unused-1)
	return left + strings.Repeat(" ", rest+1) + right
}

func (t *tty) size() (w, h int) {
	w, h = t.o.Size()
	if w <= 0 {
		w = 80
	}
	if h <= 0 {
		h = 24
	}
	return max(w, 20), max(h, 4)
}

// width is that of a line: the last column stays empty, since terminals differ
// in when they wrap.
func (t *tty) width() int { w, _ := t.size(); return w - 1 }

func (t *tty) tick(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.finished {
		t.draw(t.live(now))
	}
}

// live is the part that is redrawn.
func (t *tty) live(now time.Time) []string {
	if t.o.Verbosity < Normal {
		return nil
	}
	w, h := t.size()
	w--
	lines := []string{row(fmt.Sprintf("Building: %d of %d steps", len(t.ended), len(t.planned)), duration(now.Sub(t.started)), w)}
	room := h - 2 - len(lines)
	tail := tailLines // of each step, as far as there is room for all
	if n := len(t.steps); n > 0 {
		tail = max(0, min(tail, (room-n-len(t.transfers))/n))
	}
	var body []string
	for _, s := range t.steps {
		body = append(body, row("=> "+oneLine(s.step.Name), duration(now.Sub(s.started)), w))
		for _, l := range s.shown(tail) {
			l, _ = fit("   | "+l, w)
			body = append(body, paint(t.o.Color, faint, l))
		}
	}
	for _, x := range t.transfers {
		body = append(body, x.row(now, w))
	}
	if over := len(body) - room; over > 0 {
		body = append(body[:max(room-1, 0)], fmt.Sprintf("   … and %d more", over+1))
	}
	return append(lines, body...)
}

// shown is the last n lines of a step's output, an unfinished one included.
func (s *ttyStep) shown(n int) []string {
	tail := slices.Clone(s.tail)
	for i := range s.streams {
		if rest := lastOverwrite(s.streams[i].buf); len(rest) > 0 {
			tail = append(tail, clean(rest, false))
		}
	}
	return tail[max(0, len(tail)-n):]
}

// draw replaces the live part, with what has scrolled above it, in one write.
func (t *tty) draw(live []string) {
	var b strings.Builder
	if !t.hidden && len(live) > 0 {
		b.WriteString("\x1b[?25l")
		t.hidden = true
	}
	t.erase(&b)
	for _, s := range t.scroll {
		b.WriteString(s + "\r\n")
	}
	t.scroll = nil
	for _, s := range live {
		b.WriteString(s + "\r\n")
		t.drawn = append(t.drawn, columns(s))
	}
	if b.Len() > 0 {
		_, _ = io.WriteString(t.w, b.String())
	}
}

// erase goes back to where the live part begins. A terminal that has become
// narrower has wrapped its lines. The first row is cleared by itself: to clear
// all from the upper left corner on is taken by tmux for clearing the screen,
// which it keeps in the history, a copy for each drawing.
func (t *tty) erase(b *strings.Builder) {
	w, _ := t.size()
	rows := 0
	for _, n := range t.drawn {
		rows += max(1, (n+w-1)/w)
	}
	if rows > 0 {
		fmt.Fprintf(b, "\x1b[%dA", rows)
	}
	if len(t.drawn) > 0 {
		b.WriteString("\r\x1b[K\x1b[B\x1b[J\x1b[A")
	}
	t.drawn = t.drawn[:0]
}

// columns is how wide a line is that may have colours.
func columns(s string) int {
	n := 0
	for _, r := range clean([]byte(s), false) {
		n += cells(r)
	}
	return n
}

func (t *tty) Finish(o Outcome) {
	t.ticker.stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.finished {
		return
	}
	t.finished = true
	t.draw(nil)
	if t.hidden {
		_, _ = io.WriteString(t.w, "\x1b[?25h")
	}
	writeOutcome(t.w, t.o, o)
}
