package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/display"
)

// callFlags are the flags that ask about a Dockerfile instead of building it,
// as docker buildx has them.
type callFlags struct {
	check bool
	call  string
}

func (f *callFlags) register(fs *pflag.FlagSet) {
	fs.BoolVar(&f.check, "check", false, "\tlint the Dockerfile; exit code 1 on a warning")
	fs.StringVar(&f.call, "call", "", "METHOD\tcheck, outline or targets[,format=json] instead of build")
}

// call is a question and how its answer is shown. The zero value is a build.
type call struct {
	asked        bool
	question     core.Question
	json         bool
	ignoreStatus bool
}

// asked says whether nothing is to be built.
func (f *callFlags) asked() bool { return f.settings(&checker{}).asked }

// settings reads METHOD[,format=json|text][,ignorestatus].
func (f *callFlags) settings(c *checker) call {
	text := f.call
	if f.check {
		text = strings.TrimPrefix(text+",check", ",")
	}
	out, name := call{}, ""
	for _, field := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(field, "=")
		switch {
		case field == "":
		case ok && key == "format" && (value == "json" || value == "text"):
			out.json = value == "json"
		case key == "ignorestatus":
			var err error
			if out.ignoreStatus, err = strconv.ParseBool(value); !ok {
				out.ignoreStatus = true
			} else if err != nil {
				c.add("--call %s: ignorestatus is true or false", f.call)
			}
		case ok:
			c.add("--call %s: unknown setting %s: use format=json, format=text or ignorestatus", f.call, field)
		default:
			if field == "lint" {
				field = "check"
			}
			if name != "" && name != field {
				c.add("--call: give one method, not %s and %s", name, field)
			}
			name = field
		}
	}
	questions := map[string]core.Question{"check": core.AskLint, "outline": core.AskOutline, "targets": core.AskTargets}
	out.question, out.asked = questions[name]
	if !out.asked && name != "" && name != "build" {
		c.add("--call %s: unknown method: use check, outline, targets or build", name)
	}
	return out
}

// inspect answers a question about a Dockerfile on standard output, and returns
// the exit code: 1 where lint has found something, as with docker buildx.
func (p *process) inspect(ctx context.Context, f *flags, s *settings) int {
	started := time.Now()
	err := core.Harden() // before the first secret is in memory
	var masks [][]byte
	if err == nil {
		s.Stdin = p.stdin
		masks, err = s.load(p.stdin)
	}
	format := display.Plain
	if p.format(f) == display.JSON {
		format = display.JSON
	}
	view := display.New(format, p.stderr, display.Options{Verbosity: s.verbosity, Color: p.color(), Secrets: masks})
	var found *core.Inspection
	if err == nil {
		s.Progress = view
		found, err = core.Inspect(ctx, s.Request, s.call.question)
	}
	if err == nil {
		if err = writeAnswer(p.stdout, s.call, found); err == nil {
			err = found.Err
		}
	}
	if err != nil {
		code := exitCode(ctx, err)
		view.Finish(display.Outcome{Err: ended(ctx, err), Took: time.Since(started)})
		return code
	}
	if found.Warnings > 0 && !s.call.ignoreStatus {
		return 1
	}
	return 0
}

// writeAnswer prints what was found; what would have ended a build is for
// standard error.
func writeAnswer(w io.Writer, c call, found *core.Inspection) error {
	text := strings.TrimLeft(found.Text, "\n")
	switch {
	case c.json:
		text = string(found.JSON) + "\n"
	case c.question == core.AskLint:
		text = lintText(found, text)
	case strings.TrimSpace(text) == "":
		text = "This target takes no build arguments, secrets or SSH agents.\n"
	}
	if _, err := io.WriteString(w, text); err != nil {
		return &core.Error{Kind: core.KindEnvironment, Op: "write to standard output", Err: err}
	}
	return nil
}

// lintText is buildx's summary, and the warnings.
func lintText(found *core.Inspection, warnings string) string {
	switch n := found.Warnings; {
	case n == 1:
		return "Check complete, 1 warning has been found!\n\n" + warnings
	case n > 1:
		return fmt.Sprintf("Check complete, %d warnings have been found!\n\n", n) + warnings
	case found.Err != nil:
		return ""
	}
	return "Check complete, no warnings found.\n"
}
