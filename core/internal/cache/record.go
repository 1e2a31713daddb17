package cache

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/image"
	"github.com/layerwright/layerwright/core/internal/registry"
)

// Labels of a record's configuration.
const (
	labelFormat  = "dev.layerwright.cache.format"
	labelCreated = "dev.layerwright.cache.created"
	labelStep    = "dev.layerwright.cache.step"
	labelContent = "dev.layerwright.cache.content-key"
)

// Record is a result that was found.
type Record struct {
	// From is where it was found; Manifest is how it is stored there.
	From     Repository
	Manifest registry.Artifact
	// Layers are those that the chain adds to its base, base first; History
	// has an entry for each.
	Layers  []v1.Layer
	History []v1.History
	// Created is when it was written. Step is the instruction.
	Created time.Time
	Step    string
	// Platform is "os/architecture[/variant]"; empty for what has none.
	Platform string
	// Labels are all that the record says of itself.
	Labels map[string]string
	// ContentKey is what the vertex was known by when its inputs were there.
	ContentKey string
}

func (r *Record) digests() (out []v1.Hash) {
	for _, l := range r.Layers {
		if d, err := l.Digest(); err == nil {
			out = append(out, d)
		}
	}
	return out
}

// newRecord makes a record of the layers that a chain has added.
func (c *Cache) newRecord(v *graph.Vertex, k *keys, layers []v1.Layer) (v1.Image, error) {
	config := v1.ConfigFile{OS: "linux", Architecture: "unknown"}
	p := v.Op.Platform
	if source := bottom(v); p == nil && source != nil {
		p = source.Op.Platform
	}
	if p != nil {
		config.OS, config.Architecture, config.Variant = p.OS, p.Architecture, p.Variant
	}
	list := make([]image.Layer, len(layers))
	steps := addedBy(v)
	for i, l := range layers {
		list[i].Layer, list[i].Created, list[i].Description = l, c.opts.Created(l), graph.Instruction(v)
		if len(steps) == len(layers) {
			list[i].Description = graph.Instruction(steps[i])
		}
	}
	return assemble(config, map[string]string{labelStep: graph.Instruction(v), labelContent: k.content}, list, c.opts.Now())
}

// addedBy are the vertices that have added the layers of a chain to its base, in
// the layers' order. Their names have values of build arguments in them, which a
// record must not: it has the instructions as they are written.
func addedBy(v *graph.Vertex) (out []*graph.Vertex) {
	switch {
	case graph.SourceScheme(v) == "docker-image", graph.SourceScheme(v) == "oci-layout":
		return nil
	case v.Op.GetMerge() != nil:
		for _, in := range v.Inputs {
			out = append(out, addedBy(in.Vertex)...)
		}
		return out
	}
	if base, ok := graph.Base(v); ok {
		out = addedBy(base.Vertex)
	}
	return append(out, v)
}

// assemble makes the image that a record is.
func assemble(config v1.ConfigFile, labels map[string]string, layers []image.Layer, now time.Time) (v1.Image, error) {
	labels[labelFormat], labels[labelCreated] = Format, now.UTC().Format(time.RFC3339Nano)
	config.Created, config.Config.Labels = v1.Time{Time: now.UTC()}, labels
	raw, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	return image.Assemble(raw, layers, image.Options{EmbedConfig: true})
}

// parse reads a record, of whichever format, from the configuration of an image and
// its layers.
func parse(config *v1.ConfigFile, layers []v1.Layer) (*Record, error) {
	labels := config.Config.Labels
	if labels[labelFormat] == "" {
		return nil, fmt.Errorf("not a record: %w", ErrMiss)
	}
	created, err := time.Parse(time.RFC3339Nano, labels[labelCreated])
	if err != nil {
		return nil, fmt.Errorf("record without a time: %w", ErrMiss)
	}
	r := &Record{Labels: labels, Layers: layers, Created: created, Step: labels[labelStep], ContentKey: labels[labelContent]}
	if config.Architecture != "unknown" {
		r.Platform = strings.TrimSuffix(config.OS+"/"+config.Architecture+"/"+config.Variant, "/")
	}
	for _, h := range config.History {
		if !h.EmptyLayer {
			r.History = append(r.History, h)
		}
	}
	if len(r.History) != len(layers) {
		return nil, fmt.Errorf("record whose history has %d layers, its manifest %d: %w", len(r.History), len(layers), ErrMiss)
	}
	return r, nil
}

// current is what has been read, if it is a record of this format.
func current(r *Record, err error) (*Record, error) {
	if err == nil && r.Labels[labelFormat] != Format {
		return nil, fmt.Errorf("not a record of format %s: %w", Format, ErrMiss)
	}
	return r, err
}
