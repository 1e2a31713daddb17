package image

import (
	"bytes"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func newReader(b []byte) io.Reader { return bytes.NewReader(b) }

// assembled is a finished image; its layers stream.
type assembled struct {
	config, raw []byte
	manifest    v1.Manifest
	layers      []v1.Layer
	descriptor  map[string]string
}

var _ v1.Image = (*assembled)(nil)

// DescriptorAnnotations are those of what points at the image.
func (a *assembled) DescriptorAnnotations() map[string]string { return a.descriptor }

func (a *assembled) Layers() ([]v1.Layer, error)         { return a.layers, nil }
func (a *assembled) MediaType() (types.MediaType, error) { return a.manifest.MediaType, nil }
func (a *assembled) Size() (int64, error)                { return int64(len(a.raw)), nil }
func (a *assembled) ConfigName() (v1.Hash, error)        { return a.manifest.Config.Digest, nil }
func (a *assembled) RawConfigFile() ([]byte, error)      { return a.config, nil }
func (a *assembled) ConfigFile() (*v1.ConfigFile, error) {
	return v1.ParseConfigFile(newReader(a.config))
}
func (a *assembled) Manifest() (*v1.Manifest, error) { return a.manifest.DeepCopy(), nil }
func (a *assembled) RawManifest() ([]byte, error)    { return a.raw, nil }
func (a *assembled) Digest() (v1.Hash, error)        { return partial.Digest(a) }

func (a *assembled) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	if h == a.manifest.Config.Digest {
		return partial.ConfigLayer(a)
	}
	for i, d := range a.manifest.Layers {
		if d.Digest == h {
			return a.layers[i], nil
		}
	}
	return nil, fmt.Errorf("no layer %s", h)
}

func (a *assembled) LayerByDiffID(h v1.Hash) (v1.Layer, error) {
	for _, l := range a.layers {
		if d, err := l.DiffID(); err == nil && d == h {
			return l, nil
		}
	}
	return nil, fmt.Errorf("no layer with diffID %s", h)
}

// typed is a layer under the media type that the manifest gives it.
type typed struct {
	v1.Layer
	mediaType types.MediaType
}

// MediaType implements v1.Layer.
func (t typed) MediaType() (types.MediaType, error) { return t.mediaType, nil }

// Unwrap is the layer itself, for whoever knows where its bytes are.
func (t typed) Unwrap() v1.Layer { return t.Layer }

// MountSource is the repository that has the blob already, if any: pushing then
// mounts it instead of sending it.
func (t typed) MountSource() (host, path string) {
	if m, ok := t.Layer.(interface{ MountSource() (host, path string) }); ok {
		return m.MountSource()
	}
	return "", ""
}
