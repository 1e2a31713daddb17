package main

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// Sizes of a chart, in its own units.
const (
	chartWidth  = 760
	chartLeft   = 110
	chartRight  = 120
	barHeight   = 14
	barGap      = 3
	groupGap    = 14
	chartTop    = 46
	chartBottom = 12
)

// chartStyle is readable on light and dark ground.
const chartStyle = `text{font:12px system-ui,sans-serif;fill:#24292f}.t{font-weight:600}.v{font-size:11px;fill:#57606a}
.inplace{fill:#0969da}.overlay{fill:#54aeff}.buildkit{fill:#8c959f}.buildah{fill:#d4a72c}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.v{fill:#9198a1}.inplace{fill:#388bfd}.overlay{fill:#79c0ff}.buildkit{fill:#6e7681}.buildah{fill:#bb8009}}`

// chart is one state as bars: a group for each workload, in which the longest bar
// fills the width, because workloads take from a tenth of a second to a minute.
func (rep *report) chart(state string) string {
	var b strings.Builder
	y := chartTop
	for _, w := range rep.workloads() {
		var longest float64
		var rows []row
		for _, name := range rep.builders {
			if r, ok := rep.find(w, name, state); ok {
				rows, longest = append(rows, r), max(longest, r.Seconds)
			}
		}
		if len(rows) == 0 {
			continue
		}
		middle := y + len(rows)*(barHeight+barGap)/2 + 2
		fmt.Fprintf(&b, `<text class="t" x="%d" y="%d" text-anchor="end">%s</text>`+"\n", chartLeft-10, middle, html.EscapeString(w))
		for _, r := range rows {
			width := float64(chartWidth-chartLeft-chartRight) * r.Seconds / longest
			fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`+"\n", r.Builder, chartLeft, y, max(1, width), barHeight)
			label := secondsText(r.Seconds) + " s"
			if r.Ratio > 0 && r.Builder != buildKit {
				label += fmt.Sprintf(" · %.2f ×", r.Ratio)
			}
			fmt.Fprintf(&b, `<text class="v" x="%.1f" y="%d">%s</text>`+"\n", chartLeft+width+6, y+barHeight-3, label)
			y += barHeight + barGap
		}
		y += groupGap
	}
	height := y - groupGap + chartBottom
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%[2]d" role="img">`+"\n<title>%s</title>\n<style>%s</style>\n%s%s</svg>\n",
		chartWidth, height, html.EscapeString(stateTitles[state]+": seconds, less is better"), chartStyle, rep.legend(state), b.String())
}

func (rep *report) legend(state string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<text class="t" x="0" y="14">%s: seconds, × of BuildKit's</text>`+"\n", html.EscapeString(stateTitles[state]))
	x := chartLeft
	for _, name := range rep.builders {
		if !slices.ContainsFunc(rep.Rows, func(r row) bool { return r.Builder == name && r.State == state }) {
			continue
		}
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="24" width="10" height="10" rx="2"/><text class="v" x="%d" y="33">%[1]s</text>`+"\n", name, x, x+14)
		x += 26 + 7*len(name)
	}
	return b.String()
}
