// Package main is the program. It owns the process: arguments, environment,
// signals, the exit code. It turns them into one core.Request and shows the
// build's events through plugin/display. It knows no instruction of a
// Dockerfile and speaks to no registry.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/display"
)

// version is set by the linker (see Makefile).
var version = "dev"

func main() {
	// Before anything else: the engine starts this program again under other
	// names for its steps. Inside is asked first, since Main takes the mark
	// away.
	inside := core.Inside(os.Args)
	if handled, code := core.Main(os.Args); handled {
		os.Exit(code)
	}
	p := &process{
		args: os.Args, env: environment(os.Environ()), inside: inside,
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, terminal: stderrTerminal(),
		toTerminal: term.IsTerminal(int(os.Stdout.Fd())),
	}
	ctx, stop := untilSignal(context.Background())
	code := p.run(ctx)
	stop()
	os.Exit(code)
}

// process is what the operating system gives a program. Tests make their own.
type process struct {
	args   []string
	env    map[string]string
	inside bool // started by core.Enter
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	// terminal is the size of the terminal that stderr is, nil if it is none.
	terminal func() (width, height int)
	// toTerminal says that stdout is one.
	toTerminal bool
	// code is what a command ended with.
	code int
}

func environment(list []string) map[string]string {
	env := make(map[string]string, len(list))
	for _, kv := range list {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	return env
}

// environ is env as a new process takes it.
func (p *process) environ() []string {
	list := make([]string, 0, len(p.env))
	for k, v := range p.env {
		list = append(list, k+"="+v)
	}
	return list
}

// run is the program without its process: it returns the exit code.
func (p *process) run(ctx context.Context) int {
	root := p.command() //nolint:contextcheck // cobra hands it to the commands
	root.SetArgs(withCommand(root, p.args[1:]))
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	// A command that ran has left its code; an error is one of the command
	// line itself.
	if err := root.ExecuteContext(ctx); err != nil {
		err = asUsage(err)
		_, _ = io.WriteString(p.stderr, display.ErrorText(err, p.color()))
		return exitCode(ctx, err)
	}
	return p.code
}

// withCommand adds "build" where there are only flags, and none of root's own:
// so are Kaniko's image, and images in its place, run in pipelines.
func withCommand(root *cobra.Command, args []string) []string {
	if len(args) == 0 || !strings.HasPrefix(args[0], "-") {
		return args
	}
	name, _, _ := strings.Cut(args[0], "=")
	if name == "-h" || name == "--help" || root.Flags().Lookup(strings.TrimLeft(name, "-")) != nil {
		return args
	}
	return append([]string{"build"}, args...)
}

// asUsage classifies an error of the command line.
func asUsage(err error) error {
	var e *core.Error
	if errors.As(err, &e) {
		return err
	}
	return &core.Error{Kind: core.KindUsage, Err: err, Remedy: "layerwright --help lists the commands, layerwright build --help the flags of a build."}
}

// color says whether our own messages may be coloured: https://no-color.org.
func (p *process) color() bool {
	return p.terminal != nil && p.env["NO_COLOR"] == "" && p.env["TERM"] != "dumb"
}
