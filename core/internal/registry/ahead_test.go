package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/progress"
)

// growing is a layer that is complete once what is read is at its end.
type growing struct {
	v1.Layer
	t    *testing.T
	head string
	fail error
	// complete is set by the reader, before it says io.EOF.
	complete chan struct{}
}

func newGrowing(t *testing.T, head string) *growing {
	t.Helper()
	l, err := random.Layer(300_000, types.OCILayer)
	require.NoError(t, err)
	return &growing{Layer: l, t: t, head: head, complete: make(chan struct{})}
}

func (g *growing) Head() string { return g.head }

func (g *growing) Digest() (v1.Hash, bool) {
	h, err := g.Layer.Digest()
	require.NoError(g.t, err)
	select {
	case <-g.complete:
		return h, true
	default:
		return h, false
	}
}

func (g *growing) Open(context.Context) (io.ReadCloser, error) {
	rc, err := g.Compressed()
	return &growingEnd{rc, g}, err
}

type growingEnd struct {
	io.ReadCloser
	g *growing
}

func (e *growingEnd) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		if e.g.fail != nil {
			return n, e.g.fail
		}
		select {
		case <-e.g.complete:
		default:
			close(e.g.complete)
		}
	}
	return n, err
}

func TestABlobIsSentWhileItGrows(t *testing.T) {
	s, c := newServer(t), newClient(t)
	p, err := c.Pusher(s.host + "/grows")
	require.NoError(t, err)
	g := newGrowing(t, "a")
	send := p.Ahead(g)
	go send(t.Context())
	<-g.complete
	require.NoError(t, p.Upload(t.Context(), g.Layer), "waits for what is on its way")
	digest, _ := g.Digest()
	require.Equal(t, 1, s.count("PATCH "))
	require.Equal(t, 1, s.count("POST "))
	require.Zero(t, s.count("HEAD "), "it is known to be there")
	resp, err := http.Head(s.URL + "/v2/grows/blobs/" + digest.String())
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
}

func TestWhatBeginsAlikeIsNotSentTwice(t *testing.T) {
	s, c := newServer(t), newClient(t)
	p, err := c.Pusher(s.host + "/alike")
	require.NoError(t, err)
	one, two := newGrowing(t, "same"), newGrowing(t, "same")
	p.Ahead(one)(t.Context())
	p.Ahead(two)(t.Context())
	require.Equal(t, 1, s.count("PATCH "))
	require.NoError(t, p.Upload(t.Context(), two.Layer))
	require.Equal(t, 2, s.count("POST "), "it was another one after all")
}

// Whatever goes wrong ahead of time, Upload does it as if nothing had been tried.
func TestWhatIsNotSentAheadIsSentAfterwards(t *testing.T) {
	refuse := func(method string, code int) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != method || strings.Contains(r.URL.RawQuery, "digest=") && method == http.MethodPatch {
				return false
			}
			w.WriteHeader(code)
			return true
		}
	}
	cut := func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch {
			_, _ = io.CopyN(io.Discard, r.Body, 1000)
			panic(http.ErrAbortHandler)
		}
		return false
	}
	for name, hook := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"no PATCH":      refuse(http.MethodPatch, http.StatusMethodNotAllowed),
		"not the login": refuse(http.MethodPatch, http.StatusUnauthorized),
		"failure":       refuse(http.MethodPatch, http.StatusInternalServerError),
		"cut":           cut,
		"no POST":       refuse(http.MethodPost, http.StatusServiceUnavailable),
	} {
		t.Run(name, func(t *testing.T) {
			s, c := newServer(t), newClient(t)
			p, err := c.Pusher(s.host + "/later")
			require.NoError(t, err)
			g := newGrowing(t, "a")
			s.on(hook)
			p.Ahead(g)(t.Context())
			s.on(nil)
			require.NoError(t, p.Upload(t.Context(), g.Layer))
			digest, _ := g.Digest()
			require.Equal(t, 1, s.count("HEAD /v2/later/blobs/"+digest.String()))
		})
	}
}

func TestABlobThatIsNotComingIsNotSent(t *testing.T) {
	s, c := newServer(t), newClient(t)
	p, err := c.Pusher(s.host + "/never")
	require.NoError(t, err)
	g := newGrowing(t, "a")
	g.fail = errors.New("the step failed")
	p.Ahead(g)(t.Context())
	require.Zero(t, s.count("PUT "))
	require.Equal(t, 1, s.count("DELETE "), "the upload is given back")
}

// TestASentBlobThatIsLostIsSentAgain: a manifest that is refused for want of a blob.
func TestASentBlobThatIsLostIsSentAgain(t *testing.T) {
	s, c := newServer(t), newClient(t)
	p, err := c.Pusher(s.host + "/lost")
	require.NoError(t, err)
	g := newGrowing(t, "a")
	p.Ahead(g)(t.Context())
	require.NoError(t, p.Upload(t.Context(), g.Layer))
	p.forget([]v1.Layer{g.Layer})
	require.NoError(t, p.Upload(t.Context(), g.Layer))
	require.Equal(t, 1, s.count("HEAD "), "the registry is asked")
}

// TestARegistryThatAnswersEarly has not read everything: nothing is told of it after its
// end, and that it was given up is.
func TestARegistryThatAnswersEarly(t *testing.T) {
	var seen events
	s, c := newServer(t), newClient(t, func(o *Options) { o.Progress = &seen })
	p, err := c.Pusher(s.host + "/early")
	require.NoError(t, err)
	s.on(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch {
			return false
		}
		w.WriteHeader(http.StatusInsufficientStorage)
		return true
	})
	p.Ahead(newGrowing(t, "a"))(t.Context())
	last := seen.last()
	require.True(t, last.Finished)
	require.Contains(t, last.Name, "given up until it is complete")
}

// events keeps the last transfer.
type events struct {
	mu sync.Mutex
	at progress.Transfer
}

func (e *events) Emit(ev progress.Event) {
	if t, ok := ev.(progress.Transfer); ok {
		e.mu.Lock()
		e.at = t
		e.mu.Unlock()
	}
}

func (e *events) last() progress.Transfer {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.at
}
