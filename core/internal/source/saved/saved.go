// Package saved owns images that were written to a file or directory and are to be
// pushed as they are, byte for byte: an OCI image layout, a tar of one, and what
// older programs' docker save writes. It unpacks nothing and changes nothing; the
// registry checks the digests of what it gets.
package saved

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// Artifact is a v1.Image or a v1.ImageIndex.
type Artifact interface {
	RawManifest() ([]byte, error)
	MediaType() (types.MediaType, error)
	Digest() (v1.Hash, error)
}

// maxManifest is how large a manifest or index may be (OCI distribution-spec).
const maxManifest = 4 << 20

// Saved is an open file or directory.
type Saved struct {
	where string
	files files
	close func() error
}

// files gives a file of a layout.
type files interface {
	open(name string) (io.ReadCloser, int64, error)
}

// Open opens a directory with a layout, or a tar.
func Open(name string) (*Saved, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, fault.New(fault.User, "read the image %s: %w", name, cause(err)).With("Name a directory with an OCI image layout, or a tar of an image.")
	}
	s := &Saved{where: name, close: func() error { return nil }}
	if fi.IsDir() {
		s.files = directory(name)
		return s, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fault.New(fault.User, "read the image %s: %w", name, cause(err))
	}
	list, err := entries(f)
	if err != nil {
		return nil, errors.Join(fault.New(fault.User, "read the image %s: it is no tar: %w", name, err).
			With("Name a tar that --tar-path or docker save has written, not compressed."), f.Close())
	}
	s.files, s.close = archive{f, list}, f.Close
	return s, nil
}

// Close closes the file. Images are of no use afterwards.
func (s *Saved) Close() error { return s.close() }

// Image is the image or index with a tag, name or digest; without one the only one
// that there is.
func (s *Saved) Image(want string) (Artifact, error) {
	raw, err := s.read("index.json")
	if errors.Is(err, fs.ErrNotExist) {
		return s.legacy(want)
	}
	if err != nil {
		return nil, s.fail(err)
	}
	index := &index{s: s, raw: raw, mediaType: types.OCIImageIndex}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, s.fail(fmt.Errorf("index.json: %w", err))
	}
	var names []string
	var found []v1.Descriptor
	for _, d := range m.Manifests {
		labels := []string{d.Digest.String()}
		for _, key := range []string{"org.opencontainers.image.ref.name", "io.containerd.image.name"} {
			if v := d.Annotations[key]; v != "" {
				labels = append(labels, v)
			}
		}
		names = append(names, labels[len(labels)-1])
		for _, l := range labels {
			if l == want || want == "" {
				if len(found) == 0 || found[len(found)-1].Digest != d.Digest {
					found = append(found, d)
				}
				break
			}
		}
	}
	if len(found) != 1 {
		return nil, s.ambiguous(want, len(found), names)
	}
	d := found[0]
	if d.MediaType.IsIndex() {
		return index.ImageIndex(d.Digest)
	}
	return index.Image(d.Digest)
}

func (s *Saved) ambiguous(want string, n int, names []string) error {
	if want != "" && n == 0 {
		return fault.New(fault.Usage, "%s has no image %s: it has %s", s.where, want, strings.Join(names, ", ")).With("Name one of them with --image.")
	}
	return fault.New(fault.Usage, "%s has %d images: %s", s.where, len(names), strings.Join(names, ", ")).With("Name one of them with --image.")
}

// legacy is an image that docker save before version 25 has written. It had no
// manifest there, so it gets one.
func (s *Saved) legacy(want string) (Artifact, error) {
	raw, err := s.read("manifest.json")
	if err != nil {
		return nil, s.fail(errors.New("it has neither index.json nor manifest.json"))
	}
	var list []struct{ RepoTags []string }
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, s.fail(fmt.Errorf("manifest.json: %w", err))
	}
	var names []string
	for _, e := range list {
		names = append(names, e.RepoTags...)
	}
	if want == "" && len(list) != 1 {
		return nil, s.ambiguous(want, len(list), names)
	}
	a, ok := s.files.(archive)
	if !ok {
		return nil, s.fail(errors.New("it has no index.json"))
	}
	open := func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(a.file, 0, 1<<62)), nil
	}
	img, err := tarball.Image(open, nil)
	if want != "" {
		var tag name.Tag
		if tag, err = name.NewTag(want); err == nil {
			img, err = tarball.Image(open, &tag)
		}
	}
	if err != nil {
		return nil, s.fail(err)
	}
	return img, nil
}

func (s *Saved) fail(err error) error {
	if _, ok := fault.As(err); ok {
		return err
	}
	return fault.New(fault.User, "read the image %s: %w", s.where, err).With("Write it again with --tar-path or --oci-layout-path.")
}

func (s *Saved) read(name string) ([]byte, error) {
	r, size, err := s.files.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > maxManifest {
		return nil, fmt.Errorf("%s has %d bytes", name, size)
	}
	return io.ReadAll(io.LimitReader(r, maxManifest))
}

func blobPath(h v1.Hash) string { return path.Join("blobs", h.Algorithm, h.Hex) }

// checked reads a manifest or configuration, which must be what its digest says.
func (s *Saved) checked(h v1.Hash) ([]byte, error) {
	raw, err := s.read(blobPath(h))
	if err != nil {
		return nil, s.fail(fmt.Errorf("blob %s: %w", h, cause(err)))
	}
	got, _, err := v1.SHA256(strings.NewReader(string(raw)))
	if err != nil || got != h {
		return nil, s.fail(fmt.Errorf("blob %s has another content: %s", h, got))
	}
	return raw, nil
}

// image implements partial.CompressedImageCore.
type image struct {
	s         *Saved
	raw       []byte
	mediaType types.MediaType
	manifest  *v1.Manifest
}

func (i *image) RawManifest() ([]byte, error)        { return i.raw, nil }
func (i *image) MediaType() (types.MediaType, error) { return i.mediaType, nil }
func (i *image) RawConfigFile() ([]byte, error)      { return i.s.checked(i.manifest.Config.Digest) }
func (i *image) Manifest() (*v1.Manifest, error)     { return i.manifest, nil }
func (i *image) ConfigLayer() (v1.Layer, error)      { return partial.ConfigLayer(i) }
func (i *image) ConfigFile() (*v1.ConfigFile, error) { return partial.ConfigFile(i) }
func (i *image) ConfigName() (v1.Hash, error)        { return i.manifest.Config.Digest, nil }
func (i *image) Digest() (v1.Hash, error)            { return partial.Digest(i) }
func (i *image) Size() (int64, error)                { return int64(len(i.raw)), nil }

func (i *image) LayerByDiffID(h v1.Hash) (v1.Layer, error) {
	digest, err := partial.DiffIDToBlob(i, h)
	if err != nil {
		return nil, err
	}
	return i.LayerByDigest(digest)
}

func (i *image) Layers() ([]v1.Layer, error) {
	var out []v1.Layer
	for _, d := range i.manifest.Layers {
		l, err := partial.CompressedToLayer(&blob{i.s, d})
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

func (i *image) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	if h == i.manifest.Config.Digest {
		return partial.ConfigLayer(i)
	}
	for _, d := range i.manifest.Layers {
		if d.Digest == h {
			return partial.CompressedToLayer(&blob{i.s, d})
		}
	}
	return nil, fmt.Errorf("no layer %s", h)
}

// blob implements partial.CompressedLayer.
type blob struct {
	s *Saved
	d v1.Descriptor
}

func (b *blob) Digest() (v1.Hash, error)            { return b.d.Digest, nil }
func (b *blob) Size() (int64, error)                { return b.d.Size, nil }
func (b *blob) MediaType() (types.MediaType, error) { return b.d.MediaType, nil }
func (b *blob) Descriptor() (*v1.Descriptor, error) { return &b.d, nil }
func (b *blob) Compressed() (io.ReadCloser, error) {
	r, size, err := b.s.files.open(blobPath(b.d.Digest))
	if err == nil && size != b.d.Size {
		err = errors.Join(fmt.Errorf("it has %d bytes instead of %d", size, b.d.Size), r.Close())
	}
	if err != nil {
		return nil, b.s.fail(fmt.Errorf("blob %s: %w", b.d.Digest, cause(err)))
	}
	return r, nil
}

// index implements v1.ImageIndex.
type index struct {
	s         *Saved
	raw       []byte
	mediaType types.MediaType
}

func (x *index) RawManifest() ([]byte, error)        { return x.raw, nil }
func (x *index) MediaType() (types.MediaType, error) { return x.mediaType, nil }
func (x *index) Digest() (v1.Hash, error)            { return partial.Digest(x) }
func (x *index) Size() (int64, error)                { return int64(len(x.raw)), nil }

func (x *index) IndexManifest() (*v1.IndexManifest, error) {
	var m v1.IndexManifest
	if err := json.Unmarshal(x.raw, &m); err != nil {
		return nil, x.s.fail(fmt.Errorf("decode index: %w", err))
	}
	return &m, nil
}

// typeOf is the media type of something that the index lists.
func (x *index) typeOf(h v1.Hash) (types.MediaType, error) {
	m, err := x.IndexManifest()
	if err != nil {
		return "", err
	}
	for _, d := range m.Manifests {
		if d.Digest == h {
			return d.MediaType, nil
		}
	}
	return "", fmt.Errorf("index has no %s", h)
}

func (x *index) Image(h v1.Hash) (v1.Image, error) {
	mt, err := x.typeOf(h)
	if err != nil {
		return nil, err
	}
	raw, err := x.s.checked(h)
	if err != nil {
		return nil, err
	}
	img := &image{s: x.s, raw: raw, mediaType: mt, manifest: &v1.Manifest{}}
	if err := json.Unmarshal(raw, img.manifest); err != nil {
		return nil, x.s.fail(fmt.Errorf("decode manifest: %w", err))
	}
	return img, nil
}

func (x *index) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	mt, err := x.typeOf(h)
	if err != nil {
		return nil, err
	}
	raw, err := x.s.checked(h)
	return &index{s: x.s, raw: raw, mediaType: mt}, err
}

// directory is a layout in a directory.
type directory string

func (d directory) open(name string) (io.ReadCloser, int64, error) {
	f, err := os.OpenInRoot(string(d), filepath.FromSlash(name))
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, fi.Size(), nil
}

// archive is a layout in a tar.
type archive struct {
	file *os.File
	list map[string]section
}

// section is where a file of a tar is.
type section struct{ at, size int64 }

// entries reads a tar's table of contents.
func entries(f *os.File) (map[string]section, error) {
	list := map[string]section{}
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			list[path.Clean(h.Name)] = section{at, h.Size}
		}
	}
}

func (a archive) open(name string) (io.ReadCloser, int64, error) {
	s, ok := a.list[name]
	if !ok {
		return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NopCloser(io.NewSectionReader(a.file, s.at, s.size)), s.size, nil
}

// cause is an error without the path that was opened.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
