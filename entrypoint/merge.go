package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/display"
	"github.com/layerwright/layerwright/plugin/syntax"
)

const mergeHelp = `layerwright merge DIGEST… --destination IMAGE [--destination IMAGE…] [flags]

Makes one image for several platforms of those that the jobs of a matrix have pushed,
each by digest. No layer is transferred.

  layerwright build --platform linux/arm64 --push-by-digest -d r.example/app --digest-file arm64
  layerwright merge -d r.example/app:1 amd64 arm64

A DIGEST is sha256:…, a reference in the destination's repository, or a file with
digests. Images of two commits (their label org.opencontainers.image.revision), and two
for one platform, are refused. Doing it again changes nothing.

  -d, --destination IMAGE         the tag to write; again for more of one repository
      --platform OS/ARCH[,…]      refuse to merge anything but these platforms
      --annotation index:KEY=VALUE
      --digest-file FILE          write the digest of the index
      --image-name-with-digest-file, --image-name-tag-with-digest-file, --metadata-file
  -v, --verbosity LEVEL           error, warn, info or debug

and the flags about registries that build has (layerwright build --help-all).
`

// mergeCommand is "layerwright merge".
func (p *process) mergeCommand() *cobra.Command {
	f := &flags{}
	var platforms []string
	c := &cobra.Command{Use: "merge", RunE: func(c *cobra.Command, args []string) error {
		check := &checker{}
		f.given(c)
		r := core.MergeRequest{Sources: mergeSources(check, args), Platforms: platforms, Registry: f.registrySettings(check, p.env)}
		if len(f.out.destinations) == 0 {
			check.add("nowhere to put the index: give --destination IMAGE")
		}
		if len(args) == 0 {
			check.add("nothing to merge: name the digests that the jobs have pushed, or files with them")
		}
		r.Outputs = core.Outputs{Destinations: f.out.destinations, DigestFile: f.out.digestFile, MetadataFile: f.out.metadata,
			NameDigestFile: f.out.nameDigest, NameTagDigestFile: f.out.nameTagDigest, Annotations: slices.Concat(each(check, "annotation", f.out.annotations, syntax.Annotations)...)}
		checkOutputs(check, r.Outputs, true)
		return p.pushing(c, f, check, func(sink core.Sink) (*core.Result, error) {
			r.Progress = sink
			return core.Merge(c.Context(), r)
		})
	}}
	f.registerPushing(c)
	c.Flags().StringSliceVar(&platforms, "platform", nil, "")
	c.Flags().StringArrayVar(&f.out.annotations, "annotation", nil, "")
	c.SetHelpFunc(func(c *cobra.Command, _ []string) { fmt.Fprint(c.OutOrStdout(), mergeHelp) })
	return c
}

// registerPushing adds the flags of commands that only push.
func (f *flags) registerPushing(c *cobra.Command) {
	fs := c.Flags()
	f.out.imageFormat, f.out.compression = oneOf("oci", "docker"), oneOf("gzip", "zstd", "none")
	destination := &stringList{&f.out.destinations}
	fs.VarP(destination, "destination", "d", "")
	fs.VarP(destination, "tag", "t", "")
	fs.StringVar(&f.out.digestFile, "digest-file", "", "")
	fs.StringVar(&f.out.nameDigest, "image-name-with-digest-file", "", "")
	fs.StringVar(&f.out.nameTagDigest, "image-name-tag-with-digest-file", "", "")
	fs.StringVar(&f.out.metadata, "metadata-file", "", "")
	fs.StringVarP(&f.verbosity, "verbosity", "v", "info", "")
	f.logFormat = oneOf("auto", "plain", "tty", "json")
	fs.Var(&f.logFormat, "log-format", "")
	f.registry.register(fs)
	f.registry.registerPush(fs)
	fs.SetNormalizeFunc(normalizeFlag)
}

// pushing carries out a command that only pushes, unless check has found problems, and
// shows it.
func (p *process) pushing(c *cobra.Command, f *flags, check *checker, run func(core.Sink) (*core.Result, error)) error {
	verbosity, err := display.ParseVerbosity(f.verbosity)
	if err != nil {
		check.add("--verbosity: %w", err)
	}
	if err := check.err(); err != nil {
		return err
	}
	view := display.New(p.format(f), p.stderr, display.Options{Verbosity: verbosity, Color: p.color(), Size: p.terminal})
	out := display.Outcome{}
	if out.Result, err = run(view); err != nil {
		out.Result, out.Err = nil, ended(c.Context(), err)
	}
	view.Finish(out)
	p.code = exitCode(c.Context(), err)
	return nil
}

// mergeSources reads files with digests, and leaves digests and references as they are.
func mergeSources(c *checker, args []string) (out []string) {
	for _, a := range args {
		fi, err := os.Stat(a)
		if strings.HasPrefix(a, "sha256:") || err != nil || !fi.Mode().IsRegular() {
			out = append(out, a)
			continue
		}
		data, err := os.ReadFile(a)
		if err != nil {
			c.add("%s: %w", a, err)
			continue
		}
		list := strings.Fields(string(data))
		if len(list) == 0 || len(list) > 1000 {
			c.add("%s: it has no digests", a)
			continue
		}
		out = append(out, list...)
	}
	return out
}
