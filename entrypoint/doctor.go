package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/display"
)

const doctorHelp = `layerwright doctor really tries what the isolation modes and snapshot drivers
need, prints what the kernel answered and what it means, and which ones a build
would use here. / is left as it was. Exit code 4 when nothing works.

  --store DIR       the directory that a build would use for trees and blobs
  --registry NAME   instead: which login a build would use for this registry, or
                    image, where it looked for one, and whether the registry
                    takes it; with the flags about registries that build has.
                    Exit code 3 when it does not. No secret is printed.
`

func (p *process) doctorCommand() *cobra.Command {
	var store, registry string
	f := &flags{}
	c := &cobra.Command{Use: "doctor", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		if registry != "" {
			f.given(c)
			return p.doctorRegistry(c, f, registry)
		}
		report := core.Doctor(c.Context(), core.DoctorOptions{Store: store})
		writeReport(p.stdout, report)
		if report.Err != nil {
			_, _ = io.WriteString(p.stderr, display.ErrorText(report.Err, p.color()))
		}
		p.code = exitCode(c.Context(), report.Err)
		return nil
	}}
	c.Flags().StringVar(&store, "store", "", "")
	c.Flags().StringVar(&registry, "registry", "", "")
	f.registry.register(c.Flags())
	c.SetHelpFunc(func(c *cobra.Command, _ []string) { fmt.Fprint(c.OutOrStdout(), doctorHelp) })
	return c
}

func writeReport(out io.Writer, r core.DoctorReport) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, a := range r.Attempts {
		mark := "no "
		if a.OK {
			mark = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", mark, a.What, a.Answer, a.Meaning)
	}
	_ = w.Flush()
	if r.Chosen != "" {
		fmt.Fprintf(out, "\nA build here uses isolation %s with %s snapshots.\n", r.Chosen, r.Snapshots)
	} else {
		fmt.Fprint(out, "\nNo isolation mode works here.\n")
	}
}
