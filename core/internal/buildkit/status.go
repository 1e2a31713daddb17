package buildkit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"

	"github.com/layerwright/layerwright/core/internal/frontend"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// maxOutput is how much of a step's output is kept, for the error of one that fails.
const maxOutput = 64 << 10

// view turns what an engine says of its vertices into events. It is used by one
// goroutine at a time.
type view struct {
	sink     progress.Sink
	label    string
	vertices map[digest.Digest]*vertex
	number   int
}

// vertex is what was heard of one vertex.
type vertex struct {
	step progress.Step
	// quiet ones are BuildKit's own bookkeeping: no steps of the Dockerfile.
	quiet          bool
	started, ended bool
	at             time.Time
	output         []byte
	transfers      map[string]bool
}

func newView(sink progress.Sink, label string) *view {
	return &view{sink: sink, label: label, vertices: map[digest.Digest]*vertex{}}
}

func (v *view) show(s *client.SolveStatus) {
	var plan []progress.Step
	for _, x := range s.Vertexes {
		// Numbered as they begin: they are listed with the last one first.
		if x.Started == nil && x.Completed == nil {
			continue
		}
		if _, known := v.vertices[x.Digest]; !known {
			if n := v.add(x); !n.quiet {
				plan = append(plan, n.step)
			}
		}
	}
	if len(plan) > 0 {
		v.sink.Emit(progress.Plan{Steps: plan})
	}
	for _, x := range s.Vertexes {
		v.begin(x)
	}
	for _, l := range s.Logs {
		v.log(l)
	}
	for _, t := range s.Statuses {
		v.transfer(t)
	}
	for _, w := range s.Warnings {
		v.sink.Emit(frontend.LintNotice(string(w.Short), w.URL, w.SourceInfo, w.Range))
	}
	for _, x := range s.Vertexes {
		v.complete(x)
	}
}

func (v *view) add(x *client.Vertex) *vertex {
	name := x.Name
	n := &vertex{quiet: bookkeeping(name), transfers: map[string]bool{}}
	if !n.quiet {
		v.number++
		if v.label != "" {
			name = v.label + " " + name
		}
		n.step = progress.Step{ID: strings.TrimSpace(v.label + " " + x.Digest.String()), Number: v.number, Name: name}
	}
	v.vertices[x.Digest] = n
	return n
}

const (
	importing  = "importing cache manifest from "
	ignoreFile = "load .dockerignore"
	fromStream = "copy /context /" // out of an archive that was sent
)

// bookkeeping are vertices that are no step of the Dockerfile and no news.
func bookkeeping(name string) bool {
	return strings.HasPrefix(name, "[internal]") || strings.HasPrefix(name, "[auth]") || strings.HasPrefix(name, importing) || strings.HasSuffix(name, ignoreFile) || name == fromStream
}

func (v *view) begin(x *client.Vertex) {
	n := v.vertices[x.Digest]
	if n == nil || x.Started == nil || n.started || n.quiet || x.Cached {
		return
	}
	n.started, n.at = true, *x.Started
	v.sink.Emit(progress.Started{Step: n.step, Time: *x.Started})
}

func (v *view) log(l *client.VertexLog) {
	n := v.vertices[l.Vertex]
	if n == nil {
		return
	}
	n.output = append(n.output, l.Data...)
	n.output = n.output[max(0, len(n.output)-maxOutput):]
	if !n.quiet && !n.ended {
		v.sink.Emit(progress.Log{Step: n.step, Stream: l.Stream, Data: l.Data, Time: l.Timestamp})
	}
}

func (v *view) complete(x *client.Vertex) {
	n := v.vertices[x.Digest]
	if n == nil || x.Completed == nil || n.ended {
		return
	}
	n.ended = true
	if n.quiet {
		v.imported(x)
		return
	}
	done := progress.Done{Step: n.step, Cached: x.Cached, Time: *x.Completed}
	if x.Started != nil && !x.Cached {
		done.Duration = x.Completed.Sub(*x.Started)
	}
	switch {
	case strings.Contains(x.Error, context.Canceled.Error()):
		done.Err = context.Canceled
	case x.Error != "":
		done.Err = errors.New(short(x.Error))
	}
	v.sink.Emit(done)
}

// imported says that a cache was not there, which fails no build.
func (v *view) imported(x *client.Vertex) {
	ref, ok := strings.CutPrefix(x.Name, importing)
	if !ok || x.Error == "" {
		return
	}
	text, level := fmt.Sprintf("the cache %s is not used: %s", ref, short(x.Error)), progress.Warning
	if strings.HasSuffix(x.Error, "not found") {
		text, level = "there is no cache yet at "+ref, progress.Info
	}
	v.sink.Emit(progress.Notice{Level: level, Text: text, Time: time.Now()})
}

// transfer shows bytes that move: layers, the context.
func (v *view) transfer(t *client.VertexStatus) {
	n := v.vertices[t.Vertex]
	if n == nil || t.Current == 0 && t.Total == 0 {
		return
	}
	id := t.Vertex.String() + " " + t.ID
	name := strings.TrimSuffix(t.ID, ":")
	if !n.quiet {
		name = n.step.Name + " " + name
	}
	finished := t.Completed != nil
	if finished && n.transfers[id] {
		return
	}
	n.transfers[id] = finished
	v.sink.Emit(progress.Transfer{ID: v.label + id, Name: name, Current: t.Current, Total: t.Total, Finished: finished, Time: t.Timestamp})
}

// end ends the steps that were cut off.
func (v *view) end(err error) {
	for _, n := range v.vertices {
		if n.started && !n.ended {
			n.ended = true
			if err == nil {
				err = context.Canceled
			}
			v.sink.Emit(progress.Done{Step: n.step, Err: err, Time: time.Now(), Duration: time.Since(n.at)})
		}
	}
}
