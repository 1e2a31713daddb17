package registry

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// Manifest is a manifest or index as a registry has it.
type Manifest struct {
	Raw       []byte
	MediaType types.MediaType
	Digest    v1.Hash
	// Manifests are those of an index; Config is an image's, and Image all of it. One
	// or the other is nil.
	Manifests   []v1.Descriptor
	Config      *v1.ConfigFile
	Image       *Image
	Annotations map[string]string
}

// Manifest fetches a manifest or index by tag or digest from its own registry,
// which is one request, and one for an image's configuration. Nothing is chosen in an
// index.
func (c *Client) Manifest(ctx context.Context, ref string) (*Manifest, error) {
	named, repo, err := parse(ref)
	if err != nil {
		return nil, err
	}
	s, err := c.session(ctx, repo, true)
	if err != nil {
		return nil, pulling(named.String(), err)
	}
	r := &resolver{c: c, s: s, name: named.String()}
	var want v1.Descriptor
	target := ""
	switch n := named.(type) {
	case reference.Digested:
		if want.Digest, err = v1.NewHash(n.Digest().String()); err != nil {
			return nil, fault.New(fault.Usage, "digest of %s: %w", named, err).With("Only sha256 digests are supported.")
		}
		target = want.Digest.String()
	case reference.Tagged:
		target = n.Tag()
	}
	raw, mt, err := r.manifest(ctx, target, want)
	if err != nil {
		return nil, pulling(named.String(), c.fail(ctx, s, "", err))
	}
	m := &Manifest{Raw: raw, MediaType: mt}
	if m.Digest, _, err = v1.SHA256(bytes.NewReader(raw)); err != nil {
		return nil, err
	}
	var e struct {
		MediaType   types.MediaType   `json:"mediaType"`
		Manifests   []v1.Descriptor   `json:"manifests"`
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, pulling(named.String(), fault.New(fault.Registry, "manifest is not JSON as expected: %w", err))
	}
	if e.MediaType != "" {
		m.MediaType = e.MediaType
	}
	m.Manifests, m.Annotations = e.Manifests, e.Annotations
	if len(m.Manifests) > 0 {
		return m, nil
	}
	img, err := r.image(ctx, raw)
	if err != nil {
		return nil, pulling(named.String(), c.fail(ctx, s, "", err))
	}
	img.Name, img.Digest = named.String(), m.Digest
	m.Config, m.Image = img.Config, img
	return m, nil
}
