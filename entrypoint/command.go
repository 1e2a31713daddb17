package main

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/syntax"
)

const rootHelp = `Layerwright builds container images from Dockerfiles inside an ordinary
container: no daemon, no privilege.

  layerwright build -t registry.example/app:1 .   build the current directory, push it
  layerwright doctor                              what this machine allows, and why

Commands:
  build     build a Dockerfile and push the image
  push      push an image that a build has written to a file or directory
  merge     one image for several platforms of those that were pushed by digest
  cache     list or prune what builds keep in a cache repository
  warmer    fetch base images into a directory that builds share
  doctor    try what the environment allows and say what would be used
  login     keep a login at a registry, after it was tried; logout removes it
  version   print the version

Without a command, in a CI that it knows (github, gitlab, woodpecker, drone),
layerwright builds what the CI's variables describe; a CI's name as the command, or LAYERWRIGHT_HOST, chooses
one, and --print-settings shows what its variables come to.

layerwright build --help lists the flags of a build. Exit codes: 0 done, 1 a
step failed or the Dockerfile or context is wrong, 2 wrong usage, 3 registry,
4 the environment cannot do it, 124 --timeout, 128+n signal n, 70 our defect.
`

// command is the tree of commands.
func (p *process) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "layerwright",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(args[0])
			}
			if only, _ := c.Flags().GetBool("version"); only {
				fmt.Fprint(c.OutOrStdout(), versionLine())
				return nil
			}
			// Without an argument the environment says what to do.
			h, err := p.host()
			if err != nil {
				return err
			}
			if h != nil {
				return p.inCI(c, *h)
			}
			return c.Help()
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(func(c *cobra.Command, _ []string) { fmt.Fprint(c.OutOrStdout(), rootHelp) })
	root.SetHelpCommand(p.helpCommand(root))
	root.Flags().Bool("print-settings", false, "") // of the CI that this is
	root.Flags().Bool("version", false, "")
	root.AddCommand(p.hostCommands()...)
	root.AddCommand(p.buildCommand(), p.pushCommand(), p.mergeCommand(), p.cacheCommand(), p.warmerCommand(), p.doctorCommand(), p.loginCommand(), p.logoutCommand(), p.versionCommand())
	return root
}

func (p *process) helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{Use: "help [command]", RunE: func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return root.Help()
		}
		c, rest, err := root.Find(args)
		if err != nil || c == root || len(rest) > 0 {
			return unknownCommand(strings.Join(args, " "))
		}
		return c.Help()
	}}
}

// versionLine is what the program says of itself.
func versionLine() string {
	return fmt.Sprintf("layerwright %s%s %s/%s %s\n", version, revision(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}

func (p *process) versionCommand() *cobra.Command {
	c := &cobra.Command{Use: "version", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		fmt.Fprint(c.OutOrStdout(), versionLine())
		return nil
	}}
	c.SetHelpFunc(func(c *cobra.Command, _ []string) {
		fmt.Fprint(c.OutOrStdout(), "layerwright version prints version, commit, platform and the Go release.\n")
	})
	return c
}

// revision is the commit that the binary was built from, where Go knows it.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return " (" + s.Value[:12] + ")"
		}
	}
	return ""
}

func usage(format string, args ...any) *core.Error {
	return &core.Error{Kind: core.KindUsage, Err: fmt.Errorf(format, args...)}
}

func unknownCommand(name string) error {
	err := usage("unknown command %q", name)
	err.Remedy = "layerwright --help lists the commands."
	if near := syntax.Nearest(name, []string{"build", "push", "merge", "cache", "warmer", "doctor", "login", "logout", "version", "help"}); near != "" {
		err.Remedy = "Did you mean layerwright " + near + "?"
	}
	return err
}

// flagError adds the flag that was probably meant to an error of pflag.
func flagError(c *cobra.Command, err error) error {
	e := &core.Error{Kind: core.KindUsage, Err: err, Remedy: c.CommandPath() + " --help lists the flags."}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return e
	}
	name := unknown.GetSpecifiedName()
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	for alias := range aliases {
		names = append(names, alias)
	}
	if near := syntax.Nearest(name, names); near != "" {
		e.Remedy = fmt.Sprintf("Did you mean --%s? %s", near, e.Remedy)
	}
	return e
}
