package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"sort"
	"strings"
)

// Bounds of what is printed: a report is read by people.
const (
	maxDockerfile  = 200 // lines
	maxDifferences = 100
	maxOutput      = 25 // lines of a builder that refused
)

// print writes what a bug report needs. Values of secrets are not in it; build
// arguments are.
func (res *result) print(w io.Writer, r *request) {
	fmt.Fprintf(w, "Layerwright  %s\nBuildKit     %s\nmachine      %s/%s, Linux %s\n", res.layerwright.version, res.buildkit.version, runtime.GOOS, runtime.GOARCH, kernel())
	fmt.Fprintf(w, "isolation    %s, snapshots %s%s\n", r.isolation, r.snapshots, chosen(res.layerwright.output))
	for _, line := range r.settings() {
		fmt.Fprintf(w, "%s\n", line)
	}
	fmt.Fprintf(w, "\nDockerfile\n%s\n", r.text())
	fmt.Fprintf(w, "Layerwright  %s\nBuildKit     %s\n", res.layerwright.verdict(), res.buildkit.verdict())
	l, b := res.layerwright, res.buildkit
	switch {
	case l.built && b.built && len(res.differences) == 0:
		fmt.Fprintf(w, "\nSAME: config, history, layers and files agree.\n")
	case l.built && b.built:
		fmt.Fprintf(w, "\nDIFFERENT: %d differences (got: Layerwright, want: BuildKit)\n", len(res.differences))
		for i, d := range res.differences {
			if i == maxDifferences {
				fmt.Fprintf(w, "  … and %d more\n", len(res.differences)-i)
				break
			}
			fmt.Fprintf(w, "  %s\n", d)
		}
	case l.built == b.built:
		fmt.Fprintf(w, "\nSAME: both refuse.\n")
	default:
		fmt.Fprintf(w, "\nDIFFERENT: only one of them builds it.\n")
	}
	for _, o := range []struct {
		name string
		outcome
	}{{"Layerwright", l}, {"BuildKit", b}} {
		if !o.built {
			fmt.Fprintf(w, "\nThe end of what %s said\n%s", o.name, last(o.output, maxOutput))
		}
	}
}

// settings are the flags that change what is built.
func (r *request) settings() (lines []string) {
	add := func(name string, m map[string]string, values bool) {
		var all []string
		for k, v := range m {
			if values {
				k += "=" + v
			}
			all = append(all, k)
		}
		sort.Strings(all)
		for _, a := range all {
			lines = append(lines, fmt.Sprintf("%-12s %s", name, a))
		}
	}
	o := r.options
	add("target", map[string]string{o.Target: ""}, false)
	add("platform", map[string]string{o.Platform: ""}, false)
	add("build-arg", o.Args, true)
	add("label", o.Labels, true)
	add("context", o.Contexts, true)
	add("add-host", o.Hosts, true)
	add("secret", o.Secrets, false)
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.TrimSpace(lines[i]) == "target" || strings.TrimSpace(lines[i]) == "platform" {
			lines = append(lines[:i], lines[i+1:]...)
		}
	}
	return lines
}

func (r *request) text() string {
	b, err := os.ReadFile(r.dockerfile)
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	n := 0
	for line := range strings.Lines(string(b)) {
		if n++; n > maxDockerfile {
			out.WriteString("     …\n")
			break
		}
		fmt.Fprintf(&out, "%4d | %s\n", n, strings.TrimRight(line, "\r\n"))
	}
	return out.String()
}

func (o outcome) verdict() string {
	if !o.built {
		return fmt.Sprintf("refused it in %.1f s", o.took.Seconds())
	}
	var all []string
	for p, img := range o.images {
		if p != "" {
			p += ": "
		}
		all = append(all, fmt.Sprintf("%s%d layers, %d files", p, len(img.Layers), len(img.Root)))
	}
	sort.Strings(all)
	return fmt.Sprintf("built it in %.1f s: %s", o.took.Seconds(), strings.Join(all, "; "))
}

// chosen is what Layerwright made of "auto".
func chosen(output string) string {
	for line := range strings.Lines(output) {
		if s, ok := strings.CutPrefix(line, "NOTE: isolation "); ok {
			s, _, _ = strings.Cut(s, ", store")
			return " (" + strings.TrimSpace(s) + ")"
		}
	}
	return ""
}

func last(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	out := "  " + strings.Join(lines, "  ")
	return strings.TrimRight(out, " \n") + "\n"
}

func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}
