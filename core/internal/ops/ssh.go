package ops

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/moby/buildkit/solver/pb"

	"github.com/layerwright/layerwright/core/internal/sandbox"
)

// checkSSH refuses a step whose agent was not given, before anything runs.
func (e *Env) checkSSH(o *pb.SSHOpt) error {
	if o.GetOptional() && !e.SSH.Has(o.GetID()) {
		return nil
	}
	return e.SSH.Check(o.GetID())
}

// agent gives the step a socket of its own for an ssh agent; false where the
// agent is optional and was not given.
func (s *mountSet) agent(ctx context.Context, o *execOp, m *pb.Mount, to *sandbox.Mount) (bool, error) {
	id := m.SSHOpt.GetID()
	if !s.env.SSH.Has(id) {
		return false, nil // optional: checked before
	}
	// For us only: the sandbox gives the socket the owner and mode that are
	// asked for, and puts only the socket where the step sees it.
	dir, err := os.MkdirTemp(s.env.Scratch, "ssh-")
	if err != nil {
		return false, fmt.Errorf("make ssh agent's directory: %w", err)
	}
	s.atEnd(func() error { return os.RemoveAll(dir) })
	socket, err := s.env.SSH.Listen(ctx, id, dir, func(err error) { s.env.notice(o.v, "%v", err) })
	if err != nil {
		return false, err
	}
	s.ran = append(s.ran, socket.Close)
	to.Kind, to.Source = sandbox.SSHAgent, socket.Path
	to.UID, to.GID, to.Mode = int(m.SSHOpt.GetUid()), int(m.SSHOpt.GetGid()), fs.FileMode(m.SSHOpt.GetMode()&0o777)
	return true, nil
}

// endRun ends what a step's command alone may use, when the command has ended.
func (s *mountSet) endRun() error {
	var err error
	for _, f := range s.ran {
		err = errors.Join(err, f())
	}
	s.ran = nil
	return err
}
