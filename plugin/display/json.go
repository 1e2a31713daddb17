package display

import (
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/layerwright/layerwright/core"
)

// jsonEvery is the shortest time between two objects of one transfer.
const jsonEvery = time.Second

// jsonView writes one object a line.
type jsonView struct {
	o        Options
	mu       sync.Mutex
	enc      *json.Encoder
	seen     notices
	spoke    map[string]time.Time // by transfer
	streams  map[streamKey]*lineBuffer
	finished bool
}

func newJSON(w io.Writer, o Options) *jsonView {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return &jsonView{o: o, enc: enc, seen: notices{}, spoke: map[string]time.Time{}, streams: map[streamKey]*lineBuffer{}}
}

// object is every field that the package comment names. Fields whose zero means
// something are pointers.
type object struct {
	Type string    `json:"type"`
	Time time.Time `json:"time"`

	Steps []jsonStep `json:"steps,omitempty"`
	Step  *jsonStep  `json:"step,omitempty"`

	Stream int     `json:"stream,omitempty"`
	Text   *string `json:"text,omitempty"`

	Status  string   `json:"status,omitempty"`
	Seconds *float64 `json:"seconds,omitempty"`
	Error   string   `json:"error,omitempty"`

	ID       string `json:"id,omitempty"`
	Name     string `json:"name,omitempty"`
	Current  *int64 `json:"current,omitempty"`
	Total    *int64 `json:"total,omitempty"`
	Finished *bool  `json:"finished,omitempty"`

	Level string `json:"level,omitempty"`
	Rule  string `json:"rule,omitempty"`
	URL   string `json:"url,omitempty"`
	File  string `json:"file,omitempty"`
	Line  int    `json:"line,omitempty"`

	Digest       string   `json:"digest,omitempty"`
	ImageID      string   `json:"image_id,omitempty"`
	Destinations []string `json:"destinations,omitempty"`
	MediaType    string   `json:"media_type,omitempty"`
	Size         int64    `json:"size,omitempty"`
	Files        []string `json:"files,omitempty"`

	Cache []cachedObject `json:"cache,omitempty"`

	Kind     string `json:"kind,omitempty"`
	Message  string `json:"message,omitempty"`
	ExitCode int    `json:"exit_code,omitempty"`
	Output   string `json:"output,omitempty"`
	Remedy   string `json:"remedy,omitempty"`
}

type jsonStep struct {
	ID     string `json:"id"`
	Number int    `json:"number"`
	Name   string `json:"name"`
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
}

func stepObject(s core.Step) *jsonStep {
	j := &jsonStep{ID: s.ID, Number: s.Number, Name: s.Name}
	if s.Location != nil {
		j.File, j.Line = s.Location.File, s.Location.Start
	}
	return j
}

func (j *jsonView) Emit(e core.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.finished {
		return
	}
	switch e := e.(type) {
	case core.Plan:
		steps := make([]jsonStep, len(e.Steps))
		for i, s := range e.Steps {
			steps[i] = *stepObject(s)
		}
		j.put(object{Type: "plan", Steps: steps})
	case core.Started:
		j.put(object{Type: "started", Time: e.Time, Step: stepObject(e.Step)})
	case core.Log:
		j.buffer(e.Step.ID, e.Stream).add(e.Data, func(l []byte) { j.log(e.Step, e.Stream, e.Time, l) })
	case core.Done:
		j.done(e)
	case core.Transfer:
		j.transfer(e)
	case core.Notice:
		j.notice(e)
	}
}

func (j *jsonView) put(o object) {
	if o.Time.IsZero() {
		o.Time = j.o.Now()
	}
	o.Time = o.Time.UTC()
	_ = j.enc.Encode(o)
}

func (j *jsonView) buffer(step string, stream int) *lineBuffer {
	key := streamKey{step, stream}
	if j.streams[key] == nil {
		j.streams[key] = &lineBuffer{}
	}
	return j.streams[key]
}

func (j *jsonView) log(step core.Step, stream int, t time.Time, line []byte) {
	text := string(line)
	j.put(object{Type: "log", Time: t, Step: stepObject(step), Stream: stream, Text: &text})
}

func (j *jsonView) done(e core.Done) {
	for stream := 1; stream <= 2; stream++ {
		j.buffer(e.Step.ID, stream).flush(func(l []byte) { j.log(e.Step, stream, e.Time, l) })
		delete(j.streams, streamKey{e.Step.ID, stream})
	}
	o := object{Type: "done", Time: e.Time, Step: stepObject(e.Step), Status: state(e), Seconds: seconds(e.Duration)}
	if e.Err != nil {
		o.Error = e.Err.Error()
	}
	j.put(o)
}

func seconds(d time.Duration) *float64 {
	s := d.Round(time.Millisecond).Seconds()
	return &s
}

func (j *jsonView) transfer(e core.Transfer) {
	now := e.Time
	if now.IsZero() {
		now = j.o.Now()
	}
	if last, ok := j.spoke[e.ID]; ok && !e.Finished && now.Sub(last) < jsonEvery {
		return
	}
	j.spoke[e.ID] = now
	if e.Finished {
		delete(j.spoke, e.ID)
	}
	j.put(object{Type: "transfer", Time: now, ID: e.ID, Name: e.Name, Current: &e.Current, Total: &e.Total, Finished: &e.Finished})
}

func (j *jsonView) notice(e core.Notice) {
	if !j.seen.first(e) {
		return
	}
	o := object{Type: "notice", Time: e.Time, Level: "info", Rule: e.Rule, Text: &e.Text, URL: e.URL}
	if e.Level == core.Warning {
		o.Level = "warning"
	}
	if e.Location != nil {
		o.File, o.Line = e.Location.File, e.Location.Start
	}
	j.put(o)
}

func (j *jsonView) Finish(o Outcome) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.finished {
		return
	}
	j.finished = true
	if o.Err != nil {
		j.put(errorObject(o))
		return
	}
	out := object{Type: "result", Files: o.Files, Seconds: seconds(o.Took)}
	if r := o.Result; r != nil {
		out.Digest, out.ImageID, out.Destinations = r.Digest, r.ImageID, r.Destinations
		out.MediaType, out.Size = r.MediaType, r.Size
		for _, c := range r.Cache {
			out.Cache = append(out.Cache, cachedObject{Name: c.Name, Hit: c.Hit, Why: c.Why, Details: c.Details})
		}
	}
	j.put(out)
}

func errorObject(o Outcome) object {
	out := object{Type: "error", Kind: core.KindInternal.String(), Message: o.Err.Error(), Seconds: seconds(o.Took)}
	var e *core.Error
	if canceled(o.Err) {
		out.Kind = "canceled"
	} else if errors.As(o.Err, &e) {
		out.Kind, out.Remedy, out.ExitCode, out.Output = e.Kind.String(), remedy(e), e.ExitCode, string(e.Output)
		if e.Location != nil {
			out.File, out.Line = e.Location.File, e.Location.Start
		}
	}
	return out
}

// cachedObject is a step of the result's list "cache".
type cachedObject struct {
	Name    string   `json:"name"`
	Hit     bool     `json:"hit"`
	Why     string   `json:"why,omitempty"`
	Details []string `json:"details,omitempty"`
}
