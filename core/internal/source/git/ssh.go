package git

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// dialSSH starts git-upload-pack at the other end of an ssh connection, with
// the keys of the agent that the source names. Known hosts are only those that
// the source names; without any, every host key is taken, as by BuildKit.
func (s *Source) dialSSH(ctx context.Context, r *remote) (_ peer, err error) {
	var ends []func()
	end := sync.OnceFunc(func() {
		for i := len(ends) - 1; i >= 0; i-- {
			ends[i]()
		}
	})
	defer func() {
		if err != nil {
			end()
		}
	}()
	keys, err := s.agent(ctx, r)
	if err != nil {
		return nil, err
	}
	ends = append(ends, func() { _ = keys.Close() })
	config := &ssh.ClientConfig{User: "root", HostKeyCallback: ssh.InsecureIgnoreHostKey(), //nolint:gosec // BuildKit's StrictHostKeyChecking=no
		Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(agent.NewClient(keys).Signers)}}
	if r.user != nil {
		config.User = r.user.Username()
		if p, ok := r.user.Password(); ok {
			config.Auth = append(config.Auth, ssh.Password(p))
		}
	}
	address := r.address("22")
	if r.access.knownHosts != "" {
		if err := knownHosts(config, r, s.Dir, address); err != nil {
			return nil, err
		}
	}
	conn, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	ends = append(ends, func() { stop(); _ = conn.Close() })
	sc, channels, requests, err := ssh.NewClientConn(conn, address, config)
	if err != nil {
		return nil, sshError(r, err)
	}
	client := ssh.NewClient(sc, channels, requests)
	ends = append(ends, func() { _ = client.Close() })
	p, err := uploadPack(client, r)
	if err != nil {
		return nil, err
	}
	p.close = end
	return p, nil
}

func (s *Source) agent(ctx context.Context, r *remote) (net.Conn, error) {
	id := r.access.agent
	if id == "" {
		id = "default"
	}
	if s.Agent == nil {
		return nil, noAgent(r, id, errors.New("no ssh keys were given"))
	}
	conn, err := s.Agent(ctx, id)
	if err != nil {
		return nil, noAgent(r, id, err)
	}
	return conn, nil
}

func noAgent(r *remote, id string, err error) error {
	if _, ok := fault.As(err); ok {
		return err
	}
	return &fault.Error{Kind: fault.Usage, Op: "git repository " + r.shown, Err: err,
		Remedy: fmt.Sprintf("Give an ssh agent or key with --ssh %s, or use an https URL.", id)}
}

// knownHosts makes config accept only the host keys that the source names.
func knownHosts(config *ssh.ClientConfig, r *remote, dir, address string) (err error) {
	f, err := os.CreateTemp(dir, "known-hosts")
	if err != nil {
		return fmt.Errorf("write known hosts: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if _, err := io.WriteString(f, r.access.knownHosts); err != nil {
		return fmt.Errorf("write known hosts: %w", err)
	}
	check, err := knownhosts.New(f.Name())
	if err != nil {
		return fault.New(fault.User, "git repository %s: the known hosts cannot be read: %w", r.shown, err)
	}
	config.HostKeyCallback = check
	// The server must offer a key of a kind that is known.
	var ke *knownhosts.KeyError
	if errors.As(check(address, &net.TCPAddr{}, probeKey{}), &ke) {
		for _, k := range ke.Want {
			config.HostKeyAlgorithms = append(config.HostKeyAlgorithms, algorithms(k.Key.Type())...)
		}
	}
	return nil
}

// algorithms are the signatures that a kind of key makes.
func algorithms(kind string) []string {
	if kind == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSA}
	}
	return []string{kind}
}

// probeKey is a key that nobody has.
type probeKey struct{}

func (probeKey) Type() string                        { return "probe" }
func (probeKey) Marshal() []byte                     { return []byte("probe") }
func (probeKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

func sshError(r *remote, err error) error {
	var ke *knownhosts.KeyError
	switch {
	case errors.As(err, &ke):
		return &fault.Error{Kind: fault.Registry, Op: "git repository " + r.shown, Err: fmt.Errorf("the host's ssh key is not the known one: %w", err),
			Remedy: "Check whether the host has a new key, or somebody is in between."}
	case strings.Contains(err.Error(), "unable to authenticate"):
		return fmt.Errorf("%w (%w)", errRefused, err)
	}
	return temporary{err}
}

// uploadPack runs the server's program.
func uploadPack(client *ssh.Client, r *remote) (*streamPeer, error) {
	session, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	_ = session.Setenv("GIT_PROTOCOL", "version=2") // many servers do not allow it; then it is version 0
	in, err := session.StdoutPipe()
	if err != nil {
		return nil, err
	}
	out, err := session.StdinPipe()
	if err != nil {
		return nil, err
	}
	words := &lastWords{}
	session.Stderr = words
	if err := session.Start("git-upload-pack " + quote(sshPath(r))); err != nil {
		return nil, err
	}
	return &streamPeer{in: bufio.NewReaderSize(in, 66<<10), out: out, failed: func(err error) error {
		_ = session.Wait() // for the end of its words
		if text := words.String(); text != "" {
			return &serverError{text}
		}
		return err
	}}, nil
}

// sshPath is the path as the other side is to see it.
func sshPath(r *remote) string {
	if strings.HasPrefix(r.path, "/~") {
		return r.path[1:]
	}
	return r.path
}

// quote makes one word of a path for the shell of the other side, as git does.
func quote(s string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(s) + "'"
}

// lastWords keeps the beginning of what a server says on the side.
type lastWords struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (w *lastWords) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if room := 4096 - w.buf.Len(); room > 0 {
		w.buf.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(strings.Fields(w.buf.String()), " ")
}
