// Package export owns the ways in which finished images leave a build:
// registries, an OCI image layout directory, a tar for docker load, a file
// with the digest. Nothing appears under its final name before it is complete:
// tags come last, files are renamed into place. It refuses to make or change
// images (package image does).
package export

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/registry"
)

// Artifact is a v1.Image or a v1.ImageIndex.
type Artifact = registry.Artifact

// Push sends one artifact to any number of destinations. Layers may be offered
// while the build still runs; Finish sends the rest and writes the tags.
type Push struct {
	targets []*target
	// offer runs an upload in the background until stop.
	offer func(*target, v1.Layer)
	// ahead does the same with a blob that is still being made.
	ahead func(*target, registry.Growing)
	stop  func()
}

// target is one repository with all tags that it gets; none where it is pushed to by
// digest.
type target struct {
	pusher *registry.Pusher
	refs   []string
	tags   []string
}

// NewPush prepares pushing to the destinations, image references with tag
// (":latest" where there is none). It makes no network access. Offered uploads
// end with ctx or with Close. With byDigest nothing gets a tag, and a destination
// that names one is an error.
func NewPush(ctx context.Context, client *registry.Client, destinations []string, byDigest bool) (*Push, error) {
	p := &Push{}
	byRepo := map[string]*target{}
	for _, d := range destinations {
		repo, tag, err := registry.Destination(d)
		if err == nil && byDigest && strings.HasSuffix(d, ":"+tag) {
			err = fault.New(fault.Usage, "destination %q has a tag, and is to be pushed by digest", d).With("Leave the tag out.")
		}
		if err != nil {
			return nil, err
		}
		t, ok := byRepo[repo]
		if !ok {
			pusher, err := client.Pusher(repo)
			if err != nil {
				return nil, err
			}
			t = &target{pusher: pusher}
			byRepo[repo] = t
			p.targets = append(p.targets, t)
		}
		if byDigest {
			t.refs = []string{repo}
			continue
		}
		t.refs, t.tags = append(t.refs, repo+":"+tag), append(t.tags, tag)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	p.offer = func(t *target, l v1.Layer) {
		// An error is not lost: Finish uploads again what is not there.
		running.Go(func() { _ = t.pusher.Upload(ctx, l) })
	}
	p.ahead = func(t *target, g registry.Growing) {
		send := t.pusher.Ahead(g)
		running.Go(func() { send(ctx) })
	}
	p.stop = func() {
		cancel(errors.New("push closed"))
		running.Wait()
	}
	return p, nil
}

// Check finds out whether pushing is allowed to all destinations, and counts those to
// which it is.
func (p *Push) Check(ctx context.Context) (allowed int, err error) {
	good, err := p.each(ctx, p.targets, func(ctx context.Context, t *target) error { return t.pusher.Check(ctx) })
	return len(good), err
}

// Offer begins to upload a layer to every destination and returns at once. The
// layer may still be in the making: its Digest blocks until it is complete.
func (p *Push) Offer(layer v1.Layer) {
	for _, t := range p.targets {
		p.offer(t, layer)
	}
}

// Ahead begins to send a blob to every destination while it is still being made, and
// returns at once. It is not lost if that does not work.
func (p *Push) Ahead(g registry.Growing) {
	for _, t := range p.targets {
		p.ahead(t, g)
	}
}

// Finish sends what is missing of a everywhere, manifests by digest, and after
// that writes the tags. When a destination fails the others go on. pushed are
// the references that are complete, also with an error, which names the others
// and has kind Registry.
func (p *Push) Finish(ctx context.Context, a Artifact) (pushed []string, err error) {
	sent, sendErr := p.each(ctx, p.targets, func(ctx context.Context, t *target) error { return t.pusher.Put(ctx, a) })
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	done, tagErr := p.each(ctx, sent, func(ctx context.Context, t *target) error {
		for _, tag := range t.tags {
			if err := t.pusher.Tag(ctx, a, tag); err != nil {
				return err
			}
		}
		return nil
	})
	for _, t := range done {
		if len(t.tags) > 0 {
			pushed = append(pushed, t.refs...)
		} else if digest, err := a.Digest(); err == nil {
			pushed = append(pushed, t.refs[0]+"@"+digest.String())
		}
	}
	if sendErr == nil && tagErr == nil {
		return pushed, nil
	}
	if ctx.Err() != nil {
		return pushed, context.Cause(ctx)
	}
	return pushed, summary(pushed, errors.Join(sendErr, tagErr))
}

// Close ends uploads that were offered and not needed.
func (p *Push) Close() { p.stop() }

// each runs f for all targets at once and tells which ones succeeded.
func (p *Push) each(ctx context.Context, targets []*target, f func(context.Context, *target) error) ([]*target, error) {
	errs := make([]error, len(targets))
	var g sync.WaitGroup // no errgroup: one failure must not end the others
	for i, t := range targets {
		g.Go(func() {
			if err := f(ctx, t); err != nil {
				errs[i] = fmt.Errorf("%s: %w", strings.Join(t.refs, ", "), err)
			}
		})
	}
	g.Wait()
	var good []*target
	for i, t := range targets {
		if errs[i] == nil {
			good = append(good, t)
		}
	}
	return good, errors.Join(errs...)
}

// summary is the error of a push that failed in part or as a whole; the first
// remedy is the one that is shown.
func summary(pushed []string, err error) error {
	f := &fault.Error{Kind: fault.Registry, Err: err}
	if inner, ok := fault.As(err); ok {
		f.Remedy = inner.Remedy
		if inner.Kind != fault.Internal {
			f.Kind = inner.Kind
		}
	}
	f.Op = "push"
	if len(pushed) > 0 {
		f.Op = "push (complete: " + strings.Join(pushed, ", ") + ")"
	}
	return f
}
