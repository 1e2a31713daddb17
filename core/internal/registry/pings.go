package registry

import (
	"fmt"
	"net/http"
	"sync"
)

// pings asks each registry once what it is. Every session begins with GET /v2/,
// whose answer to somebody who is not logged in, the scheme of logins, is the
// same for all repositories of a host.
type pings struct {
	inner http.RoundTripper

	mu      sync.Mutex
	answers map[string]*slot[*http.Response]
}

// pinger gives the transport of sessions.
func pinger(inner http.RoundTripper) *pings {
	return &pings{inner: inner, answers: map[string]*slot[*http.Response]{}}
}

// unusual is an answer that says nothing about the next one.
type unusual struct{ resp *http.Response }

func (u unusual) Error() string { return fmt.Sprintf("status %d", u.resp.StatusCode) }

// RoundTrip implements http.RoundTripper.
func (p *pings) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet || req.URL.Path != "/v2/" || req.Header.Get("Authorization") != "" {
		return p.inner.RoundTrip(req)
	}
	known, err := getSlot(&p.mu, p.answers, req.URL.Scheme+"://"+req.URL.Host).get(req.Context(), func() (*http.Response, error) {
		resp, err := p.inner.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
			return nil, unusual{resp}
		}
		return resp, resp.Body.Close()
	})
	if odd, ok := err.(unusual); ok { //nolint:errorlint // our own, and not wrapped
		return odd.resp, nil
	}
	if err != nil {
		return nil, err
	}
	resp := *known
	resp.Header, resp.Body, resp.ContentLength, resp.Request = known.Header.Clone(), http.NoBody, 0, req
	return &resp, nil
}
