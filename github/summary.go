package github

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin"
)

// step is one step that has ended.
type step struct{ core.Done }

// maxSummary is below GitHub's limit of 1 MiB for a step, beyond which nothing
// is shown at all; maxBars keeps the timeline readable.
const (
	maxSummary = 900 << 10
	maxBars    = 60
)

// summary is the job summary in Markdown.
func (a *adapter) summary(r plugin.Report) string {
	if r.Plan.Skip() != "" {
		return "### Nothing was built\n\n" + cell(r.Plan.Skip()) + "\n"
	}
	var b strings.Builder
	switch {
	case r.Err != nil:
		fmt.Fprintf(&b, "### Build failed after %s\n\n", seconds(r.Took))
	default:
		fmt.Fprintf(&b, "### Image built in %s\n\n", seconds(r.Took))
	}
	if r.Result != nil {
		if list := r.Plan.Request.Outputs.Destinations; len(list) > 0 {
			b.WriteString("| Image | Digest |\n|---|---|\n")
			for _, ref := range list {
				fmt.Fprintf(&b, "| `%s` | `%s` |\n", cell(ref), r.Result.Digest)
			}
			b.WriteString("\n")
		}
		if r.Plan.Request.Outputs.NoPush {
			b.WriteString("Not pushed.\n\n")
		}
	}
	why, sizes := map[string]core.CachedStep{}, map[string]string{}
	if r.Result != nil {
		for _, c := range r.Result.Cache {
			why[c.Name] = c
		}
		for _, l := range r.Result.Layers {
			sizes[l.Name] = units.HumanSizeWithPrecision(float64(l.Size), 3)
		}
	}
	if len(a.steps) > 0 {
		b.WriteString("| Step | Time | Cache | Size |\n|---|---:|---|---:|\n")
		for _, s := range a.steps {
			row := fmt.Sprintf("| `%s` | %s | %s | %s |\n", cell(s.Step.Name), seconds(s.Duration), how(s, why[s.Step.Name]), cmp.Or(sizes[s.Step.Name], "–"))
			if b.Len()+len(row) > maxSummary {
				b.WriteString("| … | | | |\n")
				break
			}
			b.WriteString(row)
		}
		b.WriteString("\n")
		b.WriteString(a.timeline())
	}
	return b.String()
}

// how says what became of a step.
func how(s step, c core.CachedStep) string {
	switch {
	case s.Err != nil:
		return "failed"
	case s.Cached || c.Hit:
		return "cached"
	case c.Why != "":
		return cell(c.Why)
	}
	return "–"
}

// timeline is a Mermaid gantt chart of the steps that took time.
func (a *adapter) timeline() string {
	var start time.Time
	for _, s := range a.steps {
		if at := s.Time.Add(-s.Duration); start.IsZero() || at.Before(start) {
			start = at
		}
	}
	var b strings.Builder
	bars := 0
	for _, s := range a.steps {
		if s.Cached || s.Duration < 100*time.Millisecond || bars == maxBars {
			continue
		}
		bars++
		state := ""
		if s.Err != nil {
			state = "crit, "
		}
		from := s.Time.Add(-s.Duration).Sub(start).Milliseconds()
		fmt.Fprintf(&b, "  %s :%s%d, %d\n", bar(s.Step.Name), state, from, from+max(s.Duration.Milliseconds(), 1))
	}
	if bars == 0 {
		return ""
	}
	return "```mermaid\ngantt\n  dateFormat x\n  axisFormat %M:%S\n" + b.String() + "```\n"
}

// bar is a name without the characters that mean something to Mermaid.
func bar(name string) string {
	name = strings.Map(func(r rune) rune {
		if strings.ContainsRune(":;#,%{}`\"\n\r", r) {
			return ' '
		}
		return r
	}, name)
	if runes := []rune(name); len(runes) > 60 {
		name = string(runes[:59]) + "…"
	}
	return strings.Join(strings.Fields(name), " ")
}

// cell is text that stays in its cell of a table.
func cell(s string) string {
	s = strings.NewReplacer("\n", " ", "\r", " ", "|", `\|`, "`", "'", "<", "&lt;").Replace(s)
	if runes := []rune(s); len(runes) > 120 {
		s = string(runes[:119]) + "…"
	}
	return s
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
