package image

import (
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Index makes an index of several platforms' images, in their order. It is put
// together here because the library marks each entry with an artifactType, which
// an image has not.
func Index(images []v1.Image, ps []ocispecs.Platform, opts Options) (v1.ImageIndex, error) {
	m := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Annotations: opts.Annotations}
	if opts.Docker {
		m.MediaType = types.DockerManifestList
	}
	for i, img := range images {
		d, err := partial.Descriptor(img)
		if err != nil {
			return nil, fmt.Errorf("describe image %d: %w", i+1, err)
		}
		m.Manifests = append(m.Manifests, v1.Descriptor{Annotations: descriptorAnnotations(img), MediaType: d.MediaType, Size: d.Size, Digest: d.Digest, Platform: &v1.Platform{
			OS: ps[i].OS, Architecture: ps[i].Architecture, Variant: ps[i].Variant, OSVersion: ps[i].OSVersion, OSFeatures: ps[i].OSFeatures,
		}})
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode index: %w", err)
	}
	return &index{manifest: m, raw: raw, images: images, descriptor: opts.Descriptor}, nil
}

func descriptorAnnotations(img v1.Image) map[string]string {
	if a, ok := img.(interface{ DescriptorAnnotations() map[string]string }); ok {
		return a.DescriptorAnnotations()
	}
	return nil
}

// index is a finished index.
type index struct {
	manifest v1.IndexManifest
	raw      []byte
	images   []v1.Image
	// descriptor are the annotations of what points at the index.
	descriptor map[string]string
}

var _ v1.ImageIndex = (*index)(nil)

// DescriptorAnnotations are those of what points at the index.
func (x *index) DescriptorAnnotations() map[string]string { return x.descriptor }

func (x *index) MediaType() (types.MediaType, error)       { return x.manifest.MediaType, nil }
func (x *index) Size() (int64, error)                      { return int64(len(x.raw)), nil }
func (x *index) Digest() (v1.Hash, error)                  { return partial.Digest(x) }
func (x *index) RawManifest() ([]byte, error)              { return x.raw, nil }
func (x *index) IndexManifest() (*v1.IndexManifest, error) { return x.manifest.DeepCopy(), nil }
func (x *index) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	return nil, fmt.Errorf("no index %s", h)
}

func (x *index) Image(h v1.Hash) (v1.Image, error) {
	for i, d := range x.manifest.Manifests {
		if d.Digest == h {
			return x.images[i], nil
		}
	}
	return nil, fmt.Errorf("no image %s", h)
}
