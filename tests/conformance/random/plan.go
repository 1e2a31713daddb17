// Package random makes Dockerfiles and build contexts at random, for comparing
// builders: instructions and flags from a grammar, trees with names, modes, links
// and times that are awkward for layers. One seed always gives the same plan. A
// plan in which two builders differ is shrunk to the least that still does
// (Shrink), and written as a case of the conformance suite (Plan.WriteCase).
//
// Left out is what docs/differences.md says to differ: writing to one of several
// hard links of an older layer, and steps on files that COPY --link has brought.
package random

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/layerwright/layerwright/tests/conformance"
)

// Plan is one Dockerfile with its context.
type Plan struct {
	Seed    uint64
	Context []File
	// Ignore are the lines of .dockerignore; none means no such file.
	Ignore []string
	Stages []Stage
}

// Stage is one FROM with what follows.
type Stage struct {
	Name, From string
	Steps      []Step
}

// Step is one instruction. Parts are the commands of a RUN, joined by ";", or the
// words of another instruction.
type Step struct {
	Instruction  string
	Flags, Parts []string
	// Heredoc is written below the instruction.
	Heredoc string
}

// File is an entry of the context: a directory when Path ends in "/", a symbolic
// link when Link is set, a hard link when Hard is.
type File struct {
	Path, Data, Link, Hard string
	Mode                   os.FileMode
	Time                   int64
}

// Dockerfile is the plan's text.
func (p Plan) Dockerfile() string {
	var b strings.Builder
	b.WriteString("ARG BASE\n")
	for _, s := range p.Stages {
		fmt.Fprintf(&b, "FROM %s AS %s\n", s.From, s.Name)
		for _, st := range s.Steps {
			b.WriteString(st.text())
		}
	}
	return b.String()
}

func (s Step) text() string {
	words := append([]string{s.Instruction}, s.Flags...)
	if s.Instruction == "RUN" && s.Heredoc == "" {
		// What a command says and whether it fails is not the point.
		words = append(words, "( "+strings.Join(append(append([]string{}, s.Parts...), ":"), "; ")+" ) 2>/dev/null")
	} else {
		words = append(words, s.Parts...)
	}
	return strings.Join(words, " ") + "\n" + s.Heredoc
}

// setup is a shell script that makes the context.
func (p Plan) setup() string {
	var b, times strings.Builder
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	for _, f := range p.Context {
		at := quote("./" + f.Path)
		if d := filepath.Dir(strings.TrimSuffix(f.Path, "/")); d != "." {
			fmt.Fprintf(&b, "mkdir -p %s\n", quote("./"+d))
		}
		switch {
		case strings.HasSuffix(f.Path, "/"):
			fmt.Fprintf(&b, "mkdir -p %s\n", at)
		case f.Link != "":
			fmt.Fprintf(&b, "ln -sfn %s %s\n", quote(f.Link), at)
			continue
		case f.Hard != "":
			fmt.Fprintf(&b, "ln -f %s %s 2>/dev/null || :\n", quote("./"+f.Hard), at) // shrinking may take the first name away
			continue
		default:
			fmt.Fprintf(&b, "printf %%s %s > %s\n", quote(f.Data), at)
		}
		fmt.Fprintf(&b, "chmod %s %s\n", strconv.FormatUint(uint64(f.Mode), 8), at)
		fmt.Fprintf(&times, "touch -d @%d %s\n", f.Time, at)
	}
	return b.String() + times.String()
}

// WriteCase writes the plan as a folder that conformance.Cases reads.
func (p Plan) WriteCase(dir, rule string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	options, err := json.Marshal(conformance.Options{})
	if err != nil {
		return err
	}
	files := map[string]string{
		"Dockerfile": p.Dockerfile(), "RULE": rule + "\n", "setup.sh": p.setup() + p.ignoreScript(), "options.json": string(options) + "\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (p Plan) ignoreScript() string {
	if len(p.Ignore) == 0 {
		return ""
	}
	return "cat > .dockerignore <<'END'\n" + strings.Join(p.Ignore, "\n") + "\nEND\n"
}

// String is the plan for people.
func (p Plan) String() string {
	return fmt.Sprintf("seed %d\n--- Dockerfile\n%s--- context\n%s%s", p.Seed, p.Dockerfile(), p.setup(), p.ignoreScript())
}
