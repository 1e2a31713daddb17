package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// What a step costs beside its command: a hundred trivial ones, and small ones on
// trees of more and more files. "steps" and "files" select them.
const (
	stepsName = "steps"
	filesName = "files"
)

// treeSizes are how many files the trees of the workloads files-… have.
var treeSizes = []int{10_000, 100_000, 500_000}

// tinySteps is how many steps follow in them.
const tinySteps = 6

func filesWorkload(n int) string { return fmt.Sprintf("%s-%dk", filesName, n/1000) }

// stepWorkloads are measured cold, and have a section of their own.
func stepWorkloads() []workload {
	out := []workload{{name: stepsName, about: "a hundred RUNs of `true`, one after another", aside: true,
		dockerfile: func(base string, scale float64) string {
			return "FROM " + base + "\n" + strings.Repeat(run("true"), max(3, scaled(100, scale)))
		}}}
	for _, n := range treeSizes {
		out = append(out, workload{name: filesWorkload(n), about: fmt.Sprintf("%d empty files made by one RUN, then %d RUNs that change one of them", n, tinySteps), aside: true,
			dockerfile: func(base string, scale float64) string {
				const perDir = 1000
				text := "FROM " + base + "\n" + run(fmt.Sprintf(
					"mkdir /files && cd /files && for d in $(seq %d); do mkdir $d && cd $d && for f in $(seq %d); do : > $f || exit 1; done; cd ..; done", max(1, scaled(n, scale)/perDir), perDir))
				for i := range tinySteps {
					text += run(fmt.Sprintf("echo %d > /files/1/1", i))
				}
				return text
			}})
	}
	return out
}

// between is the time from the end of one step's command to the begin of the next
// one's, on average; the time after the first step, which may have made a great deal,
// is left out. 0 where there are fewer than three steps.
func between(list []span) time.Duration {
	if len(list) < 3 {
		return 0
	}
	list = slices.SortedFunc(slices.Values(list), func(a, b span) int { return a.to.Compare(b.to) })
	idle := list[len(list)-1].to.Sub(list[1].to)
	for _, s := range list[2:] {
		idle -= s.to.Sub(s.from)
	}
	return max(0, idle/time.Duration(len(list)-2))
}

// perFile is what one more file of the tree adds to a step, in seconds, from one size
// of the tree to the next.
func (rep *report) perFile(builder string, small, large int) (float64, bool) {
	a, ok := rep.find(filesWorkload(small), builder, cold)
	b, both := rep.find(filesWorkload(large), builder, cold)
	return (b.Between - a.Between) / (float64(large-small) * rep.Scale), ok && both
}

// steps is what a step costs beside its command.
func (rep *report) steps(line func(string, ...any)) {
	var names []string
	for _, w := range stepWorkloads() {
		if slices.ContainsFunc(rep.Rows, func(r row) bool { return r.Workload == w.name }) {
			names = append(names, w.name)
		}
	}
	if len(names) == 0 {
		return
	}
	line("\n## What a step costs\n")
	line("Milliseconds from the end of one step's command to the begin of the next one's, cold; and of the whole build")
	line("the seconds and the greatest memory in MB.\n")
	for _, w := range stepWorkloads() {
		if slices.Contains(names, w.name) {
			line("- **%s**: %s", w.name, w.about)
		}
	}
	line("\n| workload | builder | ms a step | build, s | memory, MB |\n|---|---|---:|---:|---:|")
	for _, w := range names {
		for _, b := range rep.builders {
			if r, ok := rep.find(w, b, cold); ok {
				line("| %s | %s | %.0f | %s | %.0f |", w, b, 1e3*r.Between, secondsText(r.Seconds), float64(r.PeakBytes)/1e6)
			}
		}
	}
	first := true
	for _, b := range rep.builders {
		for i := range len(treeSizes) - 1 {
			cost, ok := rep.perFile(b, treeSizes[i], treeSizes[i+1])
			if !ok {
				continue
			}
			if first {
				line("\n| builder | files | µs more a file |\n|---|---|---:|")
				first = false
			}
			line("| %s | %d to %d | %.2f |", b, treeSizes[i], treeSizes[i+1], 1e6*cost)
		}
	}
}

// stepTargets are those of issue 5.
func stepTargets() []target {
	step := func(r row) float64 { return 1e3 * r.Between }
	few, most := treeSizes[0], treeSizes[len(treeSizes)-1]
	return []target{
		{what: "a trivial step", builder: inplace, most: 60, unit: " ms", got: numberOf(stepsName, inplace, cold, step)},
		{what: "a trivial step", builder: overlay, most: 30, unit: " ms", got: numberOf(stepsName, overlay, cold, step)},
		{what: "a step, for each file of the tree", builder: inplace, most: 3, unit: " µs", got: func(rep *report) (float64, bool) {
			cost, ok := rep.perFile(inplace, few, most)
			return 1e6 * cost, ok
		}},
		// Nothing is walked: what is left is noise.
		{what: "a step, for each file of the tree", builder: overlay, most: 0.05, unit: " µs", got: func(rep *report) (float64, bool) {
			cost, ok := rep.perFile(overlay, few, most)
			return 1e6 * cost, ok
		}},
		{what: "500,000 files, peak memory", builder: inplace, most: 160, unit: " MiB", got: numberOf(filesWorkload(most), inplace, cold, mebibytes)},
		{what: "500,000 files, peak memory", builder: overlay, most: 160, unit: " MiB", got: numberOf(filesWorkload(most), overlay, cold, mebibytes)},
		{what: "the program's size", builder: inplace, most: 50, unit: " MB", got: func(rep *report) (float64, bool) { return float64(rep.Program.Bytes) / 1e6, rep.Program.Bytes > 0 }},
		{what: "start of the program to its first line", builder: inplace, most: 30, unit: " ms", got: func(rep *report) (float64, bool) {
			return 1e3 * rep.Program.StartSeconds, rep.Program.StartSeconds > 0
		}},
	}
}

func mebibytes(r row) float64 { return float64(r.PeakBytes) / (1 << 20) }

// binary is what there is to say of Layerwright's program.
type binary struct {
	Bytes int64 `json:"bytes"`
	// StartSeconds is from its start to its end where it prints one line.
	StartSeconds float64 `json:"start_seconds"`
}

// inspect measures the program; the median of some starts.
func inspect(ctx context.Context, path string) (binary, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return binary{}, err
	}
	var took []float64
	for range 21 {
		start := time.Now()
		if out, err := exec.CommandContext(ctx, path, "version").CombinedOutput(); err != nil {
			return binary{}, fmt.Errorf("%s version: %w\n%s", path, err, out)
		}
		took = append(took, seconds(time.Since(start)))
	}
	return binary{fi.Size(), median(took)}, nil
}
