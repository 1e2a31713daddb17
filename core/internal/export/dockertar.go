package export

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// dockerManifest is an entry of manifest.json, which docker load reads.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// DockerTar writes a tar for docker load, which is an OCI layout, too, to a file,
// or to the stream to where that is not nil. names
// are references ("app:1.2"). Of an index, docker load gets the image for this
// machine's platform (else the first), tools that read OCI layouts all.
// docker load of Docker 20.10 cannot read zstd layers: that is refused.
func DockerTar(ctx context.Context, path string, to io.Writer, a Artifact, names ...string) error {
	img, err := loadable(a)
	if err != nil {
		return err
	}
	manifest, err := dockerEntry(img, names)
	if err != nil {
		return err
	}
	return layoutTar(ctx, path, to, a, names, map[string][]byte{"manifest.json": manifest})
}

// OCITar writes an OCI image layout as a tar, as BuildKit's exporter "oci".
func OCITar(ctx context.Context, path string, to io.Writer, a Artifact, names ...string) error {
	return layoutTar(ctx, path, to, a, names, nil)
}

// layoutTar writes a layout as a tar, with further files.
func layoutTar(ctx context.Context, path string, to io.Writer, a Artifact, names []string, more map[string][]byte) error {
	all, err := blobs(a)
	if err != nil {
		return err
	}
	index, err := tarIndex(a, names)
	if err != nil {
		return err
	}
	more = maps.Clone(more)
	if more == nil {
		more = map[string][]byte{}
	}
	more[layoutFile], more[indexFile] = []byte(layoutContent), index
	return toFile(path, to, func(w io.Writer) error {
		t := tarFile{tar.NewWriter(ctxWriter(ctx, w))}
		for _, d := range []string{"blobs/", "blobs/sha256/"} {
			if err := t.dir(d); err != nil {
				return err
			}
		}
		for _, b := range all {
			if err := t.blob(b); err != nil {
				return err
			}
		}
		for _, name := range slices.Sorted(maps.Keys(more)) {
			if err := t.file(name, more[name]); err != nil {
				return err
			}
		}
		return t.w.Close()
	})
}

// tarFile writes entries that depend on nothing but their content.
type tarFile struct{ w *tar.Writer }

func (t tarFile) header(name string, size int64, kind byte, mode int64) error {
	return t.w.WriteHeader(&tar.Header{Name: name, Size: size, Typeflag: kind, Mode: mode, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
}

func (t tarFile) dir(name string) error { return t.header(name, 0, tar.TypeDir, 0o755) }

func (t tarFile) file(name string, data []byte) error {
	if err := t.header(name, int64(len(data)), tar.TypeReg, 0o644); err != nil {
		return err
	}
	_, err := t.w.Write(data)
	return err
}

func (t tarFile) blob(b blob) error {
	if err := t.header(blobPath(b.digest), b.size, tar.TypeReg, 0o644); err != nil {
		return err
	}
	return copyBlob(t.w, b.digest, b.size, b.open)
}

func blobPath(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

// dockerEntry is the content of manifest.json.
func dockerEntry(img v1.Image, names []string) ([]byte, error) {
	m, err := img.Manifest()
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	e := dockerManifest{Config: blobPath(m.Config.Digest), Layers: []string{}}
	for _, n := range names {
		named, err := reference.ParseNormalizedNamed(n)
		if err != nil {
			return nil, fault.New(fault.Usage, "image name %q: %w", n, err)
		}
		e.RepoTags = append(e.RepoTags, reference.FamiliarString(reference.TagNameOnly(named)))
	}
	for _, l := range m.Layers {
		if l.MediaType == types.OCILayerZStd {
			return nil, fault.New(fault.Usage, "a tar for docker load cannot have zstd layers").
				With("Use --compression=gzip, or write an OCI layout.")
		}
		e.Layers = append(e.Layers, blobPath(l.Digest))
	}
	return json.Marshal([]dockerManifest{e})
}

// tarIndex is the content of index.json.
func tarIndex(a Artifact, names []string) ([]byte, error) {
	list, err := entries(a, names)
	if err != nil {
		return nil, err
	}
	for i, n := range names {
		named, err := reference.ParseNormalizedNamed(n)
		if err != nil {
			continue // dockerEntry has complained
		}
		named = reference.TagNameOnly(named)
		delete(list[i].Annotations, annotationName)
		annotate(&list[i], annotationImage, named.String())
		if t, ok := named.(reference.Tagged); ok {
			annotate(&list[i], annotationName, t.Tag())
		}
	}
	return json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: list})
}

// loadable is the one image that docker load gets.
func loadable(a Artifact) (v1.Image, error) {
	switch a := a.(type) {
	case v1.ImageIndex:
		m, err := a.IndexManifest()
		if err != nil {
			return nil, fmt.Errorf("manifest of index: %w", err)
		}
		var best *v1.Descriptor
		for i, d := range m.Manifests {
			if !d.MediaType.IsImage() {
				continue
			}
			if best == nil {
				best = &m.Manifests[i]
			}
			if p := d.Platform; p != nil && platforms.Default().Match(ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}) {
				best = &m.Manifests[i]
				break
			}
		}
		if best == nil {
			return nil, errors.New("index has no image")
		}
		return a.Image(best.Digest)
	case v1.Image:
		return a, nil
	}
	return nil, fmt.Errorf("export %T: neither image nor index", a)
}
