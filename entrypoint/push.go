package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/layerwright/layerwright/core"
)

const pushHelp = `layerwright push FILE|DIR --destination IMAGE [--destination IMAGE…] [flags]

Pushes an image that a build has written with --tar-path, --oci-layout-path or
--output, or docker save: as it is, with the same digest.

  layerwright build --no-push --oci-layout-path out .
  layerwright push out -t registry.example/app:1

  -d, --destination IMAGE         where to push to; again for more (-t, --tag)
      --image NAME                which one, where there are several: tag, name or digest
      --digest-file FILE          write the digest
      --image-name-with-digest-file, --image-name-tag-with-digest-file, --metadata-file
  -v, --verbosity LEVEL           error, warn, info or debug

and the flags about registries that build has (layerwright build --help-all):
--insecure, --skip-tls-verify, --push-retry, --registry-certificate and so on.
`

// pushCommand is "layerwright push".
func (p *process) pushCommand() *cobra.Command {
	f := &flags{}
	var r core.PushRequest
	c := &cobra.Command{Use: "push", RunE: func(c *cobra.Command, args []string) error {
		check := &checker{}
		f.given(c)
		if len(args) == 1 {
			r.From = args[0]
		} else {
			check.add("name one tar or directory to push, and flags by two dashes")
		}
		r.Registry = f.registrySettings(check, p.env)
		if len(f.out.destinations) == 0 {
			check.add("nowhere to push to: give --destination IMAGE")
		}
		r.Outputs = core.Outputs{Destinations: f.out.destinations, DigestFile: f.out.digestFile, MetadataFile: f.out.metadata,
			NameDigestFile: f.out.nameDigest, NameTagDigestFile: f.out.nameTagDigest}
		checkOutputs(check, r.Outputs, true)
		return p.pushing(c, f, check, func(sink core.Sink) (*core.Result, error) {
			r.Progress = sink
			return core.PushSaved(c.Context(), r)
		})
	}}
	f.registerPushing(c)
	c.Flags().StringVar(&r.Image, "image", "", "")
	c.SetHelpFunc(func(c *cobra.Command, _ []string) { fmt.Fprint(c.OutOrStdout(), pushHelp) })
	return c
}
