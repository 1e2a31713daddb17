package cache

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/content"
	"github.com/layerwright/layerwright/core/internal/graph"
)

// chain makes base ─ COPY a ─ RUN, with changes applied to the operations.
type chain struct {
	base, local *pb.SourceOp
	platform    *pb.Platform
	copied      *pb.FileActionCopy
	exec        *pb.ExecOp
}

func newChain() *chain {
	return &chain{
		base: &pb.SourceOp{Identifier: "docker-image://example/base@sha256:1"}, local: &pb.SourceOp{Identifier: "local://context"},
		platform: &pb.Platform{OS: "linux", Architecture: "amd64"},
		copied:   &pb.FileActionCopy{Src: "/a", Dest: "/a", Mode: -1, Timestamp: -1, FollowSymlink: true},
		exec: &pb.ExecOp{Meta: &pb.Meta{Args: []string{"/bin/sh", "-c", "make"}, Env: []string{"A=1"}, Cwd: "/"}, Mounts: []*pb.Mount{
			{Input: 0, Dest: pb.RootMount, Output: 0},
			{Input: -1, Dest: "/cache", Output: -1, MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "one"}},
			{Input: -1, Dest: "/run/secrets/s", Output: 0, MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "s"}},
		}},
	}
}

func (c *chain) vertices() []*graph.Vertex {
	base := &graph.Vertex{Digest: digest.FromString("base"), Index: 0, Op: &pb.Op{Op: &pb.Op_Source{Source: c.base}, Platform: c.platform}}
	ctx := &graph.Vertex{Digest: digest.FromString("local"), Index: 1, Op: &pb.Op{Op: &pb.Op_Source{Source: c.local}}}
	cp := &graph.Vertex{Index: 2, Op: &pb.Op{Op: &pb.Op_File{File: &pb.FileOp{Actions: []*pb.FileAction{
		{Input: 0, SecondaryInput: 1, Output: 0, Action: &pb.FileAction_Copy{Copy: c.copied}},
	}}}}, Inputs: []graph.Edge{{Vertex: base}, {Vertex: ctx}}}
	run := &graph.Vertex{Index: 3, Op: &pb.Op{Op: &pb.Op_Exec{Exec: c.exec}, Platform: c.platform}, Inputs: []graph.Edge{{Vertex: cp}}}
	return []*graph.Vertex{base, ctx, cp, run}
}

// layerOf is a layer that is known by its text.
func layerOf(text string) v1.Layer { return static.NewLayer([]byte(text), types.OCIUncompressedLayer) }

// definitions are the definition keys of the chain's COPY and RUN.
func definitions(t *testing.T, c *chain, dir, base string) (cp, run string) {
	t.Helper()
	k := New(Options{Variant: func() string { return "" }, Commands: true, Files: true, Notice: func(string) {},
		Image: func(context.Context, *graph.Vertex) ([]v1.Layer, error) { return []v1.Layer{layerOf(base)}, nil },
		Local: func(context.Context, *graph.Vertex) (content.Tree, error) { return content.Dir(dir), nil },
	})
	vs := c.vertices()
	k.define(t.Context(), vs)
	return k.keysOf(vs[2]).definition, k.keysOf(vs[3]).definition
}

func TestWhatAKeyIsMadeOf(t *testing.T) {
	type inputs struct {
		*chain
		dir, base string
	}
	for _, c := range []struct {
		name      string
		change    func(t *testing.T, in *inputs)
		copy, run bool // whether the key changes
	}{
		{"nothing", func(*testing.T, *inputs) {}, false, false},
		{"content of the file", func(t *testing.T, in *inputs) {
			require.NoError(t, os.WriteFile(filepath.Join(in.dir, "a"), []byte("2"), 0o644))
		}, true, true},
		{"another file", func(t *testing.T, in *inputs) {
			require.NoError(t, os.WriteFile(filepath.Join(in.dir, "b"), []byte("2"), 0o644))
		}, false, false},
		{"layers of the base", func(_ *testing.T, in *inputs) { in.base = "other" }, true, true},
		{"name and digest of a base of the same layers", func(_ *testing.T, in *inputs) { in.chain.base.Identifier = "docker-image://x@sha256:2" }, false, false},
		{"platform", func(_ *testing.T, in *inputs) { in.platform = &pb.Platform{OS: "linux", Architecture: "arm64"} }, true, true},
		{"destination", func(_ *testing.T, in *inputs) { in.copied.Dest = "/b" }, true, true},
		{"mode of the copy", func(_ *testing.T, in *inputs) { in.copied.Mode = 0o600 }, true, true},
		{"command", func(_ *testing.T, in *inputs) { in.exec.Meta.Args[2] = "make all" }, false, true},
		// "make" "1A" is not "mak" "e1A".
		{"where one text ends and the next begins", func(_ *testing.T, in *inputs) {
			in.exec.Meta.Args = []string{"/bin/sh", "-cmake"}
		}, false, true},
		{"variable", func(_ *testing.T, in *inputs) { in.exec.Meta.Env[0] = "A=2" }, false, true},
		{"user", func(_ *testing.T, in *inputs) { in.exec.Meta.User = "nobody" }, false, true},
		{"network", func(_ *testing.T, in *inputs) { in.exec.Network = pb.NetMode_NONE }, false, true},
		{"target of a cache mount", func(_ *testing.T, in *inputs) { in.exec.Mounts[1].Dest = "/c" }, false, true},
		{"id of a secret", func(_ *testing.T, in *inputs) { in.exec.Mounts[2].SecretOpt.ID = "t" }, false, true},
		{"name of an extra host", func(_ *testing.T, in *inputs) { in.exec.Meta.ExtraHosts = []*pb.HostIP{{Host: "h", IP: "127.0.0.1"}} }, false, true},
		{"proxy", func(_ *testing.T, in *inputs) { in.exec.Meta.ProxyEnv = &pb.ProxyEnv{HttpProxy: "http://127.0.0.1:1"} }, false, false},
		{"identity of a cache mount", func(_ *testing.T, in *inputs) { in.exec.Mounts[1].CacheOpt.ID = "two" }, false, false},
		{"cgroup parent", func(_ *testing.T, in *inputs) { in.exec.Meta.CgroupParent = "x" }, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := &inputs{chain: newChain(), dir: t.TempDir(), base: "base"}
			require.NoError(t, os.WriteFile(filepath.Join(in.dir, "a"), []byte("1"), 0o644))
			cp, run := definitions(t, in.chain, in.dir, in.base)
			require.Len(t, cp, 40)
			require.NotEqual(t, cp, run)
			c.change(t, in)
			cp2, run2 := definitions(t, in.chain, in.dir, in.base)
			require.Equal(t, c.copy, cp != cp2, "COPY")
			require.Equal(t, c.run, run != run2, "RUN")
		})
	}
}

func TestWhatHasOneOutput(t *testing.T) {
	c := newChain()
	run := func() *graph.Vertex { return c.vertices()[3] }
	require.True(t, singleOutput(run()), "a secret is no output")
	c.exec.Mounts = append(c.exec.Mounts, &pb.Mount{Input: -1, Dest: "/out", Output: 1})
	require.False(t, singleOutput(run()))
}

func TestAddressOfAnExtraHostIsNoPartOfTheKey(t *testing.T) {
	key := func(ip string) string {
		c := newChain()
		c.exec.Meta.ExtraHosts = []*pb.HostIP{{Host: "h", IP: ip}}
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("1"), 0o644))
		_, run := definitions(t, c, dir, "base")
		return run
	}
	require.Equal(t, key("127.0.0.1"), key("127.0.0.2"))
}

func TestAMissingFileOrAnUnknownSourceGivesNoKey(t *testing.T) {
	cp, run := definitions(t, newChain(), t.TempDir(), "base")
	require.Empty(t, cp)
	require.Empty(t, run)
}

func TestTagsAreValidEverywhereAndHaveTheFormat(t *testing.T) {
	require.Regexp(t, `^lw`+Format+`-[0-9a-f]{40}$`, tagOf(newHash().sum()))
	require.Equal(t, []string{"lw2-a", "lw2-b"}, (&keys{definition: "a", content: "b"}).tags())
	require.Equal(t, []string{"lw2-a"}, (&keys{definition: "a", content: "a"}).tags())
	require.Empty(t, (&keys{}).tags())
}

func BenchmarkDefinitions(b *testing.B) {
	dir := b.TempDir()
	require.NoError(b, os.WriteFile(filepath.Join(dir, "a"), []byte("1"), 0o644))
	base := layerOf("base")
	vs := newChain().vertices()
	b.ReportAllocs()
	for b.Loop() {
		k := New(Options{Variant: func() string { return "" }, Commands: true, Files: true, Notice: func(string) {},
			Image: func(context.Context, *graph.Vertex) ([]v1.Layer, error) { return []v1.Layer{base}, nil },
			Local: func(context.Context, *graph.Vertex) (content.Tree, error) { return content.Dir(dir), nil },
		})
		k.define(b.Context(), vs)
	}
}
