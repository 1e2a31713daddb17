package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// Pusher sends to one repository. Safe for concurrent use; what it has sent
// once it does not send again.
type Pusher struct {
	c    *Client
	repo repository

	mu   sync.Mutex
	sent map[string]*slot[struct{}]
	// ahead are the blobs that are sent while they are being made.
	ahead []*ahead
}

// Destination splits a reference to push to: the repository that Pusher takes,
// and the tag ("latest" where there is none). A digest is refused: it is known
// only after the build.
func Destination(ref string) (repo, tag string, err error) {
	named, r, err := parse(ref)
	if err != nil {
		return "", "", err
	}
	t, ok := named.(reference.Tagged)
	if _, digested := named.(reference.Digested); digested || !ok {
		return "", "", fault.New(fault.Usage, "destination %q has a digest", scrub(ref)).
			With("Give a tag: registry.example/team/app:1.2.")
	}
	return r.String(), t.Tag(), nil
}

// Pusher makes a Pusher for the repository of ref; a tag in it is ignored.
func (c *Client) Pusher(ref string) (*Pusher, error) {
	_, repo, err := parse(ref)
	if err != nil {
		return nil, err
	}
	return &Pusher{c: c, repo: repo, sent: map[string]*slot[struct{}]{}}, nil
}

// Repository is "host/path".
func (p *Pusher) Repository() string { return p.repo.String() }

// Artifact is what can be put: a v1.Image or a v1.ImageIndex.
type Artifact interface {
	RawManifest() ([]byte, error)
	MediaType() (types.MediaType, error)
	Digest() (v1.Hash, error)
}

// sourceError is an error of the layer that is being sent: it is not the
// registry's and keeps its own words.
type sourceError struct{ error }

func (e sourceError) Unwrap() error { return e.error }

func (p *Pusher) fail(ctx context.Context, s *session, op string, err error) error {
	var source sourceError
	if errors.As(err, &source) && ctx.Err() == nil {
		return source.error
	}
	err = p.c.fail(ctx, s, op, err)
	var f *fault.Error
	if errors.As(err, &f) && error(f) == err && !strings.HasPrefix(f.Op, "push ") {
		c := *f
		c.Op = strings.TrimSuffix("push to "+p.repo.String()+": "+f.Op, ": ")
		return &c
	}
	return err
}

// Upload makes sure that the repository has the layer's blob: nothing is done
// if it is there, it is mounted if it came from another repository of the same
// registry, else it is streamed. Concurrent calls for one digest do the work
// once; after a failure the next call tries again. Digest of a layer still in
// the making blocks until it is complete.
func (p *Pusher) Upload(ctx context.Context, layer v1.Layer) error {
	digest, err := layer.Digest()
	if err != nil {
		return fmt.Errorf("digest layer: %w", err)
	}
	_, err = getSlot(&p.mu, p.sent, digest.String()).get(ctx, func() (struct{}, error) {
		if p.awaitAhead(ctx, digest) {
			return struct{}{}, nil
		}
		select {
		case p.c.uploads <- struct{}{}:
			defer func() { <-p.c.uploads }()
		case <-ctx.Done():
			return struct{}{}, context.Cause(ctx)
		}
		return struct{}{}, p.upload(ctx, digest, layer)
	})
	return err
}

// mountable is a layer that knows where it came from.
type mountable interface{ MountSource() (host, path string) }

func (p *Pusher) upload(ctx context.Context, digest v1.Hash, layer v1.Layer) error {
	var mount []string
	if m, ok := layer.(mountable); ok {
		if host, path := m.MountSource(); host == p.repo.host && path != p.repo.path {
			mount = append(mount, path)
		}
	}
	s, err := p.c.session(ctx, p.repo, true, mount...)
	if err != nil && len(mount) > 0 && ctx.Err() == nil {
		// Some registries refuse the token as a whole.
		mount = nil
		s, err = p.c.session(ctx, p.repo, true)
	}
	if err != nil {
		return p.fail(ctx, &session{repo: p.repo, cred: p.c.keys.credential(p.repo), push: true}, "", err)
	}
	if len(mount) == 0 { // else it is asked for only where mounting does not work
		var there bool
		if there, err = s.exists(ctx, digest); err == nil && there {
			return nil
		}
	}
	for attempt := 0; err == nil; attempt++ {
		from := ""
		if len(mount) > 0 && attempt == 0 {
			from = mount[0]
		}
		var wait time.Duration
		wait, err = p.send(ctx, s, digest, from, layer)
		if err == nil {
			return nil
		}
		if wait == 0 || attempt >= s.tries || ctx.Err() != nil {
			break
		}
		err = sleep(ctx, max(wait, delay(p.c.opts.Backoff, attempt, nil)))
	}
	return p.fail(ctx, s, "blob "+digest.String(), err)
}

func (s *session) exists(ctx context.Context, digest v1.Hash) (bool, error) {
	return s.existsAt(ctx, "blobs", digest.String())
}

func (s *session) existsAt(ctx context.Context, parts ...string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, s.url(parts...), nil)
	if err != nil {
		return false, err
	}
	if parts[0] == "manifests" {
		req.Header.Set("Accept", strings.Join([]string{string(types.OCIImageIndex), string(types.OCIManifestSchema1),
			string(types.DockerManifestList), string(types.DockerManifestSchema2)}, ","))
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }()
	// Some registries answer HEAD with 403 to those who may only push: what
	// counts is whether the upload works.
	return resp.StatusCode == http.StatusOK, nil
}

// start begins an upload, or mounts. location is empty when it is done.
func (s *session) start(ctx context.Context, digest v1.Hash, from string) (location *url.URL, err error) {
	u := s.url("blobs", "uploads", "")
	if from != "" {
		u += "?" + url.Values{"mount": {digest.String()}, "from": {from}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := transport.CheckError(resp, http.StatusCreated, http.StatusAccepted); err != nil {
		return nil, err
	}
	if from != "" && resp.StatusCode == http.StatusCreated {
		return nil, nil
	}
	return s.location(resp)
}

// location is where the registry wants the next request of an upload. It must
// not lead from a public registry to an address inside our network.
func (s *session) location(resp *http.Response) (*url.URL, error) {
	loc, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" {
		return nil, errors.New("the registry names no place for the upload (header Location)")
	}
	loc = resp.Request.URL.ResolveReference(loc)
	if loc.Host != resp.Request.URL.Host {
		ip := net.ParseIP(loc.Hostname())
		if isLoopback(loc.Host) || ip != nil && (ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified()) {
			if !isLoopback(resp.Request.URL.Host) {
				return nil, fmt.Errorf("the registry sends the upload to %s, an address inside this network: refused", loc.Host)
			}
		}
	}
	return loc, nil
}

// send makes one attempt. A wait that is not 0 says that another may succeed.
func (p *Pusher) send(ctx context.Context, s *session, digest v1.Hash, from string, layer v1.Layer) (wait time.Duration, err error) {
	loc, err := s.start(ctx, digest, from)
	if err != nil && from != "" && ctx.Err() == nil {
		loc, err = s.start(ctx, digest, "") // as if mounting did not exist
	}
	if err != nil || loc == nil {
		return 0, err // start has been retried below
	}
	if from != "" {
		if there, err := s.exists(ctx, digest); err == nil && there {
			s.cancel(ctx, loc)
			return 0, nil
		}
	}
	size, err := layer.Size()
	if err != nil {
		return 0, sourceError{fmt.Errorf("size of layer %s: %w", digest, err)}
	}
	q := loc.Query()
	q.Set("digest", digest.String())
	loc.RawQuery = q.Encode()

	var broken atomic.Pointer[error] // of the layer itself: not the registry's fault
	open := func() (io.ReadCloser, error) {
		rc, err := layer.Compressed()
		if err != nil {
			err = fmt.Errorf("open layer %s: %w", digest, err)
			broken.Store(&err)
			return nil, err
		}
		return &counting{ReadCloser: rc, p: p, digest: digest, total: size, broken: &broken}, nil
	}
	body, err := open()
	if err != nil {
		return 0, sourceError{err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, loc.String(), body)
	if err != nil {
		_ = body.Close()
		return 0, err
	}
	req.ContentLength, req.GetBody = size, open
	if size == 0 {
		_ = body.Close()
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := s.client.Do(req)
	if err != nil {
		if e := broken.Load(); e != nil {
			return 0, sourceError{*e}
		}
		if temporary(err) || strings.Contains(err.Error(), "with Body length 0") {
			return time.Nanosecond, err
		}
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := transport.CheckError(resp, http.StatusCreated, http.StatusNoContent, http.StatusAccepted, http.StatusOK); err != nil {
		// 404: the upload session was lost, as registries behind load
		// balancers do; 416 and 400 BLOB_UPLOAD_INVALID likewise. 401: the
		// token expired while the body was on its way.
		again := retryStatus(resp.StatusCode) || resp.StatusCode == http.StatusNotFound ||
			resp.StatusCode == http.StatusRequestedRangeNotSatisfiable || resp.StatusCode == http.StatusUnauthorized && size > 0
		if again {
			return max(delay(p.c.opts.Backoff, 0, resp), 1), err
		}
		return 0, err
	}
	p.c.opts.Progress.Emit(p.transfer(digest, size, size, true))
	return 0, nil
}

func (p *Pusher) transfer(digest v1.Hash, n, total int64, finished bool) progress.Transfer {
	name := fmt.Sprintf("push %s %s", p.repo, short(digest))
	return progress.Transfer{ID: name, Name: name, Current: n, Total: total, Finished: finished, Time: time.Now()}
}

func short(h v1.Hash) string { return h.Algorithm + ":" + h.Hex[:min(12, len(h.Hex))] }

// counting reports progress and remembers an error of the source.
type counting struct {
	io.ReadCloser
	p        *Pusher
	digest   v1.Hash
	n, total int64
	last     time.Time
	broken   *atomic.Pointer[error]
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.n += int64(n)
	if now := time.Now(); now.Sub(c.last) >= 100*time.Millisecond {
		c.last = now
		c.p.c.opts.Progress.Emit(c.p.transfer(c.digest, c.n, c.total, false))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		wrapped := fmt.Errorf("read layer %s: %w", c.digest, err)
		c.broken.Store(&wrapped)
	}
	return n, err
}

// Put sends an image or index with everything that it consists of, manifests
// by digest, and gives it no tag.
func (p *Pusher) Put(ctx context.Context, a Artifact) error {
	if p.has(ctx, a) {
		return nil
	}
	switch a := a.(type) {
	case v1.ImageIndex:
		return p.putIndex(ctx, a, 0)
	case v1.Image:
		return p.putImage(ctx, a)
	default:
		return fmt.Errorf("put %T: neither image nor index", a)
	}
}

// has says whether the repository has the very same manifest, and with it all
// that it refers to: a registry accepts none whose blobs are missing. It is
// asked only where nothing new was sent, which is what a build from a cache
// comes to. Not to know is no error: then everything is sent.
func (p *Pusher) has(ctx context.Context, a Artifact) bool {
	p.mu.Lock()
	untouched := len(p.sent) == 0
	p.mu.Unlock()
	digest, err := a.Digest()
	if !untouched || err != nil {
		return false
	}
	s, err := p.c.session(ctx, p.repo, true)
	if err != nil {
		return false
	}
	there, err := s.existsAt(ctx, "manifests", digest.String())
	return err == nil && there
}

func (p *Pusher) putIndex(ctx context.Context, idx v1.ImageIndex, depth int) error {
	m, err := idx.IndexManifest()
	if err != nil {
		return fmt.Errorf("manifest of index: %w", err)
	}
	if depth > maxDepth {
		return errors.New("indexes are nested too deeply")
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, d := range m.Manifests {
		g.Go(func() error {
			if d.MediaType.IsIndex() {
				sub, err := idx.ImageIndex(d.Digest)
				if err != nil {
					return fmt.Errorf("read index %s: %w", d.Digest, err)
				}
				return p.putIndex(gctx, sub, depth+1)
			}
			img, err := idx.Image(d.Digest)
			if err != nil {
				return fmt.Errorf("read image %s: %w", d.Digest, err)
			}
			return p.putImage(gctx, img)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return p.putManifest(ctx, idx, "", nil)
}

func (p *Pusher) putImage(ctx context.Context, img v1.Image) error {
	blobs, err := blobsOf(img)
	if err != nil {
		return err
	}
	if err := p.putBlobs(ctx, blobs); err != nil {
		return err
	}
	return p.putManifest(ctx, img, "", func() error {
		p.forget(blobs)
		return p.putBlobs(ctx, blobs)
	})
}

// PutBlobs sends an image's layers and configuration, and no manifest.
func (p *Pusher) PutBlobs(ctx context.Context, img v1.Image) error {
	blobs, err := blobsOf(img)
	if err != nil {
		return err
	}
	return p.putBlobs(ctx, blobs)
}

func (p *Pusher) putBlobs(ctx context.Context, blobs []v1.Layer) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, l := range blobs {
		g.Go(func() error { return p.Upload(gctx, l) })
	}
	return g.Wait()
}

// forget makes the next Upload of each blob ask the registry again.
func (p *Pusher) forget(blobs []v1.Layer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range blobs {
		if digest, err := l.Digest(); err == nil {
			delete(p.sent, digest.String())
			p.ahead = slices.DeleteFunc(p.ahead, func(a *ahead) bool { h, complete := a.g.Digest(); return complete && h == digest })
		}
	}
}

// blobsOf are an image's layers and its configuration.
func blobsOf(img v1.Image) ([]v1.Layer, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, fmt.Errorf("layers of image: %w", err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, fmt.Errorf("config of image: %w", err)
	}
	m, err := img.Manifest()
	if err != nil {
		return nil, fmt.Errorf("manifest of image: %w", err)
	}
	return append(layers[:len(layers):len(layers)], v1.Layer(&memory{config, m.Config})), nil
}

// memory is the config as a blob to upload.
type memory struct {
	data []byte
	desc v1.Descriptor
}

func (m *memory) Digest() (v1.Hash, error)             { return m.desc.Digest, nil }
func (m *memory) DiffID() (v1.Hash, error)             { return m.desc.Digest, nil }
func (m *memory) Size() (int64, error)                 { return int64(len(m.data)), nil }
func (m *memory) MediaType() (types.MediaType, error)  { return m.desc.MediaType, nil }
func (m *memory) Uncompressed() (io.ReadCloser, error) { return m.Compressed() }
func (m *memory) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(m.data)), nil
}

// Tag makes tag point at a, which Put has sent before. A tag that the registry
// does not let change is an error with ErrImmutable, or none
// (Options.IgnoreImmutableTags).
func (p *Pusher) Tag(ctx context.Context, a Artifact, tag string) error {
	err := p.putManifest(ctx, a, tag, nil)
	if err == nil || !p.c.opts.IgnoreImmutableTags || !errors.Is(err, ErrImmutable) {
		return err
	}
	p.c.opts.Progress.Emit(progress.Notice{Level: progress.Warning, Time: time.Now(),
		Text: fmt.Sprintf("%s:%s is there and must not change: it stays as it is", p.repo, tag)})
	return nil
}

// putManifest puts under a tag, or under the digest if tag is empty. repair,
// where there is one, is called before another attempt when the registry does
// not know what the manifest refers to, although that was sent.
func (p *Pusher) putManifest(ctx context.Context, a Artifact, tag string, repair func() error) error {
	raw, err := a.RawManifest()
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	mt, err := a.MediaType()
	if err != nil {
		return fmt.Errorf("media type: %w", err)
	}
	digest, err := a.Digest()
	if err != nil {
		return fmt.Errorf("digest: %w", err)
	}
	target := tag
	if target == "" {
		target = digest.String()
	}
	s, err := p.c.session(ctx, p.repo, true)
	if err != nil {
		return p.fail(ctx, &session{repo: p.repo, cred: p.c.keys.credential(p.repo), push: true}, "", err)
	}
	for attempt := 0; ; attempt++ {
		resp, err := s.put(ctx, s.url("manifests", target), raw, string(mt))
		if err == nil {
			if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != digest.String() {
				err = fmt.Errorf("registry stored the manifest as %s instead of %s: %w", clean(got), digest, ErrDigest)
			}
			return p.fail(ctx, s, "manifest "+target, err)
		}
		missing := blobsMissing(err)
		if attempt >= s.tries || ctx.Err() != nil || !(missing || resp != nil && retryStatus(resp.StatusCode) || temporary(err)) {
			return p.fail(ctx, s, "manifest "+target, err)
		}
		if err := sleep(ctx, delay(p.c.opts.Backoff, attempt, resp)); err != nil {
			return err
		}
		if missing && repair != nil {
			if err := repair(); err != nil {
				return err
			}
		}
	}
}

// blobsMissing says that a registry refused a manifest for want of blobs. All
// of them were sent or found before, so it may only seem so to the registry:
// distribution's file system driver reads a link that another client is just
// writing anew as "digest invalid", and stores behind several servers see a
// blob some time after it was accepted.
func blobsMissing(err error) bool {
	var status *transport.Error
	if !errors.As(err, &status) {
		return false
	}
	return slices.ContainsFunc(status.Errors, func(d transport.Diagnostic) bool {
		switch d.Code {
		case transport.BlobUnknownErrorCode, transport.ManifestBlobUnknownErrorCode, transport.DigestInvalidErrorCode:
			return true
		}
		return false
	})
}

// put sends a small body; the response's body is closed.
func (s *session) put(ctx context.Context, url string, body []byte, mediaType string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return resp, transport.CheckError(resp, http.StatusCreated, http.StatusOK, http.StatusAccepted)
}

// Check finds out whether pushing is allowed, by starting an upload and
// cancelling it.
func (p *Pusher) Check(ctx context.Context) error {
	s, err := p.c.session(ctx, p.repo, true)
	if err != nil {
		return p.fail(ctx, &session{repo: p.repo, cred: p.c.keys.credential(p.repo), push: true}, "", err)
	}
	loc, err := s.start(ctx, v1.Hash{}, "")
	if err != nil {
		return p.fail(ctx, s, "check permission", err)
	}
	s.cancel(ctx, loc)
	return nil
}

// cancel ends an upload that was begun. One that cannot be ended expires by
// itself.
func (s *session) cancel(ctx context.Context, loc *url.URL) {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, loc.String(), nil)
	if err != nil {
		return
	}
	if resp, err := s.client.Do(req); err == nil {
		_ = resp.Body.Close()
	}
}
