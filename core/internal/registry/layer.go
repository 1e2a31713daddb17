package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// get asks for something; anything but 200 (or 206 where offset is not 0) is
// an error. The caller closes the body.
func (s *session) get(ctx context.Context, url string, offset int64, accept ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if len(accept) > 0 {
		req.Header.Set("Accept", strings.Join(accept, ","))
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	if resp.StatusCode == http.StatusPartialContent && offset == 0 {
		_ = resp.Body.Close()
		return nil, errors.New("partial content that nobody asked for")
	}
	return resp, nil
}

func (r *resolver) image(ctx context.Context, raw []byte) (*Image, error) {
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if d.Digest.Algorithm != "sha256" || d.Size < 0 {
			return nil, fmt.Errorf("manifest: digest %q or size %d is not valid", clean(d.Digest.String()), d.Size)
		}
	}
	conf := m.Config.Data
	if conf == nil {
		resp, err := r.s.get(ctx, r.s.url("blobs", m.Config.Digest.String()), 0)
		if err != nil {
			return nil, err
		}
		defer func() { _ = resp.Body.Close() }()
		if conf, err = readAll(resp.Body, maxConfig); err != nil {
			return nil, fmt.Errorf("read config: %w", err)
		}
	}
	if err := verify("config", conf, m.Config); err != nil {
		return nil, err
	}
	cf, err := v1.ParseConfigFile(bytes.NewReader(conf))
	if err != nil {
		return nil, fmt.Errorf("parse config: %w", err)
	}
	if len(cf.RootFS.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("not a container image, or a broken one: its config (%s) has %d layers, its manifest %d",
			clean(string(m.Config.MediaType)), len(cf.RootFS.DiffIDs), len(m.Layers))
	}
	digest, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	img := &Image{ManifestDigest: digest, RawManifest: raw, Manifest: m, RawConfig: conf, Config: cf}
	for i, d := range m.Layers {
		img.Layers = append(img.Layers, &Layer{c: r.c, repo: r.s.repo, image: r.name, desc: d, diffID: cf.RootFS.DiffIDs[i]})
	}
	return img, nil
}

// Layer is a blob in a registry. It is a v1.Layer, whose methods have no
// context; who has one calls Open.
type Layer struct {
	c      *Client
	repo   repository
	image  string
	desc   v1.Descriptor
	diffID v1.Hash
}

// Digest implements v1.Layer.
func (l *Layer) Digest() (v1.Hash, error) { return l.desc.Digest, nil }

// DiffID implements v1.Layer: what the image's config promises.
func (l *Layer) DiffID() (v1.Hash, error) { return l.diffID, nil }

// Size implements v1.Layer.
func (l *Layer) Size() (int64, error) { return l.desc.Size, nil }

// MediaType implements v1.Layer.
func (l *Layer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }

// Descriptor is the layer's entry in its manifest.
func (l *Layer) Descriptor() (*v1.Descriptor, error) { d := l.desc; return &d, nil }

// Image is the reference of the image that the layer was found in.
func (l *Layer) Image() string { return l.image }

// MountSource is where a push can mount the blob from instead of sending it.
func (l *Layer) MountSource() (host, path string) { return l.repo.host, l.repo.path }

// Fault is an error about the layer's content, in the words of Open's errors.
func (l *Layer) Fault(err error) error {
	if _, ok := fault.As(err); ok {
		return err
	}
	return &fault.Error{
		Kind:   fault.Registry,
		Op:     "pull " + l.image,
		Err:    fmt.Errorf("registry %s, repository %s: layer %s: %w", l.repo.host, l.repo.path, l.desc.Digest, err),
		Remedy: "The image is damaged in the registry or on the way. Try again; if it stays so, push it anew or use another tag.",
	}
}

// Compressed implements v1.Layer: Open without a context.
func (l *Layer) Compressed() (io.ReadCloser, error) { return l.Open(context.Background()) }

// Uncompressed implements v1.Layer. This package knows no compression: package
// source/image wraps layers for that.
func (l *Layer) Uncompressed() (io.ReadCloser, error) {
	return nil, errors.New("registry.Layer: Uncompressed is what package source/image is for")
}

// Open streams the blob. Its digest and size are verified: io.EOF comes only
// after both were right. A cut connection is resumed where it broke, a few
// times without progress, before the reader fails.
func (l *Layer) Open(ctx context.Context) (io.ReadCloser, error) {
	s, err := l.c.session(ctx, l.repo, false)
	if err != nil {
		return nil, pulling(l.image, err)
	}
	b := &blobReader{l: l, s: s, sum: sha256.New()}
	b.next = func() error { return b.connect(ctx) }
	b.fail = func(err error) error { return pulling(l.image, l.c.fail(ctx, s, "layer "+l.desc.Digest.String(), err)) }
	b.wait = func() error { return sleep(ctx, delay(l.c.opts.Backoff, b.failed-1, nil)) }
	if err := b.connect(ctx); err != nil {
		return nil, b.fail(err)
	}
	return b, nil
}

// blobReader reads, verifies and resumes.
type blobReader struct {
	l          *Layer
	s          *session
	body       io.ReadCloser
	sum        hash.Hash
	n          int64
	failed     int
	err        error
	next, wait func() error
	fail       func(error) error
}

// connect opens the body at offset n.
func (b *blobReader) connect(ctx context.Context) error {
	resp, err := b.s.get(ctx, b.s.url("blobs", b.l.desc.Digest.String()), b.n)
	if err != nil {
		return err
	}
	b.body = resp.Body
	if b.n > 0 {
		if resp.StatusCode == http.StatusOK { // no ranges here: skip
			_, err = io.CopyN(io.Discard, resp.Body, b.n)
		} else if want := fmt.Sprintf("bytes %d-", b.n); !strings.HasPrefix(resp.Header.Get("Content-Range"), want) {
			err = fmt.Errorf("registry answers a range other than the one asked for")
		}
		if err != nil {
			_ = resp.Body.Close()
			return err
		}
	}
	return nil
}

func (b *blobReader) Read(p []byte) (int, error) {
	for b.err == nil {
		n, err := b.body.Read(p)
		b.n += int64(n)
		b.sum.Write(p[:n])
		if b.n > b.l.desc.Size {
			b.err = b.fail(fmt.Errorf("layer %s has more than the promised %d bytes: %w", b.l.desc.Digest, b.l.desc.Size, ErrDigest))
			return 0, b.err
		}
		if n > 0 {
			b.failed = 0
			return n, nil // an error comes again, or the next read finds it
		}
		switch {
		case err == nil:
			return 0, nil
		case errors.Is(err, io.EOF) && b.n == b.l.desc.Size:
			b.err = b.check()
		case errors.Is(err, io.EOF):
			// A server that promises no length ends a cut body like a
			// whole one.
			b.resume(io.ErrUnexpectedEOF)
		default:
			b.resume(err)
		}
	}
	return 0, b.err
}

func (b *blobReader) check() error {
	if got := hex.EncodeToString(b.sum.Sum(nil)); got != b.l.desc.Digest.Hex {
		return b.fail(fmt.Errorf("layer %s has digest sha256:%s: %w", b.l.desc.Digest, got, ErrDigest))
	}
	return io.EOF
}

// resume connects anew after err, or leaves it in b.err.
func (b *blobReader) resume(err error) {
	_ = b.body.Close()
	for {
		b.failed++
		if b.failed > b.s.tries || !temporary(err) {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("layer %s ends after %d of %d bytes: %w", b.l.desc.Digest, b.n, b.l.desc.Size, ErrDigest)
			}
			b.err = b.fail(err)
			return
		}
		if werr := b.wait(); werr != nil {
			b.err = werr
			return
		}
		if err = b.next(); err == nil {
			return
		}
	}
}

func (b *blobReader) Close() error {
	if b.err == nil {
		b.err = errors.New("read after close")
	}
	if b.body == nil {
		return nil
	}
	return b.body.Close()
}
