package credentials

import (
	"bytes"
	"io"
	"net/http"
	"time"
)

// again makes requests of token services again where the service is busy or
// stumbles. Their bodies are small and can be made anew, and asking twice for a
// token does no harm.
type again struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (a *again) RoundTrip(req *http.Request) (*http.Response, error) {
	next := a.next
	if next == nil {
		next = http.DefaultTransport
	}
	wait := maxWait / 8
	for left := attempts - 1; ; left-- {
		resp, err := next.RoundTrip(req)
		if left == 0 || err == nil && resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests || req.Context().Err() != nil ||
			req.Body != nil && req.GetBody == nil {
			return resp, err
		}
		if err == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
			_ = resp.Body.Close()
		}
		if req.GetBody != nil {
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			req = req.Clone(req.Context())
			req.Body = body
		}
		select {
		case <-req.Context().Done():
			return nil, req.Context().Err()
		case <-time.After(wait):
		}
		wait *= 2
	}
}

// watched remembers the last answer of a service other than success, for libraries
// whose errors repeat all of it.
type watched struct {
	next http.RoundTripper
	last *refused
}

// watch is a client whose refused answers are remembered.
func watch(c *http.Client) (*http.Client, *watched) {
	w := &watched{next: c.Transport}
	out := *c
	out.Transport = w
	return &out, w
}

// RoundTrip implements http.RoundTripper.
func (w *watched) RoundTrip(req *http.Request) (*http.Response, error) {
	next := w.next
	if next == nil {
		next = http.DefaultTransport
	}
	resp, err := next.RoundTrip(req)
	if err != nil || resp.StatusCode >= 200 && resp.StatusCode <= 299 {
		return resp, err
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	w.last = &refused{req.URL.Host, resp.StatusCode, reason(raw)}
	resp.Body = io.NopCloser(bytes.NewReader(raw))
	return resp, nil
}

// or is the remembered answer, or the error that says what happened otherwise.
func (w *watched) or(err error) error {
	if w.last != nil {
		return w.last
	}
	return err
}
