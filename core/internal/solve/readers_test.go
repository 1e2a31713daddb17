package solve_test

import (
	"context"
	"sync"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/solve"
)

// reads solves a state, and says for every vertex that somebody uses whether its
// files are read.
func reads(t *testing.T, unread bool, states ...llb.State) map[string]bool {
	t.Helper()
	b := &graph.Builder{}
	for _, s := range states {
		def, err := s.Marshal(t.Context(), llb.LinuxAmd64)
		require.NoError(t, err)
		_, err = b.Add(def.ToPB())
		require.NoError(t, err)
	}
	r := &readers{of: map[string]bool{}}
	claims, err := solve.Solve(t.Context(), b.Graph(), solve.Options{Unread: unread,
		Resolve: func(v *graph.Vertex) (solve.Op, error) { return readOp{r, v}, nil }})
	require.NoError(t, err)
	require.Len(t, claims, len(states))
	return r.of
}

type readers struct {
	mu sync.Mutex
	of map[string]bool
}

type readOp struct {
	r *readers
	v *graph.Vertex
}

func (o readOp) Run(context.Context, []solve.Claim) ([]solve.Result, error) {
	return []solve.Result{o}, nil
}

func (o readOp) Claims(owners []solve.Owner) []solve.Claim {
	name := o.v.Op.GetSource().GetIdentifier()
	if o.v.Op.GetFile() != nil {
		name = "copied"
	}
	o.r.mu.Lock()
	defer o.r.mu.Unlock()
	out := make([]solve.Claim, len(owners))
	for i, owner := range owners {
		o.r.of[name] = o.r.of[name] || owner.Reads
		out[i] = readClaim{}
	}
	return out
}

type readClaim struct{}

func (readClaim) Release() {}

func TestWhoOnlyAddsFilesReadsNone(t *testing.T) {
	const image = "docker-image://docker.io/library/a:latest"
	base, files := llb.Image("a"), llb.Local("context")
	added := base.File(llb.Mkdir("/w", 0o755)).File(llb.Copy(files, "/f", "/f"))
	for name, c := range map[string]struct {
		states []llb.State
		whole  bool // the roots' trees are wanted
		read   bool
	}{
		"COPY":                            {states: []llb.State{added}},
		"COPY, and the tree is an output": {states: []llb.State{added}, whole: true, read: true},
		"COPY, RUN":                       {states: []llb.State{added.Run(llb.Shlex("x")).Root()}, read: true},
		"COPY, and COPY and RUN":          {states: []llb.State{added, base.Run(llb.Shlex("x")).Root()}, read: true},
		"COPY --link":                     {states: []llb.State{llb.Merge([]llb.State{base, llb.Scratch().File(llb.Copy(files, "/f", "/f"))})}},
		"COPY --link, RUN": {states: []llb.State{llb.Merge([]llb.State{base, llb.Scratch().File(llb.Copy(files, "/f", "/f"))}).Run(llb.Shlex("x")).Root()},
			read: true},
		"COPY of its own file":           {states: []llb.State{base.File(llb.Copy(base, "/f", "/g"))}, read: true},
		"COPY --from what was copied":    {states: []llb.State{llb.Scratch().File(llb.Copy(added, "/f", "/g"))}, read: true},
		"ADD, of what may be an archive": {states: []llb.State{base.File(llb.Copy(files, "/f", "/f", &llb.CopyInfo{AttemptUnpack: true}))}, read: true},
		"COPY --chown=name":              {states: []llb.State{base.File(llb.Copy(files, "/f", "/f", llb.WithUser("www-data")))}, read: true},
		"COPY --chown=1:1":               {states: []llb.State{base.File(llb.Copy(files, "/f", "/f", llb.WithUser("1:1")))}},
	} {
		t.Run(name, func(t *testing.T) {
			got := reads(t, !c.whole, c.states...)
			require.Equal(t, c.read, got[image])
			if _, ok := got["local://context"]; ok {
				require.True(t, got["local://context"])
			}
		})
	}
}
