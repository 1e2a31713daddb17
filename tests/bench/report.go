package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report is a finished run.
type report struct {
	Date        string            `json:"date"`
	Machine     machine           `json:"machine"`
	Versions    map[string]string `json:"versions"`
	Base        string            `json:"base"`
	Scale       float64           `json:"scale"`
	Repetitions int               `json:"repetitions"`
	Program     binary            `json:"program"`
	Rows        []row             `json:"medians"`
	Results     []result          `json:"results"`

	builders []string
}

// machine says what was measured on, without naming it.
type machine struct {
	Cores    int    `json:"cores"`
	MemoryGB int    `json:"memory_gb"`
	Kernel   string `json:"kernel"`
	Arch     string `json:"arch"`
	// Storage is the file system that the builds were on.
	Storage string `json:"storage"`
}

// row is the medians of one workload, builder and state.
type row struct {
	Workload string `json:"workload"`
	Builder  string `json:"builder"`
	State    string `json:"state"`
	Builds   int    `json:"builds"`
	// Seconds are the median, Least and Most the extremes.
	Seconds float64 `json:"seconds"`
	Least   float64 `json:"least_seconds"`
	Most    float64 `json:"most_seconds"`
	// OwnSeconds are without what the steps' commands took.
	OwnSeconds float64 `json:"own_seconds"`
	// Between is the seconds between the commands of two steps.
	Between float64 `json:"between_seconds,omitempty"`
	// Ratio is Seconds by BuildKit's, OwnRatio the same of OwnSeconds; 0 where
	// BuildKit was not measured.
	Ratio    float64 `json:"ratio,omitempty"`
	OwnRatio float64 `json:"own_ratio,omitempty"`
	// PeakBytes is the greatest, the others are medians.
	PeakBytes int64 `json:"peak_bytes"`
	Requests  int   `json:"requests"`
	Apart     int   `json:"pings_and_permission_requests"`
	Mounts    int   `json:"mounts"`
	Received  int64 `json:"received_bytes"`
}

func median[T int | int64 | float64](values []T) T {
	v := slices.Sorted(slices.Values(values))
	if len(v)%2 == 1 {
		return v[len(v)/2]
	}
	return (v[len(v)/2-1] + v[len(v)/2]) / 2
}

func newReport(o options, builders []namedBuilder, versions map[string]string, dir string, results []result) *report {
	rep := &report{Date: time.Now().UTC().Format(time.DateOnly), Machine: thisMachine(dir), Versions: versions,
		Base: o.base, Scale: o.scale, Repetitions: o.repetitions, Results: results}
	for _, b := range builders {
		rep.builders = append(rep.builders, b.name)
	}
	for _, r := range results { // those of an earlier run
		if r.Builder != limit && !slices.Contains(rep.builders, r.Builder) {
			rep.builders = append(rep.builders, r.Builder)
		}
	}
	// In the order in which people read, not in that in which it was measured.
	sort.Slice(rep.builders, func(i, j int) bool {
		order := []string{inplace, overlay, buildKit, buildah}
		return slices.Index(order, rep.builders[i]) < slices.Index(order, rep.builders[j])
	})
	for _, w := range workloadNames() {
		for _, s := range allStates {
			for _, b := range append(slices.Clone(rep.builders), limit) {
				if r, ok := summary(results, w, b, s); ok {
					rep.Rows = append(rep.Rows, r)
				}
			}
		}
	}
	for i, r := range rep.Rows {
		if k, ok := rep.find(r.Workload, buildKit, r.State); ok && k.Seconds > 0 && k.OwnSeconds > 0 {
			rep.Rows[i].Ratio, rep.Rows[i].OwnRatio = r.Seconds/k.Seconds, r.OwnSeconds/k.OwnSeconds
		}
	}
	return rep
}

func summary(results []result, workload, builder, state string) (row, bool) {
	var secs, own, gaps []float64
	var asked, apart, mounts []int
	var received, peaks []int64
	for _, r := range results {
		if r.Workload != workload || r.Builder != builder || r.State != state {
			continue
		}
		secs, own = append(secs, r.Seconds), append(own, max(0.001, r.Seconds-r.StepSeconds))
		gaps = append(gaps, r.BetweenSeconds)
		asked, apart, mounts = append(asked, r.Counted), append(apart, r.Pings+r.Permissions), append(mounts, r.Mounts)
		received, peaks = append(received, r.Received), append(peaks, r.PeakBytes)
	}
	if len(secs) == 0 {
		return row{}, false
	}
	return row{Workload: workload, Builder: builder, State: state, Builds: len(secs),
		Seconds: median(secs), Least: slices.Min(secs), Most: slices.Max(secs), OwnSeconds: median(own), Between: median(gaps),
		PeakBytes: slices.Max(peaks), Requests: median(asked), Apart: median(apart), Mounts: median(mounts), Received: median(received)}, true
}

func (rep *report) find(workload, builder, state string) (row, bool) {
	for _, r := range rep.Rows {
		if r.Workload == workload && r.Builder == builder && r.State == state {
			return r, true
		}
	}
	return row{}, false
}

// measured are the workloads, or states, of which there is a row.
func (rep *report) measured(all []string, of func(row) string) []string {
	var out []string
	for _, a := range all {
		if slices.ContainsFunc(rep.Rows, func(r row) bool { return of(r) == a }) {
			out = append(out, a)
		}
	}
	return out
}

func (rep *report) states() []string {
	return rep.measured(allStates, func(r row) string { return r.State })
}

// workloads are those that were measured and have no section of their own.
func (rep *report) workloads() []string {
	var names []string
	for _, w := range workloads() {
		if !w.aside {
			names = append(names, w.name)
		}
	}
	return rep.measured(names, func(r row) string { return r.Workload })
}

// storages are names of file systems by the numbers of statfs(2).
var storages = map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
	unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay", 0x2fc12fc1: "zfs"}

func thisMachine(dir string) machine {
	m := machine{Cores: runtime.NumCPU(), Arch: runtime.GOARCH}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		m.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.MemoryGB = int((uint64(info.Totalram)*uint64(info.Unit) + 1<<29) >> 30)
	}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil {
		if m.Storage = storages[fs.Type]; m.Storage == "" {
			m.Storage = fmt.Sprintf("file system %#x", fs.Type)
		}
	}
	return m
}

// earlier is the report in the output without what is measured again (options.add):
// what is compared is best measured in one run, and the rest may come later.
func earlier(o options) (rep report, err error) {
	if !o.add {
		return report{}, nil
	}
	b, err := os.ReadFile(filepath.Join(o.output, "benchmarks", "results.json"))
	if err != nil {
		return report{}, fmt.Errorf("--add: %w", err)
	}
	if err := json.Unmarshal(b, &rep); err != nil {
		return report{}, fmt.Errorf("--add: read results.json: %w", err)
	}
	if rep.Scale != o.scale || rep.Base != o.base {
		return report{}, fmt.Errorf("--add: the report is of scale %g on the %s base: measure with the same", rep.Scale, rep.Base)
	}
	again := slices.Clone(o.builders)
	if o.limited() {
		again = append(again, limit)
	}
	rep.Results = slices.DeleteFunc(rep.Results, func(r result) bool {
		return slices.Contains(o.workloads, r.Workload) && slices.Contains(again, r.Builder) && slices.Contains(o.states, r.State)
	})
	return rep, nil
}

// limited says whether the limit is measured: in the rounds of the builder that it is
// to be held against, and not when others are added.
func (o options) limited() bool { return slices.Contains(o.builders, inplace) }

// write writes benchmarks.md, and below benchmarks the charts and the JSON.
func (rep *report) write(dir string) error {
	below := filepath.Join(dir, "benchmarks")
	if err := os.MkdirAll(below, 0o755); err != nil {
		return err
	}
	for _, s := range rep.states() {
		if err := os.WriteFile(filepath.Join(below, s+".svg"), []byte(rep.chart(s)), 0o644); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(below, "results.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "benchmarks.md"), []byte(rep.markdown()), 0o644)
}

func (rep *report) markdown() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Benchmarks\n")
	line("Written by `make bench`, which starts all it needs and measures this on any Linux machine")
	line("for root with Docker's engine, runc and mmdebstrap (`make test-deps`).\n")
	line("%s; %d cores, %d GB of memory, Linux %s on %s, storage %s. Medians of %s, builders in turn.",
		rep.Date, rep.Machine.Cores, rep.Machine.MemoryGB, rep.Machine.Kernel, rep.Machine.Arch, rep.Machine.Storage, rep.repetitions())
	if rep.Scale != 1 || rep.Base != debian {
		line("\n**Workloads are of %g times their size, on the %s base: these numbers try the tool and say nothing of the builders.**", rep.Scale, rep.Base)
	}
	line("\n## Builders\n")
	for _, name := range rep.builders {
		line("- **%s**: %s (%s)", name, titles[name], rep.Versions[name])
	}
	line("\nLayerwright is %s. Everybody pushes to, and has the cache in, one registry", rep.Versions["layerwright"])
	base := map[string]string{debian: "Debian bookworm minbase", small: "busybox"}[rep.Base]
	line("(distribution) on loopback; the base image is %s. Timed is the builder's process:", base)
	line("neither the start of the container, nor that of the daemon, nor the end of either. Nothing is local")
	line("when a build starts: a fresh container, a fresh store, a pruned daemon.\n")
	line("## Workloads\n")
	for _, w := range workloads() {
		if slices.Contains(rep.workloads(), w.name) {
			line("- **%s**: %s", w.name, w.about)
		}
	}
	for _, s := range rep.states() {
		line("\n## %s\n", stateTitles[s])
		line("![Seconds, %s](benchmarks/%s.svg)\n", strings.ToLower(stateTitles[s]), s)
		rep.seconds(line, s)
	}
	rep.cacheCost(line)
	rep.limit(line)
	rep.cross(line)
	rep.steps(line)
	rep.judge(line)
	line("\n## Peak memory\n")
	line("Megabytes, the greatest of all rounds: the builder's own processes, client and daemon together, an executable's pages once, not what steps run.")
	line("Of a build that takes less than a twentieth of a second there may be nothing to see.\n")
	rep.table(line, func(r row) string {
		if r.PeakBytes == 0 {
			return "–"
		}
		return fmt.Sprintf("%.0f", float64(r.PeakBytes)/1e6)
	})
	line("\n## Requests and bytes\n")
	line("Requests to the registry, from its log; behind + those that only ask whether the registry is one (`GET /v2/`) and whether")
	line("a push would be allowed (an upload begun and ended without data); then the bytes of its answers.\n")
	rep.table(line, func(r row) string { return fmt.Sprintf("%d + %d, %s", r.Requests, r.Apart, size(r.Received)) })
	line("\n[All results](benchmarks/results.json)")
	return b.String()
}

// repetitions are how many builds there are of each, where that differs from row to
// row the least and the most.
func (rep *report) repetitions() string {
	least, most := rep.Repetitions, 0
	for _, r := range rep.Rows {
		least, most = min(least, r.Builds), max(most, r.Builds)
	}
	if least >= most {
		return fmt.Sprint(least)
	}
	return fmt.Sprintf("%d to %d", least, most)
}

// seconds is the table of one state: medians, extremes, ratios.
func (rep *report) seconds(line func(string, ...any), state string) {
	withRatio := slices.Contains(rep.builders, buildKit)
	head, rule := "| workload |", "|---|"
	for _, b := range rep.builders {
		head, rule = head+" "+b+" |", rule+"---:|"
		if withRatio && b != buildKit {
			head, rule = head+" ÷ BuildKit | own time ÷ BuildKit |", rule+"---:|---:|"
		}
	}
	line("%s\n%s", head, rule)
	for _, w := range rep.workloads() {
		text := "| " + w + " |"
		for _, b := range rep.builders {
			r, ok := rep.find(w, b, state)
			ratios := []float64{r.Ratio, r.OwnRatio}
			if text += " – |"; ok {
				text = strings.TrimSuffix(text, "– |") + fmt.Sprintf("%s (%s–%s) |", secondsText(r.Seconds), secondsText(r.Least), secondsText(r.Most))
			}
			for _, ratio := range ratios {
				if !withRatio || b == buildKit {
					continue
				}
				if text += " – |"; ratio > 0 {
					text = strings.TrimSuffix(text, "– |") + fmt.Sprintf("%.2f |", ratio)
				}
			}
		}
		line("%s", text)
	}
	line("\nSeconds: median (least–most). Own time is without what the steps' commands took by themselves.")
}

// cacheCost compares cold builds with and without writing a cache.
func (rep *report) cacheCost(line func(string, ...any)) {
	if states := rep.states(); !slices.Contains(states, cold) || !slices.Contains(states, cached) {
		return
	}
	line("\n## What writing the cache costs\n")
	line("A cold build that writes the cache ÷ a cold build that does not.\n")
	line("| workload | %s |\n|---|%s", strings.Join(rep.builders, " | "), strings.Repeat("---:|", len(rep.builders)))
	for _, w := range rep.workloads() {
		text := "| " + w + " |"
		for _, b := range rep.builders {
			without, ok := rep.find(w, b, cold)
			with, both := rep.find(w, b, cached)
			if text += " – |"; ok && both {
				text = strings.TrimSuffix(text, "– |") + fmt.Sprintf("%.2f |", with.Seconds/without.Seconds)
			}
		}
		line("%s", text)
	}
}

// limit compares a cold big-layer build with what plain Go code needs.
func (rep *report) limit(line func(string, ...any)) {
	least, ok := rep.find("big-layer", limit, cold)
	if !ok {
		return
	}
	line("\n## The limit\n")
	line("Plain Go code that writes the random bytes of *big-layer*, then hashes, compresses and sends them while it reads them,")
	line("takes %s seconds in the same rounds. A cold build of *big-layer* besides fetches and unpacks the base, and copies the bytes", secondsText(least.Seconds))
	line("to another stage:\n")
	line("| builder | ÷ the limit |\n|---|---:|")
	for _, b := range rep.builders {
		if r, ok := rep.find("big-layer", b, cold); ok {
			line("| %s | %.2f |", b, r.Seconds/least.Seconds)
		}
	}
}

// table has a row for each workload and builder, and a column for each state.
func (rep *report) table(line func(string, ...any), cell func(row) string) {
	states := rep.states()
	line("| workload | builder | %s |\n|---|---|%s", strings.Join(states, " | "), strings.Repeat("---:|", len(states)))
	for _, w := range rep.workloads() {
		for _, b := range rep.builders {
			text := "| " + w + " | " + b + " |"
			for _, s := range states {
				if r, ok := rep.find(w, b, s); ok {
					text += " " + cell(r) + " |"
				} else {
					text += " – |"
				}
			}
			line("%s", text)
		}
	}
}

func secondsText(s float64) string {
	if s < 1 {
		return fmt.Sprintf("%.3f", s)
	}
	return fmt.Sprintf("%.2f", s)
}

func size(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	default:
		return fmt.Sprintf("%d B", n)
	}
}
