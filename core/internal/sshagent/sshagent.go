// Package sshagent owns the ssh agents that a build may use, by id: sockets of
// agents that run outside, and keys that are kept in memory. Sockets and keys
// are opened before "/" is ever exchanged for a step's tree (isolation inplace).
// Whoever is connected may list keys and have things signed, and nothing else:
// keys and agents cannot be changed, locked or extended from inside of a build.
// Key bytes are in no error and never written anywhere.
package sshagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/hostview"
)

// DefaultID is the id of an agent that nobody names.
const DefaultID = "default"

// Source says where an agent's keys are.
type Source struct {
	// ID is DefaultID when empty.
	ID string
	// Paths are one socket of an agent, or files with private keys.
	Paths []string
	// Key is the text of a private key.
	Key []byte
}

// Agents are a build's agents. Methods may be called side by side; nil has no
// agents.
type Agents struct {
	byID map[string]*source

	mu     sync.Mutex
	open   map[io.Closer]bool
	closed bool
	served sync.WaitGroup
}

// source is one agent: a socket in dir, or keys.
type source struct {
	id   string
	keys agent.ExtendedAgent
	dir  *hostview.Dir
	name string
	// dead says why nobody answered at the start.
	dead error
}

// dialTimeout is how long an agent that runs may take to accept (BuildKit's).
const dialTimeout = 2 * time.Second

// Open reads the keys and finds the sockets. An agent that does not answer is an
// error only when it is used (Check). To be closed after the build.
func Open(ctx context.Context, sources []Source) (_ *Agents, err error) {
	a := &Agents{byID: map[string]*source{}, open: map[io.Closer]bool{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	for _, s := range sources {
		if s.ID == "" {
			s.ID = DefaultID
		}
		if _, again := a.byID[s.ID]; again {
			return nil, fault.New(fault.Usage, "two ssh agents have the id %s", s.ID).With("Give each --ssh its own id.")
		}
		opened, err := openSource(ctx, s)
		if err != nil {
			return nil, err
		}
		a.byID[s.ID] = opened
	}
	return a, nil
}

func openSource(ctx context.Context, s Source) (*source, error) {
	out := &source{id: s.ID}
	if len(s.Key) > 0 {
		keys := agent.NewKeyring().(agent.ExtendedAgent)
		if err := addKeyText(keys, s.Key, "of agent "+s.ID); err != nil {
			return nil, err
		}
		out.keys = keys
		return out, nil
	}
	if len(s.Paths) == 0 {
		return nil, fault.New(fault.Usage, "ssh agent %s: neither a socket nor a key is given", s.ID).With(remedy(s.ID))
	}
	var keys agent.ExtendedAgent
	for _, p := range s.Paths {
		fi, err := os.Stat(p)
		if err != nil {
			return nil, fault.New(fault.User, "ssh agent %s: %w", s.ID, err).
				With("Name the socket of an agent that runs, or a file with a private key.")
		}
		if fi.Mode()&fs.ModeSocket != 0 {
			if len(s.Paths) > 1 {
				return nil, fault.New(fault.Usage, "ssh agent %s: %s is a socket, and there is more than one path", s.ID, p).
					With("Give one socket, or only keys.")
			}
			return out, out.openSocket(ctx, p)
		}
		if keys == nil {
			keys = agent.NewKeyring().(agent.ExtendedAgent)
		}
		if err := addKey(keys, p); err != nil {
			return nil, err
		}
	}
	out.keys = keys
	return out, nil
}

// openSocket holds the directory that the socket is in: an agent that is started
// anew at the same path is found again, and the path means the same whatever
// "/" is.
func (s *source) openSocket(ctx context.Context, path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fault.New(fault.User, "ssh agent %s: %w", s.id, err)
	}
	if s.dir, err = hostview.OpenDir(filepath.Dir(real)); err != nil {
		return fault.New(fault.User, "ssh agent %s: %w", s.id, err)
	}
	s.name = filepath.Base(real)
	conn, err := s.dial(ctx)
	if err != nil {
		s.dead = fmt.Errorf("%s: %w", path, err)
		return nil
	}
	return conn.Close()
}

// Renew finds the agents' sockets again where a directory that leads to them was
// made anew (hostview.Dir.Renew).
func (a *Agents) Renew() (err error) {
	for _, s := range a.byID {
		if s.dir != nil {
			err = errors.Join(err, s.dir.Renew())
		}
	}
	return err
}

// dial connects to the agent's socket, whose path may be longer than what the
// kernel takes for an address: a handle on the socket itself is not.
func (s *source) dial(ctx context.Context) (net.Conn, error) {
	fd, err := unix.Open(filepath.Join(s.dir.Path(), s.name), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("find socket: %w", err)
	}
	defer unix.Close(fd)
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(fd))
	var op *net.OpError
	if errors.As(err, &op) { // its address would say nothing
		err = fmt.Errorf("connect: %w", op.Err)
	}
	return conn, err
}

// Has says whether an agent was given.
func (a *Agents) Has(id string) bool {
	_, err := a.find(id)
	return err == nil
}

// Check is an error of kind User where an agent was not given, or did not answer
// at the start.
func (a *Agents) Check(id string) error {
	s, err := a.find(id)
	if err != nil {
		return err
	}
	if s.dead != nil {
		return fault.New(fault.User, "ssh agent %s does not answer: %w", s.id, s.dead).
			With("Start an agent (ssh-agent), or give a key: --ssh " + s.id + "=KEYFILE.")
	}
	return nil
}

func (a *Agents) find(id string) (*source, error) {
	if id == "" {
		id = DefaultID
	}
	if a != nil {
		if s, ok := a.byID[id]; ok {
			return s, nil
		}
	}
	return nil, fault.New(fault.User, "ssh agent %s: not given", id).With(remedy(id))
}

func remedy(id string) string {
	return fmt.Sprintf("Give it with --ssh %s (the agent at $SSH_AUTH_SOCK), --ssh %s=SOCKET or --ssh %s=KEYFILE.", id, id, id)
}

// Dial gives a connection that speaks the agent protocol; ctx only ends the
// dialling.
func (a *Agents) Dial(ctx context.Context, id string) (net.Conn, error) {
	s, err := a.find(id)
	if err != nil {
		return nil, err
	}
	mine, theirs := net.Pipe()
	if err := a.serve(ctx, s, mine); err != nil {
		return nil, errors.Join(err, theirs.Close())
	}
	return theirs, nil
}

// serve answers on conn, which it closes, until either side is closed.
func (a *Agents) serve(ctx context.Context, s *source, conn net.Conn) error {
	var answering responder = held{s.keys}
	ends := []io.Closer{conn}
	if s.dir != nil {
		outer, err := s.dial(ctx)
		if err != nil {
			return errors.Join(fmt.Errorf("reach ssh agent %s: %w", s.id, err), conn.Close())
		}
		answering = forward{outer}
		ends = append(ends, outer)
	}
	if err := a.track(ends); err != nil {
		return err
	}
	go func() {
		defer a.served.Done()
		// It ends when the other side goes; there is nobody to tell why.
		_ = converse(conn, answering)
		a.untrack(ends)
	}()
	return nil
}

func (a *Agents) track(ends []io.Closer) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		closeAll(ends)
		return errors.New("the build's ssh agents are closed")
	}
	for _, c := range ends {
		a.open[c] = true
	}
	a.served.Add(1)
	return nil
}

func (a *Agents) untrack(ends []io.Closer) {
	closeAll(ends)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range ends {
		delete(a.open, c)
	}
}

func closeAll(ends []io.Closer) {
	for _, c := range ends {
		_ = c.Close() // nothing is written that could be lost
	}
}

// Close ends every connection and forgets the keys.
func (a *Agents) Close() error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	a.closed = true
	for c := range a.open {
		_ = c.Close()
	}
	a.mu.Unlock()
	a.served.Wait()
	var err error
	for _, s := range a.byID {
		if s.dir != nil {
			err = errors.Join(err, s.dir.Close())
		}
		if s.keys != nil {
			err = errors.Join(err, s.keys.RemoveAll())
		}
	}
	return err
}
