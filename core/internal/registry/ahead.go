package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/layerwright/layerwright/core/internal/progress"
)

// Growing is a blob that is still being made.
type Growing interface {
	// Open reads it from its beginning, as fast as it grows.
	Open(ctx context.Context) (io.ReadCloser, error)
	// Head identifies its first bytes.
	Head() string
	// Digest is known once it is complete.
	Digest() (h v1.Hash, complete bool)
}

// ahead is a blob that is sent while it is being made.
type ahead struct {
	g Growing
	// done is closed at the end, sent says whether the repository has it then.
	done chan struct{}
	sent bool
}

// Ahead prepares to send a blob that is still being made; send does it, in one
// attempt. Upload of the same blob waits for that, and does what it would have done
// anyway if it fails: nothing is lost then, and nothing need be said. A blob that
// begins as another one did is left to Upload, which sends one that is there only once.
func (p *Pusher) Ahead(g Growing) (send func(ctx context.Context)) {
	a := &ahead{g: g, done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.ContainsFunc(p.ahead, func(other *ahead) bool { return other.g.Head() == g.Head() }) {
		return func(context.Context) {}
	}
	p.ahead = append(p.ahead, a)
	return func(ctx context.Context) {
		defer close(a.done)
		select {
		case p.c.uploads <- struct{}{}:
			defer func() { <-p.c.uploads }()
		default:
			return // enough to do without it
		}
		a.sent = p.sendGrowing(ctx, g) == nil
	}
}

// awaitAhead waits until a blob that is being sent ahead is, and says whether that
// has succeeded.
func (p *Pusher) awaitAhead(ctx context.Context, digest v1.Hash) bool {
	p.mu.Lock()
	var found *ahead
	for _, a := range p.ahead {
		if h, complete := a.g.Digest(); complete && h == digest {
			found = a
		}
	}
	p.mu.Unlock()
	if found == nil {
		return false
	}
	select {
	case <-found.done:
		return found.sent
	case <-ctx.Done():
		return false
	}
}

// aheads numbers blobs, which have no digest yet, for people's progress.
var aheads atomic.Int64

// sendGrowing sends as docker does, in one PATCH of unknown length; the PUT names the
// digest, which is known by then. Specification of distribution, "pushing a blob in
// chunks".
func (p *Pusher) sendGrowing(ctx context.Context, g Growing) (err error) {
	s, err := p.c.session(ctx, p.repo, true)
	if err != nil {
		return err
	}
	loc, err := s.start(ctx, v1.Hash{}, "")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			s.cancel(ctx, loc)
		}
	}()
	rc, err := g.Open(ctx)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("push %s a layer in the making", p.repo)
	body := &growingBody{ReadCloser: rc, sink: p.c.opts.Progress, event: progress.Transfer{ID: fmt.Sprint(name, " ", aheads.Add(1)), Name: name}}
	label := name
	defer func() { body.finish(label, err) }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, loc.String(), body)
	if err != nil {
		return errors.Join(err, rc.Close())
	}
	req.ContentLength = -1
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusAccepted, http.StatusNoContent); err != nil {
		return err
	}
	if loc, err = s.location(resp); err != nil {
		return err
	}
	digest, complete := g.Digest()
	if !complete {
		return errors.New("the registry has not taken all of it")
	}
	label = fmt.Sprintf("push %s %s", p.repo, short(digest))
	return s.complete(ctx, loc, digest)
}

// complete ends an upload whose bytes have been sent.
func (s *session) complete(ctx context.Context, loc *url.URL, digest v1.Hash) error {
	u := *loc
	q := u.Query()
	q.Set("digest", digest.String())
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, u.String(), http.NoBody)
	if err != nil {
		return err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return transport.CheckError(resp, http.StatusCreated, http.StatusNoContent, http.StatusAccepted, http.StatusOK)
}

// growingBody reports progress. A registry that answers before it has read everything
// leaves its reader at work, also after finish.
type growingBody struct {
	io.ReadCloser
	sink  progress.Sink
	event progress.Transfer

	mu       sync.Mutex
	n        int64
	last     time.Time
	finished bool
}

func (b *growingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n += int64(n)
	if now := time.Now(); !b.finished && now.Sub(b.last) >= 100*time.Millisecond {
		b.last = now
		b.emit(b.event.Name)
	}
	return n, err
}

func (b *growingBody) finish(name string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.finished = true; err != nil {
		name += ", given up until it is complete"
	}
	b.emit(name)
}

// emit tells how far it is; mu is held.
func (b *growingBody) emit(name string) {
	e := b.event
	e.Name, e.Current, e.Finished, e.Time = name, b.n, b.finished, time.Now()
	b.sink.Emit(e)
}
