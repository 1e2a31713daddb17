package display

import "github.com/layerwright/layerwright/core"

// Both hands events to a view, and without what hide knows to a second sink, which
// may be nil: the host's own, a profile.
func Both(view, watch core.Sink, hide *Redactor) core.Sink {
	if watch == nil {
		return view
	}
	return both{view, watch, hide}
}

type both struct {
	view, watch core.Sink
	hide        *Redactor
}

// Emit implements core.Sink.
func (b both) Emit(e core.Event) {
	b.view.Emit(e)
	b.watch.Emit(b.hide.Event(e))
}
