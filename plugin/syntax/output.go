package syntax

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/layerwright/layerwright/core"
)

// Outputs are the outputs that docker's --output asks for. The zero value is none.
type Outputs struct {
	// Push is docker's --push: images are pushed also where their output does not
	// say so.
	Push bool
	// pushes, keeps and names are what Add has found: an image that is pushed, one
	// that is not, and the names of what is not.
	pushes, keeps bool
	names         []string
}

// Add reads type=TYPE,dest=PATH,… or a path alone, and puts it into out, which has what
// was asked for otherwise.
func (o *Outputs) Add(text string, out *core.Outputs) error {
	fields := map[string]string{"type": "local", "dest": text}
	if text == "-" {
		fields["type"] = "tar"
	}
	if strings.Contains(text, "=") {
		var err error
		if fields, err = Fields(text, "push"); err != nil {
			return err
		}
	}
	kind, dest := fields["type"], fields["dest"]
	places := map[string]*string{"local": &out.RootDir, "tar": &out.RootTar, "docker": &out.DockerTar, "oci": &out.OCITar}
	if fields["tar"] == "false" {
		places["oci"] = &out.OCILayout
	}
	at, isFile := places[kind]
	switch {
	case kind == "":
		return errors.New("type= is missing")
	case kind == "image" || kind == "registry":
		if dest != "" {
			return fmt.Errorf("type=%s has no dest", kind)
		}
	case !isFile:
		return fmt.Errorf("unknown type %q: use local, tar, oci, docker, image or registry", kind)
	case dest == "" && kind == "docker":
		return errors.New("there is no Docker engine to load into: give dest=FILE, and docker load that, or push")
	case dest == "":
		return errors.New("dest= is missing")
	case *at != "" && *at != dest:
		return fmt.Errorf("two outputs of type %s", kind)
	default:
		*at = dest
	}
	return o.further(kind, fields, out)
}

// switches are keys that are on or off, and the types of outputs that have them; nil is
// every type.
func switches() map[string][]string {
	images := []string{"image", "registry"}
	return map[string][]string{"push": images, "push-by-digest": images, "name-canonical": images, "tar": {"oci"}, "oci-mediatypes": nil, "rewrite-timestamp": nil}
}

// further are the other keys of an output.
func (o *Outputs) further(kind string, fields map[string]string, out *core.Outputs) error {
	on := map[string]bool{}
	known := switches()
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		types, ok := known[k]
		if !ok {
			continue
		}
		var err error
		if types != nil && !slices.Contains(types, kind) {
			return fmt.Errorf("type=%s has no %s", kind, k)
		}
		if on[k], err = strconv.ParseBool(fields[k]); err != nil {
			return fmt.Errorf("%s is neither true nor false", k)
		}
	}
	image := kind == "image" || kind == "registry"
	pushed := kind == "registry" || image && (on["push"] || o.Push)
	o.pushes, o.keeps = o.pushes || pushed, o.keeps || image && !pushed
	out.PushByDigest = out.PushByDigest || on["push-by-digest"]
	out.RewriteTimestamp = out.RewriteTimestamp || on["rewrite-timestamp"]
	if _, given := fields["oci-mediatypes"]; given && !on["oci-mediatypes"] {
		out.ImageFormat = "docker"
	}
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		v := fields[k]
		var err error
		switch k {
		case "type", "dest":
		case "name":
			err = o.named(kind, v, pushed, out)
		case "compression":
			if v = strings.Replace(v, "uncompressed", "none", 1); !slices.Contains([]string{"gzip", "zstd", "none"}, v) {
				err = fmt.Errorf("unknown compression %q: use gzip, zstd or none", v)
			}
			out.Compression = v
		case "compression-level":
			var level int
			if level, err = strconv.Atoi(v); err != nil {
				err = fmt.Errorf("compression-level %q is no number", v)
			}
			out.CompressionLevel = &level
		default:
			if _, ok := known[k]; !ok {
				err = annotated(k, v, out)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// named are the names of an output, with commas between them.
func (o *Outputs) named(kind, list string, pushed bool, out *core.Outputs) error {
	if kind == "local" || kind == "tar" {
		return fmt.Errorf("type=%s has no name", kind)
	}
	for _, name := range strings.FieldsFunc(list, func(c rune) bool { return c == ',' || c == ' ' }) {
		if _, err := Reference(name); err != nil {
			return fmt.Errorf("name %s: %w", name, err)
		}
		if pushed {
			out.Destinations = append(out.Destinations, name)
		} else {
			o.names = append(o.names, name)
		}
	}
	return nil
}

// annotated reads annotation-index.KEY, annotation.KEY and
// annotation-manifest[os/arch].KEY, as buildx has them.
func annotated(key, value string, out *core.Outputs) error {
	rest, ok := strings.CutPrefix(key, "annotation")
	if !ok || rest == "" {
		return fmt.Errorf("unknown key %q", key)
	}
	text, plain := strings.CutPrefix(rest, ".")
	if !plain {
		kind, k, _ := strings.Cut(strings.TrimPrefix(rest, "-"), ".")
		text = kind + ":" + k
	}
	list, err := Annotations(text + "=" + value)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	out.Annotations = append(out.Annotations, list...)
	return nil
}

// Pushes says whether an output pushes.
func (o *Outputs) Pushes() bool { return o.pushes }

// Settle makes names of what is not pushed destinations that are not pushed, when all
// outputs are there. Both kinds in one build would need what the engine does not have.
func (o *Outputs) Settle(out *core.Outputs) error {
	switch {
	case len(out.Destinations) > 0 && !out.NoPush && len(o.names) > 0:
		return fmt.Errorf("name=%s: names of what is not pushed are not possible beside destinations that are: leave name out, since the outputs get the destinations' names", o.names[0])
	case len(out.Destinations) == 0:
		out.Destinations, out.NoPush = o.names, out.NoPush || o.keeps || len(o.names) > 0
	default:
		out.Destinations = append(out.Destinations, o.names...)
	}
	return nil
}
