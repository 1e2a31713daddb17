package registry

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/layerwright/layerwright/core/internal/credentials"
	"github.com/layerwright/layerwright/core/internal/fault"
)

// place reads "host" or "host/path", with or without tag, as a repository whose
// path may be empty. A word alone is an image of Docker Hub's, as with docker,
// unless it has a dot or a port, or is localhost.
func place(text string) (repository, error) {
	bare := strings.TrimPrefix(strings.TrimPrefix(text, "https://"), "http://")
	if host, _, _ := strings.Cut(bare, "/"); strings.Contains(host, "@") && !strings.Contains(host, "@sha256:") {
		return repository{}, fault.New(fault.Usage, "the name of a registry holds no user and no password").With("Write the host alone: registry.example.")
	}
	host := credentials.Normal(text)
	if !strings.Contains(host, "/") && (strings.ContainsAny(host, ".:") || host == "localhost") {
		if _, err := name.NewRegistry(host); err == nil {
			return repository{host: host}, nil
		}
	}
	_, repo, err := parse(bare)
	return repo.normal(), err
}

// normal has Docker Hub under its one name.
func (r repository) normal() repository {
	r.host = credentials.Normal(r.host)
	return r
}

// Registry gives the host of a name as place reads it.
func Registry(text string) (string, error) {
	repo, err := place(text)
	return repo.host, err
}

// ping logs in at the registry without asking for any right: does it take the
// login at all?
func (c *Client) ping(ctx context.Context, repo repository, push bool) error {
	var nopts []name.Option
	if c.plain(repo, push) {
		nopts = append(nopts, name.Insecure)
	}
	reg, err := name.NewRegistry(repo.apiHost(), nopts...)
	if err != nil {
		return fault.New(fault.User, "registry %s: %w", repo.host, err).With("A registry is written as registry.example or registry.example:5000.")
	}
	rt, err := transport.NewWithContext(ctx, reg, c.keys.credential(repo), c.base(push), nil)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, reg.Scheme()+"://"+reg.RegistryStr()+"/v2/", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: rt}).Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return transport.CheckError(resp, http.StatusOK)
}

// Login finds out whether a registry, "host" or "host/path", takes the login
// that was found for it, as for pulling. The error is one that a person can act on.
func (c *Client) Login(ctx context.Context, text string) error {
	repo, err := place(text)
	if err != nil {
		return err
	}
	s := &session{repo: repo, cred: c.keys.credential(repo), unnamed: true}
	if _, err := s.cred.AuthorizationContext(ctx); err != nil {
		return c.fail(ctx, s, "read credentials", err)
	}
	return c.fail(ctx, s, "log in", c.ping(ctx, repo, false))
}

// Search says which sources were asked for a login for "host" or "host/path", in
// order up to the one that had it.
func (c *Client) Search(ctx context.Context, text string) (credentials.Found, error) {
	repo, err := place(text)
	if err != nil {
		return credentials.Found{}, err
	}
	return c.keys.chain.Find(ctx, credentials.Place{Host: repo.host, Path: repo.path})
}

// Proxies are the build arguments for proxies that config.json has, and which
// file that is.
func (c *Client) Proxies() (args map[string]string, from string) { return c.keys.chain.Proxies() }

// verdict is what a registry thinks of a login that it has refused something.
type verdict int

const (
	unknown verdict = iota
	badLogin
	goodLogin // but it does not allow what was asked for
)

// judge asks the registry whether it takes the login at all.
func (c *Client) judge(ctx context.Context, s *session) verdict {
	err := c.ping(ctx, s.repo, s.push)
	var status *transport.Error
	switch {
	case err == nil:
		return goodLogin
	case errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden):
		return badLogin
	}
	return unknown
}
