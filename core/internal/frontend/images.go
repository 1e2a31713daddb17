package frontend

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// BaseImages are the images that a Dockerfile's stages begin with and that COPY
// --from names, each once, in the order of the text; other stages and
// scratch are not among them. args are build arguments: they take the place of
// the defaults of the ARGs before the first FROM. An error has its line.
func BaseImages(name string, text []byte, args map[string]string) ([]string, error) {
	ast, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, explain(parser.SetLocation(err, nil), nil)
	}
	stages, metaArgs, err := instructions.Parse(ast.AST, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	lex := shell.NewLex(ast.EscapeToken)
	env := environment{}
	for _, m := range metaArgs {
		for _, a := range m.Args {
			if v, ok := args[a.Key]; ok {
				env[a.Key] = v
			} else if a.Value != nil {
				if env[a.Key], _, err = lex.ProcessWord(*a.Value, env); err != nil {
					return nil, fmt.Errorf("%s: ARG %s: %w", name, a.Key, err)
				}
			}
		}
	}
	var out []string
	names := map[string]bool{"scratch": true}
	add := func(word string) error {
		image, _, err := lex.ProcessWord(word, env)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", name, word, err)
		}
		if image != "" && !names[strings.ToLower(image)] && !number(image) && !slices.Contains(out, image) {
			out = append(out, image)
		}
		return nil
	}
	for _, s := range stages {
		if err := add(s.BaseName); err != nil {
			return nil, err
		}
		for _, c := range s.Commands {
			if cp, ok := c.(*instructions.CopyCommand); ok && cp.From != "" {
				if err := add(cp.From); err != nil {
					return nil, err
				}
			}
		}
		if s.Name != "" {
			names[strings.ToLower(s.Name)] = true
		}
	}
	return out, nil
}

// number says whether --from names a stage by its index.
func number(s string) bool { return strings.Trim(s, "0123456789") == "" }

// environment implements shell.EnvGetter.
type environment map[string]string

func (e environment) Get(key string) (string, bool) { v, ok := e[key]; return v, ok }

func (e environment) Keys() []string {
	keys := make([]string, 0, len(e))
	for k := range e {
		keys = append(keys, k)
	}
	return keys
}
