package git

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// attempts is how often a server is tried to be reached, firstWait how long
// until the second time; then twice as long each time.
const (
	attempts  = 3
	firstWait = 300 * time.Millisecond
)

// temporary is an error that another attempt may not meet.
type temporary struct{ error }

// Unwrap gives access to the cause.
func (e temporary) Unwrap() error { return e.error }

// connect greets a repository's server, more than once if that may help.
func (s *Source) connect(ctx context.Context, r *remote) (*conversation, error) {
	for attempt := 0; ; attempt++ {
		c, err := s.once(ctx, r)
		if err == nil {
			c.meter = s.meter(r)
			return c, nil
		}
		if attempt+1 >= attempts || ctx.Err() != nil || !errors.As(err, &temporary{}) {
			return nil, r.failure(ctx, err)
		}
		select {
		case <-time.After(firstWait << attempt):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (s *Source) once(ctx context.Context, r *remote) (*conversation, error) {
	p, err := s.open(ctx, r)
	if err != nil {
		return nil, err
	}
	c, err := greet(ctx, p)
	if err != nil {
		p.Close()
		return nil, err
	}
	return c, nil
}

func (s *Source) open(ctx context.Context, r *remote) (peer, error) {
	switch r.scheme {
	case "http", "https":
		return newHTTPPeer(s.Transport, r), nil
	case "ssh":
		return s.dialSSH(ctx, r)
	default:
		return dialGit(ctx, r)
	}
}

// meter reports what comes from a repository.
func (s *Source) meter(r *remote) func(io.Reader) io.Reader {
	return func(in io.Reader) io.Reader {
		if s.Progress == nil {
			return in
		}
		return &meter{r: in, sink: s.Progress, event: progress.Transfer{ID: "git " + r.shown, Name: "git " + r.shown}}
	}
}

type meter struct {
	r     io.Reader
	sink  progress.Sink
	event progress.Transfer
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.event.Current += int64(n)
	if m.event.Finished = errors.Is(err, io.EOF); m.event.Finished || time.Since(m.event.Time) >= 100*time.Millisecond {
		m.event.Time = time.Now()
		m.sink.Emit(m.event)
	}
	return n, err
}

// Failures that httpPeer and the others tell apart.
var (
	errNoRepository = errors.New("repository not found")
	errLogin        = errors.New("authentication is required")
	errRefused      = errors.New("access was refused")
)

// failure makes an error that a person can act on of what went wrong with a
// repository. Credentials are in none of its parts.
func (r *remote) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, ok := fault.As(err); ok {
		return err
	}
	e := &fault.Error{Kind: fault.Registry, Op: "git repository " + r.shown, Err: err,
		Remedy: "Check the address, and the proxy settings of the job (HTTPS_PROXY, NO_PROXY)."}
	var se *serverError
	switch {
	case errors.Is(err, errNoRepository):
		e.Remedy = "Check the address. Some servers answer so when credentials are missing: give them with --secret id=GIT_AUTH_TOKEN,env=VARIABLE."
	case errors.Is(err, errLogin), errors.Is(err, errRefused):
		e.Remedy = "Give a token with --secret id=GIT_AUTH_TOKEN,env=VARIABLE, or a whole header Authorization with id=GIT_AUTH_HEADER; check what the token may read."
		if r.authorization() != "" {
			e.Remedy = "The credentials that were given do not open this repository: check the secret GIT_AUTH_TOKEN or GIT_AUTH_HEADER and what it may read."
		}
		if r.scheme == "ssh" {
			e.Remedy = "Check that the key given with --ssh may read the repository."
		}
	case errors.Is(err, errSHA256):
		e.Kind, e.Remedy = fault.User, "Use a repository with SHA-1 object names."
	case errors.Is(err, errNotSmart):
		e.Remedy = "Check that the address is a git repository's and not a page's."
	case errors.As(err, &se):
		e.Remedy = "Check the address and the ref."
		if notThere(se.text) {
			e.Err, e.Remedy = fmt.Errorf("%w (%w)", errNoRepository, err), "Check the address, and that the credentials may read the repository."
		}
	}
	return e
}

// notThere says that a server's words mean that there is no such repository.
func notThere(text string) bool {
	text = strings.ToLower(text)
	for _, s := range []string{"not found", "does not exist", "no such repository", "not appear to be a git repository", "could not be found", "not exported", "no such file or directory"} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// httpPeer speaks smart HTTP.
type httpPeer struct {
	client *http.Client
	remote *remote
	base   *url.URL
	header string
	bodies []io.Closer
}

func newHTTPPeer(t http.RoundTripper, r *remote) *httpPeer {
	p := &httpPeer{remote: r, header: r.authorization()}
	p.base, _ = url.Parse(r.base()) // made by url.URL.String
	p.client = &http.Client{Transport: t, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		switch {
		case req.Method != http.MethodGet || len(via) >= 10:
			return http.ErrUseLastResponse
		case !sameOrigin(via[0].URL, req.URL):
			req.Header.Del("Authorization")
		}
		return nil
	}}
	return p
}

// sameOrigin says whether what is meant for one URL may go to another.
func sameOrigin(a, b *url.URL) bool {
	if a.Scheme == "http" && b.Scheme == "https" && a.Port() == "" && b.Port() == "" {
		return strings.EqualFold(a.Hostname(), b.Hostname())
	}
	return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host)
}

func (p *httpPeer) hello(ctx context.Context) (io.Reader, error) {
	at := *p.base
	at.Path += "/info/refs"
	at.RawQuery = "service=git-upload-pack"
	resp, err := p.do(ctx, http.MethodGet, &at, nil)
	if err != nil {
		return nil, err
	}
	if t := resp.Header.Get("Content-Type"); !strings.HasPrefix(t, "application/x-git-upload-pack-advertisement") {
		return nil, errNotSmart
	}
	// As git does, everything else goes to where this has led.
	if dir, ok := strings.CutSuffix(resp.Request.URL.Path, "/info/refs"); ok && dir != p.base.Path || resp.Request.URL.Host != p.base.Host {
		to := *resp.Request.URL
		to.Path, to.RawQuery, to.RawPath = dir, "", ""
		if !ok {
			return nil, errNotSmart
		}
		if !sameOrigin(p.base, &to) {
			p.header = ""
		}
		p.base = &to
	}
	return resp.Body, nil
}

func (p *httpPeer) ask(ctx context.Context, body []byte) (io.Reader, error) {
	at := *p.base
	at.Path += "/git-upload-pack"
	resp, err := p.do(ctx, http.MethodPost, &at, body)
	if err != nil {
		return nil, err
	}
	if t := resp.Header.Get("Content-Type"); !strings.HasPrefix(t, "application/x-git-upload-pack-result") {
		return nil, errNotSmart
	}
	return resp.Body, nil
}

func (p *httpPeer) do(ctx context.Context, method string, at *url.URL, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, at.String(), bytes.NewReader(body))
	if err != nil {
		return nil, badURL()
	}
	req.Header.Set("User-Agent", "git/layerwright") // some servers look for "git/"
	req.Header.Set("Git-Protocol", "version=2")
	if body != nil {
		req.Header.Set("Content-Type", "application/x-git-upload-pack-request")
		req.Header.Set("Accept", "application/x-git-upload-pack-result")
	}
	if p.header != "" {
		req.Header.Set("Authorization", p.header)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		var ue *url.Error // its text has the whole URL
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, temporary{err}
	}
	p.bodies = append(p.bodies, resp.Body)
	switch c := resp.StatusCode; {
	case c == http.StatusOK:
		return resp, nil
	case c == http.StatusUnauthorized:
		return nil, errLogin
	case c == http.StatusForbidden:
		return nil, errRefused
	case c == http.StatusNotFound || c == http.StatusGone:
		return nil, errNoRepository
	case c == http.StatusTooManyRequests || c >= 500:
		return nil, temporary{fmt.Errorf("the server answered %s", resp.Status)}
	}
	return nil, fmt.Errorf("the server answered %s", resp.Status)
}

// Close implements peer.
func (p *httpPeer) Close() {
	for _, b := range p.bodies {
		_ = b.Close()
	}
	p.bodies = nil
}

// streamPeer is a server at the other end of a connection.
type streamPeer struct {
	in  *bufio.Reader
	out io.Writer
	// failed may replace a connection's end by what the server said.
	failed func(error) error
	close  func()
}

func (p *streamPeer) hello(context.Context) (io.Reader, error) {
	if _, err := p.in.Peek(4); err != nil && p.failed != nil {
		return nil, p.failed(err)
	}
	return p.in, nil
}

func (p *streamPeer) ask(_ context.Context, body []byte) (io.Reader, error) {
	_, err := p.out.Write(body)
	return p.in, err
}

// Close implements peer.
func (p *streamPeer) Close() { p.close() }

// dialGit opens a connection of git's own protocol.
func dialGit(ctx context.Context, r *remote) (peer, error) {
	conn, err := dial(ctx, r.address("9418"))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	p := &streamPeer{in: bufio.NewReaderSize(conn, 66<<10), out: conn, close: func() { stop(); _ = conn.Close() }}
	_, err = io.WriteString(conn, pkt("git-upload-pack /"+strings.TrimPrefix(r.path, "/")+"\x00host="+r.host+"\x00\x00version=2\x00"))
	if err != nil {
		p.Close()
		return nil, temporary{err}
	}
	return p, nil
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: 30 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, temporary{err}
	}
	return conn, nil
}
