package core

import (
	"context"

	"github.com/layerwright/layerwright/core/internal/frontend"
	"github.com/layerwright/layerwright/core/internal/source/git"
)

// repositories are the build's clones of git repositories, made when the first
// one is needed.
func (b *build) repositories() (*git.Source, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.git != nil {
		return b.git, nil
	}
	dir, err := b.work.sub("git")
	if err != nil {
		return nil, err
	}
	b.git = &git.Source{Dir: dir, Secrets: b.secrets, Agent: b.agents.Dial, Transport: b.web, Progress: b.sink}
	return b.git, nil
}

// findGit gives the hash that a git source means, without fetching it.
func (b *build) findGit(ctx context.Context, identifier string, attrs map[string]string) (string, error) {
	g, err := b.repositories()
	if err != nil {
		return "", err
	}
	return g.Find(ctx, identifier, attrs)
}

// ResolveGit implements frontend.GitResolver.
func (b *build) ResolveGit(ctx context.Context, identifier string, attrs map[string]string) (*frontend.GitCommit, error) {
	g, err := b.repositories()
	if err != nil {
		return nil, err
	}
	c, err := g.Resolve(ctx, identifier, attrs)
	if err != nil {
		return nil, err
	}
	return &frontend.GitCommit{Ref: c.Ref, Hash: c.Hash, Object: c.Object}, nil
}
