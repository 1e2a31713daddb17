// Package layout owns images of OCI image layouts on this machine as a source
// (--build-context name=oci-layout://DIR): which manifest is meant, and its
// content, each blob verified by its digest. It refuses to write to a layout, to
// read outside of it, and to decompress (package image does).
package layout

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerwright/layerwright/core/internal/fault"
)

const (
	maxDocument = 8 << 20 // of an index, manifest or config
	maxDepth    = 4       // indexes in indexes
	// annotationImage is how containerd and BuildKit name an entry.
	annotationImage = "io.containerd.image.name"
)

// Layout is a layout's directory.
type Layout struct {
	dir, name string
}

// Open is the layout in dir, a path that stays valid (hostview.Dir); name is
// what errors call it.
func Open(dir, name string) *Layout { return &Layout{dir: dir, name: name} }

// Dir is where the layout is, as Open was told.
func (l *Layout) Dir() string { return l.dir }

// Image is one image for one platform.
type Image struct {
	RawConfig []byte
	// Layers are base first, each a Remote of package source/image.
	Layers []v1.Layer
}

// Find is the digest that a tag names. Without a tag it is "latest", or the only
// image that there is; an image without a name answers to every tag where it is
// the only one.
func (l *Layout) Find(tag string) (v1.Hash, error) {
	untagged := tag == ""
	if untagged {
		tag = "latest"
	}
	raw, err := l.read("index.json")
	if errors.Is(err, fs.ErrNotExist) {
		return v1.Hash{}, l.fail(errors.New("it has no index.json"), "Name a directory that holds an OCI image layout: oci-layout, index.json and blobs.")
	}
	if err != nil {
		return v1.Hash{}, l.fail(err, "")
	}
	idx, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return v1.Hash{}, l.fail(fmt.Errorf("index.json: %w", err), "The layout is damaged: write it again.")
	}
	var names []string
	for _, called := range []func(name string) bool{
		func(name string) bool { return name == tag },
		func(name string) bool { return strings.HasSuffix(name, ":"+tag) }, // a full name
	} {
		for _, key := range []string{annotationImage, ocispecs.AnnotationRefName} {
			for _, m := range idx.Manifests {
				if n := m.Annotations[key]; called(n) {
					return m.Digest, nil
				} else if n != "" && !slices.Contains(names, n) {
					names = append(names, n)
				}
			}
		}
	}
	if len(idx.Manifests) == 1 && (untagged || len(names) == 0) {
		return idx.Manifests[0].Digest, nil
	}
	remedy := "It has no names: give the digest, as in oci-layout://DIR@sha256:HEX."
	if len(names) > 0 {
		remedy = "It has " + strings.Join(names[:min(len(names), 10)], ", ") + ". Write oci-layout://DIR:TAG, or @sha256:HEX."
	}
	return v1.Hash{}, l.fail(fmt.Errorf("no image in it is called %q", tag), remedy)
}

// Resolve is the image behind a digest for a platform (the machine's own if
// nil): from an index the best match, a manifest whatever it is for, as in
// BuildKit. Layers are not read.
func (l *Layout) Resolve(ctx context.Context, digest v1.Hash, platform *ocispecs.Platform) (*Image, error) {
	want := platforms.DefaultSpec()
	if platform != nil {
		want = *platform
	}
	want = platforms.Normalize(want)
	if _, err := os.Stat(l.dir + "/" + blobPath(digest)); errors.Is(err, fs.ErrNotExist) {
		return nil, l.fail(fmt.Errorf("it has no blob %s", digest), "Give the digest of an image that is in the layout: see its index.json.")
	}
	img, err := l.descend(ctx, v1.Descriptor{Digest: digest}, want, 0)
	if err != nil {
		if _, ok := fault.As(err); ok {
			return nil, err
		}
		return nil, l.fail(err, "The layout is damaged: write it again.")
	}
	return img, nil
}

func (l *Layout) fail(err error, remedy string) error {
	var pe *fs.PathError
	if errors.As(err, &pe) { // its path is a handle
		err = fmt.Errorf("%s: %w", strings.TrimPrefix(strings.TrimPrefix(pe.Path, l.dir), "/"), pe.Err)
	}
	return (&fault.Error{Kind: fault.User, Op: "OCI layout " + l.name, Err: err}).With(remedy)
}

// read reads a small file of the layout.
func (l *Layout) read(name string) ([]byte, error) {
	f, err := l.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err == nil && len(raw) > maxDocument {
		err = fmt.Errorf("%s: more than %d MiB", name, maxDocument>>20)
	}
	return raw, err
}

// open opens a file of the layout; a link that leads out of it is an error.
func (l *Layout) open(name string) (*os.File, error) { return os.OpenInRoot(l.dir, name) }

func blobPath(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

// blob reads a verified document.
func (l *Layout) blob(want v1.Descriptor) ([]byte, error) {
	if want.Digest.Algorithm != "sha256" {
		return nil, fmt.Errorf("digest %q: only sha256 is supported", want.Digest)
	}
	raw, err := l.read(blobPath(want.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("it has no blob %s", want.Digest)
	}
	if err != nil {
		return nil, err
	}
	got := sha256.Sum256(raw)
	if hex.EncodeToString(got[:]) != want.Digest.Hex || want.Size > 0 && want.Size != int64(len(raw)) {
		return nil, fmt.Errorf("blob %s: its content does not have that digest and size", want.Digest)
	}
	return raw, nil
}

func (l *Layout) descend(ctx context.Context, d v1.Descriptor, want ocispecs.Platform, depth int) (*Image, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if depth > maxDepth {
		return nil, errors.New("indexes are nested too deeply")
	}
	raw, err := l.blob(d)
	if err != nil {
		return nil, err
	}
	var kind struct {
		Manifests, Layers, Config json.RawMessage
	}
	if err := json.Unmarshal(raw, &kind); err != nil {
		return nil, fmt.Errorf("manifest %s is not JSON as expected: %w", d.Digest, err)
	}
	switch {
	case len(kind.Manifests) > 0 && (len(kind.Layers) > 0 || len(kind.Config) > 0):
		return nil, fmt.Errorf("manifest %s is ambiguous", d.Digest)
	case len(kind.Manifests) > 0:
		return l.index(ctx, raw, want, depth)
	case len(kind.Config) > 0:
		return l.image(raw)
	}
	return nil, fmt.Errorf("%s is neither an index nor a manifest", d.Digest)
}

func (l *Layout) index(ctx context.Context, raw []byte, want ocispecs.Platform, depth int) (*Image, error) {
	idx, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("parse index: %w", err)
	}
	match := platforms.Only(want)
	var best *v1.Descriptor
	var bestPlatform ocispecs.Platform
	var has []string
	for _, d := range idx.Manifests {
		if d.Annotations["vnd.docker.reference.type"] != "" {
			continue // provenance and SBOM
		}
		p := want // one that does not say is tried
		if d.Platform != nil && d.Platform.OS != "" {
			p = platforms.Normalize(ocispecs.Platform{OS: d.Platform.OS, Architecture: d.Platform.Architecture,
				Variant: d.Platform.Variant, OSVersion: d.Platform.OSVersion, OSFeatures: d.Platform.OSFeatures})
			has = append(has, platforms.Format(p))
		}
		if match.Match(p) && (best == nil || match.Less(p, bestPlatform)) {
			best, bestPlatform = &d, p
		}
	}
	if best == nil {
		return nil, l.fail(fmt.Errorf("no match for platform %s; it has: %s", platforms.Format(want), strings.Join(has, ", ")),
			"Build for a platform that the image has (--platform), or use another image.")
	}
	return l.descend(ctx, *best, want, depth+1)
}

func (l *Layout) image(raw []byte) (*Image, error) {
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	conf, err := l.blob(m.Config)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	cf, err := v1.ParseConfigFile(bytes.NewReader(conf))
	if err != nil {
		return nil, fmt.Errorf("parse config: %w", err)
	}
	if len(cf.RootFS.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("not a container image, or a broken one: its config has %d layers, its manifest %d", len(cf.RootFS.DiffIDs), len(m.Layers))
	}
	img := &Image{RawConfig: conf}
	for i, d := range m.Layers {
		if d.Digest.Algorithm != "sha256" || d.Size < 0 {
			return nil, fmt.Errorf("layer digest %q or size %d is not valid", d.Digest, d.Size)
		}
		img.Layers = append(img.Layers, &Layer{l: l, desc: d, diffID: cf.RootFS.DiffIDs[i]})
	}
	return img, nil
}

// Layer is a blob of a layout: a v1.Layer, and a Remote of package image.
type Layer struct {
	l      *Layout
	desc   v1.Descriptor
	diffID v1.Hash
}

// Digest implements v1.Layer.
func (y *Layer) Digest() (v1.Hash, error) { return y.desc.Digest, nil }

// DiffID implements v1.Layer: what the image's config promises.
func (y *Layer) DiffID() (v1.Hash, error) { return y.diffID, nil }

// Size implements v1.Layer.
func (y *Layer) Size() (int64, error) { return y.desc.Size, nil }

// MediaType implements v1.Layer.
func (y *Layer) MediaType() (types.MediaType, error) { return y.desc.MediaType, nil }

// Compressed implements v1.Layer: Open without a context.
func (y *Layer) Compressed() (io.ReadCloser, error) { return y.Open(context.Background()) }

// Uncompressed implements v1.Layer; this package knows no compression.
func (y *Layer) Uncompressed() (io.ReadCloser, error) {
	return nil, errors.New("layer of a layout: not decompressed here")
}

// Image is what errors and progress call the layer's image.
func (y *Layer) Image() string { return y.l.name }

// MountSource is empty: no registry has the blob.
func (y *Layer) MountSource() (host, path string) { return "", "" }

// Fault is an error about the content.
func (y *Layer) Fault(err error) error {
	if _, ok := fault.As(err); ok {
		return err
	}
	return y.l.fail(fmt.Errorf("layer %s: %w", y.desc.Digest, err), "The layout is damaged: write it again.")
}

// Open streams the blob; io.EOF comes only when digest and size were right.
func (y *Layer) Open(ctx context.Context) (io.ReadCloser, error) {
	f, err := y.l.open(blobPath(y.desc.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("it is missing")
	}
	if err != nil {
		return nil, y.Fault(err)
	}
	return &verified{f: f, y: y, sum: sha256.New(), ended: func() error { return context.Cause(ctx) }}, nil
}

// verified compares what was read with the descriptor.
type verified struct {
	f     *os.File
	y     *Layer
	sum   hash.Hash
	n     int64
	ended func() error
}

func (v *verified) Read(p []byte) (int, error) {
	if err := v.ended(); err != nil {
		return 0, err
	}
	n, err := v.f.Read(p)
	v.sum.Write(p[:n])
	v.n += int64(n)
	switch {
	case err == nil || !errors.Is(err, io.EOF):
		return n, err
	case v.n != v.y.desc.Size || hex.EncodeToString(v.sum.Sum(nil)) != v.y.desc.Digest.Hex:
		return n, v.y.Fault(errors.New("its content does not have that digest and size"))
	}
	return n, err
}

func (v *verified) Close() error { return v.f.Close() }
