// Command bench measures Layerwright and BuildKit side by side: six workloads,
// each cold, cold while a cache is written, and warm from a cache in a real
// registry, in turn in one run on one machine; and, cold only, a Go service for one
// platform and for four (-w cross), a hundred steps (-w steps), and steps on large trees
// (-w files). It starts everything that it needs, ends it,
// and writes tables, charts and JSON.
//
//	go run ./tests/bench [flags]        (make bench FLAGS="…")
//
// It measures; it judges nothing and knows Layerwright only as a program. The
// numbers of different runs are not to be compared: machines are noisy, ratios
// within one run are what counts.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/layerwright/layerwright/tests/parts"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := program(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// Base images.
const (
	debian = "debian"
	small  = "small"
)

// What builds happen on.
const (
	fresh       = "fresh"
	machineDisk = "machine"
)

// options are the flags.
type options struct {
	workloads, builders, states []string
	repetitions                 int
	scale                       float64
	// base is the base image, debian or small.
	base string
	// output is the directory for benchmarks.md and benchmarks/; empty prints
	// the document only.
	output string
	// add keeps what the report in output has and what is not measured again.
	add bool
	// keepGoing counts a failed build as a failure of that row only.
	keepGoing bool
	// disk is where builds happen: fresh, or machine.
	disk string
	// showRequests prints each request to the registry.
	showRequests bool
	// profiles is a directory that gets what Layerwright's --profile writes, in
	// WORKLOAD-BUILDER-STATE-ROUND; empty keeps none.
	profiles string
}

func parse(args []string, problems io.Writer) (options, error) {
	var o options
	f := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	f.SetOutput(problems)
	f.SortFlags = false
	f.StringSliceVarP(&o.workloads, "workload", "w", workloadNames(), "which workloads; cross and files stand for all of them")
	f.StringSliceVarP(&o.builders, "builder", "b", []string{inplace, overlay, buildKit, buildah},
		"which builders; buildah is left out with a word where it is not installed")
	f.StringSliceVarP(&o.states, "state", "s", allStates,
		"cold, cached (cold, writing a cache), warm (the destination has the image), warm-new (it has not)")
	f.IntVarP(&o.repetitions, "repetitions", "n", 3, "how often each is measured; 7 for the record")
	f.Float64Var(&o.scale, "scale", 1, "factor on files, bytes and sleeps")
	f.StringVar(&o.base, "base", debian, "base image: debian, or small (busybox, no apt), to try this program")
	f.StringVarP(&o.output, "output", "o", "", "write benchmarks.md, and charts and JSON in benchmarks/, to this directory instead of printing")
	f.BoolVar(&o.add, "add", false, "keep what the report in --output has of other workloads, builders and states")
	f.BoolVar(&o.keepGoing, "keep-going", false, "go on when a build fails; its row stays empty")
	f.StringVar(&o.disk, "disk", fresh, "fresh, a new ext4 in a file, or machine, the one of /tmp as it is")
	f.BoolVar(&o.showRequests, "show-requests", false, "print each request of each build")
	f.StringVar(&o.profiles, "profiles", "", "keep profiles of Layerwright's builds in this directory (they cost a little time)")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	for name, members := range map[string][]string{crossName: {crossOne, crossFour},
		filesName: {filesWorkload(treeSizes[0]), filesWorkload(treeSizes[1]), filesWorkload(treeSizes[2])}} {
		if i := slices.Index(o.workloads, name); i >= 0 {
			o.workloads = slices.Replace(o.workloads, i, i+1, members...)
		}
	}
	for _, c := range []struct{ given, known []string }{
		{o.workloads, workloadNames()}, {o.builders, []string{inplace, overlay, buildKit, buildah}}, {o.states, allStates}, {[]string{o.base}, []string{debian, small}},
		{[]string{o.disk}, []string{fresh, machineDisk}},
	} {
		for _, g := range c.given {
			if !slices.Contains(c.known, g) {
				return o, fmt.Errorf("no %q: there are %s", g, strings.Join(c.known, ", "))
			}
		}
	}
	if f.NArg() > 0 || o.repetitions < 1 || o.scale <= 0 || o.scale > 10 {
		return o, fmt.Errorf("flags only, at least one repetition, a scale of up to 10")
	}
	if o.base == small {
		o.workloads = slices.DeleteFunc(o.workloads, func(w string) bool { return w == "apt" })
	}
	return o, nil
}

// program is everything; the report goes to out unless it goes to files, and
// progress to problems.
func program(ctx context.Context, args []string, out, problems io.Writer) error {
	o, err := parse(args, problems)
	if err != nil {
		return err
	}
	set, err := parts.New()
	if err != nil {
		return err
	}
	defer set.Close()
	if o.disk == fresh {
		remove, err := freshDisk(ctx, set.Dir())
		if err != nil {
			return err
		}
		set.AtEnd(remove)
	}
	before, err := earlier(o)
	if err != nil {
		return err
	}
	rep, err := measure(ctx, set, o, before, problems)
	if err != nil {
		return err
	}
	if o.output == "" {
		_, err = io.WriteString(out, rep.markdown())
		return err
	}
	return rep.write(o.output)
}
