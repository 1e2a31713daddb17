// Package credentials owns where logins at registries come from: an ordered
// list of sources, of which for each name the first that has an entry wins. It
// reads the files at the start, asks helpers and clouds when a login is needed,
// and says of each source what it had. It takes variables as a map, never from
// the process, prints nothing, starts no program but credential helpers that a
// configuration names, and refuses to speak to registries themselves but for
// Azure's exchange of tokens.
package credentials

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// Login is what opens a registry; the zero value is no login.
type Login struct {
	Username, Password string
	// IdentityToken is exchanged for access tokens (OAuth2 refresh token);
	// RegistryToken is itself sent as bearer token.
	IdentityToken, RegistryToken string
}

// Empty says that there is nothing to log in with.
func (l Login) Empty() bool { return l == Login{} }

// Secrets are the values that no message may contain.
func (l Login) Secrets() []string {
	var out []string
	for _, s := range []string{l.Password, l.IdentityToken, l.RegistryToken} {
		if len(s) >= minSecret {
			out = append(out, s, base64.StdEncoding.EncodeToString([]byte(l.Username+":"+s)))
		}
	}
	return out
}

// minSecret is the length from which a secret is hidden in messages: shorter
// ones would take ordinary words with them.
const minSecret = 4

// Expired says when a token says of itself that it has expired (JWT, claim exp);
// zero if it does not.
func (l Login) Expired(now time.Time) time.Time {
	for _, token := range []string{l.Password, l.IdentityToken, l.RegistryToken} {
		parts := strings.Split(token, ".")
		if len(parts) != 3 {
			continue
		}
		raw, err := base64.RawURLEncoding.DecodeString(parts[1])
		var claims struct {
			Exp float64 `json:"exp"`
		}
		if err != nil || json.Unmarshal(raw, &claims) != nil || claims.Exp == 0 {
			continue
		}
		if at := time.Unix(int64(claims.Exp), 0); at.Before(now) {
			return at
		}
	}
	return time.Time{}
}

// Place is what a login is for: a registry's host, with port, and a repository
// there, which may be empty.
type Place struct{ Host, Path string }

// String is "host/path".
func (p Place) String() string { return strings.TrimSuffix(p.Host+"/"+p.Path, "/") }

// keys are the names under which a login for p may be kept, the most specific
// first: host/group/project, host/group, host.
func (p Place) keys() []string {
	host := Normal(p.Host)
	parts := strings.Split(strings.Trim(p.Path, "/"), "/")
	var out []string
	for i := len(parts); i > 0 && parts[0] != ""; i-- {
		out = append(out, host+"/"+strings.Join(parts[:i], "/"))
	}
	return append(out, host)
}

// hub are all names of Docker Hub's registry.
var hub = []string{"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "www.docker.com"}

// Normal is the form in which names of registries are compared: without scheme
// and API version, Docker Hub as docker.io.
func Normal(key string) string {
	key = strings.TrimSpace(key)
	rest, scheme := strings.CutPrefix(key, "https://")
	if !scheme {
		rest, scheme = strings.CutPrefix(key, "http://")
	}
	host, path, _ := strings.Cut(rest, "/")
	host, path = strings.ToLower(host), strings.Trim(path, "/")
	if slices.Contains(hub, host) {
		host = "docker.io"
	}
	if (scheme || host == "docker.io") && (path == "v1" || path == "v2") {
		path = ""
	}
	return strings.TrimSuffix(host+"/"+path, "/")
}

// Explicit is a login that was given as a setting.
type Explicit struct {
	// For is a registry's host, or a repository or group at one.
	For string
	Login
}

// Options say where to look.
type Options struct {
	// Explicit come before everything else, then Files, in the format of
	// Docker's config.json, each of which must exist.
	Explicit []Explicit
	// Clouds come next, for the registries of their cloud.
	Clouds Clouds
	Files  []string
	// Environment has the job's variables.
	Environment map[string]string
	// Helpers are the built-in helpers that are on (see Helpers); all of
	// them when nil, none when empty.
	Helpers []string
	// Outside runs a function while the root of the file system is the job's
	// own; called directly when nil.
	Outside func(func() error) error
	// Transport reaches the clouds' token services, Direct their metadata
	// servers, which no proxy knows; nil for ordinary ones.
	Transport, Direct http.RoundTripper
}

// Helpers are the names of the built-in helpers, in the order in which they are
// asked.
func Helpers() []string { return []string{"env", "google", "ecr", "acr", "gitlab"} }

// source is one place that may have a login.
type source interface {
	// name is what messages call it; it holds no secret.
	name() string
	// find looks for a login. An error ends the search: the source should
	// have had one.
	find(ctx context.Context, at Place) (answer, error)
}

// answer is what a source says.
type answer struct {
	login Login
	found bool
	// label is a better name of the source, after it was asked; may be empty.
	label string
	// note is which entry it was, or why there is none; there says that the
	// source exists, whether it has a login or not.
	note  string
	there bool
	// trouble says that the source would have been the right one, but failed.
	trouble bool
	// expires is when to ask again; zero for never.
	expires time.Time
}

// Look is one source that was asked.
type Look struct {
	Source, Answer string
	Used           bool
	// Exists says that the source is there at all; Trouble that it should have
	// had a login, but failed.
	Exists, Trouble bool
}

// Found is the outcome of a search.
type Found struct {
	Login
	// Source is where the login came from; empty where there is none.
	Source string
	// Expires is when to search again; zero for never.
	Expires time.Time
	Looked  []Look
}

// Chain is the ordered list of sources. Safe for concurrent use.
type Chain struct {
	sources []source
	proxies []proxySettings
}

// Load reads all files and gives the sources in order. Nothing is asked yet.
func Load(opts Options) (*Chain, error) {
	if opts.Outside == nil {
		opts.Outside = func(f func() error) error { return f() }
	}
	for _, h := range opts.Helpers {
		if h != "" && !slices.Contains(Helpers(), h) {
			return nil, fault.New(fault.Usage, "unknown credential helper %q", h).
				With("Built in are " + strings.Join(Helpers(), ", ") + "; an empty list switches all of them off.")
		}
	}
	c := &Chain{}
	if len(opts.Explicit) > 0 {
		c.sources = append(c.sources, newExplicit(opts.Explicit))
	}
	r := newReach(opts)
	if opts.Clouds != (Clouds{}) {
		c.sources = append(c.sources, &remembering{inner: &settings{clouds: opts.Clouds, reach: r}})
	}
	var files []*file
	err := opts.Outside(func() (err error) { files, err = readFiles(opts); return err })
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		c.sources = append(c.sources, f)
		if len(f.proxies) > 0 {
			c.proxies = append(c.proxies, proxySettings{f.label, f.proxies})
		}
	}
	for _, f := range files {
		if f.hasPrograms() {
			c.sources = append(c.sources, &remembering{inner: &programs{file: f, env: opts.Environment, outside: opts.Outside}})
		}
	}
	for _, h := range Helpers() {
		if opts.Helpers != nil && !slices.Contains(opts.Helpers, h) {
			c.sources = append(c.sources, off(h))
			continue
		}
		c.sources = append(c.sources, builtin(h, r))
	}
	return c, nil
}

// builtin makes the helper of a name that Helpers has.
func builtin(name string, r reach) source {
	switch name {
	case "env":
		return &variables{r.env}
	case "google":
		return &remembering{inner: &google{reach: r}}
	case "ecr":
		return &remembering{inner: &ecr{reach: r}}
	case "acr":
		return &remembering{inner: &acr{reach: r}}
	default:
		return &gitlab{r.env}
	}
}

// off is a built-in helper that is switched off.
type off string

func (o off) name() string { return "built-in helper " + string(o) }
func (o off) find(context.Context, Place) (answer, error) {
	return answer{note: "switched off (--credential-helpers)"}, nil
}

// Find asks the sources in order for a login. All are named in Looked up to the
// one that had it. An error, too, comes with what was looked at.
func (c *Chain) Find(ctx context.Context, at Place) (Found, error) {
	var out Found
	for _, s := range c.sources {
		a, err := s.find(ctx, at)
		trouble := a.trouble || err != nil
		look := Look{Source: s.name(), Answer: a.note, Used: a.found, Exists: a.there || a.found || trouble, Trouble: trouble}
		if a.label != "" {
			look.Source = a.label
		}
		if err != nil {
			look.Answer = err.Error()
		}
		out.Looked = append(out.Looked, look)
		if err != nil {
			return out, fmt.Errorf("%s: %w", look.Source, err)
		}
		if a.found {
			out.Login, out.Source, out.Expires = a.login, look.Source, a.expires
			return out, nil
		}
	}
	return out, nil
}

// explicit are logins from settings.
type explicit map[string]Login

func newExplicit(list []Explicit) explicit {
	m := explicit{}
	for _, e := range list {
		if k := Normal(e.For); k != "" && !e.Empty() {
			if _, ok := m[k]; !ok { // the first one wins here, too
				m[k] = e.Login
			}
		}
	}
	return m
}

func (e explicit) name() string { return "the settings" }

func (e explicit) find(_ context.Context, at Place) (answer, error) {
	return lookup(e, at), nil
}

// lookup finds the most specific entry for a place.
func lookup(entries map[string]Login, at Place) answer {
	for _, k := range at.keys() {
		if l, ok := entries[k]; ok && !l.Empty() {
			return answer{login: l, found: true, note: "has an entry for " + k}
		}
	}
	return answer{note: "has none for " + at.String()}
}
