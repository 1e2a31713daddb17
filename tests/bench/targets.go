package main

import (
	"fmt"
	"strings"
)

// target is what a number is to be at most.
type target struct {
	what, builder string
	most          float64
	// got is the number; ok says whether it was measured.
	got func(rep *report) (value float64, ok bool)
	// unit follows the number.
	unit string
}

// byBuildKit is a row's time by BuildKit's; own leaves out what steps' commands took.
func byBuildKit(workload, builder, state string, own bool) func(*report) (float64, bool) {
	return func(rep *report) (float64, bool) {
		r, ok := rep.find(workload, builder, state)
		if own {
			return r.OwnRatio, ok && r.OwnRatio > 0
		}
		return r.Ratio, ok && r.Ratio > 0
	}
}

// numberOf is one number of a row.
func numberOf(workload, builder, state string, number func(row) float64) func(*report) (float64, bool) {
	return func(rep *report) (float64, bool) {
		r, ok := rep.find(workload, builder, state)
		return number(r), ok
	}
}

// targets are what the project set itself (issues 4, 5 and 8).
func targets(scale float64) (out []target) {
	seconds := func(r row) float64 { return r.Seconds }
	for _, b := range []struct {
		name               string
		cold, joined, warm float64
	}{{inplace, 0.9, 0, 1}, {overlay, 0.6, 0.8, 0.8}} {
		add := func(what string, most float64, unit string, got func(*report) (float64, bool)) {
			out = append(out, target{what: what, builder: b.name, most: most, unit: unit, got: got})
		}
		for _, w := range []string{"many-files", "big-layer", "copy-tree", "app"} {
			add(w+", cold ÷ BuildKit", b.cold, "", byBuildKit(w, b.name, cold, false))
		}
		add("apt, cold, without the step's own time ÷ BuildKit", b.cold, "", byBuildKit("apt", b.name, cold, true))
		if b.joined > 0 {
			add("branches, cold ÷ BuildKit", b.joined, "", byBuildKit("branches", b.name, cold, false))
		} else { // its steps run one after another
			add("branches, cold", 12*scale+2, " s", numberOf("branches", b.name, cold, seconds))
		}
		for _, w := range workloads() {
			if w.aside {
				continue
			}
			most := b.warm
			if w.name == "copy-tree" {
				most = 0.5
			}
			add(w.name+", warm ÷ BuildKit", most, "", byBuildKit(w.name, b.name, warm, false))
			if w.context == nil {
				add(w.name+", warm", 0.25, " s", numberOf(w.name, b.name, warm, seconds))
			}
			add(w.name+", cold, writing the cache ÷ not", 1.15, "", func(rep *report) (float64, bool) {
				without, ok := rep.find(w.name, b.name, cold)
				with, both := rep.find(w.name, b.name, cached)
				return with.Seconds / without.Seconds, ok && both
			})
		}
		add("big-layer, cold ÷ the limit", 1.5, "", func(rep *report) (float64, bool) {
			r, ok := rep.find("big-layer", b.name, cold)
			least, both := rep.find("big-layer", limit, cold)
			return r.Seconds / least.Seconds, ok && both
		})
		add("big-layer, peak memory, cold", 64, " MiB", numberOf("big-layer", b.name, cold, mebibytes))
	}
	return append(out, stepTargets()...)
}

// judge is a table of the targets, those that are missed first.
func (rep *report) judge(line func(string, ...any)) {
	var met, missed []string
	for _, t := range targets(rep.Scale) {
		v, ok := t.got(rep)
		if !ok {
			continue
		}
		text := fmt.Sprintf("| %s | %s | %s%s | %.2f%s |", t.what, t.builder, strings.TrimSuffix(fmt.Sprintf("%.2f", t.most), ".00"), t.unit, v, t.unit)
		if v > t.most {
			missed = append(missed, text+fmt.Sprintf(" missed by %.0f %% |", 100*(v/t.most-1)))
		} else {
			met = append(met, text+" met |")
		}
	}
	if len(met)+len(missed) == 0 {
		return
	}
	line("\n## Targets\n")
	line("What the project set itself, %d met and %d missed. [What the time is spent on](profile.md#what-builds-spend-their-time-on).\n", len(met), len(missed))
	line("| what | builder | at most | measured | |\n|---|---|---:|---:|---|")
	for _, text := range append(missed, met...) {
		line("%s", text)
	}
}
