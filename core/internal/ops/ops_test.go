package ops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/commit"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/sandbox"
	"github.com/layerwright/layerwright/core/internal/snapshot"
	"github.com/layerwright/layerwright/core/internal/solve"
)

// toySandbox runs a Go function instead of a command. It keeps trees where they
// are, and says of itself what a test wants.
type toySandbox struct {
	sandbox.Sandbox
	moves bool
	run   func(ctx context.Context, s sandbox.Step) error
}

func (t *toySandbox) MovesBinds() bool { return t.moves }

func (t *toySandbox) Prepare(context.Context, func() error) error { return nil }
func (t *toySandbox) Run(ctx context.Context, s sandbox.Step) (sandbox.Outcome, error) {
	return sandbox.Outcome{}, t.run(ctx, s)
}

// rig is an Env on a real store of trees.
type rig struct {
	*Env
	g      graph.Graph
	mu     sync.Mutex
	events []progress.Event
}

// Emit implements progress.Sink.
func (r *rig) Emit(e progress.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *rig) notices() (out []string) {
	for _, e := range r.events {
		if n, ok := e.(progress.Notice); ok {
			out = append(out, n.Text)
		}
	}
	return out
}

func newRig(t *testing.T, s *toySandbox) *rig {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"blobs", "scratch"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	trees, err := snapshot.NewFlat(filepath.Join(dir, "trees"), snapshot.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, trees.Close()) })
	r := &rig{}
	r.Env = &Env{
		NetworkNone: func() error { return fault.New(fault.Environment, "refused").With("Leave it out.") },
		Store:       trees, Sandbox: s, Blobs: commit.New(filepath.Join(dir, "blobs"), commit.Options{}),
		Caches: filepath.Join(dir, "caches"), Scratch: filepath.Join(dir, "scratch"), Progress: r,
		Outside: func(f func() error) error { return f() }, Secrets: map[string][]byte{},
		Made: func(*graph.Vertex, v1.Layer, time.Time) {},
	}
	return r
}

// add appends a vertex to the graph; inputs are what it reads output 0 of.
func (r *rig) add(op *pb.Op, inputs ...*graph.Vertex) *graph.Vertex {
	i := len(r.g.Vertices)
	name := fmt.Sprintf("vertex %d", i)
	v := &graph.Vertex{Digest: digest.FromString(name), Index: i, Op: op, Name: name, Location: &fault.Location{File: "Dockerfile", Start: i + 1, End: i + 1}}
	for _, in := range inputs {
		v.Inputs = append(v.Inputs, graph.Edge{Vertex: in})
	}
	r.g.Vertices = append(r.g.Vertices, v)
	return v
}

// base is a tree with /src/f in it.
func (r *rig) base() *graph.Vertex {
	return r.file(nil,
		&pb.FileAction{Input: -1, SecondaryInput: -1, Output: -1, Action: &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: "/src", Mode: 0o755, Timestamp: -1}}},
		&pb.FileAction{Input: 0, SecondaryInput: -1, Output: 0, Action: &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{Path: "/src/f", Mode: 0o644, Data: []byte("old"), Timestamp: -1}}})
}

func (r *rig) file(inputs []*graph.Vertex, actions ...*pb.FileAction) *graph.Vertex {
	return r.add(&pb.Op{Op: &pb.Op_File{File: &pb.FileOp{Actions: actions}}}, inputs...)
}

func (r *rig) exec(op *pb.ExecOp, inputs ...*graph.Vertex) *graph.Vertex {
	if op.Meta == nil {
		op.Meta = &pb.Meta{Args: []string{"/bin/sh", "-c", "make"}, Cwd: "/"}
	}
	return r.add(&pb.Op{Op: &pb.Op_Exec{Exec: op}}, inputs...)
}

// solve runs what the roots need; a circle of waiting shows as a timeout.
func (r *rig) solve(t *testing.T, roots ...*graph.Vertex) error {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Second, errors.New("nothing goes on any more"))
	defer cancel()
	r.g.Roots = nil
	for _, v := range roots {
		r.g.Roots = append(r.g.Roots, graph.Edge{Vertex: v})
	}
	claims, err := solve.Solve(ctx, &r.g, solve.Options{Resolve: r.Resolve, Progress: r})
	for _, c := range claims {
		c.Release()
	}
	return err
}

func rootMount() *pb.Mount { return &pb.Mount{Dest: "/", Input: 0, Output: 0} }

func cacheMount(id, dest string, sharing pb.CacheSharingOpt) *pb.Mount {
	return &pb.Mount{Dest: dest, Input: -1, Output: -1, MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: id, Sharing: sharing}}
}

func mountAt(s sandbox.Step, target string) string {
	for _, m := range s.Mounts {
		if m.Target == target {
			return m.Source
		}
	}
	return ""
}

// The last of several readers of a base changes it in place when all others
// have ended: it must not keep them from that by holding their cache.
func TestStepsOnOneBaseWithOneCacheDoNotWaitForEachOther(t *testing.T) {
	for range 10 {
		r := newRig(t, &toySandbox{moves: true, run: func(context.Context, sandbox.Step) error { return nil }})
		base := r.base()
		var steps []*graph.Vertex
		for range 4 {
			steps = append(steps, r.exec(&pb.ExecOp{Mounts: []*pb.Mount{rootMount(), cacheMount("c", "/c", pb.CacheSharingOpt_SHARED)}}, base))
		}
		require.NoError(t, r.solve(t, steps...))
	}
}

func TestCachesAreLockedInOneOrder(t *testing.T) {
	var mu sync.Mutex
	holders := map[string]int{}
	r := newRig(t, &toySandbox{run: func(_ context.Context, s sandbox.Step) error {
		for _, step := range []int{1, -1} {
			mu.Lock()
			for _, m := range s.Mounts {
				if holders[m.Source] += step; holders[m.Source] > 1 {
					mu.Unlock()
					return errors.New("a locked cache has two users")
				}
			}
			mu.Unlock()
			time.Sleep(time.Millisecond)
		}
		return nil
	}})
	var steps []*graph.Vertex
	for i := range 8 {
		ids := [2]string{"1", "2"}
		steps = append(steps, r.exec(&pb.ExecOp{Mounts: []*pb.Mount{rootMount(),
			cacheMount(ids[i%2], "/a", pb.CacheSharingOpt_LOCKED), cacheMount(ids[1-i%2], "/b", pb.CacheSharingOpt_LOCKED)}}, r.base()))
	}
	require.NoError(t, r.solve(t, steps...))
}

func TestOneCacheAtTwoPlaces(t *testing.T) {
	op := func() *pb.ExecOp {
		return &pb.ExecOp{Mounts: []*pb.Mount{rootMount(), cacheMount("c", "/a", pb.CacheSharingOpt_LOCKED), cacheMount("c", "/b", pb.CacheSharingOpt_PRIVATE)}}
	}
	t.Run("is one directory where it is mounted", func(t *testing.T) {
		r := newRig(t, &toySandbox{run: func(_ context.Context, s sandbox.Step) error {
			assert.NotEmpty(t, mountAt(s, "/a"))
			assert.Equal(t, mountAt(s, "/a"), mountAt(s, "/b"))
			return nil
		}})
		require.NoError(t, r.solve(t, r.exec(op(), r.base())))
	})
	t.Run("is refused before anything runs where it is moved", func(t *testing.T) {
		r := newRig(t, &toySandbox{moves: true})
		e, ok := fault.As(r.solve(t, r.exec(op(), r.base())))
		require.True(t, ok)
		require.Equal(t, fault.Environment, e.Kind)
		require.Equal(t, 2, e.Location.Start)
	})
}

// LLB has equal inputs once: root and mount share one input.
func TestAStepThatMountsItsOwnBaseSeesItUnchanged(t *testing.T) {
	for _, moves := range []bool{false, true} {
		for _, readOnly := range []bool{false, true} {
			t.Run(fmt.Sprintf("moves=%v readonly=%v", moves, readOnly), func(t *testing.T) {
				r := newRig(t, &toySandbox{moves: moves, run: func(_ context.Context, s sandbox.Step) error {
					assert.NoError(t, os.WriteFile(filepath.Join(s.Root, "src/f"), []byte("new"), 0o644))
					if !readOnly {
						assert.NoError(t, os.WriteFile(filepath.Join(mountAt(s, "/b"), "g"), nil, 0o644))
						assert.NoFileExists(t, filepath.Join(s.Root, "src/g"))
					}
					data, err := os.ReadFile(filepath.Join(mountAt(s, "/b"), "f"))
					assert.NoError(t, err)
					assert.Equal(t, "old", string(data))
					return nil
				}})
				mount := &pb.Mount{Dest: "/b", Selector: "/src", Input: 0, Output: -1, Readonly: readOnly}
				require.NoError(t, r.solve(t, r.exec(&pb.ExecOp{Mounts: []*pb.Mount{rootMount(), mount}}, r.base())))
			})
		}
	}
}

func TestACopyFromItsOwnBaseReadsItUnchanged(t *testing.T) {
	var found []string
	r := newRig(t, &toySandbox{run: func(_ context.Context, s sandbox.Step) error {
		return filepath.WalkDir(s.Root, func(p string, _ os.DirEntry, err error) error {
			found = append(found, strings.TrimPrefix(p, s.Root))
			return err
		})
	}})
	copying := func(input, output int64, dest string) *pb.FileAction {
		return &pb.FileAction{Input: input, SecondaryInput: 0, Output: output, Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{
			Src: "/src", Dest: dest, Mode: -1, Timestamp: -1, DirCopyContents: true, CreateDestPath: true, FollowSymlink: true}}}
	}
	// The second action must not see what the first has made.
	copied := r.file([]*graph.Vertex{r.base()}, copying(0, -1, "/src/one/"), copying(1, 0, "/src/two/"))
	require.NoError(t, r.solve(t, r.exec(&pb.ExecOp{Mounts: []*pb.Mount{rootMount()}}, copied)))
	require.Equal(t, []string{"", "/src", "/src/f", "/src/one", "/src/one/f", "/src/two", "/src/two/f"}, found)

	// Nor what an action has made that reads nothing.
	found = nil
	made := r.file([]*graph.Vertex{r.base()},
		&pb.FileAction{Input: 0, SecondaryInput: -1, Output: -1, Action: &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: "/src/made", Mode: 0o755, Timestamp: -1}}},
		copying(1, 0, "/to/"))
	require.NoError(t, r.solve(t, r.exec(&pb.ExecOp{Mounts: []*pb.Mount{rootMount()}}, made)))
	require.Equal(t, []string{"", "/src", "/src/f", "/src/made", "/to", "/to/f"}, found)
}

// uid=, gid= and mode= of a cache mount reach us as a directory to start from.
func TestACacheStartsWithItsSourcesModeAndContent(t *testing.T) {
	r := newRig(t, &toySandbox{run: func(_ context.Context, s sandbox.Step) error {
		var st unix.Stat_t
		assert.NoError(t, unix.Stat(mountAt(s, "/c"), &st))
		assert.EqualValues(t, 0o710, st.Mode&0o7777)
		assert.FileExists(t, filepath.Join(mountAt(s, "/c"), "seed"))
		return nil
	}})
	seed := r.file(nil,
		&pb.FileAction{Input: -1, SecondaryInput: -1, Output: -1, Action: &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: "/cache", Mode: 0o710, Timestamp: -1}}},
		&pb.FileAction{Input: 0, SecondaryInput: -1, Output: 0, Action: &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{Path: "/cache/seed", Mode: 0o644, Timestamp: -1}}})
	cache := cacheMount("c", "/c", pb.CacheSharingOpt_SHARED)
	cache.Input, cache.Selector = 1, "/cache"
	require.NoError(t, r.solve(t, r.exec(&pb.ExecOp{Mounts: []*pb.Mount{rootMount(), cache}}, r.base(), seed)))
}

func TestWhatCannotBeDoneIsRefusedWithItsLineBeforeAnythingRuns(t *testing.T) {
	meta := &pb.Meta{Args: []string{"true"}, Cwd: "/"}
	exec := func(e *pb.ExecOp) *pb.Op {
		e.Meta = meta
		e.Mounts = append(e.Mounts, rootMount())
		return &pb.Op{Op: &pb.Op_Exec{Exec: e}}
	}
	source := func(id string) *pb.Op {
		return &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: id}}}
	}
	for name, c := range map[string]struct {
		op   *pb.Op
		kind fault.Kind
	}{
		"security insecure":  {exec(&pb.ExecOp{Security: pb.SecurityMode_INSECURE}), fault.Environment},
		"devices":            {exec(&pb.ExecOp{CdiDevices: []*pb.CDIDevice{{Name: "gpu"}}}), fault.User},
		"ssh":                {exec(&pb.ExecOp{Mounts: []*pb.Mount{{Dest: "/s", Input: -1, Output: -1, MountType: pb.MountType_SSH}}}), fault.User},
		"unknown mount type": {exec(&pb.ExecOp{Mounts: []*pb.Mount{{Dest: "/s", Input: -1, Output: -1, MountType: 99}}}), fault.User},
		"second output":      {exec(&pb.ExecOp{Mounts: []*pb.Mount{{Dest: "/s", Input: -1, Output: 1}}}), fault.User},
		"secret not given":   {exec(&pb.ExecOp{Secretenv: []*pb.SecretEnv{{ID: "x", Name: "X"}}}), fault.User},
		"no network there":   {exec(&pb.ExecOp{Network: pb.NetMode_NONE}), fault.Environment},
		"unknown source":     {source("carrier-pigeon://x"), fault.User},
		"context not given":  {source("local://other"), fault.Usage},
		"diff":               {&pb.Op{Op: &pb.Op_Diff{Diff: &pb.DiffOp{}}}, fault.User},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, &toySandbox{run: func(context.Context, sandbox.Step) error {
				t.Error("a step has run")
				return nil
			}})
			first := r.exec(&pb.ExecOp{Mounts: []*pb.Mount{rootMount()}}, r.base())
			v := r.add(c.op, first)
			e, ok := fault.As(r.solve(t, v))
			require.True(t, ok)
			require.Equal(t, c.kind, e.Kind)
			require.Equal(t, v.Location, e.Location)
			require.NotEmpty(t, e.Remedy)
		})
	}
}

func TestAFailedCommandTellsCodeLineAndLastOutput(t *testing.T) {
	r := newRig(t, &toySandbox{run: func(_ context.Context, s sandbox.Step) error {
		for i := range 100 {
			fmt.Fprintf(s.Stdout, "line %d\n", i)
		}
		return &sandbox.ExitError{Code: 2}
	}})
	e, ok := fault.As(r.solve(t, r.exec(&pb.ExecOp{Mounts: []*pb.Mount{rootMount()}}, r.base())))
	require.True(t, ok)
	require.Equal(t, fault.Step, e.Kind)
	require.Equal(t, 2, e.ExitCode)
	require.Equal(t, `Dockerfile:2: process "/bin/sh -c make" did not complete successfully: exit code: 2`, e.Error())
	lines := strings.Split(string(e.Output), "\n")
	require.Len(t, lines, tailLines)
	require.Equal(t, "line 99", lines[tailLines-1])
}

func TestAMountThatCannotBeSetAside(t *testing.T) {
	collides := &toySandbox{moves: true, run: func(context.Context, sandbox.Step) error {
		return &sandbox.CollisionError{Mount: "/workspace"}
	}}
	t.Run("makes auto run the step elsewhere, with a notice", func(t *testing.T) {
		r, ran := newRig(t, collides), false
		r.Fallback = &toySandbox{moves: true, run: func(context.Context, sandbox.Step) error { ran = true; return nil }}
		require.NoError(t, r.solve(t, r.exec(&pb.ExecOp{Mounts: []*pb.Mount{rootMount()}}, r.base())))
		require.True(t, ran)
		require.Len(t, r.notices(), 1)
		require.Contains(t, r.notices()[0], "/workspace")
	})
	t.Run("is an error of the environment otherwise", func(t *testing.T) {
		r := newRig(t, collides)
		e, ok := fault.As(r.solve(t, r.exec(&pb.ExecOp{Mounts: []*pb.Mount{rootMount()}}, r.base())))
		require.True(t, ok)
		require.Equal(t, fault.Environment, e.Kind)
		require.NotEmpty(t, e.Remedy)
	})
}

func TestAStepsEnvironmentIsItsOwnProxiesAndSecrets(t *testing.T) {
	var got []string
	r := newRig(t, &toySandbox{run: func(_ context.Context, s sandbox.Step) error { got = s.Env; return nil }})
	r.Secrets["token"] = []byte("hush")
	op := &pb.ExecOp{
		Meta:      &pb.Meta{Args: []string{"env"}, Cwd: "/", Env: []string{"A=b"}, ProxyEnv: &pb.ProxyEnv{HttpProxy: "http://p:1", NoProxy: "here"}},
		Mounts:    []*pb.Mount{rootMount()},
		Secretenv: []*pb.SecretEnv{{ID: "token", Name: "TOKEN"}, {ID: "absent", Name: "ABSENT", Optional: true}},
	}
	require.NoError(t, r.solve(t, r.exec(op, r.base())))
	require.Equal(t, []string{"A=b", "PATH=" + defaultPath, "HTTP_PROXY=http://p:1", "http_proxy=http://p:1",
		"NO_PROXY=here", "no_proxy=here", "TOKEN=hush", "ABSENT="}, got)
}
