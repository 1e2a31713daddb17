package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/spf13/pflag"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/syntax"
)

// outputFlags are the flags of what is made of the image, as they were written.
type outputFlags struct {
	destinations                        []string
	noPush                              bool
	layout, ociTar, dockerTar           string
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

	// names are those that --output gives an image that it does not push, kept
	// says that it asks for an image and no more.
	names []string
	kept  bool
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
func (f *flags) outputs(c *checker, r *core.Request, env map[string]string) {
	o := f.out // --output changes a copy
	for _, text := range o.list {
		if err := o.output(text, f.set); err != nil {
			c.add("--output %s: %w", text, err)
		}
	}
	o.settleNames(c)
	r.Outputs = core.Outputs{
		Destinations: o.destinations, NoPush: o.noPush, OCILayout: o.layout, OCITar: o.ociTar, DockerTar: o.dockerTar, RootDir: o.rootDir, RootTar: o.rootTar,
		DigestFile: o.digestFile, ImageIDFile: o.imageIDFile, MetadataFile: o.metadata,
		NameDigestFile: o.nameDigest, NameTagDigestFile: o.nameTagDigest, SingleSnapshot: o.single, PushByDigest: o.byDigest, AnyDestination: o.policy.value == "any",
		ImageFormat: o.imageFormat.value, Compression: o.compression.value, RewriteTimestamp: o.rewriteTimestamp, Reproducible: o.reproducibleImage,
	}
	if f.set["compression-level"] && o.level != -1 { // Kaniko's default
		r.Outputs.CompressionLevel = &o.level
		if err := core.CheckCompression(o.compression.value, o.level); err != nil {
			c.add("--compression-level: %w", err)
		}
	}
	if v, ok := env["SOURCE_DATE_EPOCH"]; ok { // as docker does
		if _, given := r.BuildArgs["SOURCE_DATE_EPOCH"]; !given {
			r.BuildArgs["SOURCE_DATE_EPOCH"] = v
		}
	}
	r.Outputs.Annotations = annotations(c, o.annotations)
	o.check(c, f.call.asked() || f.dryRun)
}

// settleNames makes names of what is not pushed destinations that are not pushed.
// Both kinds in one build would need what the engine does not have.
func (f *outputFlags) settleNames(c *checker) {
	switch {
	case len(f.destinations) > 0 && !f.noPush && len(f.names) > 0:
		c.add("--output name=%s: names of what is not pushed are not possible beside destinations that are: leave name out, since the outputs get the destinations' names", f.names[0])
	case len(f.destinations) == 0:
		f.destinations, f.noPush = f.names, f.noPush || f.kept || len(f.names) > 0
	default:
		f.destinations = append(f.destinations, f.names...)
	}
}

func (f *outputFlags) check(c *checker, onlyAsks bool) {
	for _, d := range f.destinations {
		named, err := parseDestination(d)
		if err != nil {
			c.add("--destination %s: %w", d, err)
			continue
		}
		if _, ok := named.(reference.Digested); ok {
			c.add("--destination %s: a digest cannot be pushed to: give a tag", d)
		}
	}
	if len(f.destinations) == 0 && (f.nameDigest != "" || f.nameTagDigest != "") {
		c.add("files with the image's name and digest need a --destination: with --no-push it only names the image")
	}
	streams, anywhere := 0, f.noPush || len(f.destinations) > 0
	for _, path := range []string{f.ociTar, f.dockerTar, f.rootTar, f.layout, f.rootDir} {
		anywhere = anywhere || path != ""
		if path == "-" {
			streams++
		}
	}
	switch {
	case f.layout == "-" || f.rootDir == "-":
		c.add("a directory cannot be written to standard output: use a tar")
	case streams > 1:
		c.add("two outputs go to standard output: write one of them to a file")
	}
	if !onlyAsks && !anywhere {
		c.add("nowhere to put the image: give --destination, --oci-layout-path, --tar-path or --output, or --no-push to only build")
	}
	if f.imageFormat.value == "docker" && f.compression.value == "zstd" {
		c.add("--image-format docker has no media type for --compression zstd: use --image-format oci")
	}
	if f.imageFormat.value == "docker" && len(f.annotations) > 0 {
		c.add("--image-format docker has no annotations: use --image-format oci, or labels")
	}
}

// output reads docker's way to say where the image goes.
func (f *outputFlags) output(text string, set map[string]bool) error {
	kind, dest, fields, err := parseOutput(text)
	if err != nil {
		return err
	}
	place := func(at *string) error {
		if dest == "" {
			return errors.New("dest= is missing")
		}
		if *at != "" && *at != dest {
			return fmt.Errorf("two outputs of type %s", kind)
		}
		*at = dest
		return nil
	}
	switch kind {
	case "local":
		err = place(&f.rootDir)
	case "tar":
		err = place(&f.rootTar)
	case "oci":
		if fields["tar"] == "false" {
			err = place(&f.layout)
		} else {
			err = place(&f.ociTar)
		}
	case "docker":
		if dest == "" {
			return errors.New("there is no Docker engine to load into: give dest=FILE, and docker load that, or push")
		}
		err = place(&f.dockerTar)
	case "image", "registry":
		if dest != "" {
			return fmt.Errorf("type=%s has no dest", kind)
		}
		f.kept = true
	default:
		return fmt.Errorf("unknown type %q: use local, tar, oci, docker, image or registry", kind)
	}
	if err != nil {
		return err
	}
	return f.outputFields(kind, fields, set)
}

// parseOutput splits "type=local,dest=DIR"; a path alone is type local, "-" a tar.
func parseOutput(text string) (kind, dest string, fields map[string]string, err error) {
	fields = map[string]string{}
	if !strings.Contains(text, "=") {
		if text == "-" {
			return "tar", "-", fields, nil
		}
		return "local", text, fields, nil
	}
	for _, field := range strings.Split(text, ",") {
		k, v, ok := strings.Cut(field, "=")
		if k = strings.ToLower(strings.TrimSpace(k)); !ok {
			if k == "push" { // docker's short form
				v = "true"
			} else {
				return "", "", nil, fmt.Errorf("%q is not KEY=VALUE", field)
			}
		}
		switch k {
		case "type":
			kind = v
		case "dest":
			dest = v
		default:
			fields[k] = v
		}
	}
	if kind == "" {
		return "", "", nil, errors.New("type= is missing")
	}
	return kind, dest, fields, nil
}

// outputFields are the further keys of an output.
func (f *outputFlags) outputFields(kind string, fields map[string]string, set map[string]bool) error {
	for k, v := range fields {
		var err error
		switch k {
		case "name":
			names := &f.names
			if push, _ := strconv.ParseBool(fields["push"]); kind == "registry" || push {
				names = &f.destinations
			}
			*names = append(*names, v)
			if kind == "local" || kind == "tar" {
				err = fmt.Errorf("type=%s has no name", kind)
			}
		case "push", "tar", "push-by-digest", "name-canonical":
			var on bool
			on, err = strconv.ParseBool(v)
			if k == "push-by-digest" && on {
				f.byDigest = true
			}
			if k == "tar" && kind != "oci" || k != "tar" && kind != "image" && kind != "registry" {
				err = fmt.Errorf("type=%s has no %s", kind, k)
			}
		case "compression":
			if v == "uncompressed" {
				v = "none"
			}
			err = f.compression.Set(v)
		case "compression-level":
			f.level, err = strconv.Atoi(v)
			set["compression-level"] = true
		case "oci-mediatypes":
			var oci bool
			if oci, err = strconv.ParseBool(v); err == nil && !oci {
				err = f.imageFormat.Set("docker")
			}
		case "rewrite-timestamp":
			f.rewriteTimestamp, err = strconv.ParseBool(v)
		default:
			if key, ok := strings.CutPrefix(k, "annotation"); ok && key != "" {
				f.annotations = append(f.annotations, annotationOf(key)+"="+v)
				continue
			}
			return fmt.Errorf("unknown key %q", k)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	return nil
}

// annotationOf turns "-index.KEY", ".KEY" or "-manifest[os/arch].KEY" into the form
// of --annotation.
func annotationOf(s string) string {
	if key, ok := strings.CutPrefix(s, "."); ok {
		return key
	}
	kind, key, _ := strings.Cut(strings.TrimPrefix(s, "-"), ".")
	return kind + ":" + key
}

// annotations reads [KIND[PLATFORM],…:]KEY=VALUE, as docker does.
func annotations(c *checker, given []string) []core.Annotation {
	return slices.Concat(each(c, "annotation", given, syntax.Annotations)...)
}
