package frontend

import (
	"bytes"
	"regexp"

	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/layerwright/layerwright/core/internal/fault"
)

var (
	stageIndex      = regexp.MustCompile(`invalid stage index (\d+)$`)
	escapeToken     = regexp.MustCompile(`^invalid escape token `)
	escapeDirective = regexp.MustCompile(`^#\s*escape\s*=`)
)

// placeOf finds the line of the errors that BuildKit gives no place, by their
// words; nil for others.
func placeOf(err error, file string, text []byte) *fault.Location {
	if escapeToken.MatchString(err.Error()) {
		for i, line := range bytes.Split(text, []byte("\n")) {
			if escapeDirective.Match(line) {
				return &fault.Location{File: file, Source: text, Start: i + 1, End: i + 1}
			}
		}
	}
	m := stageIndex.FindStringSubmatch(err.Error())
	if m == nil {
		return nil
	}
	ast, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil
	}
	for _, n := range ast.AST.Children {
		for _, flag := range n.Flags {
			if flag == "--from="+m[1] {
				return &fault.Location{File: file, Source: text, Start: n.StartLine, End: n.EndLine}
			}
		}
	}
	return nil
}
