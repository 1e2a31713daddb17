package core

import (
	"bytes"
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/layerwright/layerwright/core/internal/registry"
)

// engineImage is an image that an engine has made, under the manifest that it has
// without one: the same image has the same digest.
type engineImage struct {
	v1.Image
	raw        []byte
	manifest   *v1.Manifest
	descriptor map[string]string
}

// rewritten is BuildKit's note to itself at layers whose times it has changed.
const rewritten = "buildkit/rewritten-timestamp"

func newEngineImage(img v1.Image, descriptor map[string]string) (*engineImage, error) {
	m, err := img.Manifest()
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	m = m.DeepCopy()
	for i := range m.Layers {
		delete(m.Layers[i].Annotations, rewritten)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return &engineImage{Image: img, raw: raw, manifest: m, descriptor: descriptor}, nil
}

func (e *engineImage) RawManifest() ([]byte, error)    { return e.raw, nil }
func (e *engineImage) Manifest() (*v1.Manifest, error) { return e.manifest.DeepCopy(), nil }
func (e *engineImage) Digest() (v1.Hash, error)        { return partial.Digest(e) }
func (e *engineImage) Size() (int64, error)            { return int64(len(e.raw)), nil }

// DescriptorAnnotations are those of what points at the image.
func (e *engineImage) DescriptorAnnotations() map[string]string { return e.descriptor }

// pushedImage is an image in a registry, with layers that can be mounted from there,
// read once, or both.
type pushedImage struct {
	*registry.Image
	mediaType types.MediaType
	layers    []v1.Layer
}

var _ v1.Image = (*pushedImage)(nil)

func (p *pushedImage) Layers() ([]v1.Layer, error)         { return p.layers, nil }
func (p *pushedImage) MediaType() (types.MediaType, error) { return p.mediaType, nil }
func (p *pushedImage) Size() (int64, error)                { return int64(len(p.Image.RawManifest)), nil }
func (p *pushedImage) ConfigName() (v1.Hash, error)        { return p.Image.Manifest.Config.Digest, nil }
func (p *pushedImage) RawConfigFile() ([]byte, error)      { return p.RawConfig, nil }
func (p *pushedImage) RawManifest() ([]byte, error)        { return p.Image.RawManifest, nil }
func (p *pushedImage) Manifest() (*v1.Manifest, error)     { return p.Image.Manifest.DeepCopy(), nil }
func (p *pushedImage) Digest() (v1.Hash, error)            { return p.ManifestDigest, nil }
func (p *pushedImage) ConfigFile() (*v1.ConfigFile, error) {
	return v1.ParseConfigFile(bytes.NewReader(p.RawConfig))
}

func (p *pushedImage) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	if h == p.Image.Manifest.Config.Digest {
		return partial.ConfigLayer(p)
	}
	for i, d := range p.Image.Manifest.Layers {
		if d.Digest == h {
			return p.layers[i], nil
		}
	}
	return nil, fmt.Errorf("no layer %s", h)
}

func (p *pushedImage) LayerByDiffID(h v1.Hash) (v1.Layer, error) {
	for i, d := range p.Config.RootFS.DiffIDs {
		if d == h {
			return p.layers[i], nil
		}
	}
	return nil, fmt.Errorf("no layer with diffID %s", h)
}
