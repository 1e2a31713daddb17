package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/layerwright/layerwright/tests/parts"
)

// States of the world before a build.
const (
	cold    = "cold"
	cached  = "cached"
	warm    = "warm"
	warmNew = "warm-new"
)

var allStates = []string{cold, cached, warm, warmNew}

var stateTitles = map[string]string{
	cold:    "Cold",
	cached:  "Cold, with the cache written",
	warm:    "Warm, the destination has the image",
	warmNew: "Warm, the destination has nothing",
}

// result is one build.
type result struct {
	Workload string  `json:"workload"`
	Builder  string  `json:"builder"`
	State    string  `json:"state"`
	Round    int     `json:"round"`
	Seconds  float64 `json:"seconds"`
	// StepSeconds is how long commands of steps ran, at the same time or not.
	StepSeconds float64 `json:"step_seconds"`
	// BetweenSeconds is what lies between the commands of two steps.
	BetweenSeconds float64 `json:"between_seconds,omitempty"`
	PeakBytes      int64   `json:"peak_bytes"`
	requests
}

// bench is one run.
type bench struct {
	options  options
	progress io.Writer
	// dir is a directory for the run.
	dir      string
	registry string
	baseRef  string
	builders []namedBuilder
	log      *accessLog
	storage  *storage
	// serial makes names of repositories that were never used before.
	serial  int
	results []result
	program binary
}

type namedBuilder struct {
	name string
	builder
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.progress, format+"\n", args...) }

// setUpError says that this machine cannot have something that was asked for.
type setUpError struct{ err error }

func (e *setUpError) Error() string { return "set up: " + e.err.Error() }
func (e *setUpError) Unwrap() error { return e.err }

// measure starts everything, and measures all workloads.
func measure(ctx context.Context, set *parts.Set, o options, before report, progress io.Writer) (*report, error) {
	b := &bench{options: o, progress: progress, dir: set.Dir()}
	versions, err := b.setUp(ctx, set)
	if err != nil {
		return nil, &setUpError{err}
	}
	for _, w := range workloads() {
		if !slices.Contains(o.workloads, w.name) {
			continue
		}
		dir := filepath.Join(set.Dir(), "context", w.name)
		if err := w.write(dir, b.baseRef, o.scale); err != nil {
			return nil, fmt.Errorf("write the context of %s: %w", w.name, err)
		}
		for round := range o.repetitions {
			if err := b.round(ctx, w, dir, round); err != nil {
				return nil, err
			}
		}
	}
	versions, program := described(o, before, versions, b.program)
	rep := newReport(o, b.builders, versions, set.Dir(), append(before.Results, b.results...))
	rep.Program = program
	return rep, nil
}

// described gives the versions and the program of a report that keeps what was measured
// before: Layerwright's are those of then when only others were measured now.
func described(o options, before report, now map[string]string, program binary) (map[string]string, binary) {
	versions := maps.Clone(now)
	others := !slices.Contains(o.builders, inplace) && !slices.Contains(o.builders, overlay)
	if before.Versions["layerwright"] != "" && others {
		delete(versions, "layerwright")
		program = before.Program
	}
	for name, version := range before.Versions {
		if versions[name] == "" {
			versions[name] = version
		}
	}
	return versions, program
}

// setUp starts registry and builders, and gives their versions.
func (b *bench) setUp(ctx context.Context, set *parts.Set) (versions map[string]string, err error) {
	reg, err := set.Registry()
	if err != nil {
		return nil, err
	}
	b.registry, b.baseRef, b.log = reg.Addr, reg.Addr+"/base/"+b.options.base+":1", &accessLog{path: set.AccessLog()}
	b.say("preparing base image and builders")
	if err := pushBase(ctx, set, b.options.base, b.baseRef); err != nil {
		return nil, fmt.Errorf("push the base image: %w", err)
	}
	if b.storage, err = newStorage(reg.Dir); err != nil {
		return nil, err
	}
	versions = map[string]string{}
	for _, name := range b.options.builders {
		builder, err := newBuilder(ctx, set, name, reg.Addr)
		if err != nil {
			return nil, fmt.Errorf("builder %s: %w", name, err)
		}
		if builder == nil {
			b.say("%s is not installed: left out", name)
			continue
		}
		if versions[name], err = builder.version(ctx); err != nil {
			return nil, err
		}
		b.builders = append(b.builders, namedBuilder{name, builder})
	}
	if len(b.builders) == 0 {
		return nil, errors.New("no builder is left")
	}
	binary, err := set.Binary()
	if err != nil {
		return nil, err
	}
	if b.program, err = inspect(ctx, binary); err != nil {
		return nil, err
	}
	versions["layerwright"], err = firstLine(exec.CommandContext(ctx, binary, "version"))
	return versions, err
}

func pushBase(ctx context.Context, set *parts.Set, base, ref string) error {
	if base == small {
		return set.PushSmall(ctx, ref)
	}
	return set.PushDebian(ctx, ref)
}

// round builds one workload once by each builder in each state, builders in turn,
// and each round with another one first.
func (b *bench) round(ctx context.Context, w workload, dir string, round int) error {
	b.serial++
	names := func(builder, state string) string {
		return fmt.Sprintf("%s/bench%d/%s-%s-%s", b.registry, b.serial, w.name, builder, state)
	}
	first := round % len(b.builders)
	order := append(slices.Clone(b.builders[first:]), b.builders[:first]...)
	failed := map[string]bool{}
	if w.name == "big-layer" && b.options.limited() {
		order = append(order, namedBuilder{limit, &plain{dir: b.dir, registry: b.registry, scale: b.options.scale}})
	}
	for _, state := range allStates {
		for _, builder := range order {
			// A warm build needs what the cached one has left.
			needed := state == cached && (slices.Contains(b.options.states, warm) || slices.Contains(b.options.states, warmNew))
			if failed[builder.name] || !slices.Contains(b.options.states, state) && !needed || !measured(w, builder.name, state) {
				continue
			}
			j := job{dir: dir, ref: names(builder.name, state) + ":1", platforms: w.platforms}
			if state != cold {
				j.cache, j.read, j.write = names(builder.name, cached)+"/cache", state != cached, state == cached
			}
			if state == warm {
				j.ref = names(builder.name, cached) + ":1"
			}
			var err error
			if b.options.profiles != "" {
				j.profile, err = makeProfileDir(b.options.profiles, fmt.Sprintf("%s-%s-%s-%d", w.name, builder.name, state, round+1))
				if err != nil {
					return err
				}
			}
			r, err := b.one(ctx, builder, j)
			if err != nil {
				err = fmt.Errorf("%s by %s, %s: %w", w.name, builder.name, state, err)
				if !b.options.keepGoing || ctx.Err() != nil {
					return err
				}
				b.say("%v", err)
				failed[builder.name] = true
				continue
			}
			r.Workload, r.Builder, r.State, r.Round = w.name, builder.name, state, round
			b.say("%-10s round %d  %-8s %-8s %8.3f s  %5.1f MB  %4d requests  %9d bytes", w.name, round+1, state, builder.name,
				r.Seconds, float64(r.PeakBytes)/1e6, r.Counted, r.Received)
			for _, line := range r.each {
				if b.options.showRequests {
					b.say("    %s", line)
				}
			}
			if slices.Contains(b.options.states, state) {
				b.results = append(b.results, r)
			}
		}
	}
	return b.storage.clean()
}

// measured says whether a workload has a row for a builder in a state.
func measured(w workload, builder, state string) bool {
	switch {
	case builder == limit, w.aside:
		return state == cold
	case w.platforms != nil:
		return state == cold && builder != buildah
	default:
		return true
	}
}

// makeProfileDir makes a directory in parent, and gives its absolute path.
func makeProfileDir(parent, name string) (string, error) {
	dir, err := filepath.Abs(filepath.Join(parent, name))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, nil
}

func (b *bench) one(ctx context.Context, builder builder, j job) (result, error) {
	if err := builder.forget(ctx); err != nil {
		return result{}, err
	}
	if b.options.scale >= 0.5 {
		settle()
		if err := b.storage.uncache(); err != nil {
			return result{}, err
		}
	}
	if _, err := b.log.next(); err != nil {
		return result{}, err
	}
	t, err := builder.build(ctx, j)
	if err != nil {
		return result{}, err
	}
	asked, err := b.log.next()
	return result{Seconds: seconds(t.wall), StepSeconds: seconds(t.steps), BetweenSeconds: seconds(t.between), PeakBytes: t.peak, requests: asked}, err
}

func seconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e6 }
