package core

import (
	"context"

	"github.com/layerwright/layerwright/core/internal/sshagent"
)

// openAgents opens the sockets and keys that steps and git may use.
func (b *build) openAgents(ctx context.Context) error {
	if len(b.req.SSH) == 0 {
		return nil
	}
	var sources []sshagent.Source
	for _, s := range b.req.SSH {
		sources = append(sources, sshagent.Source{ID: s.ID, Paths: s.Paths, Key: s.Key})
	}
	var err error
	if b.agents, err = sshagent.Open(ctx, sources); err != nil {
		return err
	}
	b.atEnd(b.agents.Close)
	return nil
}
