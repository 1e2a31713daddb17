package core

import (
	"context"
	"errors"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"

	"github.com/layerwright/layerwright/core/internal/export"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/registry"
	"github.com/layerwright/layerwright/core/internal/source/saved"
)

// PushRequest asks to push an image that a build, or docker save, has written.
type PushRequest struct {
	// From is a directory with an OCI image layout, or a tar. Image says which of
	// several images there: a tag, a name or a digest.
	From, Image string
	// Outputs are Destinations and the files with digests and names; the rest
	// is not looked at.
	Outputs  Outputs
	Registry Registry
	Progress Sink
}

// PushSaved pushes an image as it is: with the digest that the build gave it. The
// right to push is checked first.
func PushSaved(ctx context.Context, r PushRequest) (_ *Result, err error) {
	if r.Progress == nil {
		r.Progress = progress.Discard
	}
	b := &build{req: &Request{Registry: r.Registry, Outputs: r.Outputs}, machine: &machine{}, sink: r.Progress}
	defer func() { err = b.classify(errors.Join(err, b.close())) }()
	from, err := saved.Open(r.From)
	if err != nil {
		return nil, err
	}
	b.atEnd(from.Close)
	a, err := from.Image(r.Image)
	if err != nil {
		return nil, err
	}
	first, err := firstImage(a, 0)
	if err != nil {
		return nil, err
	}
	out, err := describeArtifact(a, first)
	if err != nil {
		return nil, err
	}
	if err := b.openOutputs(); err != nil {
		return nil, err
	}
	if b.client, err = registry.New(b.registryOptions()); err != nil {
		return nil, err
	}
	if err := b.prepareRepositories(ctx); err != nil {
		return nil, err
	}
	push, err := export.NewPush(ctx, b.client, r.Outputs.Destinations, r.Outputs.PushByDigest)
	if err != nil {
		return nil, err
	}
	b.atEnd(func() error { push.Close(); return nil })
	if !r.Registry.SkipPushCheck {
		if err := b.settle(push.Check(ctx)); err != nil {
			return nil, err
		}
	}
	out.Destinations, err = push.Finish(ctx, a)
	if err := b.settle(len(out.Destinations), err); err != nil {
		return out, err
	}
	return out, b.exportNames(ctx, a, out)
}

// firstImage is an image, or the first one of an index.
func firstImage(a saved.Artifact, depth int) (v1.Image, error) {
	if img, ok := a.(v1.Image); ok {
		return img, nil
	}
	index, ok := a.(v1.ImageIndex)
	if !ok || depth > 4 {
		return nil, fault.New(fault.User, "an index without images")
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range m.Manifests {
		if d.MediaType.IsImage() {
			return index.Image(d.Digest)
		}
		if d.MediaType.IsIndex() {
			nested, err := index.ImageIndex(d.Digest)
			if err != nil {
				return nil, err
			}
			return firstImage(nested, depth+1)
		}
	}
	return empty.Image, nil
}
