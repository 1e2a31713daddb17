package random_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/conformance"
	"github.com/layerwright/layerwright/tests/conformance/random"
	"github.com/layerwright/layerwright/tests/parts"
)

func TestMain(m *testing.M) { parts.Run(m) }

// modes are the ways to run Layerwright, in turn. inplace runs in a default
// container.
var modes = [][]string{
	{"--isolation", "namespaces", "--snapshots", "overlay"},
	{"--isolation", "inplace"},
	{"--isolation", "namespaces", "--snapshots", "flat"},
	{"--isolation", "chroot"},
}

// atLeast is how many plans have to be compared for the test to mean something.
const atLeast = 100

// looked is the last seed whose plan was looked at when the generator was last
// changed. Continuous integration stops there: a new difference is for the one who
// explores, by LAYERWRIGHT_RANDOM_FOR or LAYERWRIGHT_RANDOM_FROM, to look at.
const looked = 380

// TestRandomDockerfiles compares as many random plans as
// LAYERWRIGHT_RANDOM_FOR allows (five minutes in CI, a minute otherwise), from
// LAYERWRIGHT_RANDOM_FROM on; LAYERWRIGHT_RANDOM_SEED compares just one. What
// differs is shrunk and, with LAYERWRIGHT_RANDOM_KEEP, written below that
// directory as a case of the suite.
func TestRandomDockerfiles(t *testing.T) {
	limit, from := time.Minute, uint64(1)
	if os.Getenv("CI") == "true" {
		limit = 5 * time.Minute
	}
	if s := os.Getenv("LAYERWRIGHT_RANDOM_FOR"); s != "" {
		d, err := time.ParseDuration(s)
		require.NoError(t, err)
		limit = d
	}
	number := func(name string) (uint64, bool) {
		s := os.Getenv(name)
		if s == "" {
			return 0, false
		}
		n, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		return n, true
	}
	w := newWorld(t)
	if seed, ok := number("LAYERWRIGHT_RANDOM_SEED"); ok {
		w.check(t, seed, true)
		return
	}
	if n, ok := number("LAYERWRIGHT_RANDOM_FROM"); ok {
		from = n
	}
	end := time.Now().Add(limit)
	explores := os.Getenv("LAYERWRIGHT_RANDOM_FOR") != "" || os.Getenv("LAYERWRIGHT_RANDOM_FROM") != ""
	var mu sync.Mutex
	next := from
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for {
				mu.Lock()
				seed := next
				next++
				mu.Unlock()
				if !explores && seed > looked || time.Now().After(end) && seed-from >= atLeast || t.Context().Err() != nil {
					return
				}
				w.check(t, seed, false)
			}
		})
	}
	workers.Wait()
	t.Logf("%d plans compared: %d built by both, %d refused by both; by mode %v", w.built+w.refused, w.built, w.refused, w.byMode)
	require.GreaterOrEqual(t, w.built+w.refused, atLeast)
	require.Greater(t, w.built, w.refused, "a plan is mostly valid")
}

// world is what all comparisons share.
type world struct {
	registry, base string
	oracle         *parts.BuildKit
	binary         string
	dir            string
	// began is before every build: BuildKit may take what one made for
	// another.
	began time.Time
	// building lets BuildKit build one plan at a time: two that copy equal
	// content with other times would share a result.
	building sync.Mutex

	mu                    sync.Mutex
	built, refused, round int
	byMode                map[string]int
	box                   string // a default container, made when first needed
	boxing                sync.Mutex
}

func newWorld(t *testing.T) *world {
	w := &world{registry: parts.SharedRegistry(t).Addr, oracle: parts.Oracle(t), binary: parts.Binary(t), dir: t.TempDir(), began: time.Now().Truncate(time.Second), byMode: map[string]int{}}
	require.NoError(t, os.Chmod(w.dir, 0o755))
	w.base = w.registry + "/random-base:1"
	parts.PushBase(t, w.base, parts.SmallBase(t))
	return w
}

// check compares the plan of a seed in the mode that the seed says.
func (w *world) check(t *testing.T, seed uint64, loud bool) {
	p := random.New(seed)
	mode := modes[seed%uint64(len(modes))]
	built, differences, said := w.compare(t, p, mode)
	if loud {
		t.Logf("%s\n%s", p, said)
	}
	w.mu.Lock()
	if built {
		w.built++
	} else {
		w.refused++
	}
	w.byMode[strings.Join(mode[1:], " ")]++
	w.mu.Unlock()
	if differences == "" {
		return
	}
	least := random.Shrink(p, 60, func(q random.Plan) bool { _, d, _ := w.compare(t, q, mode); return d != "" })
	if _, again, saidAgain := w.compare(t, least, mode); again != "" {
		differences, said = again, saidAgain
	} else {
		differences = "(not seen again when compared once more)\n" + differences
	}
	t.Errorf("mode %v\n%s\n--- differences\n%s\n--- said\n%s", mode, least, differences, said)
	if keep := os.Getenv("LAYERWRIGHT_RANDOM_KEEP"); keep != "" {
		rule := fmt.Sprintf("Found by the generator, seed %d, %s.", seed, strings.Join(mode[1:], " "))
		if err := least.WriteCase(filepath.Join(keep, fmt.Sprintf("random-%d", seed)), rule); err != nil {
			t.Error(err)
		}
	}
}

// compare builds a plan both ways. differences is empty where the images are the
// same or both refuse.
func (w *world) compare(t *testing.T, p random.Plan, mode []string) (built bool, differences, said string) {
	w.mu.Lock()
	w.round++
	name := fmt.Sprintf("r%d-%d", p.Seed, w.round)
	w.mu.Unlock()
	folder, dir := filepath.Join(w.dir, name+"-case"), filepath.Join(w.dir, name)
	defer os.RemoveAll(dir)
	defer os.RemoveAll(folder)
	if err := errors.Join(p.WriteCase(folder, "random"), os.Mkdir(dir, 0o755), conformance.Case{Name: name, Dir: folder}.Prepare(t.Context(), dir)); err != nil {
		t.Errorf("the context of seed %d cannot be made: %v", p.Seed, err)
		return false, "", ""
	}
	in := conformance.Inputs{Name: name, Dir: dir, Base: w.base, Ref: w.registry + "/random/buildkit:" + name}
	theirs, theirErr := w.byBuildKit(t.Context(), in)
	in.Ref = w.registry + "/random/layerwright:" + name
	ours, ourErr := w.byLayerwright(t, in, mode)
	said = "BuildKit:\n" + tail(theirs) + "Layerwright:\n" + tail(ours)
	switch {
	case theirErr != nil && ourErr != nil:
		if code := exitCode(ourErr); code != 1 && code != 2 {
			return false, fmt.Sprintf("both refuse, Layerwright with exit code %d", code), said
		}
		return false, "", said
	case theirErr != nil:
		return false, "only BuildKit refuses", said
	case ourErr != nil:
		return false, "only Layerwright refuses", said
	}
	want, err := conformance.LoadAll(t.Context(), w.registry+"/random/buildkit:"+name)
	if err != nil {
		return true, err.Error(), said
	}
	got, err := conformance.LoadAll(t.Context(), in.Ref)
	if err != nil {
		return true, err.Error(), said
	}
	return true, strings.Join(conformance.CompareAll(got, want, w.began), "\n"), said
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

func tail(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n") + "\n"
}

func (w *world) byBuildKit(ctx context.Context, in conformance.Inputs) ([]byte, error) {
	w.building.Lock()
	defer w.building.Unlock()
	// BuildKit tells a file of a context that changed by size and time.
	if out, err := exec.CommandContext(ctx, w.oracle.Buildctl, "--addr", w.oracle.Addr, "prune", "--filter", "type==source.local").CombinedOutput(); err != nil {
		return out, err
	}
	return exec.CommandContext(ctx, w.oracle.Buildctl, append([]string{"--addr", w.oracle.Addr}, conformance.Options{}.BuildctlArgs(in)...)...).CombinedOutput()
}

func (w *world) byLayerwright(t *testing.T, in conformance.Inputs, mode []string) ([]byte, error) {
	if mode[1] != "inplace" {
		store := in.Dir + ".store"
		defer os.RemoveAll(store)
		args := append(append(conformance.Options{}.LayerwrightArgs(in), mode...), "--store", store)
		return exec.CommandContext(t.Context(), w.binary, args...).CombinedOutput()
	}
	// One step at a time has "/" of a container.
	w.boxing.Lock()
	defer w.boxing.Unlock()
	d := parts.Engine(t)
	if w.box == "" {
		w.box = "random-box"
		d.Must(t, "run", "-d", "--name", w.box, "--network", "host", "-v", w.dir+":/workspace", "--entrypoint", "/busybox/sh",
			parts.JobImage(t, d), "-c", "while sleep 1000; do :; done")
	}
	in.Dir = "/workspace" + strings.TrimPrefix(in.Dir, w.dir)
	args := append([]string{"exec", w.box, "/layerwright/bin/layerwright"}, conformance.Options{}.LayerwrightArgs(in)...)
	return d.Command(t.Context(), append(args, mode...)...).CombinedOutput()
}

func TestOneSeedIsOnePlan(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(300) {
		text := random.New(seed).String()
		require.Equal(t, text, random.New(seed).String())
		seen[text] = true
	}
	require.Len(t, seen, 300, "and another seed another one")
}

// TestThePlansHaveEverything: a grammar with a rule that never comes up shows
// nothing about it.
func TestThePlansHaveEverything(t *testing.T) {
	var all strings.Builder
	for seed := range uint64(2000) {
		all.WriteString(random.New(seed).String())
	}
	for _, want := range []string{"FROM scratch", "FROM s1", "COPY --from=", "--chown=", "--chmod=", "--link", "--parents", "--exclude=", "ADD ", "<<EOF",
		"--mount=type=bind", "type=tmpfs", "type=cache", "from=s0", "--network=", "WORKDIR", "USER", "ENV", "ARG V", "LABEL", "EXPOSE", "VOLUME", "STOPSIGNAL",
		"HEALTHCHECK", "CMD", "ENTRYPOINT", "ONBUILD", "ONBUILD RUN", "SHELL", "#!/bin/sh", "mkfifo", "ln -s", "/hl/", "chown -h", "touch -d", "mv ", ".dockerignore", "missing"} {
		require.Contains(t, all.String(), want)
	}
}

func TestShrinkingFindsTheOneThingThatMatters(t *testing.T) {
	for seed := range uint64(200) {
		p := random.New(seed)
		has := func(q random.Plan) bool { return strings.Contains(q.Dockerfile(), "--chmod=600") }
		if !has(p) {
			continue
		}
		least := random.Shrink(p, 10_000, has)
		require.True(t, has(least))
		require.Empty(t, least.Context)
		require.Empty(t, least.Ignore)
		steps := 0
		for _, s := range least.Stages {
			steps += len(s.Steps)
		}
		require.Equal(t, 1, steps, "%s", least)
		require.LessOrEqual(t, len(least.Stages), 2, "its own stage and the last one:\n%s", least)
	}
}
