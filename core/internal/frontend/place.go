package frontend

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/layerwright/layerwright/core/internal/fault"
)

var (
	stageIndex      = regexp.MustCompile(`invalid stage index (\d+)$`)
	escapeToken     = regexp.MustCompile(`^invalid escape token `)
	escapeDirective = regexp.MustCompile(`^#\s*escape\s*=`)
)

// Place is the instruction that an error of BuildKit's is about, as far as it says so or
// its words tell; nil where they do not. Text is the Dockerfile.
func Place(err error, file string, text []byte) *fault.Location {
	if loc := Location(err); loc != nil || text == nil {
		return loc
	}
	if m := unresolved.FindStringSubmatch(err.Error()); m != nil {
		return usersOf(m[1], file, text)
	}
	return placeOf(err, file, text)
}

var unresolved = regexp.MustCompile(`failed to resolve source metadata for ([^ ]+): `)

// usersOf is the instruction whose --from or from= names an image.
func usersOf(image, file string, text []byte) *fault.Location {
	ast, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil
	}
	for _, n := range ast.AST.Children {
		for _, flag := range n.Flags {
			for _, field := range strings.Split(strings.TrimPrefix(strings.TrimPrefix(flag, "--mount="), "--"), ",") {
				name, ok := strings.CutPrefix(field, "from=")
				if !ok {
					continue
				}
				if ref, err := reference.ParseNormalizedNamed(name); err == nil && reference.TagNameOnly(ref).String() == image {
					return &fault.Location{File: file, Source: text, Start: n.StartLine, End: n.EndLine}
				}
			}
		}
	}
	return nil
}

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
