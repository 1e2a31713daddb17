package registry

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/layerwright/layerwright/core/internal/credentials"
)

// keychain knows the logins of one Client.
type keychain struct {
	chain *credentials.Chain

	mu    sync.Mutex
	creds map[string]*credential
}

// loadKeychain reads the files that may have logins.
func loadKeychain(opts Options, transport http.RoundTripper) (*keychain, error) {
	chain, err := credentials.Load(credentials.Options{Explicit: opts.Logins, Clouds: opts.Clouds, Files: opts.CredentialFiles, Environment: opts.Environment,
		Helpers: opts.CredentialHelpers, Outside: opts.Outside, Transport: transport})
	if err != nil {
		return nil, err
	}
	return &keychain{chain: chain, creds: map[string]*credential{}}, nil
}

// searchTimeout ends a search for a login, helpers and clouds included.
const searchTimeout = 2 * time.Minute

// credential is what is known about the login for one repository. It is an
// authn.Authenticator.
type credential struct {
	keys *keychain
	repo repository

	mu    sync.Mutex
	read  bool
	found credentials.Found
	// secrets are all values that were ever handed out: messages must not
	// contain them.
	secrets []string
}

// credential never fails: reading happens at the first Authorization.
func (k *keychain) credential(repo repository) *credential {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, ok := k.creds[repo.String()]
	if !ok {
		c = &credential{keys: k, repo: repo}
		k.creds[repo.String()] = c
	}
	return c
}

// source says where the login came from, or where none was found; it holds no
// secret.
func (c *credential) source() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.found.Source != "" {
		return "credentials from " + c.found.Source
	}
	var list []string
	for _, l := range c.found.Looked {
		if l.Exists || l.Trouble {
			list = append(list, l.Source+" "+l.Answer)
		}
	}
	if len(list) == 0 {
		return "no credentials: there is no config.json, and no other source knows " + c.repo.host
	}
	return "no credentials: " + clean(strings.Join(list, "; "))
}

func (c *credential) anonymous() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.found.Empty()
}

// expired is when the login says that it has expired; zero if it does not.
func (c *credential) expired() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.found.Expired(time.Now())
}

// Authorization implements authn.Authenticator.
func (c *credential) Authorization() (*authn.AuthConfig, error) {
	return c.AuthorizationContext(context.Background())
}

// AuthorizationContext implements authn.ContextAuthenticator.
func (c *credential) AuthorizationContext(ctx context.Context) (*authn.AuthConfig, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.read || !c.found.Expires.IsZero() && time.Now().After(c.found.Expires) {
		ctx, cancel := context.WithTimeout(ctx, searchTimeout)
		defer cancel()
		found, err := c.keys.chain.Find(ctx, credentials.Place{Host: c.repo.host, Path: c.repo.path})
		if err != nil {
			c.found.Looked = found.Looked
			return nil, err
		}
		c.found, c.read = found, true
		c.secrets = append(c.secrets, found.Secrets()...)
	}
	f := c.found
	return &authn.AuthConfig{Username: f.Username, Password: f.Password, IdentityToken: f.IdentityToken, RegistryToken: f.RegistryToken}, nil
}

// hide replaces every secret that was ever handed out.
func (k *keychain) hide(s string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.creds {
		c.mu.Lock()
		for _, secret := range c.secrets {
			s = strings.ReplaceAll(s, secret, "***")
		}
		c.mu.Unlock()
	}
	return s
}
