package frontend

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/layerwright/layerwright/core/internal/progress"
)

// checkNoCacheFilter says which names of --no-cache-filter no stage has: BuildKit
// ignores them in silence, and a slip would give an old result.
func (g *gateway) checkNoCacheFilter() {
	if len(g.req.NoCacheFilter) == 0 || g.req.NoCache {
		return
	}
	g.mu.Lock()
	text := g.text
	g.mu.Unlock()
	ast, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return
	}
	stages, _, err := instructions.Parse(ast.AST, nil)
	if err != nil {
		return
	}
	known := map[string]bool{}
	for _, s := range stages {
		known[strings.ToLower(s.Name)] = true
	}
	for _, name := range strings.Split(strings.Join(g.req.NoCacheFilter, ","), ",") {
		if !known[strings.ToLower(name)] {
			g.req.Progress.Emit(progress.Notice{Level: progress.Warning, Time: time.Now(),
				Text: fmt.Sprintf("--no-cache-filter %s: no stage has this name, so it means nothing", name)})
		}
	}
}
