package credentials

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker-credential-helpers/client"
	helpercreds "github.com/docker/docker-credential-helpers/credentials"
)

// programAge is how long what a helper said is used: its tokens expire.
const programAge = 10 * time.Minute

// programTimeout ends a credential helper that hangs.
const programTimeout = time.Minute

// programs are the credential helpers that one configuration names.
type programs struct {
	file    *file
	env     map[string]string
	outside func(func() error) error
}

func (p *programs) name() string { return "credential helpers of " + p.file.label }

func (p *programs) find(ctx context.Context, at Place) (answer, error) {
	for _, k := range at.keys() {
		if h, ok := p.file.programs[k]; ok {
			if h == "" {
				return answer{there: true, note: "none for " + k}, nil // docker's way to except a registry from the store
			}
			return p.ask(ctx, h, at)
		}
	}
	if p.file.store == "" {
		return answer{there: true, note: "none for " + at.String()}, nil
	}
	return p.ask(ctx, p.file.store, at)
}

// ask runs a credential helper (docker-credential-helpers' protocol).
func (p *programs) ask(ctx context.Context, helper string, at Place) (answer, error) {
	prog := &Program{Name: "docker-credential-" + helper, Environment: p.env}
	a := answer{there: true, label: prog.Name + ", which " + p.file.label + " names"}
	var got *helpercreds.Credentials
	err := p.outside(func() error {
		var err error
		got, err = client.Get(prog.Start(ctx), ServerKey(at.Host))
		return err
	})
	switch {
	case errors.Is(prog.Err, exec.ErrNotFound):
		a.note, a.trouble = "is not on PATH", true
		return a, nil
	case helpercreds.IsErrCredentialsNotFound(err):
		a.note = "knows none for " + at.Host
		return a, nil
	case prog.Err != nil:
		// client.Get's own error repeats the helper's standard output,
		// where secrets are.
		return a, fmt.Errorf("it failed: %w%s", prog.Err, prog.said())
	case err != nil:
		return a, errors.New("its answer cannot be understood")
	}
	a.found, a.note, a.expires = true, "answered for "+at.Host, time.Now().Add(programAge)
	a.login = Login{Username: got.Username, Password: got.Secret}
	if got.Username == tokenUser {
		a.login = Login{IdentityToken: got.Secret}
	}
	if a.login.Empty() {
		a.found, a.note = false, "knows none for "+at.Host
	}
	return a, nil
}

// ServerKey is the name under which Docker keeps the login of a registry.
func ServerKey(host string) string {
	if host = Normal(host); host == "docker.io" {
		return "https://index.docker.io/v1/"
	}
	return host
}

// Program is a credential helper to be run; it keeps what it says to itself.
type Program struct {
	// Name is that of the program, looked for on the PATH of Environment.
	Name        string
	Environment map[string]string
	// Err is why the last run failed.
	Err error

	stderr tail
}

// invocation is one run of a Program.
type invocation struct {
	input  func(io.Reader)
	output func() ([]byte, error)
}

func (i invocation) Input(in io.Reader)      { i.input(in) }
func (i invocation) Output() ([]byte, error) { return i.output() }

// Start makes the runs that package client asks for.
func (p *Program) Start(ctx context.Context) client.ProgramFunc {
	return func(args ...string) client.Program {
		var in io.Reader
		return invocation{
			input: func(r io.Reader) { in = r },
			output: func() (out []byte, err error) {
				out, p.Err = p.run(ctx, in, args)
				return out, p.Err
			},
		}
	}
}

func (p *Program) run(ctx context.Context, in io.Reader, args []string) ([]byte, error) {
	path, err := p.Find()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // named by the user's config.json, as Docker does
	cmd.Env = []string{}
	for k, v := range p.Environment {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.Stdin, cmd.Stderr, cmd.WaitDelay = in, &p.stderr, time.Second
	out, err := cmd.Output()
	if ctx.Err() != nil {
		err = fmt.Errorf("no answer within %s", programTimeout)
	}
	return out, err
}

// Find looks for the program on PATH; exec.ErrNotFound where it is not.
func (p *Program) Find() (string, error) {
	if strings.ContainsRune(p.Name, '/') {
		return "", exec.ErrNotFound // a path in config.json is no name
	}
	for _, dir := range filepath.SplitList(p.Environment["PATH"]) {
		if !filepath.IsAbs(dir) {
			continue // never a program of the directory that is built
		}
		path := filepath.Join(dir, p.Name)
		if fi, err := os.Stat(path); err == nil && !fi.IsDir() && fi.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

func (p *Program) said() string {
	s := strings.Join(strings.Fields(strings.Map(printable, p.stderr.String())), " ")
	if s == "" {
		return ""
	}
	return " (it said: " + s + ")"
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
		return ' '
	}
	return r
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

// remembering asks a source that costs something once for each host, until its
// answer expires.
type remembering struct {
	inner source

	mu   sync.Mutex
	kept map[string]answer
}

func (r *remembering) name() string { return r.inner.name() }

func (r *remembering) find(ctx context.Context, at Place) (answer, error) {
	key := Normal(at.Host)
	if p, ok := r.inner.(*programs); ok && len(p.file.programs) > 0 {
		key = at.String() // helpers may be named for a group only
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if a, ok := r.kept[key]; ok && (a.expires.IsZero() || time.Now().Before(a.expires)) {
		return a, nil
	}
	a, err := r.inner.find(ctx, at)
	if err != nil {
		return a, err
	}
	if r.kept == nil {
		r.kept = map[string]answer{}
	}
	r.kept[key] = a
	return a, nil
}
