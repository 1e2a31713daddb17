package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/layerwright/layerwright/core/internal/registry"
	imagesource "github.com/layerwright/layerwright/core/internal/source/image"
)

// InRegistry is a cache repository of a registry: "host/path".
func InRegistry(client *registry.Client, repo string) (Repository, error) {
	pusher, err := client.Pusher(repo)
	if err != nil {
		return nil, err
	}
	return &remote{client: client, pusher: pusher}, nil
}

type remote struct {
	client *registry.Client
	pusher *registry.Pusher
}

func (r *remote) Name() string { return r.pusher.Repository() }

func (r *remote) Get(ctx context.Context, tag string) (*Record, error) {
	return current(r.read(ctx, tag))
}

func (r *remote) read(ctx context.Context, tag string) (*Record, error) {
	img, err := r.client.Resolve(ctx, r.Name()+":"+tag, nil)
	if errors.Is(err, registry.ErrNotFound) {
		return nil, ErrMiss
	}
	if err != nil {
		return nil, err
	}
	layers := make([]v1.Layer, len(img.Layers))
	for i, l := range img.Layers {
		remote, ok := l.(*registry.Layer)
		if !ok {
			return nil, fmt.Errorf("layer of record is a %T", l)
		}
		layers[i] = &recordLayer{Remote: remote, repo: r.Name()}
	}
	rec, err := parse(img.Config, layers)
	if err != nil {
		return nil, err
	}
	rec.Manifest = rawManifest{img}
	return rec, nil
}

func (r *remote) Upload(ctx context.Context, l v1.Layer) error { return r.pusher.Upload(ctx, l) }

// Ahead sends a blob while it is being made; see registry.Pusher.
func (r *remote) Ahead(g registry.Growing) (send func(ctx context.Context)) { return r.pusher.Ahead(g) }

func (r *remote) Put(ctx context.Context, img v1.Image, tags []string) error {
	if err := r.pusher.PutBlobs(ctx, img); err != nil {
		return err
	}
	return r.tag(ctx, img, tags)
}

func (r *remote) Tag(ctx context.Context, rec *Record, tags []string) error {
	return r.tag(ctx, rec.Manifest, tags)
}

func (r *remote) tag(ctx context.Context, a registry.Artifact, tags []string) error {
	for _, t := range tags {
		if err := r.pusher.Tag(ctx, a, t); err != nil {
			return err
		}
	}
	return nil
}

// rawManifest is a record as the registry has it.
type rawManifest struct{ img *registry.Image }

func (m rawManifest) RawManifest() ([]byte, error)        { return slices.Clone(m.img.RawManifest), nil }
func (m rawManifest) Digest() (v1.Hash, error)            { return m.img.ManifestDigest, nil }
func (m rawManifest) MediaType() (types.MediaType, error) { return m.img.Manifest.MediaType, nil }

// recordLayer is a layer of a record: what goes wrong with it is no error of the
// build but a miss that was found out late.
type recordLayer struct {
	imagesource.Remote
	repo string
}

// Open streams the blob; see registry.Layer.
func (l *recordLayer) Open(ctx context.Context) (io.ReadCloser, error) {
	rc, err := l.Remote.Open(ctx)
	if err != nil {
		return nil, l.broken(ctx, err)
	}
	return &recordReader{ReadCloser: rc, broken: func(err error) error { return l.broken(ctx, err) }}, nil
}

// Compressed implements v1.Layer.
func (l *recordLayer) Compressed() (io.ReadCloser, error) { return l.Open(context.Background()) }

// Fault is an error about the layer's content.
func (l *recordLayer) Fault(err error) error {
	return l.broken(context.Background(), l.Remote.Fault(err))
}

func (l *recordLayer) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	digest, derr := l.Digest()
	if derr != nil {
		return err
	}
	return &BrokenError{Layer: digest, Repo: l.repo, Err: err}
}

type recordReader struct {
	io.ReadCloser

	broken func(error) error
}

func (r *recordReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.broken(err)
	}
	return n, err
}
