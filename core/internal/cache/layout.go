package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/registry"
	imagesource "github.com/layerwright/layerwright/core/internal/source/image"
	"github.com/layerwright/layerwright/core/internal/source/layout"
)

// InLayout is a cache in an OCI image layout: a directory that CI keeps between
// jobs, or that several share. dir stays valid while "/" is exchanged; it is made
// when something is written. name is what messages call it.
func InLayout(dir, name string) Repository { return &local{dir: dir, name: name} }

type local struct{ dir, name string }

func (l *local) Name() string { return l.name }

func (l *local) Get(ctx context.Context, tag string) (*Record, error) {
	return current(l.read(ctx, tag))
}

func (l *local) read(ctx context.Context, tag string) (*Record, error) {
	idx, err := l.index()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(idx.Manifests, func(d v1.Descriptor) bool { return d.Annotations[ocispecs.AnnotationRefName] == tag })
	if i < 0 {
		return nil, ErrMiss
	}
	img, err := layout.Open(l.dir, l.name).Resolve(ctx, idx.Manifests[i].Digest, nil)
	if err != nil {
		return nil, err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(img.RawConfig))
	if err != nil {
		return nil, fmt.Errorf("parse record: %w", err)
	}
	layers := make([]v1.Layer, len(img.Layers))
	for i, y := range img.Layers {
		r, ok := y.(imagesource.Remote)
		if !ok {
			return nil, fmt.Errorf("layer of record is a %T", y)
		}
		layers[i] = &recordLayer{Remote: r, repo: l.name}
	}
	rec, err := parse(config, layers)
	if err != nil {
		return nil, err
	}
	rec.Manifest = descriptor{idx.Manifests[i]}
	return rec, nil
}

// descriptor is a manifest that the layout has.
type descriptor struct{ d v1.Descriptor }

func (d descriptor) RawManifest() ([]byte, error) {
	return nil, errors.New("a record of a layout is tagged by its descriptor")
}
func (d descriptor) Digest() (v1.Hash, error)            { return d.d.Digest, nil }
func (d descriptor) MediaType() (types.MediaType, error) { return d.d.MediaType, nil }

// index reads index.json; an empty one where there is none.
func (l *local) index() (*v1.IndexManifest, error) {
	f, err := os.Open(filepath.Join(l.dir, "index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}, nil
	}
	if err != nil {
		return nil, l.fail("read", err)
	}
	defer f.Close()
	idx, err := v1.ParseIndexManifest(f)
	if err != nil {
		return nil, l.fail("read", err)
	}
	return idx, nil
}

func (l *local) fail(what string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) { // its path is a handle
		err = pe.Err
	}
	return fmt.Errorf("%s %s: %w", what, l.name, err)
}

func (l *local) Upload(ctx context.Context, y v1.Layer) error {
	digest, err := y.Digest()
	if err != nil {
		return fmt.Errorf("digest layer: %w", err)
	}
	return l.blob(ctx, digest, y.Compressed)
}

// blob stores one; it appears whole, and only if its content is what the digest
// says.
func (l *local) blob(ctx context.Context, digest v1.Hash, open func() (io.ReadCloser, error)) error {
	dir := filepath.Join(l.dir, "blobs", digest.Algorithm)
	at := filepath.Join(dir, digest.Hex)
	if _, err := os.Lstat(at); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return l.fail("write", err)
	}
	rc, err := open()
	if err != nil {
		return err
	}
	defer rc.Close()
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return l.fail("write", err)
	}
	defer os.Remove(f.Name())
	got, _, err := v1.SHA256(io.TeeReader(&cancellable{Reader: rc, cause: func() error { return context.Cause(ctx) }}, f))
	if err == nil && got != digest {
		err = fmt.Errorf("blob %s has the digest %s", digest, got)
	}
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return l.fail("write", err)
	}
	if err := os.Rename(f.Name(), at); err != nil {
		return l.fail("write", err)
	}
	return nil
}

// cancellable ends a copy with the build.
type cancellable struct {
	io.Reader
	cause func() error
}

func (c *cancellable) Read(p []byte) (int, error) {
	if err := c.cause(); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}

func (l *local) Put(ctx context.Context, img v1.Image, tags []string) error {
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	raw, err := img.RawManifest()
	if err != nil {
		return err
	}
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	for d, data := range map[v1.Hash][]byte{m.Config.Digest: config, digest: raw} {
		if err := l.blob(ctx, d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }); err != nil {
			return err
		}
	}
	return l.tag(v1.Descriptor{MediaType: m.MediaType, Digest: digest, Size: int64(len(raw))}, tags)
}

func (l *local) Tag(_ context.Context, r *Record, tags []string) error {
	d, ok := r.Manifest.(descriptor)
	if !ok {
		return errors.New("the record is not of this layout")
	}
	return l.tag(d.d, tags)
}

func (l *local) tag(d v1.Descriptor, tags []string) error {
	return l.update(func(idx *v1.IndexManifest) error {
		idx.Manifests = slices.DeleteFunc(idx.Manifests, func(m v1.Descriptor) bool {
			return slices.Contains(tags, m.Annotations[ocispecs.AnnotationRefName])
		})
		for _, t := range tags {
			d.Annotations = map[string]string{ocispecs.AnnotationRefName: t}
			idx.Manifests = append(idx.Manifests, d)
		}
		return l.writeIndex(idx)
	})
}

// update changes index.json: one writer at a time, readers see it whole.
func (l *local) update(change func(*v1.IndexManifest) error) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	idx, err := l.index()
	if err != nil {
		return err
	}
	return change(idx)
}

func (l *local) writeIndex(idx *v1.IndexManifest) error {
	raw, err := json.Marshal(idx)
	if err != nil {
		return fmt.Errorf("encode index: %w", err)
	}
	for name, data := range map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": raw} {
		tmp := filepath.Join(l.dir, "."+name+".new")
		if err := os.WriteFile(tmp, data, 0o644); err != nil {
			return l.fail("write", err)
		}
		if err := os.Rename(tmp, filepath.Join(l.dir, name)); err != nil {
			return l.fail("write", err)
		}
	}
	return nil
}

// lock keeps other writers away, of this and of other processes. It is a lock on
// the directory, as for package export, which may write an image to the same one.
func (l *local) lock() (unlock func(), err error) {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return nil, l.fail("write", err)
	}
	f, err := os.Open(l.dir)
	if err != nil {
		return nil, l.fail("lock", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(l.fail("lock", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

var _ registry.Artifact = descriptor{}

func (l *local) tags(context.Context) ([]string, error) {
	idx, err := l.index()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range idx.Manifests {
		if t := m.Annotations[ocispecs.AnnotationRefName]; t != "" {
			out = append(out, t)
		}
	}
	return out, nil
}

// remove takes an entry out of the index and removes the blobs that no other
// manifest needs.
func (l *local) remove(ctx context.Context, e Entry) error {
	return l.update(func(idx *v1.IndexManifest) error {
		idx.Manifests = slices.DeleteFunc(idx.Manifests, func(m v1.Descriptor) bool { return m.Digest == e.Digest })
		gone, err := l.blobsOf(e.Digest)
		if err != nil {
			return err
		}
		for _, m := range idx.Manifests {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			kept, err := l.blobsOf(m.Digest)
			if err != nil {
				return err // better too much than too little is left
			}
			for d := range kept {
				delete(gone, d)
			}
		}
		if err := l.writeIndex(idx); err != nil {
			return err
		}
		for d := range gone {
			if err := os.Remove(filepath.Join(l.dir, "blobs", d.Algorithm, d.Hex)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return l.fail("remove", err)
			}
		}
		return nil
	})
}

// blobsOf are a manifest's own blob, its configuration and its layers; of an
// index, as an image for several platforms has beside the records, those of all
// its manifests.
func (l *local) blobsOf(manifest v1.Hash) (map[v1.Hash]bool, error) {
	raw, err := os.ReadFile(filepath.Join(l.dir, "blobs", manifest.Algorithm, manifest.Hex))
	if err != nil {
		return nil, l.fail("read", err)
	}
	var m struct {
		Config    v1.Descriptor
		Layers    []v1.Descriptor
		Manifests []v1.Descriptor
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, l.fail("read", err)
	}
	out := map[v1.Hash]bool{manifest: true, m.Config.Digest: true}
	for _, y := range m.Layers {
		out[y.Digest] = true
	}
	for _, part := range m.Manifests {
		if out[part.Digest] {
			continue
		}
		of, err := l.blobsOf(part.Digest)
		if err != nil {
			return nil, err
		}
		maps.Copy(out, of)
	}
	return out, nil
}
