package frontend

import (
	"context"
	"strings"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/solver/pb"
)

// GitResolver is what a Resolver implements that knows git repositories. The
// frontend asks it for the time of a commit (SOURCE_DATE_EPOCH=context).
type GitResolver interface {
	// ResolveGit gives the commit that a git source means.
	ResolveGit(ctx context.Context, identifier string, attrs map[string]string) (*GitCommit, error)
}

// GitCommit is a commit: the ref's full name or the commit's hash, the hash that
// the ref has, and the commit's object without git's header.
type GitCommit struct {
	Ref, Hash string
	Object    []byte
}

// resolveGit answers for a git source; ok is false for others.
func (g *gateway) resolveGit(ctx context.Context, op *pb.SourceOp) (_ *sourceresolver.MetaResponse, ok bool, err error) {
	r, ok := g.resolver.(GitResolver)
	if !ok || !strings.HasPrefix(op.Identifier, "git://") {
		return nil, false, nil
	}
	c, err := r.ResolveGit(ctx, op.Identifier, op.Attrs)
	if err != nil {
		return nil, true, err
	}
	return &sourceresolver.MetaResponse{Op: op, Git: &sourceresolver.ResolveGitResponse{Ref: c.Ref, Checksum: c.Hash, CommitObject: c.Object}}, true, nil
}
