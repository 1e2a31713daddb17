// Package registry owns everything that speaks to a container registry: names,
// credentials, mirrors, retries, transport, pulling and pushing of manifests
// and blobs. It alone imports go-containerregistry's remote packages. It
// verifies every byte against the digest that promised it, keeps no blob in
// memory, prints nothing, and refuses to know what is in a layer.
package registry

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/layerwright/layerwright/core/internal/credentials"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// Options are how registries are reached. The zero value verifies TLS
// everywhere, tries plain HTTP only on loopback addresses, and retries three
// times.
type Options struct {
	// Insecure allows plain HTTP for all that is pushed, InsecurePull for all
	// that is pulled, InsecureRegistries for the named hosts ("host" or
	// "host:port").
	Insecure, InsecurePull bool
	InsecureRegistries     []string
	// SkipTLSVerify and its like accept any certificate, in the same way.
	SkipTLSVerify, SkipTLSVerifyPull bool
	SkipTLSVerifyRegistries          []string
	// Certificates are files in PEM whose certificates are trusted, besides
	// the system's, by host; ClientCertificates are what we show to a host.
	// New reads them.
	Certificates       map[string][]string
	ClientCertificates map[string]KeyPair
	// Mirrors ("host[:port][/prefix]") are asked first for images of Docker
	// Hub, Maps for those of a registry, by its host; whatever goes wrong
	// with one, the next is asked, and in the end the registry itself,
	// unless NoFallback. Without a mirror NoFallback means nothing.
	Mirrors    []string
	Maps       map[string][]string
	NoFallback bool
	// IgnoreImmutableTags makes a tag that is there and must not change no
	// error of a push.
	IgnoreImmutableTags bool
	// Environment has the job's variables: where files with logins are,
	// logins themselves, proxies. New reads the files once.
	Environment map[string]string
	// Logins come before all other sources of logins, then CredentialFiles.
	// CredentialHelpers are the built-in helpers that are on; all when nil.
	Logins            []credentials.Explicit
	CredentialFiles   []string
	CredentialHelpers []string
	// Clouds are keys for clouds as settings; they come after Logins.
	Clouds credentials.Clouds
	// PullRetries and PushRetries count attempts after the first one; 0
	// means 3, less than 0 none.
	PullRetries, PushRetries int
	// Backoff is the first wait before a retry, doubled each time; 500 ms
	// when 0. A server's Retry-After wins, up to one minute.
	Backoff time.Duration
	// Version goes into the user agent.
	Version string
	// RootCAs are trusted instead of the system's certificates, which New
	// reads when this is nil.
	RootCAs *x509.CertPool
	// Outside runs a function while the root of the file system is the
	// job's own. Credential helpers run through it. Called directly if nil.
	Outside func(func() error) error
	// Progress takes Transfer and Notice events; nil drops them.
	Progress progress.Sink
}

// Client reaches registries. Connections, tokens and resolved images are
// shared by all users of one Client, which lives as long as one build: a tag
// resolves to the same image in all of it. Safe for concurrent use.
type Client struct {
	opts    Options
	keys    *keychain
	pull    http.RoundTripper
	push    http.RoundTripper
	uploads chan struct{}

	mu       sync.Mutex
	sessions map[string]*slot[*session]
	images   map[string]*slot[*Image]
}

// maxUploads bounds how many blobs a Client sends at the same time.
const maxUploads = 6

// New reads the credentials and the system's certificates and prepares the
// transport. It makes no network access.
func New(opts Options) (*Client, error) {
	if opts.Progress == nil {
		opts.Progress = progress.Discard
	}
	if opts.Outside == nil {
		opts.Outside = func(f func() error) error { return f() }
	}
	if opts.Backoff <= 0 {
		opts.Backoff = 500 * time.Millisecond
	}
	opts.PullRetries = retries(opts.PullRetries)
	opts.PushRetries = retries(opts.PushRetries)
	var pools *pools
	err := opts.Outside(func() (err error) { pools, err = newPools(opts); return err })
	if err != nil {
		return nil, err
	}
	c := &Client{
		opts: opts, pull: pinger(newRouting(opts, pools, false)), push: pinger(newRouting(opts, pools, true)),
		uploads: make(chan struct{}, maxUploads), sessions: map[string]*slot[*session]{}, images: map[string]*slot[*Image]{},
	}
	c.keys, err = loadKeychain(opts, c.pull)
	return c, err
}

// Transport reaches the services of clouds, with the proxies and certificates that
// hold for registries.
func (c *Client) Transport() http.RoundTripper { return c.pull }

// base is the transport for pushing, or for pulling.
func (c *Client) base(push bool) http.RoundTripper {
	if push {
		return c.push
	}
	return c.pull
}

// plain says whether a registry may be reached by plain HTTP.
func (c *Client) plain(repo repository, push bool) bool {
	return insecureHosts(c.opts, push).has(repo.apiHost()) || isLoopback(repo.apiHost())
}

// insecureHosts are those that plain HTTP is allowed for.
func insecureHosts(o Options, push bool) hostSet {
	return newHostSet(push && o.Insecure || !push && o.InsecurePull, o.InsecureRegistries)
}

func retries(n int) int {
	switch {
	case n < 0:
		return 0
	case n == 0:
		return 3
	default:
		return n
	}
}

// hostSet says for which hosts an exception from the secure default is made.
type hostSet struct {
	all   bool
	hosts map[string]bool
}

func newHostSet(all bool, hosts []string) hostSet {
	s := hostSet{all: all, hosts: map[string]bool{}}
	for _, h := range hosts {
		h = strings.TrimPrefix(strings.TrimPrefix(h, "https://"), "http://")
		h, _, _ = strings.Cut(h, "/")
		if h == "docker.io" {
			h = name.DefaultRegistry
		}
		if h != "" {
			s.hosts[strings.ToLower(h)] = true
		}
	}
	return s
}

// has matches "host:port" against entries with and without a port.
func (s hostSet) has(hostport string) bool {
	if s.all {
		return true
	}
	hostport = strings.ToLower(hostport)
	if s.hosts[hostport] {
		return true
	}
	host, _, err := net.SplitHostPort(hostport)
	return err == nil && s.hosts[host]
}

func isLoopback(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// slot holds a value that is made once, however many ask for it at the same
// time; a failure is not kept, the next one who asks tries again.
type slot[T any] struct {
	turn chan struct{}
	done bool
	val  T
}

func getSlot[T any](mu *sync.Mutex, m map[string]*slot[T], key string) *slot[T] {
	mu.Lock()
	defer mu.Unlock()
	s, ok := m[key]
	if !ok {
		s = &slot[T]{turn: make(chan struct{}, 1)}
		m[key] = s
	}
	return s
}

func (s *slot[T]) get(ctx context.Context, build func() (T, error)) (T, error) {
	var zero T
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return zero, context.Cause(ctx)
	}
	defer func() { <-s.turn }()
	if s.done {
		return s.val, nil
	}
	v, err := build()
	if err != nil {
		return zero, err
	}
	s.val, s.done = v, true
	return v, nil
}

// repository is where something is: a registry's host and a path on it.
type repository struct{ host, path string }

func (r repository) String() string { return r.host + "/" + r.path }

// apiHost is the host that requests go to.
func (r repository) apiHost() string {
	if r.host == "docker.io" {
		return name.DefaultRegistry
	}
	return r.host
}

// parse reads a reference as Docker does ("debian" is
// docker.io/library/debian:latest).
func parse(ref string) (reference.Named, repository, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, repository{}, fault.New(fault.User, "image reference %q: %w", scrub(ref), err).
			With("A reference looks like registry.example/team/app:1.2 (lower case; no scheme).")
	}
	named = reference.TagNameOnly(named)
	return named, repository{reference.Domain(named), reference.Path(named)}, nil
}

// Domain is the registry's host of a reference, normalised ("docker.io").
func Domain(ref string) (string, error) {
	_, repo, err := parse(ref)
	return repo.host, err
}

// session is an authenticated connection to one repository for one purpose.
type session struct {
	client *http.Client
	repo   repository
	named  name.Repository
	cred   *credential
	tries  int
	push   bool
	// unnamed says that it is about the registry and no repository there.
	unnamed bool
}

// session opens or reuses a session. mountFrom are repositories of the same
// registry that blobs are to be mounted from.
func (c *Client) session(ctx context.Context, repo repository, push bool, mountFrom ...string) (*session, error) {
	key := repo.String()
	scope, tries := transport.PullScope, c.opts.PullRetries
	if push {
		key, scope, tries = "push "+key, transport.PushScope, c.opts.PushRetries
	}
	key = strings.Join(append([]string{key}, mountFrom...), " ")
	return getSlot(&c.mu, c.sessions, key).get(ctx, func() (*session, error) {
		var nopts []name.Option
		if c.plain(repo, push) {
			nopts = append(nopts, name.Insecure)
		}
		named, err := name.NewRepository(repo.String(), nopts...)
		if err != nil {
			return nil, fault.New(fault.User, "repository %s: %w", repo, err)
		}
		scopes := []string{named.Scope(scope)}
		for _, from := range mountFrom {
			scopes = append(scopes, "repository:"+from+":pull")
		}
		s := &session{repo: repo, named: named, cred: c.keys.credential(repo), tries: tries, push: push}
		if _, err := s.cred.AuthorizationContext(ctx); err != nil {
			return nil, c.fail(ctx, s, "read credentials", err)
		}
		rt, err := transport.NewWithContext(ctx, named.Registry, s.cred, &retrying{inner: c.base(push), tries: tries, backoff: c.opts.Backoff}, scopes)
		if err != nil {
			return nil, c.fail(ctx, s, "connect", err)
		}
		s.client = &http.Client{Transport: rt}
		return s, nil
	})
}

// url is an address of the registry's API below the repository.
func (s *session) url(parts ...string) string {
	u := url.URL{
		Scheme: s.named.Scheme(),
		Host:   s.named.RegistryStr(),
		Path:   "/v2/" + s.named.RepositoryStr() + "/" + strings.Join(parts, "/"),
	}
	return u.String()
}
