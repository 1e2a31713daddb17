// Package image owns the manifest: configuration, history and layers of an
// image that agree with each other, as BuildKit's exporter makes them. The same
// input yields the same bytes. It does no I/O of its own: layers answer for
// themselves.
package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// Layer is one layer of the image with what its history says where the
// configuration says nothing.
type Layer struct {
	v1.Layer
	// Created is when the layer was made; zero for a layer of the base.
	Created time.Time
	// Description is the step that made it.
	Description string
}

// Options are the choices of Assemble.
type Options struct {
	// Docker gives Docker's media types instead of OCI's.
	Docker bool
	// Annotations are the manifest's, or the index's.
	Annotations map[string]string
	// Descriptor are the annotations of what points at the image or index.
	Descriptor map[string]string
	// Epoch is the time that nothing but the base's history may be later than
	// (SOURCE_DATE_EPOCH); BaseHistory is how much of the history is the
	// base's.
	Epoch       *time.Time
	BaseHistory int
	// EmbedConfig puts the configuration into the manifest as well
	// (image-spec, descriptor.md, "data"), which saves its readers a request.
	EmbedConfig bool
}

// Assemble makes an image of a raw configuration, as the frontend gives it, and
// all layers, base first. It waits for layers in the making.
func Assemble(config []byte, layers []Layer, opts Options) (v1.Image, error) {
	diffIDs := make([]v1.Hash, len(layers))
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{}}
	if opts.Docker {
		manifest.MediaType = types.DockerManifestSchema2
		if len(opts.Annotations) > 0 {
			return nil, fault.New(fault.Usage, "annotations need an OCI image: leave --image-format at oci").
				With("Docker's own format has no annotations; labels are in both.")
		}
	}
	manifest.Annotations = opts.Annotations
	for i, l := range layers {
		d, err := partial.Descriptor(l.Layer)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
		if diffIDs[i], err = l.DiffID(); err != nil {
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
		mt, err := convert(d.MediaType, opts.Docker)
		if err != nil {
			return nil, err
		}
		manifest.Layers = append(manifest.Layers, v1.Descriptor{MediaType: mt, Size: d.Size, Digest: d.Digest, URLs: d.URLs})
	}
	raw, err := patch(config, layers, diffIDs, opts)
	if err != nil {
		return nil, err
	}
	hash, size, err := v1.SHA256(newReader(raw))
	if err != nil {
		return nil, err
	}
	manifest.Config = v1.Descriptor{MediaType: types.OCIConfigJSON, Size: size, Digest: hash}
	if opts.Docker {
		manifest.Config.MediaType = types.DockerConfigJSON
	}
	if opts.EmbedConfig {
		manifest.Config.Data = raw
	}
	img := &assembled{config: raw, manifest: manifest, descriptor: opts.Descriptor}
	for i, l := range layers {
		img.layers = append(img.layers, typed{Layer: l.Layer, mediaType: manifest.Layers[i].MediaType})
	}
	if img.raw, err = json.Marshal(manifest); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return img, nil
}

// dockerZStd is what some tools call a zstd layer in Docker's family.
const dockerZStd types.MediaType = "application/vnd.docker.image.rootfs.diff.tar.zstd"

// convert gives the media type of the same layer in the other family.
func convert(mt types.MediaType, docker bool) (types.MediaType, error) {
	pairs := []struct{ oci, docker types.MediaType }{
		{types.OCILayer, types.DockerLayer},
		{types.OCIUncompressedLayer, types.DockerUncompressedLayer},
		{types.OCIRestrictedLayer, types.DockerForeignLayer},
		{types.OCILayerZStd, dockerZStd},
	}
	if docker && (mt == types.OCILayerZStd || mt == dockerZStd) {
		return "", fault.New(fault.Usage, "zstd layers need an OCI image: leave --image-format at oci").
			With("Docker's own format has no zstd layers; a base image may have brought one in.")
	}
	for _, p := range pairs {
		if mt == p.oci || mt == p.docker {
			if docker {
				return p.docker, nil
			}
			return p.oci, nil
		}
	}
	return mt, nil
}

// patch completes the configuration: rootfs, history, creation time.
func patch(config []byte, layers []Layer, diffIDs []v1.Hash, opts Options) ([]byte, error) {
	m := map[string]json.RawMessage{}
	if err := json.Unmarshal(config, &m); err != nil {
		return nil, fmt.Errorf("decode image configuration: %w", err)
	}
	var parsed ocispecs.Image
	if err := json.Unmarshal(config, &parsed); err != nil {
		return nil, fmt.Errorf("decode image configuration: %w", err)
	}
	if parsed.OS == "" || parsed.Architecture == "" {
		return nil, errors.New("image configuration without os or architecture")
	}
	history := normalise(parsed.History, layers)
	clampHistory(history, opts)
	// A struct, for BuildKit's order of keys; without layers a null list.
	rootfs := ocispecs.RootFS{Type: "layers"}
	for _, d := range diffIDs {
		rootfs.DiffIDs = append(rootfs.DiffIDs, digest.Digest(d.String()))
	}
	put := func(key string, v any) error {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode %s: %w", key, err)
		}
		m[key] = b
		return nil
	}
	err := errors.Join(put("rootfs", rootfs), put("history", history))
	if parsed.Created != nil && opts.Epoch != nil && parsed.Created.After(*opts.Epoch) {
		err = errors.Join(err, put("created", opts.Epoch))
	}
	if _, ok := m["created"]; !ok {
		var last *time.Time
		for _, h := range history {
			if h.Created != nil {
				last = h.Created
			}
		}
		err = errors.Join(err, put("created", last))
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(m)
}

// clampHistory keeps the times of the build's own entries at or before the epoch.
// The base's stay what they are, as in BuildKit.
func clampHistory(history []ocispecs.History, opts Options) {
	if opts.Epoch == nil {
		return
	}
	for i := range history {
		if i >= opts.BaseHistory && (history[i].Created == nil || history[i].Created.After(*opts.Epoch)) {
			history[i].Created = opts.Epoch
		}
	}
}

// normalise makes history and layers agree (BuildKit's
// normalizeLayersAndHistory): entries without a layer are marked, layers
// without an entry get one, and every entry gets a time.
func normalise(history []ocispecs.History, layers []Layer) []ocispecs.History {
	history = slices.Clone(history)
	n := 0
	for i := range history {
		if !history[i].EmptyLayer {
			if n >= len(layers) {
				history[i].EmptyLayer = true
				continue
			}
			n++
		}
	}
	for _, l := range layers[n:] {
		history = append(history, ocispecs.History{Created: timeOf(l), CreatedBy: l.Description, Comment: "buildkit.exporter.image.v0"})
	}
	n = 0
	for i := range history {
		if !history[i].EmptyLayer {
			if history[i].Created == nil {
				history[i].Created = timeOf(layers[n])
			}
			n++
		}
	}
	return fillTimes(history)
}

func timeOf(l Layer) *time.Time {
	if l.Created.IsZero() {
		return nil
	}
	t := l.Created.UTC()
	return &t
}

// fillTimes gives entries without a time that of the first new layer or of the
// layer before.
func fillTimes(history []ocispecs.History) []ocispecs.History {
	var created *time.Time
	missing := false
	for _, h := range history {
		if h.Created != nil {
			created = h.Created
			if missing {
				break
			}
		} else {
			missing = true
		}
	}
	missing = false
	for i := range history {
		if history[i].Created != nil {
			if missing {
				created = history[i].Created
			}
			continue
		}
		missing = true
		history[i].Created = created
	}
	return history
}
