package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/docker/docker-credential-helpers/client"
	helpercreds "github.com/docker/docker-credential-helpers/credentials"
	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// keychain is the content of Docker's config.json as it was at the start.
//
// configfile.GetAuthConfig is not used: it reads DOCKER_AUTH_CONFIG from the
// process environment, and both it and the helpers that it starts write to
// standard error.
type keychain struct {
	file    *configfile.ConfigFile
	name    string
	outside func(func() error) error

	mu    sync.Mutex
	creds map[string]*credential
}

// loadKeychain reads config.json; that there is none is no error.
func loadKeychain(dir, name string, outside func(func() error) error) (*keychain, error) {
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			if u, uerr := user.Current(); uerr == nil {
				home = u.HomeDir
			}
		}
		if home != "" {
			dir = filepath.Join(home, ".docker")
		}
	}
	if name == "" {
		name = dir
	}
	k := &keychain{
		file:    configfile.New(""),
		name:    filepath.Join(name, config.ConfigFileName),
		outside: outside,
		creds:   map[string]*credential{},
	}
	if dir == "" {
		return k, nil
	}
	f, err := os.Open(filepath.Join(dir, config.ConfigFileName))
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return nil, fault.New(fault.Registry, "read credentials %s: %w", k.name, errors.Unwrap(err)).
			With("Make the file readable for this user, or point DOCKER_CONFIG to another directory.")
	}
	defer func() { _ = f.Close() }()
	file, err := config.LoadFromReader(io.LimitReader(f, 16<<20))
	if err != nil {
		return nil, fault.New(fault.Registry, "read credentials %s: %w", k.name, err).
			With(`The file must be JSON as docker login writes it: {"auths": {"registry.example": {"auth": "base64 of user:password"}}}.`)
	}
	k.file = file
	return k, nil
}

// credentialAge is how long what a helper said is used: its tokens expire.
const credentialAge = 10 * time.Minute

// helperTimeout ends a credential helper that hangs.
const helperTimeout = time.Minute

// credential is what is known about the login at one registry. It is an
// authn.Authenticator.
type credential struct {
	keys *keychain
	host string

	mu   sync.Mutex
	read time.Time
	conf authn.AuthConfig
	// secrets are all values that were ever handed out: messages must not
	// contain them.
	secrets []string
}

// credential never fails: reading happens at the first Authorization.
func (k *keychain) credential(_ context.Context, host string) *credential {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, ok := k.creds[host]
	if !ok {
		c = &credential{keys: k, host: host}
		k.creds[host] = c
	}
	return c
}

// key is the name under which Docker keeps the credentials of a registry.
func (c *credential) key() string {
	if c.host == "docker.io" || c.host == "index.docker.io" {
		return "https://index.docker.io/v1/"
	}
	return c.host
}

func (c *credential) helper() string {
	if h, ok := c.keys.file.CredentialHelpers[c.key()]; ok {
		return h
	}
	if h, ok := c.keys.file.CredentialHelpers[c.host]; ok {
		return h
	}
	return c.keys.file.CredentialsStore
}

// source says where credentials were looked for and what was found; it holds
// no secret.
func (c *credential) source() string {
	c.mu.Lock()
	none := c.conf == authn.AuthConfig{}
	c.mu.Unlock()
	switch h := c.helper(); {
	case h != "" && none:
		return "no credentials: docker-credential-" + h + " knows none for " + c.host
	case h != "":
		return "credentials from docker-credential-" + h
	case none:
		return "no credentials: " + c.keys.name + " has none for " + c.host
	default:
		return "credentials from " + c.keys.name
	}
}

func (c *credential) anonymous() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conf == authn.AuthConfig{}
}

// Authorization implements authn.Authenticator.
func (c *credential) Authorization() (*authn.AuthConfig, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.read.IsZero() || c.helper() != "" && time.Since(c.read) > credentialAge {
		conf, err := c.load()
		if err != nil {
			return nil, err
		}
		c.conf, c.read = conf, time.Now()
		for _, s := range []string{conf.Password, conf.IdentityToken, conf.RegistryToken} {
			if len(s) >= 4 {
				c.secrets = append(c.secrets, s)
			}
		}
	}
	conf := c.conf
	return &conf, nil
}

func (c *credential) load() (authn.AuthConfig, error) {
	if h := c.helper(); h != "" {
		return c.ask(h)
	}
	a, err := credentials.NewFileStore(c.keys.file).Get(c.key())
	if err != nil {
		return authn.AuthConfig{}, fmt.Errorf("look for %s in %s: %w", c.host, c.keys.name, err)
	}
	return authn.AuthConfig{
		Username: a.Username, Password: a.Password, Auth: a.Auth,
		IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	}, nil
}

// ask runs a credential helper (docker-credential-helpers' protocol).
func (c *credential) ask(helper string) (authn.AuthConfig, error) {
	prog := &helperProgram{name: "docker-credential-" + helper}
	var got *helpercreds.Credentials
	err := c.keys.outside(func() error {
		var err error
		got, err = client.Get(func(args ...string) client.Program { prog.args = args; return prog }, c.key())
		return err
	})
	switch {
	case helpercreds.IsErrCredentialsNotFound(err):
		return authn.AuthConfig{}, nil
	case prog.err != nil:
		// client.Get's own error repeats the helper's standard output,
		// where secrets are.
		return authn.AuthConfig{}, fmt.Errorf("run %s: %w%s", prog.name, prog.err, prog.said())
	case err != nil:
		return authn.AuthConfig{}, fmt.Errorf("run %s: its answer cannot be understood", prog.name)
	}
	if got.Username == "<token>" {
		return authn.AuthConfig{IdentityToken: got.Secret}, nil
	}
	return authn.AuthConfig{Username: got.Username, Password: got.Secret}, nil
}

// helperProgram is a client.Program that keeps standard error to itself.
type helperProgram struct {
	name   string
	args   []string
	in     io.Reader
	stderr tail
	err    error
}

func (p *helperProgram) Input(in io.Reader) { p.in = in }

func (p *helperProgram) Output() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), helperTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.name, p.args...) //nolint:gosec // named by the user's config.json, as Docker does
	cmd.Stdin, cmd.Stderr, cmd.WaitDelay = p.in, &p.stderr, time.Second
	var out []byte
	out, p.err = cmd.Output()
	if ctx.Err() != nil {
		p.err = fmt.Errorf("no answer within %s", helperTimeout)
	}
	return out, p.err
}

func (p *helperProgram) said() string {
	s := strings.TrimSpace(clean(p.stderr.String()))
	if s == "" {
		return ""
	}
	return " (it said: " + s + ")"
}

// tail keeps the last bytes that were written to it.
type tail struct{ bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	const most = 300
	n := len(p)
	if len(p) > most {
		p = p[len(p)-most:]
	}
	if over := t.Len() + len(p) - most; over > 0 {
		t.Next(over)
	}
	_, err := t.Buffer.Write(p)
	return n, err
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
