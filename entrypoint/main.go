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
	"path/filepath"
	"runtime/debug"
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
	if os.Getenv("GOGC") == "" {
		// Jobs have little memory, and the builder little garbage: half a million
		// files in an index must not cost twice their size.
		debug.SetGCPercent(30)
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
	if err := p.becomeShell(); err != nil {
		_, _ = io.WriteString(p.stderr, display.ErrorText(err, p.color()))
		return exitCode(ctx, err)
	}
	root := p.command() //nolint:contextcheck // cobra hands it to the commands
	root.SetArgs(withCommand(root, p.args))
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

// withCommand gives the arguments with the command that is meant where there are
// only flags, and none of root's own: so is Kaniko's image run in pipelines. Under
// the names of Kaniko's two programs there need be no flags either.
func withCommand(root *cobra.Command, args []string) []string {
	program, args := filepath.Base(args[0]), args[1:]
	command := "build"
	if program == "warmer" {
		command = program
	}
	if len(args) == 0 {
		if program == "executor" || program == "warmer" {
			return []string{command}
		}
		return args
	}
	name, _, _ := strings.Cut(args[0], "=")
	if !strings.HasPrefix(name, "-") || program != "warmer" && (name == "-h" || name == "--help" || root.Flags().Lookup(strings.TrimLeft(name, "-")) != nil) {
		return args
	}
	return append([]string{command}, args...)
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
