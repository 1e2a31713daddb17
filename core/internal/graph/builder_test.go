package graph

import (
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

func definition(t testing.TB, s llb.State, platform string) *pb.Definition {
	t.Helper()
	def, err := s.Marshal(t.Context(), llb.Platform(ocispecs.Platform{OS: "linux", Architecture: platform}))
	require.NoError(t, err)
	return def.ToPB()
}

func sample(session string) llb.State {
	local := llb.Local("context", llb.SessionID(session), llb.FollowPaths([]string{"a"}), llb.WithCustomName("load"))
	base := llb.Image("docker.io/library/base:1")
	built := base.Run(llb.Shlex("make"), llb.AddMount("/ctx", local, llb.Readonly)).Root()
	return base.File(llb.Copy(built, "/out", "/out")).File(llb.Copy(local, "/a", "/a").Mkdir("/d", 0o755), llb.WithCustomName("[2/2] last"))
}

func add(t *testing.T, b *Builder, s llb.State, platform string) Edge {
	t.Helper()
	e, err := b.Add(definition(t, s, platform))
	require.NoError(t, err)
	return e
}

func TestInputsComeBeforeTheirConsumers(t *testing.T) {
	b := &Builder{}
	root := add(t, b, sample("s"), "amd64")
	g := b.Graph()
	require.Equal(t, []Edge{root}, g.Roots)
	require.Equal(t, "[2/2] last", root.Vertex.Name)
	for i, v := range g.Vertices {
		require.Equal(t, i, v.Index)
		for _, in := range v.Inputs {
			require.Less(t, in.Vertex.Index, i)
		}
	}
}

func TestSessionsAndUniqueIDsAreNotIdentity(t *testing.T) {
	b := &Builder{}
	one, two := add(t, b, sample("one"), "amd64"), add(t, b, sample("two"), "amd64")
	require.Same(t, one.Vertex, two.Vertex)
	unnamed := llb.Local("context") // gets a random local.unique
	x := add(t, b, unnamed, "amd64")
	y := add(t, b, llb.Local("context"), "amd64")
	require.Same(t, x.Vertex, y.Vertex)
	require.Empty(t, x.Vertex.Op.GetSource().Attrs)
}

func TestPlatformIsIdentity(t *testing.T) {
	b := &Builder{}
	amd, arm := add(t, b, llb.Image("x"), "amd64"), add(t, b, llb.Image("x"), "arm64")
	require.NotSame(t, amd.Vertex, arm.Vertex)
	require.NotEqual(t, amd.Vertex.Digest, arm.Vertex.Digest)
}

func TestChainIsWhatEndsUpInTheTree(t *testing.T) {
	b := &Builder{}
	root := add(t, b, sample("s"), "amd64")
	var names []string
	for v := range Chain(root) {
		names = append(names, v.Name)
	}
	require.ElementsMatch(t, []string{"docker-image://docker.io/library/base:1", "file operation", "[2/2] last"}, names)
	require.Empty(t, Chain(Edge{}))
}

// A merge is put together from its inputs' layers, even if only files are
// copied from it.
func TestMergeInASideStageIsCaptured(t *testing.T) {
	linked := llb.Scratch().File(llb.Mkfile("/l", 0o644, []byte("l")), llb.WithCustomName("linked"))
	merged := llb.Merge([]llb.State{llb.Image("base"), linked}, llb.WithCustomName("merged"))
	side := merged.File(llb.Mkdir("/only-here", 0o755), llb.WithCustomName("side"))
	b := &Builder{}
	root := add(t, b, llb.Scratch().File(llb.Copy(side, "/l", "/l"), llb.WithCustomName("last")), "amd64")
	require.Len(t, Chain(root), 1)
	g := b.Graph()
	var names []string
	for v := range g.Captured() {
		names = append(names, v.Name)
	}
	require.ElementsMatch(t, []string{"last", "merged", "linked", "docker-image://docker.io/library/base:latest"}, names)
}

func TestEmptyDefinitionIsAnEmptyTree(t *testing.T) {
	b := &Builder{}
	for _, d := range []*pb.Definition{nil, {}} {
		e, err := b.Add(d)
		require.NoError(t, err)
		require.Nil(t, e.Vertex)
	}
	require.Len(t, b.Graph().Roots, 2)
}

func TestBadDefinitionIsAnError(t *testing.T) {
	def := func(ops ...*pb.Op) *pb.Definition {
		d := &pb.Definition{}
		for _, o := range ops {
			raw, err := o.MarshalVT()
			require.NoError(t, err)
			d.Def = append(d.Def, raw)
		}
		return d
	}
	source := &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "local://x"}}}
	raw, err := source.MarshalVT()
	require.NoError(t, err)
	to := func(i int64) *pb.Op {
		return &pb.Op{Inputs: []*pb.Input{{Digest: string(digest.FromBytes(raw)), Index: i}}}
	}
	for name, d := range map[string]*pb.Definition{
		"not protobuf":             {Def: [][]byte{{0xff, 0xff}}},
		"no terminal":              def(source),
		"terminal without input":   def(source, &pb.Op{}),
		"missing operation":        def(&pb.Op{Inputs: []*pb.Input{{Digest: "sha256:0"}}}),
		"negative output":          def(source, to(-1)),
		"truncated":                {Def: [][]byte{raw[:len(raw)-3], nil}},
		"terminal in the middle":   def(to(0), to(0)),
		"operation without a kind": def(&pb.Op{Platform: &pb.Platform{OS: "linux"}}, to(0)),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := (&Builder{}).Add(d)
			require.Error(t, err)
		})
	}
}

func FuzzAdd(f *testing.F) {
	raw, err := definition(f, sample("s"), "amd64").MarshalVT()
	require.NoError(f, err)
	f.Add(raw)
	f.Add(raw[:len(raw)/2])
	f.Fuzz(func(t *testing.T, raw []byte) {
		d := &pb.Definition{}
		if d.UnmarshalVT(raw) != nil {
			return
		}
		b := &Builder{}
		e, err := b.Add(d)
		if err != nil {
			return
		}
		Chain(e)
		b.Graph().Captured()
	})
}
