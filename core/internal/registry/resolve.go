package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/layerwright/layerwright/core/internal/credentials"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// What a registry may make us hold in memory.
const (
	maxManifest = 8 << 20
	maxConfig   = 32 << 20
	maxDepth    = 4 // indexes in indexes
)

// Image is one image for one platform, in a registry.
type Image struct {
	// Name is the normalised reference: "docker.io/library/debian:12".
	Name string
	// Digest is what the reference pointed at: the index, if it is one.
	Digest v1.Hash
	// ManifestDigest is that of the platform's manifest.
	ManifestDigest v1.Hash
	RawManifest    []byte
	Manifest       *v1.Manifest
	RawConfig      []byte
	Config         *v1.ConfigFile
	// Layers are base first, each a *Layer. Nothing of them was fetched.
	Layers []v1.Layer
}

// Platform is what the image's config says that it is for.
func (i *Image) Platform() v1.Platform {
	return v1.Platform{
		OS: i.Config.OS, Architecture: i.Config.Architecture, Variant: i.Config.Variant,
		OSVersion: i.Config.OSVersion, OSFeatures: i.Config.OSFeatures,
	}
}

// Resolve finds the image that ref names for a platform (the machine's own if
// nil) and fetches manifest and config, verified; layers are not touched. From
// an index the best match is taken; an image without index is taken whatever
// platform it is for, as BuildKit does, and the caller may compare. The same
// reference and platform give the same *Image for the life of the Client.
func (c *Client) Resolve(ctx context.Context, ref string, platform *v1.Platform) (*Image, error) {
	named, repo, err := parse(ref)
	if err != nil {
		return nil, err
	}
	want := platforms.DefaultSpec()
	if platform != nil {
		want.OS, want.Architecture, want.Variant = platform.OS, platform.Architecture, platform.Variant
		want.OSVersion, want.OSFeatures = platform.OSVersion, platform.OSFeatures
	}
	want = platforms.Normalize(want)
	key := named.String() + " " + platforms.FormatAll(want)
	return getSlot(&c.mu, c.images, key).get(ctx, func() (img *Image, err error) {
		defer func() {
			if _, digested := named.(reference.Digested); err == nil && !digested {
				// The frontend asks for the tag, the build for the tag with
				// the digest that came of it: the same image.
				c.know(named.String()+"@"+img.Digest.String()+" "+platforms.FormatAll(want), img)
			}
		}()
		mirrors := c.mirrors(repo)
		for i, m := range mirrors {
			img, err := c.resolve(ctx, m, named, platforms.Only(want), platforms.FormatAll(want))
			if err == nil {
				return img, nil
			}
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if c.opts.NoFallback && i == len(mirrors)-1 {
				return nil, noFallback(err)
			}
			c.opts.Progress.Emit(progress.Notice{
				Level: progress.Info, Time: time.Now(),
				Text: fmt.Sprintf("mirror %s does not give %s: %v", m.host, reference.FamiliarString(named), err),
			})
		}
		return c.resolve(ctx, repo, named, platforms.Only(want), platforms.FormatAll(want))
	})
}

// noFallback says why a registry itself was not asked.
func noFallback(err error) error {
	if f, ok := fault.As(err); ok {
		return f.With("No mirror gives the image, and --skip-default-registry-fallback forbids to ask its own registry. " + f.Remedy)
	}
	return err
}

// know has an image answer for a key that nobody has asked for yet.
func (c *Client) know(key string, img *Image) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.images[key]; !ok {
		c.images[key] = &slot[*Image]{turn: make(chan struct{}, 1), done: true, val: img}
	}
}

// mirrors are the places to ask before a repository's own registry: those that
// its host is mapped to, and for Docker Hub the mirrors.
func (c *Client) mirrors(repo repository) []repository {
	var list []string
	for host, to := range c.opts.Maps {
		if credentials.Normal(host) == credentials.Normal(repo.host) {
			list = append(list, to...)
		}
	}
	if repo.host == "docker.io" {
		list = append(list, c.opts.Mirrors...)
	}
	var out []repository
	for _, m := range list {
		m = strings.TrimPrefix(strings.TrimPrefix(m, "https://"), "http://")
		host, prefix, _ := strings.Cut(strings.Trim(m, "/"), "/")
		if host == "" {
			continue
		}
		path := repo.path
		if prefix != "" {
			path = prefix + "/" + path
		}
		out = append(out, repository{host, path}.normal())
	}
	return out
}

// resolver is one walk from a reference to an image.
type resolver struct {
	c    *Client
	s    *session
	name string
	want platforms.MatchComparer
	text string
}

func (c *Client) resolve(ctx context.Context, repo repository, named reference.Named, want platforms.MatchComparer, text string) (*Image, error) {
	s, err := c.session(ctx, repo, false)
	if err != nil {
		return nil, pulling(named.String(), err)
	}
	r := &resolver{c: c, s: s, name: named.String(), want: want, text: text}
	img, err := r.run(ctx, named)
	if err != nil {
		return nil, pulling(named.String(), c.fail(ctx, s, "", err))
	}
	return img, nil
}

// pulling adds what was being done to the first words of an error.
func pulling(name string, err error) error {
	var f *fault.Error
	if errors.As(err, &f) && error(f) == err {
		c := *f
		c.Op = strings.TrimSuffix("pull "+name+": "+f.Op, ": ")
		return &c
	}
	return err
}

func (r *resolver) run(ctx context.Context, named reference.Named) (*Image, error) {
	var desc v1.Descriptor
	target := ""
	if d, ok := named.(reference.Digested); ok {
		h, err := v1.NewHash(d.Digest().String())
		if err != nil {
			return nil, fault.New(fault.User, "digest of %s: %w", named, err).With("Only sha256 digests are supported.")
		}
		desc.Digest, target = h, h.String()
	} else if t, ok := named.(reference.Tagged); ok {
		target = t.Tag()
	}
	raw, mt, err := r.manifest(ctx, target, desc)
	if err != nil {
		return nil, err
	}
	root, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	img, err := r.descend(ctx, raw, mt, 0)
	if err != nil {
		return nil, err
	}
	img.Name, img.Digest = r.name, root
	return img, nil
}

// manifest fetches a manifest or index by tag or digest; want's digest and
// size are verified where they are known.
func (r *resolver) manifest(ctx context.Context, target string, want v1.Descriptor) ([]byte, types.MediaType, error) {
	resp, err := r.s.get(ctx, r.s.url("manifests", target), 0,
		string(types.OCIImageIndex), string(types.DockerManifestList), string(types.OCIManifestSchema1), string(types.DockerManifestSchema2), "*/*;q=0.1")
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := readAll(resp.Body, maxManifest)
	if err != nil {
		return nil, "", fmt.Errorf("read manifest %s: %w", target, err)
	}
	if want.Digest == (v1.Hash{}) {
		if h, err := v1.NewHash(resp.Header.Get("Docker-Content-Digest")); err == nil && h.Algorithm == "sha256" {
			want.Digest = h
		}
	}
	if err := verify("manifest "+target, raw, want); err != nil {
		return nil, "", err
	}
	mt, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return raw, types.MediaType(strings.TrimSpace(mt)), nil
}

// verify compares content with what a descriptor promised; a zero digest or
// size promises nothing.
func verify(what string, raw []byte, want v1.Descriptor) error {
	if want.Size > 0 && int64(len(raw)) != want.Size {
		return fmt.Errorf("%s has %d bytes, promised were %d: %w", what, len(raw), want.Size, ErrDigest)
	}
	if want.Digest == (v1.Hash{}) {
		return nil
	}
	if want.Digest.Algorithm != "sha256" {
		return fmt.Errorf("%s: digest algorithm %q is not supported", what, want.Digest.Algorithm)
	}
	got, _, err := v1.SHA256(bytes.NewReader(raw))
	if err == nil && got != want.Digest {
		err = fmt.Errorf("%s has digest %s, promised was %s: %w", what, got, want.Digest, ErrDigest)
	}
	return err
}

func readAll(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("more than %d MiB", most>>20)
	}
	return b, err
}

// envelope has what tells the kinds of manifests apart.
type envelope struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     types.MediaType `json:"mediaType"`
	Manifests     json.RawMessage `json:"manifests"`
	Layers        json.RawMessage `json:"layers"`
	Config        json.RawMessage `json:"config"`
	FSLayers      json.RawMessage `json:"fsLayers"`
}

func (r *resolver) descend(ctx context.Context, raw []byte, mt types.MediaType, depth int) (*Image, error) {
	var e envelope
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, fmt.Errorf("manifest is not JSON as expected: %w", err)
	}
	if e.MediaType != "" {
		mt = e.MediaType
	}
	index := len(e.Manifests) > 0
	switch {
	case e.SchemaVersion == 1 || len(e.FSLayers) > 0 || mt == types.DockerManifestSchema1 || mt == types.DockerManifestSchema1Signed:
		return nil, fault.New(fault.Registry, "%s is in the old schema 1 format, which is not supported", r.name).
			With("Push the image again with a current tool, or use a newer tag.")
	case index && (len(e.Layers) > 0 || len(e.Config) > 0), index && mt.IsImage(), !index && mt.IsIndex():
		return nil, fmt.Errorf("manifest is ambiguous: its media type %q does not fit its content", clean(string(mt)))
	case index:
		return r.index(ctx, raw, depth)
	case len(e.Config) == 0:
		return nil, fmt.Errorf("not a container image (media type %q)", clean(string(mt)))
	}
	return r.image(ctx, raw)
}

func (r *resolver) index(ctx context.Context, raw []byte, depth int) (*Image, error) {
	if depth >= maxDepth {
		return nil, errors.New("indexes are nested too deeply")
	}
	idx, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("parse index: %w", err)
	}
	var none *fault.Error
	for _, d := range candidates(idx, r.want) {
		sub, mt, err := r.manifest(ctx, d.Digest.String(), d)
		if err != nil {
			return nil, err
		}
		if d.MediaType != "" {
			mt = d.MediaType
		}
		img, err := r.descend(ctx, sub, mt, depth+1)
		if errors.Is(err, ErrNoPlatform) && errors.As(err, &none) {
			continue // a nested index without a match
		}
		if err != nil {
			return nil, err
		}
		if d.Platform == nil && !r.want.Match(spec(img.Platform())) {
			continue
		}
		return img, nil
	}
	if none != nil && len(idx.Manifests) == 1 {
		return nil, none
	}
	return nil, &fault.Error{
		Kind:   fault.Registry,
		Err:    &failure{fmt.Sprintf("no match for platform %s in %s; it has: %s", r.text, r.name, available(idx)), ErrNoPlatform},
		Remedy: "Build for a platform that the image has (--platform), or use another base image.",
	}
}
