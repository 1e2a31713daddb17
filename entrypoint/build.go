package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/display"
	"github.com/layerwright/layerwright/plugin/syntax"
)

func (p *process) buildCommand() *cobra.Command {
	f := &flags{}
	c := &cobra.Command{Use: "build [flags] [CONTEXT]", RunE: func(c *cobra.Command, args []string) error {
		if f.helpAll {
			writeHelp(c, true)
			return nil
		}
		f.set = map[string]bool{}
		c.Flags().Visit(func(x *pflag.Flag) { f.set[x.Name] = true })
		p.code = p.build(c.Context(), f, args)
		return nil
	}}
	f.register(c.Flags())
	c.SetHelpFunc(func(c *cobra.Command, _ []string) { writeHelp(c, false) })
	return c
}

// build carries out one build and shows it; it returns the exit code.
func (p *process) build(ctx context.Context, f *flags, args []string) int {
	started := time.Now()
	s, err := f.settings(args, p.env)
	if o := s.Outputs; err == nil && p.toTerminal && (o.OCITar == "-" || o.DockerTar == "-" || o.RootTar == "-") {
		err = asUsage(errors.New("a tar is not written to a terminal: send standard output to a file or another program"))
	}
	if err == nil && s.call.asked {
		return p.inspect(ctx, f, &s)
	}
	if err == nil && !p.inside && len(s.Engines) == 0 {
		// Outside of namespaces, before secrets are read: the process that
		// runs the build may be another one.
		var entered core.Entered
		entered, err = core.Enter(ctx, core.EnterOptions{
			Isolation: s.Isolation, Store: s.Store, Force: s.Force, Args: p.args, Env: p.environ(),
			Notice: func(text string) { p.early(f, text) },
		})
		if entered.Done {
			return enteredCode(ctx, entered.Code)
		}
		s.Chosen = entered.Chosen
	}
	if err == nil {
		if s.Inside = p.inside; p.inside && s.Store == "" {
			s.Store = p.env[core.StoreVariable]
		}
		err = core.Harden() // before the first secret is in memory
	}
	var masks [][]byte
	if err == nil {
		s.Stdin = p.stdin
		masks, err = s.load(p.stdin)
	}
	view := display.New(p.format(f), p.stderr, display.Options{
		Verbosity: s.verbosity, Color: p.color(), Size: p.terminal, Secrets: masks,
	})
	for _, text := range append(kanikoNotices(f.set, p.env), f.notices...) {
		view.Emit(core.Notice{Level: core.Info, Text: text, Time: time.Now()})
	}
	out := display.Outcome{Err: err, ExplainCache: f.cache.explain}
	if err == nil {
		s.Progress, s.Inside, s.Outputs.Stdout = view, p.inside, p.stdout
		out.Result, out.Err = profiled(f.profile, display.NewRedactor(masks), &s.Request, func() (*core.Result, error) { return limited(ctx, f.timeout, s.Request) })
		out.Files = s.files()
		if s.DryRun {
			out.Files = nil
			writePlan(p.stdout, out.Result)
		}
	}
	code := exitCode(ctx, out.Err)
	if f.exitFromStep && ctx.Err() == nil {
		code = stepCode(out.Err, code)
	}
	if out.Err != nil {
		out.Result, out.Files, out.Err = nil, nil, ended(ctx, out.Err)
	}
	if out.Took = time.Since(started); s.DryRun {
		out.Took = 0 // nothing was built
	}
	view.Finish(out)
	return code
}

// early shows a notice before the build's own view is there.
func (p *process) early(f *flags, text string) {
	display.Early(p.format(f), p.stderr, display.Options{}, core.Notice{Level: core.Info, Text: text, Time: time.Now()})
}

// enteredCode is the code of the process that ran the build for us. Which
// signal came first is known better here, since it may have got several.
func enteredCode(ctx context.Context, code int) int {
	var s *signalError
	if code > 128 && errors.As(context.Cause(ctx), &s) { // else it is a step's
		return 128 + int(s.signal)
	}
	return code
}

// ended is the signal that ended the build instead of what it broke on its way
// out.
func ended(ctx context.Context, err error) error {
	var s *signalError
	if errors.As(context.Cause(ctx), &s) {
		return s
	}
	return err
}

// format chooses how progress looks.
func (p *process) format(f *flags) display.Format {
	switch f.logFormat.value {
	case "json":
		return display.JSON
	case "tty":
		return display.TTY
	case "auto":
		if p.terminal != nil && p.env["TERM"] != "dumb" && p.env["CI"] == "" {
			return display.TTY
		}
	}
	return display.Plain
}

// stderrTerminal measures the terminal that standard error is; nil if none.
func stderrTerminal() func() (int, int) {
	fd := int(os.Stderr.Fd())
	if !term.IsTerminal(fd) {
		return nil
	}
	return func() (int, int) {
		w, h, err := term.GetSize(fd)
		if err != nil {
			return 0, 0
		}
		return w, h
	}
}

// maxDockerfile is BuildKit's limit for a Dockerfile.
const maxDockerfile = 2 << 20

// load reads what the command line only names: the Dockerfile of standard
// input, and secrets, whose values are returned so that they can be masked.
func (s *settings) load(stdin io.Reader) (masks [][]byte, err error) {
	if s.fromStdin {
		data, err := io.ReadAll(io.LimitReader(stdin, maxDockerfile+1))
		if err != nil {
			return nil, &core.Error{Kind: core.KindUser, Op: "read Dockerfile from standard input", Err: err}
		}
		if len(data) > maxDockerfile {
			return nil, &core.Error{Kind: core.KindUser, Err: errors.New("Dockerfile from standard input: larger than 2 MiB")}
		}
		// Never nil: an empty one is an error of the Dockerfile.
		s.DockerfileData = append(make([]byte, 0, len(data)+1), data...)
	}
	masks = syntax.URLSecrets(s.Context)
	for _, where := range s.NamedContexts {
		masks = append(masks, syntax.URLSecrets(where)...)
	}
	c := &checker{}
	for i, secret := range s.Secrets {
		if secret.File != "" {
			// Handed on as a value: a pipe, as in src=<(command), can be
			// read only once.
			value, err := readSecret(secret.File)
			if err != nil {
				c.add("--secret: secret %s: %w", secret.ID, err)
			}
			s.Secrets[i] = core.Secret{ID: secret.ID, Value: value}
		}
		masks = append(masks, s.Secrets[i].Value)
	}
	return masks, c.err()
}

func readSecret(name string) (data []byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if data, err = io.ReadAll(io.LimitReader(f, syntax.MaxSecret+1)); err == nil && len(data) > syntax.MaxSecret {
		err = fmt.Errorf("%s is larger than 500 KiB", name)
	}
	return data, err
}
