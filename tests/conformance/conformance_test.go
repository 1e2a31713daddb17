package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/conformance"
	"github.com/layerwright/layerwright/tests/parts"
)

func TestMain(m *testing.M) { parts.Run(m) }

// began is before every build, in whole seconds as layers hold times. Inputs
// are years older.
var began = time.Now().Truncate(time.Second)

// mode is one way to run Layerwright.
type mode struct {
	name string
	// args come after "build"; container says to run in a default container
	// of a Docker engine instead of on the machine.
	args      []string
	container bool
	// engine says that BuildKit carries it out, by our request of it.
	engine bool
}

var modes = []mode{
	{name: "inplace", args: []string{"--isolation", "inplace"}, container: true},
	{name: "overlay", args: []string{"--isolation", "namespaces", "--snapshots", "overlay"}},
	{name: "flat", args: []string{"--isolation", "namespaces", "--snapshots", "flat"}},
	{name: "chroot", args: []string{"--isolation", "chroot"}},
	{name: "engine", engine: true},
}

// chosen are the modes in which case number i is compared. Want says which: all of them,
// or the one of that name. Otherwise a case runs inplace and in one of the other modes,
// in turn. What both must refuse before a step runs is refused before an isolation
// matters: inplace only looks at each sixth of those.
func chosen(i int, c conformance.Case, want string) []mode {
	refused := c.Options.Fails != "" && !c.Options.Runs
	var out []mode
	for j, m := range modes {
		if c.Options.Skip[m.name] != "" {
			continue
		}
		if want == "all" || want == m.name || want == "" && (m.container && (!refused || i%6 == 0) || !m.container && i%4 == j-1) {
			out = append(out, m)
		}
	}
	return out
}

// TestSizeOfTheSuite holds what the suite promises.
func TestSizeOfTheSuite(t *testing.T) {
	cases, err := conformance.Cases("cases")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(cases), 260)
	refused, in := 0, map[string]int{}
	for i, c := range cases {
		if c.Options.Fails != "" {
			refused++
		}
		for _, m := range chosen(i, c, "") {
			if c.Options.Fails == "" {
				in[m.name]++
			}
		}
	}
	require.GreaterOrEqual(t, refused, 65, "invalid Dockerfiles")
	for _, m := range modes {
		require.GreaterOrEqual(t, in[m.name], 60, "images compared in mode %s", m.name)
	}
	t.Logf("%d cases, %d of them refused; images compared: %v", len(cases), refused, in)
}

// suite is what the cases of one run share.
type suite struct {
	registry, base string
	oracle         *parts.BuildKit
	root           string
	onlyOracle     bool
	// builds lets BuildKit build one case at a time: two cases that copy equal
	// content with other times would share a result.
	builds sync.Mutex
	boxes  boxes

	mu    sync.Mutex
	spent map[string]time.Duration
	done  map[string]int
}

// TestConformance builds every case by BuildKit and by Layerwright, and compares
// the images. LAYERWRIGHT_CONFORMANCE_ORACLE=1 only builds by BuildKit, to check
// a case while it is written; LAYERWRIGHT_CONFORMANCE=all compares every case in
// every mode, LAYERWRIGHT_CONFORMANCE=NAME in one.
func TestConformance(t *testing.T) {
	cases, err := conformance.Cases("cases")
	require.NoError(t, err)
	s := &suite{
		registry: parts.SharedRegistry(t).Addr, oracle: parts.Oracle(t), root: t.TempDir(),
		onlyOracle: os.Getenv("LAYERWRIGHT_CONFORMANCE_ORACLE") == "1",
		spent:      map[string]time.Duration{}, done: map[string]int{},
	}
	require.NoError(t, os.Chmod(s.root, 0o755))
	s.boxes.root = s.root
	s.base = s.registry + "/base:1"
	parts.PushBase(t, s.base, parts.SmallBase(t))
	if !s.onlyOracle {
		parts.Binary(t)
	}
	want := os.Getenv("LAYERWRIGHT_CONFORMANCE")
	t.Cleanup(func() { s.report(t) })
	for i, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			s.run(t, c, chosen(i, c, want))
		})
	}
}

func (s *suite) run(t *testing.T, c conformance.Case, in []mode) {
	dir, secrets := filepath.Join(s.root, c.Name, "context"), filepath.Join(s.root, c.Name, "secrets")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.MkdirAll(secrets, 0o755))
	require.NoError(t, c.Prepare(t.Context(), dir))
	require.NoError(t, c.Options.WriteSecrets(secrets))
	want, said := s.byBuildKit(t, c, dir, secrets)
	if s.onlyOracle {
		return
	}
	for _, m := range modes {
		if why := c.Options.Skip[m.name]; why != "" {
			t.Logf("not compared in mode %s: %s", m.name, why)
		}
	}
	for _, m := range in {
		t.Run(m.name, func(t *testing.T) { s.compare(t, c, m, want, said, dir, secrets) })
	}
}

// timed counts what a builder did, and how long it took.
func (s *suite) timed(what string, f func()) {
	start := time.Now()
	f()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spent[what] += time.Since(start)
	s.done[what]++
}

func (s *suite) report(t *testing.T) {
	var whats []string
	for w := range s.done {
		whats = append(whats, w)
	}
	sort.Strings(whats)
	for _, w := range whats {
		t.Logf("%-10s %4d builds, %6.1f s, %.2f s each", w, s.done[w], s.spent[w].Seconds(), s.spent[w].Seconds()/float64(s.done[w]))
	}
}

// byBuildKit gives BuildKit's images, or what it says of a case that fails.
func (s *suite) byBuildKit(t *testing.T, c conformance.Case, dir, secrets string) (images map[string]*conformance.Image, said string) {
	in := conformance.Inputs{Name: c.Name, Dir: dir, SecretDir: secrets, Base: s.base,
		Ref: s.registry + "/buildkit/" + strings.ToLower(c.Name) + ":1"}
	var out []byte
	var err error
	s.builds.Lock()
	s.timed("buildkit", func() {
		// BuildKit keeps one context for all builds of one client, and tells a
		// file that changed by size and time, which many cases have in common.
		out, err = exec.CommandContext(t.Context(), s.oracle.Buildctl, "--addr", s.oracle.Addr,
			"prune", "--filter", "type==source.local").CombinedOutput()
		if err != nil {
			return
		}
		out, err = exec.CommandContext(t.Context(), s.oracle.Buildctl,
			append([]string{"--addr", s.oracle.Addr}, c.Options.BuildctlArgs(in)...)...).CombinedOutput()
	})
	s.builds.Unlock()
	if c.Options.Fails != "" {
		require.Error(t, err, "BuildKit built it")
		require.Contains(t, string(out), c.Options.Fails, "what BuildKit says")
		return nil, string(out)
	}
	require.NoError(t, err, "%s", out)
	images, err = conformance.LoadAll(t.Context(), in.Ref)
	require.NoError(t, err)
	return images, ""
}

func (s *suite) compare(t *testing.T, c conformance.Case, m mode, want map[string]*conformance.Image, said, dir, secrets string) {
	in := conformance.Inputs{Name: c.Name, Dir: dir, SecretDir: secrets, Base: s.base,
		Ref: fmt.Sprintf("%s/layerwright/%s:%s", s.registry, strings.ToLower(c.Name), m.name)}
	var out []byte
	var err error
	if m.container {
		box := s.boxes.take(t)
		in.Dir, in.SecretDir = box.inside(dir), box.inside(secrets)
		s.timed(m.name, func() { out, err = box.run(t.Context(), append(c.Options.LayerwrightArgs(in), m.args...)) })
		defer func() { s.boxes.giveBack(t.Context(), box, t.Failed()) }()
	} else {
		store := filepath.Join(t.TempDir(), "store")
		args := append(append(c.Options.LayerwrightArgs(in), m.args...), "--store", store)
		if m.engine {
			args = append(args, "--engine", "buildkit="+s.oracle.Addr)
		}
		s.timed(m.name, func() { out, err = exec.CommandContext(t.Context(), parts.Binary(t), args...).CombinedOutput() })
	}
	if o := c.Options; o.Fails != "" {
		if m.engine && !strings.Contains(said, "\nDockerfile:") {
			o.Line = 0 // it cannot tell us more than it knows
		}
		refused(t, o, string(out), err)
		return
	}
	require.NoError(t, err, "%s", out)
	got, err := conformance.LoadAll(t.Context(), in.Ref)
	require.NoError(t, err)
	if diff := conformance.CompareAll(got, want, began); len(diff) > 0 {
		t.Errorf("%d differences from BuildKit's image:\n%s\n\n%s", len(diff), strings.Join(diff, "\n"), out)
	}
}

// refused requires what a case that both builders refuse must get: the exit
// code, the error's text, and the line it points at.
func refused(t *testing.T, o conformance.Options, out string, err error) {
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "Layerwright built it: %s", out)
	code := o.Code
	if code == 0 {
		code = 1
	}
	require.Equal(t, code, exit.ExitCode(), "exit code: %s", out)
	require.Contains(t, out, o.Fails)
	if o.Line > 0 {
		require.Regexp(t, fmt.Sprintf(`(?m)^(ERROR: )?Dockerfile:%d\b`, o.Line), out)
	}
}

// boxes are default containers, each for one build at a time: inplace builds
// follow one another in one container, as a job's do.
type boxes struct {
	root string // seen at /workspace
	mu   sync.Mutex
	free []*box
	made int
}

type box struct {
	name, root string
	docker     *parts.Docker
}

func (b *boxes) take(t *testing.T) *box {
	d := parts.Engine(t)
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.free); n > 0 {
		box := b.free[n-1]
		b.free = b.free[:n-1]
		return box
	}
	b.made++
	box := &box{name: fmt.Sprintf("box-%d", b.made), root: b.root, docker: d}
	d.Must(t, "run", "-d", "--name", box.name, "--network", "host", "-v", b.root+":/workspace",
		"--entrypoint", "/busybox/sh", parts.JobImage(t, d), "-c", "while sleep 1000; do :; done")
	return box
}

// giveBack keeps the container for the next build, unless the last one may have
// done something to it.
func (b *boxes) giveBack(ctx context.Context, box *box, failed bool) {
	if failed {
		_ = box.docker.Command(context.WithoutCancel(ctx), "rm", "-f", box.name).Run()
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free = append(b.free, box)
}

func (b *box) inside(path string) string {
	return "/workspace" + strings.TrimPrefix(path, b.root)
}

func (b *box) run(ctx context.Context, args []string) ([]byte, error) {
	out, err := b.docker.Command(ctx, append([]string{"exec", b.name, "/layerwright/bin/layerwright"}, args...)...).CombinedOutput()
	if errors.Is(ctx.Err(), context.Canceled) {
		return out, ctx.Err()
	}
	return out, err
}
