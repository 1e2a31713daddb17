package plugin

import (
	"context"
	"io"
	"time"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/display"
)

// Process is what the program has for a run.
type Process struct {
	// Stderr takes the log; Color allows colours in it.
	Stderr io.Writer
	Color  bool
	// Inside, Chosen and Store are what core.Enter has come to.
	Inside        bool
	Chosen, Store string
	// Watch also takes the build's events; may be nil.
	Watch core.Sink
}

// Run carries the plan out and shows it. The outcome has the error, if any; it
// was shown already, and has no secret in it.
func (p *Plan) Run(ctx context.Context, proc Process) display.Outcome {
	started := time.Now()
	view := display.New(p.Format, proc.Stderr, display.Options{Verbosity: p.Verbosity, Color: proc.Color, Secrets: p.Secrets})
	for _, n := range p.Notices {
		view.Emit(core.Notice{Level: core.Info, Text: n, Time: time.Now()})
	}
	hide := display.NewRedactor(p.Secrets)
	r := p.Request
	r.Inside, r.Chosen, r.Progress = proc.Inside, proc.Chosen, display.Both(view, proc.Watch, hide)
	if r.Store == "" {
		r.Store = proc.Store
	}
	out := display.Outcome{ExplainCache: p.ExplainCache}
	if out.Result, out.Err = p.carryOut(ctx, r); out.Err != nil {
		out.Result = nil
	} else {
		out.Files = p.Files()
	}
	out.Took = time.Since(started)
	view.Finish(out)
	return hide.Outcome(out)
}

// tell shows the notices where nothing is built: one may say why a setting was not
// understood.
func (p *Plan) tell(proc Process) {
	if proc.Stderr == nil {
		return
	}
	for _, n := range p.Notices {
		display.Early(p.Format, proc.Stderr, display.Options{Secrets: p.Secrets}, core.Notice{Level: core.Info, Text: n, Time: time.Now()})
	}
}

// skipExisting looks for the tags, where that is wanted.
func (p *Plan) skipExisting(ctx context.Context) error {
	if !p.SkipExisting || p.Request.Outputs.NoPush || p.Skip() != "" {
		return nil
	}
	ref, err := core.ExistingTag(ctx, p.Request.Outputs.Destinations, p.Request.Registry)
	if ref != "" {
		p.Names.Skip = ref + " is there already"
	}
	return err
}

// carryOut builds, or merges or pushes what was built before.
func (p *Plan) carryOut(ctx context.Context, r core.Request) (*core.Result, error) {
	switch {
	case p.Merge != nil:
		return p.mergeAll(ctx, r.Progress)
	case p.PushFrom == "":
		return core.Build(ctx, r)
	}
	return core.PushSaved(ctx, core.PushRequest{From: p.PushFrom, Outputs: r.Outputs, Registry: r.Registry, Progress: r.Progress})
}

// Files are the local outputs that the plan writes.
func (p *Plan) Files() (list []string) {
	o := p.Request.Outputs
	for _, f := range []string{o.OCILayout, o.OCITar, o.DockerTar, o.RootDir, o.RootTar, o.DigestFile, o.ImageIDFile, o.MetadataFile, o.NameDigestFile, o.NameTagDigestFile} {
		if f != "" {
			list = append(list, f)
		}
	}
	return list
}
