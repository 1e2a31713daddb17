package sshagent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"

	"github.com/layerwright/layerwright/core/internal/hostview"
)

// Socket is an agent as a socket of ours, for one step. It may be moved, linked
// or mounted elsewhere while it is open.
type Socket struct {
	// Path is where it was made.
	Path string

	listener net.Listener
	stop     context.CancelCauseFunc
	done     chan struct{}

	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

// Listen makes the socket of an agent in dir, which only we may enter: whoever
// reaches the socket uses the agent. failed is told, from another goroutine,
// when the agent behind it could not be reached. The socket's file is removed
// by whoever removes dir.
func (a *Agents) Listen(ctx context.Context, id, dir string, failed func(error)) (_ *Socket, err error) {
	source, err := a.find(id)
	if err != nil {
		return nil, err
	}
	d, err := hostview.OpenDir(dir)
	if err != nil {
		return nil, fmt.Errorf("make agent socket: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	const name = "agent"
	// By the handle: the path may be longer than a socket's address can be.
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", filepath.Join(d.Path(), name))
	if err != nil {
		return nil, fmt.Errorf("make agent socket in %s: %w", dir, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // the handle is gone by then
	ctx, stop := context.WithCancelCause(ctx)
	s := &Socket{Path: filepath.Join(dir, name), listener: l, stop: stop, done: make(chan struct{}), conns: map[net.Conn]bool{}}
	go func() {
		defer close(s.done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			if !s.keep(conn) {
				return
			}
			if err := a.serve(ctx, source, &stepConn{Conn: conn, socket: s}); err != nil && ctx.Err() == nil {
				failed(err)
			}
		}
	}()
	return s, nil
}

// stepConn is a connection of a step, known to the socket until it is closed.
type stepConn struct {
	net.Conn
	socket *Socket
}

// Close ends the connection.
func (c *stepConn) Close() error {
	c.socket.mu.Lock()
	delete(c.socket.conns, c.Conn)
	c.socket.mu.Unlock()
	return c.Conn.Close()
}

func (s *Socket) keep(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
		return false
	}
	s.conns[conn] = true
	return true
}

// Close takes no more connections and ends those that there are.
func (s *Socket) Close() error {
	s.stop(errors.New("the step has ended"))
	err := s.listener.Close()
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	<-s.done
	return err
}
