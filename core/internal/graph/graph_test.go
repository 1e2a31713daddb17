package graph_test

import (
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/graph"
)

func marshal(t testing.TB, s llb.State) *pb.Definition {
	t.Helper()
	def, err := s.Marshal(t.Context(), llb.LinuxAmd64)
	require.NoError(t, err)
	return def.ToPB()
}

func TestWhatDiffersBetweenRunsIsNotPartOfTheDigest(t *testing.T) {
	of := func(session string) digest.Digest {
		b := &graph.Builder{}
		e, err := b.Add(marshal(t, llb.Scratch().File(llb.Copy(llb.Local("context", llb.SessionID(session)), "/a", "/b"))))
		require.NoError(t, err)
		return e.Vertex.Digest
	}
	require.Equal(t, of("one"), of("two"))
}

func TestWhatMattersIsPartOfTheDigest(t *testing.T) {
	base := llb.Image("docker.io/library/a:1@" + digest.FromString("x").String())
	seen := map[digest.Digest]string{}
	for name, s := range map[string]llb.State{
		"plain":       base.Run(llb.Args([]string{"a", "b"})).Root(),
		"words":       base.Run(llb.Args([]string{"a b"})).Root(),
		"environment": base.Run(llb.Args([]string{"a", "b"}), llb.AddEnv("X", "1")).Root(),
		"user":        base.Run(llb.Args([]string{"a", "b"}), llb.User("u")).Root(),
		"base":        llb.Scratch().Run(llb.Args([]string{"a", "b"})).Root(),
	} {
		b := &graph.Builder{}
		e, err := b.Add(marshal(t, s))
		require.NoError(t, err)
		require.Empty(t, seen[e.Vertex.Digest], name)
		seen[e.Vertex.Digest] = name
	}
}

func TestDefinitionsShareVertices(t *testing.T) {
	base := llb.Image("a").Run(llb.Shlex("one")).Root()
	b := &graph.Builder{}
	x, err := b.Add(marshal(t, base.Run(llb.Shlex("two")).Root()))
	require.NoError(t, err)
	y, err := b.Add(marshal(t, base.Run(llb.Shlex("three")).Root()))
	require.NoError(t, err)
	require.Same(t, x.Vertex.Inputs[0].Vertex, y.Vertex.Inputs[0].Vertex)
	g := b.Graph()
	require.Len(t, g.Vertices, 4)
	for i, v := range g.Vertices {
		require.Equal(t, i, v.Index)
		for _, in := range v.Inputs {
			require.Less(t, in.Vertex.Index, i)
		}
	}
}

func TestAnEmptyDefinitionIsAnEmptyTree(t *testing.T) {
	b := &graph.Builder{}
	e, err := b.Add(nil)
	require.NoError(t, err)
	require.Nil(t, e.Vertex)
	require.Len(t, b.Graph().Roots, 1)
}

func TestChainOfAMergeIsAllOfIt(t *testing.T) {
	a := llb.Image("a")
	m := llb.Merge([]llb.State{a.Run(llb.Shlex("one")).Root(), llb.Scratch().File(llb.Copy(llb.Local("context"), "/x", "/y"))})
	b := &graph.Builder{}
	e, err := b.Add(marshal(t, m.Run(llb.Shlex("two")).Root()))
	require.NoError(t, err)
	chain := graph.Chain(e)
	require.Len(t, chain, 5, "two, merge, one, a, the copy; not the context")
}

func TestBrokenDefinitions(t *testing.T) {
	raw := func(op *pb.Op) []byte {
		b, err := op.MarshalVT()
		require.NoError(t, err)
		return b
	}
	for name, def := range map[string]*pb.Definition{
		"not an operation":  {Def: [][]byte{[]byte("garbage")}},
		"no result":         {Def: [][]byte{raw(&pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "x"}}})}},
		"input that is not": {Def: [][]byte{raw(&pb.Op{Inputs: []*pb.Input{{Digest: digest.FromString("nothing").String()}}})}},
		"empty":             {Def: [][]byte{raw(&pb.Op{})}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := (&graph.Builder{}).Add(def)
			require.Error(t, err)
		})
	}
}

// FuzzAdd: whatever a definition holds, decoding ends without a panic.
func FuzzAdd(f *testing.F) {
	def := marshal(f, llb.Image("a").Run(llb.Shlex("x")).Root())
	f.Add(def.Def[0], def.Def[1], def.Def[len(def.Def)-1])
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		builder := &graph.Builder{}
		e, err := builder.Add(&pb.Definition{Def: [][]byte{a, b, c}})
		if err == nil && e.Vertex != nil {
			graph.Chain(e)
		}
	})
}
