package display

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"sync"

	"github.com/layerwright/layerwright/core"
)

// Redactor replaces known secret values by ***.
type Redactor struct{ secrets [][]byte }

// minSecret is the shortest value that is masked: masking every "no" or "12"
// would destroy the log and hide nothing.
const minSecret = 4

// NewRedactor masks these values and, since output comes by lines, each line of
// those that have several. It is nil, and does nothing, where there is none.
func NewRedactor(values [][]byte) *Redactor {
	r := &Redactor{}
	add := func(v []byte) {
		if len(v) >= minSecret {
			r.secrets = append(r.secrets, bytes.Clone(v))
		}
	}
	for _, v := range values {
		v = bytes.TrimSpace(v)
		add(v)
		if lines := bytes.Split(v, []byte{'\n'}); len(lines) > 1 {
			for _, line := range lines {
				add(bytes.TrimSpace(line))
			}
		}
	}
	if len(r.secrets) == 0 {
		return nil
	}
	// The longest first: one may contain another.
	slices.SortFunc(r.secrets, func(a, b []byte) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), bytes.Compare(a, b))
	})
	r.secrets = slices.CompactFunc(r.secrets, bytes.Equal)
	return r
}

// Bytes returns b without secrets; b itself where there are none.
func (r *Redactor) Bytes(b []byte) []byte {
	if r == nil {
		return b
	}
	for _, s := range r.secrets {
		if bytes.Contains(b, s) {
			b = bytes.ReplaceAll(b, s, []byte("***"))
		}
	}
	return b
}

// String returns s without secrets.
func (r *Redactor) String(s string) string {
	if r == nil {
		return s
	}
	return string(r.Bytes([]byte(s)))
}

// Error returns err without secrets in its words, its output and the lines of
// the Dockerfile that come with it. The kind stays.
func (r *Redactor) Error(err error) error {
	if r == nil || err == nil {
		return err
	}
	var e *core.Error
	if !errors.As(err, &e) {
		if s := r.String(err.Error()); s != err.Error() {
			return &maskedError{s, err}
		}
		return err
	}
	c := *e
	c.Remedy, c.Output = r.String(e.Remedy), r.Bytes(e.Output)
	if e.Location != nil {
		loc := *e.Location
		loc.Source = r.Bytes(loc.Source)
		c.Location = &loc
	}
	c.Op = r.String(e.Op)
	if s := r.String(e.Err.Error()); s != e.Err.Error() {
		c.Err = &maskedError{s, e.Err}
	}
	if error(e) != err { // the words that were wrapped around it
		return &maskedError{r.String(err.Error()), &c}
	}
	return &c
}

// maskedError is an error with other words.
type maskedError struct {
	text string
	err  error
}

func (e *maskedError) Error() string { return e.text }
func (e *maskedError) Unwrap() error { return e.err }

// held is how many bytes at the end of b may be the beginning of a secret.
func (r *Redactor) held(b []byte) int {
	n := 0
	for _, s := range r.secrets {
		for k := min(len(s)-1, len(b)); k > n; k-- {
			if bytes.HasSuffix(b, s[:k]) {
				n = k
				break
			}
		}
	}
	return n
}

type streamKey struct {
	step   string
	stream int
}

// masked is a View that shows no secret, not even one that comes in pieces:
// what could be the beginning of one waits for the rest.
type masked struct {
	View
	r       *Redactor
	mu      sync.Mutex
	pending map[streamKey][]byte
}

func (m *masked) Emit(e core.Event) {
	switch e := e.(type) {
	case core.Log:
		if data := m.take(e); len(data) > 0 {
			e.Step, e.Data = m.r.step(e.Step), data
			m.View.Emit(e)
		}
		return
	case core.Done:
		for stream := 1; stream <= 2; stream++ {
			if rest := m.rest(streamKey{e.Step.ID, stream}); len(rest) > 0 {
				m.View.Emit(core.Log{Step: m.r.step(e.Step), Stream: stream, Data: rest, Time: e.Time})
			}
		}
	}
	m.View.Emit(m.r.Event(e))
}

// Event returns e without secrets. The output of steps is masked as far as a
// secret is in one piece: a View joins the pieces.
func (r *Redactor) Event(e core.Event) core.Event {
	if r == nil {
		return e
	}
	switch e := e.(type) {
	case core.Plan:
		steps := make([]core.Step, len(e.Steps))
		for i, s := range e.Steps {
			steps[i] = r.step(s)
		}
		e.Steps = steps
		return e
	case core.Started:
		e.Step = r.step(e.Step)
		return e
	case core.Log:
		e.Step, e.Data = r.step(e.Step), r.Bytes(e.Data)
		return e
	case core.Done:
		e.Step, e.Err = r.step(e.Step), r.Error(e.Err)
		return e
	case core.Transfer:
		e.ID, e.Name = r.String(e.ID), r.String(e.Name)
		return e
	case core.Work:
		e.Step = r.step(e.Step)
		return e
	case core.Notice:
		e.Text = r.String(e.Text)
		return e
	}
	return e
}

// step masks a step's name: an instruction has the values of build arguments in
// it, and of secrets where a Dockerfile or an argument repeats them.
func (r *Redactor) step(s core.Step) core.Step {
	s.Name = r.String(s.Name)
	return s
}

func (m *masked) take(e core.Log) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := streamKey{e.Step.ID, e.Stream}
	data := m.r.Bytes(append(m.pending[key], e.Data...))
	n := len(data) - m.r.held(data)
	m.pending[key] = bytes.Clone(data[n:])
	return data[:n]
}

func (m *masked) rest(key streamKey) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.pending[key]
	delete(m.pending, key)
	return b
}

func (m *masked) Finish(o Outcome) { m.View.Finish(m.r.Outcome(o)) }

// Outcome returns o without secrets in its error and in what it says of steps.
func (r *Redactor) Outcome(o Outcome) Outcome {
	if r == nil {
		return o
	}
	o.Err = r.Error(o.Err)
	if o.Result != nil {
		result := *o.Result
		result.Cache = slices.Clone(result.Cache)
		for i, c := range result.Cache {
			c.Name, c.Why, c.Details = r.String(c.Name), r.String(c.Why), slices.Clone(c.Details)
			for j, d := range c.Details {
				c.Details[j] = r.String(d)
			}
			result.Cache[i] = c
		}
		o.Result = &result
	}
	return o
}
