package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/display"
)

const cacheHelp = `layerwright cache ls REPOSITORY       the records of a cache repository
layerwright cache prune REPOSITORY    remove records

REPOSITORY is what a build has as --cache-repo: registry.example/team/app/cache,
or oci:DIR. Flags of prune; at least one of the first and third is needed:

  --older-than DURATION   records of more than that age, such as 336h
  --keep-last N           but not the newest N
  --max-size SIZE         the oldest, until all layers together have that size
  --dry-run               only say what would be removed

Both take the flags about registries that build has (layerwright build --help-all).
A registry frees the space of removed layers when it next collects garbage.
`

// cacheCommand is "layerwright cache".
func (p *process) cacheCommand() *cobra.Command {
	f := &flags{}
	var opts core.PruneOptions
	var size string
	help := func(c *cobra.Command, _ []string) { fmt.Fprint(c.OutOrStdout(), cacheHelp) }
	c := &cobra.Command{Use: "cache", RunE: func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			err := usage("unknown command %q", "cache "+args[0])
			err.Remedy = "Use layerwright cache ls or layerwright cache prune."
			return err
		}
		return c.Help()
	}, Args: cobra.ArbitraryArgs}
	ls := &cobra.Command{Use: "ls REPOSITORY", Args: oneRepository, RunE: func(c *cobra.Command, args []string) error {
		f.given(c)
		entries, err := p.withRepository(f, args[0], func(repo string, r core.Registry) ([]core.CacheEntry, error) {
			return core.ListCache(c.Context(), repo, r)
		})
		if err == nil {
			writeEntries(p.stdout, entries, time.Now())
		}
		return p.end(c, err)
	}}
	prune := &cobra.Command{Use: "prune REPOSITORY", Args: oneRepository, RunE: func(c *cobra.Command, args []string) (err error) {
		if size != "" {
			if opts.MaxSize, err = units.RAMInBytes(size); err != nil || opts.MaxSize <= 0 {
				return usage("--max-size %s: write a size such as 500m or 10g", size)
			}
		}
		if opts.OlderThan <= 0 && opts.MaxSize <= 0 {
			return usage("nothing says what to remove: give --older-than DURATION or --max-size SIZE")
		}
		f.given(c)
		entries, err := p.withRepository(f, args[0], func(repo string, r core.Registry) ([]core.CacheEntry, error) {
			return core.PruneCache(c.Context(), repo, r, opts)
		})
		writeEntries(p.stdout, entries, time.Now())
		what := "removed"
		if opts.DryRun {
			what = "would be removed"
		}
		fmt.Fprintf(p.stdout, "%d %s\n", len(entries), what)
		return p.end(c, err)
	}}
	for _, sub := range []*cobra.Command{ls, prune} {
		f.registry.register(sub.Flags())
		sub.SetHelpFunc(help)
		c.AddCommand(sub)
	}
	fs := prune.Flags()
	fs.DurationVar(&opts.OlderThan, "older-than", 0, "")
	fs.IntVar(&opts.KeepLast, "keep-last", 0, "")
	fs.StringVar(&size, "max-size", "", "")
	fs.BoolVar(&opts.DryRun, "dry-run", false, "")
	c.SetHelpFunc(help)
	return c
}

func oneRepository(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usage("give one repository: registry.example/team/app/cache, or oci:DIR")
	}
	return nil
}

// withRepository checks a repository's name and runs f with it.
func (p *process) withRepository(f *flags, name string, run func(repo string, r core.Registry) ([]core.CacheEntry, error)) ([]core.CacheEntry, error) {
	c := &checker{}
	repo := c.repository(name)
	r := f.registrySettings(c, p.env)
	if err := c.err(); err != nil {
		return nil, err
	}
	return run(repo, r)
}

// end shows an error and sets the exit code.
func (p *process) end(c *cobra.Command, err error) error {
	if err != nil {
		_, _ = io.WriteString(p.stderr, display.ErrorText(err, p.color()))
	}
	p.code = exitCode(c.Context(), err)
	return nil
}

func writeEntries(out io.Writer, entries []core.CacheEntry, now time.Time) {
	if len(entries) == 0 {
		return
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "AGE\tSIZE\tPLATFORM\tSTEP\n")
	for _, e := range entries {
		platform := e.Platform
		if platform == "" {
			platform = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", units.HumanDuration(now.Sub(e.Created)), units.HumanSizeWithPrecision(float64(e.Size), 3), platform, e.Step)
	}
	_ = w.Flush()
}
