package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// poolKey tells connections apart: whether certificates are not checked, HTTP/2
// or 1.1, and the host where it has certificates of its own.
type poolKey struct {
	skip, h2 bool
	identity string
}

// pools are the connections that all requests of a Client share.
type pools struct {
	byKey      map[poolKey]http.RoundTripper
	identities map[string]identity
	old        sync.Map // hosts that get HTTP/1.1
}

// newPools makes connections: keep-alive, with and without verification of
// certificates. It reads certificates.
func newPools(opts Options) (*pools, error) {
	roots := opts.RootCAs
	if roots == nil {
		// Read now: later the root of the file system may be another one.
		// On error the pool stays nil and Go looks again by itself.
		roots, _ = x509.SystemCertPool()
	}
	ids, err := opts.identities(roots)
	if err != nil {
		return nil, err
	}
	p := &pools{byKey: map[poolKey]http.RoundTripper{}, identities: ids}
	add := func(name string, id identity) {
		for _, skip := range []bool{false, true} {
			for _, h2 := range []bool{false, true} {
				p.byKey[poolKey{skip, h2, name}] = newPool(opts, id, skip, h2)
			}
		}
	}
	add("", identity{roots: roots})
	for name, id := range ids {
		add(name, id)
	}
	return p, nil
}

func newPool(opts Options, id identity, skip, h2 bool) *http.Transport {
	t := &http.Transport{
		Proxy:                 Proxy(opts.Environment),
		DialContext:           (&net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: id.roots, Certificates: id.client, InsecureSkipVerify: skip, MinVersion: tls.VersionTLS12}, //nolint:gosec // only for hosts that the user named
		ForceAttemptHTTP2:     h2,
		MaxIdleConns:          64,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   20 * time.Second,
		ResponseHeaderTimeout: 5 * time.Minute,
		ExpectContinueTimeout: time.Second,
		// Blobs are what they are: nothing may decompress them here.
		DisableCompression: true,
	}
	if !h2 {
		t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	return t
}

// newRouting is the transport for pushing, or for pulling.
func newRouting(opts Options, p *pools, push bool) *routing {
	agent := "layerwright/" + opts.Version
	if opts.Version == "" {
		agent = "layerwright/dev"
	}
	return &routing{
		pools: p, agent: agent, insecure: insecureHosts(opts, push),
		skip: newHostSet(push && opts.SkipTLSVerify || !push && opts.SkipTLSVerifyPull, opts.SkipTLSVerifyRegistries),
	}
}

// routing picks the pool by host, refuses plain HTTP where it is not allowed,
// and falls back to HTTP/1.1 for a host whose HTTP/2 is broken.
type routing struct {
	*pools
	insecure, skip hostSet
	agent          string
}

// errPlainHTTP is the refusal to send anything unencrypted.
var errPlainHTTP = errors.New("plain HTTP is not allowed for this host")

func (t *routing) RoundTrip(req *http.Request) (*http.Response, error) {
	host := req.URL.Host
	if req.URL.Scheme == "http" && !isLoopback(host) && !t.insecure.has(host) {
		return nil, fmt.Errorf("%s: %w", host, errPlainHTTP)
	}
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", t.agent)
	_, old := t.old.Load(host)
	key := poolKey{skip: t.skip.has(host), h2: !old, identity: identityOf(t.identities, host)}
	resp, err := t.byKey[key].RoundTrip(req)
	if err == nil || old || !isHTTP2Error(err) {
		return resp, err
	}
	t.old.Store(host, true)
	if req.Body != nil && req.Body != http.NoBody {
		if req.GetBody == nil {
			return nil, err
		}
		if req.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	key.h2 = false
	return t.byKey[key].RoundTrip(req)
}

func isHTTP2Error(err error) bool {
	s := err.Error()
	return strings.Contains(s, "http2: ") || strings.Contains(s, "PROTOCOL_ERROR") || strings.Contains(s, "HTTP_1_1_REQUIRED") ||
		strings.Contains(s, "stream error: stream ID")
}

// retrying repeats requests without a body (those with one are repeated by
// whoever can produce the body again).
type retrying struct {
	inner   http.RoundTripper
	tries   int
	backoff time.Duration
}

func (t *retrying) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil && req.Body != http.NoBody {
		return t.inner.RoundTrip(req)
	}
	for attempt := 0; ; attempt++ {
		resp, err := t.inner.RoundTrip(req)
		if attempt >= t.tries || !retryable(resp, err) || req.Context().Err() != nil {
			return resp, err
		}
		wait := delay(t.backoff, attempt, resp)
		if resp != nil {
			_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
			_ = resp.Body.Close()
		}
		if err := sleep(req.Context(), wait); err != nil {
			return nil, err
		}
	}
}

// retryable says whether the same request may do better a moment later.
func retryable(resp *http.Response, err error) bool {
	if err != nil {
		return temporary(err)
	}
	return retryStatus(resp.StatusCode)
}

func retryStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, 499, 522:
		return true
	}
	return false
}

// temporary recognises cut connections and timeouts.
func temporary(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed} {
		if errors.Is(err, e) {
			return true
		}
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsTemporary || dns.IsTimeout
	}
	var n net.Error
	return errors.As(err, &n) && n.Timeout() || isHTTP2Error(err) || strings.Contains(err.Error(), "server closed idle connection")
}

// delay is the wait before attempt+1: the server's wish, else exponential with
// jitter.
func delay(first time.Duration, attempt int, resp *http.Response) time.Duration {
	const most = time.Minute
	if resp != nil {
		if d, ok := retryAfter(resp.Header.Get("Retry-After")); ok {
			return min(d, most)
		}
	}
	d := min(first<<min(attempt, 10), most/2)
	return d + rand.N(d/4+1) //nolint:gosec // jitter
}

func retryAfter(v string) (time.Duration, bool) {
	if v == "" {
		return 0, false
	}
	if n, err := strconv.Atoi(v); err == nil && n >= 0 && n < 1<<20 {
		return time.Duration(n) * time.Second, true
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(t)), true
	}
	return 0, false
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
