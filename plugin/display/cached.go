package display

import (
	"fmt"
	"strings"

	"github.com/layerwright/layerwright/core"
)

// cacheText says which steps came from the cache, and of the others why not; with
// all, also the hits and the changed files.
func cacheText(steps []core.CachedStep, all bool) string {
	if len(steps) == 0 {
		return ""
	}
	if why, ok := sameReason(steps); ok && !all {
		return fmt.Sprintf("cache   0 of %d steps: %s\n", len(steps), oneLine(why))
	}
	hits := 0
	var b strings.Builder
	for _, s := range steps {
		if s.Hit {
			hits++
		}
		switch {
		case !s.Hit:
			fmt.Fprintf(&b, "  ran     %s: %s\n", oneLine(s.Name), oneLine(s.Why))
		case all:
			fmt.Fprintf(&b, "  cached  %s\n", oneLine(s.Name))
		}
		if all {
			for _, d := range s.Details {
				b.WriteString("            " + oneLine(d) + "\n")
			}
		}
	}
	return fmt.Sprintf("cache   %d of %d steps\n", hits, len(steps)) + b.String()
}

// sameReason is why every step was missed, where there is just one reason: a
// first build need not say it for each.
func sameReason(steps []core.CachedStep) (why string, ok bool) {
	for _, s := range steps {
		if s.Hit || s.Why != steps[0].Why {
			return "", false
		}
	}
	return steps[0].Why, true
}
