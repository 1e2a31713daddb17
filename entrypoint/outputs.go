package main

import (
	"slices"

	"github.com/distribution/reference"
	"github.com/spf13/pflag"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/syntax"
)

// outputFlags are the flags of what is made of the image, as they were written.
type outputFlags struct {
	destinations                        []string
	noPush                              bool
	layout, dockerTar                   string
	rootDir, rootTar                    string
	list                                []string // --output
	digestFile, imageIDFile, metadata   string
	nameDigest, nameTagDigest           string
	single, byDigest                    bool
	policy                              choice
	imageFormat, compression            choice
	level                               int
	annotations                         []string
	rewriteTimestamp, reproducibleImage bool
}

func (f *outputFlags) register(fs *pflag.FlagSet) {
	f.imageFormat, f.compression = oneOf("oci", "docker"), oneOf("gzip", "zstd", "none")
	f.policy = oneOf("all", "any")
	destination := &stringList{&f.destinations}
	fs.VarP(destination, "destination", "d", "IMAGE\twhere to push to; again for more (-t, --tag)")
	fs.VarP(destination, "tag", "t", "")
	fs.BoolVar(&f.noPush, "no-push", false, "\tpush nothing; destinations only name the image in other outputs")
	fs.Var(&f.policy, "destination-policy", "WHICH\tmust get the image for success: all or any")
	fs.BoolVar(&f.byDigest, "push-by-digest", false, "\tpush without tags, for layerwright merge")
	fs.StringArrayVarP(&f.list, "output", "o", nil, "type=TYPE,dest=PATH\tas docker's: local, tar, oci, docker, image, registry")
	fs.StringVar(&f.layout, "oci-layout-path", "", "DIR\twrite an OCI image layout")
	fs.StringVar(&f.dockerTar, "tar-path", "", "FILE\twrite what docker load reads; - is standard output")
	fs.StringVar(&f.rootDir, "rootfs-dir", "", "DIR\twrite the root file system")
	fs.StringVar(&f.rootTar, "rootfs-tar", "", "FILE\twrite the root file system as a tar; - is standard output")
	fs.StringVar(&f.digestFile, "digest-file", "", "FILE\twrite the digest of the image")
	fs.StringVar(&f.nameDigest, "image-name-with-digest-file", "", "FILE\twrite REPOSITORY@DIGEST of each destination")
	fs.StringVar(&f.nameTagDigest, "image-name-tag-with-digest-file", "", "FILE\twrite REPOSITORY:TAG@DIGEST of each")
	fs.StringVar(&f.imageIDFile, "iidfile", "", "FILE\twrite the image ID")
	fs.StringVar(&f.metadata, "metadata-file", "", "FILE\twrite digests and names as JSON")
	fs.Var(&f.imageFormat, "image-format", "FORMAT\toci or docker")
	fs.Var(&f.compression, "compression", "KIND\tof new layers: gzip, zstd or none")
	fs.IntVar(&f.level, "compression-level", 0, "N\t0 to 9 for gzip, 1 to 22 for zstd")
	fs.StringArrayVar(&f.annotations, "annotation", nil, "[KIND:]KEY=VALUE\tKIND manifest or index, also -descriptor")
	fs.BoolVar(&f.rewriteTimestamp, "rewrite-timestamp", false, "\tno file of a new layer later than SOURCE_DATE_EPOCH")
	fs.BoolVar(&f.single, "single-snapshot", false, "\tone layer on top of the base image")
	fs.BoolVar(&f.reproducibleImage, "reproducible", false, "\tthe same, with time 0 where there is no epoch")
}

// outputs are the settings of what is made of the image.
func (f *flags) outputs(c *checker, r *core.Request) {
	o := f.out
	out := core.Outputs{
		Destinations: slices.Clone(o.destinations), NoPush: o.noPush, OCILayout: o.layout, DockerTar: o.dockerTar, RootDir: o.rootDir, RootTar: o.rootTar,
		DigestFile: o.digestFile, ImageIDFile: o.imageIDFile, MetadataFile: o.metadata,
		NameDigestFile: o.nameDigest, NameTagDigestFile: o.nameTagDigest, SingleSnapshot: o.single, PushByDigest: o.byDigest, AnyDestination: o.policy.value == "any",
		ImageFormat: o.imageFormat.value, Compression: o.compression.value, RewriteTimestamp: o.rewriteTimestamp, Reproducible: o.reproducibleImage,
	}
	if f.set["compression-level"] && o.level != -1 { // Kaniko's default
		out.CompressionLevel = &o.level
	}
	out.Annotations = slices.Concat(each(c, "annotation", o.annotations, syntax.Annotations)...)
	more := &syntax.Outputs{}
	for _, text := range o.list {
		if err := more.Add(text, &out); err != nil {
			c.add("--output %s: %w", text, err)
		}
	}
	if err := more.Settle(&out); err != nil {
		c.add("--output %w", err)
	}
	if out.CompressionLevel != nil {
		if err := core.CheckCompression(out.Compression, *out.CompressionLevel); err != nil {
			c.add("--compression-level: %w", err)
		}
	}
	checkOutputs(c, out, f.call.asked() || f.dryRun)
	r.Outputs = out
}

func checkOutputs(c *checker, o core.Outputs, onlyAsks bool) {
	for _, d := range o.Destinations {
		named, err := syntax.Reference(d)
		if err != nil {
			c.add("--destination %s: %w", d, err)
			continue
		}
		if _, ok := named.(reference.Digested); ok {
			c.add("--destination %s: a digest cannot be pushed to: give a tag", d)
		}
	}
	if len(o.Destinations) == 0 && (o.NameDigestFile != "" || o.NameTagDigestFile != "") {
		c.add("files with the image's name and digest need a --destination: with --no-push it only names the image")
	}
	streams, anywhere := 0, o.NoPush || len(o.Destinations) > 0
	for _, path := range []string{o.OCITar, o.DockerTar, o.RootTar, o.OCILayout, o.RootDir} {
		anywhere = anywhere || path != ""
		if path == "-" {
			streams++
		}
	}
	switch {
	case o.OCILayout == "-" || o.RootDir == "-":
		c.add("a directory cannot be written to standard output: use a tar")
	case streams > 1:
		c.add("two outputs go to standard output: write one of them to a file")
	}
	if !onlyAsks && !anywhere {
		c.add("nowhere to put the image: give --destination, --oci-layout-path, --tar-path or --output, or --no-push to only build")
	}
	if o.ImageFormat == "docker" && o.Compression == "zstd" {
		c.add("--image-format docker has no media type for --compression zstd: use --image-format oci")
	}
	if o.ImageFormat == "docker" && len(o.Annotations) > 0 {
		c.add("--image-format docker has no annotations: use --image-format oci, or labels")
	}
}
