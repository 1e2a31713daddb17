package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/display"
)

const warmerHelp = `layerwright warmer --image IMAGE [--image IMAGE…] [--dockerfile FILE…] [flags]

Fetches base images into a directory, an OCI image layout, that builds read with
--cache-dir in place of the registry. Jobs may share it, also while it is filled.

  -i, --image IMAGE               an image; again for more
  -d, --dockerfile FILE           the base images of a Dockerfile; again for more
      --build-arg KEY=VALUE       for ARGs before its first FROM
  -c, --cache-dir DIR             the directory, /cache by default
      --platform OS/ARCH          more with commas (--custom-platform)
  -f, --force                     fetch again what is there
  -v, --verbosity LEVEL           error, warn, info or debug

and the flags about registries that build has (layerwright build --help-all):
--insecure, --skip-tls-verify, --registry-mirror, --registry-certificate and so on.
--cache-ttl is accepted: blobs are known by their digest and do not age.
`

// warmerCommand is "layerwright warmer".
func (p *process) warmerCommand() *cobra.Command {
	f := &flags{}
	var r core.WarmRequest
	c := &cobra.Command{Use: "warmer", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		check := &checker{}
		r.Platforms = splitPlatforms(check, f.platforms)
		f.given(c)
		r.Registry = f.registrySettings(check, p.env).Everywhere()
		r.BuildArgs = check.buildArgs(f.buildArgs, p.env)
		if len(r.Images) == 0 && len(r.Dockerfiles) == 0 {
			check.add("no image: give --image IMAGE or --dockerfile FILE")
		}
		verbosity, err := display.ParseVerbosity(f.verbosity)
		if err != nil {
			check.add("--verbosity: %w", err)
		}
		if err := check.err(); err != nil {
			return err
		}
		view := display.New(p.format(f), p.stderr, display.Options{Verbosity: verbosity, Color: p.color(), Size: p.terminal})
		r.Progress = view
		if c.Flags().Changed("cache-ttl") {
			view.Emit(core.Notice{Level: core.Info, Text: "--cache-ttl has no effect: blobs are known by their digest and do not age", Time: time.Now()})
		}
		err = core.Warm(c.Context(), r)
		out := display.Outcome{Files: []string{r.Dir}}
		if err != nil {
			out.Files, out.Err = nil, ended(c.Context(), err)
		}
		view.Finish(out)
		p.code = exitCode(c.Context(), err)
		return nil
	}}
	fs := c.Flags()
	fs.StringArrayVarP(&r.Images, "image", "i", nil, "")
	fs.StringArrayVarP(&r.Dockerfiles, "dockerfile", "d", nil, "")
	fs.StringArrayVar(&f.buildArgs, "build-arg", nil, "")
	fs.BoolVarP(&r.Force, "force", "f", false, "")
	fs.Duration("cache-ttl", defaultCacheTTL, "")
	fs.StringVarP(&r.Dir, "cache-dir", "c", "/cache", "")
	fs.StringArrayVar(&f.platforms, "platform", nil, "")
	fs.StringVarP(&f.verbosity, "verbosity", "v", "info", "")
	f.logFormat = oneOf("auto", "plain", "tty", "json")
	fs.Var(&f.logFormat, "log-format", "")
	f.registry.register(fs)
	fs.SetNormalizeFunc(normalizeFlag)
	c.SetHelpFunc(func(c *cobra.Command, _ []string) { fmt.Fprint(c.OutOrStdout(), warmerHelp) })
	return c
}
