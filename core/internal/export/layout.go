package export

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

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

const (
	layoutFile    = "oci-layout"
	layoutContent = `{"imageLayoutVersion":"1.0.0"}`
	indexFile     = "index.json"
	// annotationName is what tools call an entry of index.json by
	// (image-spec, annotations.md).
	annotationName = "org.opencontainers.image.ref.name"
	// annotationImage is the full name, which containerd's import reads.
	annotationImage = "io.containerd.image.name"
)

// blob is one thing that a layout holds.
type blob struct {
	digest v1.Hash
	size   int64
	open   func() (io.ReadCloser, error)
}

func bytesBlob(h v1.Hash, data []byte) blob {
	return blob{h, int64(len(data)), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}
}

// blobs lists what an artifact consists of, content before what points at it,
// each once.
func blobs(a Artifact) ([]blob, error) {
	c := collector{seen: map[v1.Hash]bool{}}
	if err := c.add(a, 0); err != nil {
		return nil, err
	}
	return c.out, nil
}

type collector struct {
	seen map[v1.Hash]bool
	out  []blob
}

func (c *collector) put(b blob) {
	if !c.seen[b.digest] {
		c.seen[b.digest] = true
		c.out = append(c.out, b)
	}
}

func (c *collector) add(a Artifact, depth int) error {
	if depth > 4 {
		return errors.New("indexes are nested too deeply")
	}
	var err error
	switch a := a.(type) {
	case v1.ImageIndex:
		err = c.addIndex(a, depth)
	case v1.Image:
		err = c.addImage(a)
	default:
		err = fmt.Errorf("export %T: neither image nor index", a)
	}
	if err != nil {
		return err
	}
	raw, err := a.RawManifest()
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	d, err := a.Digest()
	if err != nil {
		return fmt.Errorf("digest: %w", err)
	}
	c.put(bytesBlob(d, raw))
	return nil
}

func (c *collector) addIndex(idx v1.ImageIndex, depth int) error {
	m, err := idx.IndexManifest()
	if err != nil {
		return fmt.Errorf("manifest of index: %w", err)
	}
	for _, d := range m.Manifests {
		var sub Artifact
		if d.MediaType.IsIndex() {
			sub, err = idx.ImageIndex(d.Digest)
		} else {
			sub, err = idx.Image(d.Digest)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", d.Digest, err)
		}
		if err := c.add(sub, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) addImage(img v1.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return fmt.Errorf("layers: %w", err)
	}
	for _, l := range layers {
		d, err := l.Digest()
		if err != nil {
			return fmt.Errorf("digest of layer: %w", err)
		}
		size, err := l.Size()
		if err != nil {
			return fmt.Errorf("size of layer: %w", err)
		}
		c.put(blob{d, size, l.Compressed})
	}
	name, err := img.ConfigName()
	if err != nil {
		return fmt.Errorf("digest of config: %w", err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	c.put(bytesBlob(name, config))
	return nil
}

// descriptor is the entry of an artifact in index.json.
func descriptor(a Artifact, name string) (v1.Descriptor, error) {
	raw, err := a.RawManifest()
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("manifest: %w", err)
	}
	mt, err := a.MediaType()
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("media type: %w", err)
	}
	d, err := a.Digest()
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("digest: %w", err)
	}
	desc := v1.Descriptor{MediaType: mt, Digest: d, Size: int64(len(raw))}
	if x, ok := a.(interface{ DescriptorAnnotations() map[string]string }); ok {
		desc.Annotations = maps.Clone(x.DescriptorAnnotations())
	}
	annotate(&desc, annotationName, name)
	if img, ok := a.(v1.Image); ok {
		cf, err := img.ConfigFile()
		if err != nil {
			return v1.Descriptor{}, fmt.Errorf("config: %w", err)
		}
		desc.Platform = &v1.Platform{OS: cf.OS, Architecture: cf.Architecture, Variant: cf.Variant, OSVersion: cf.OSVersion}
	}
	return desc, nil
}

// annotate adds an annotation; an empty value is none.
func annotate(d *v1.Descriptor, key, value string) {
	if value == "" {
		return
	}
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[key] = value
}

// OCILayout writes an artifact into an OCI image layout directory, which is
// made if it does not exist. What a layout holds already stays; entries of
// index.json with one of the names are replaced. names become
// org.opencontainers.image.ref.name; without any the artifact has no name.
// Several processes may write to one layout.
func OCILayout(ctx context.Context, dir string, a Artifact, names ...string) error {
	if err := prepareLayout(dir); err != nil {
		return err
	}
	all, err := blobs(a)
	if err != nil {
		return err
	}
	for _, b := range all {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		path := filepath.Join(dir, "blobs", b.digest.Algorithm, b.digest.Hex)
		if st, err := os.Stat(path); err == nil && st.Size() == b.size {
			continue // complete: it was renamed into place
		}
		if err := writeAtomic(path, 0o644, func(w io.Writer) error {
			return copyBlob(ctxWriter(ctx, w), b.digest, b.size, b.open)
		}); err != nil {
			return err
		}
	}
	return updateIndex(dir, a, names)
}

func prepareLayout(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return onDisk("create layout", err)
	}
	path := filepath.Join(dir, layoutFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return writeAtomic(path, 0o644, func(w io.Writer) error {
			_, err := io.WriteString(w, layoutContent)
			return err
		})
	}
	if err != nil {
		return onDisk("read layout", err)
	}
	var l struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := json.Unmarshal(data, &l); err != nil || l.Version != "1.0.0" {
		return fault.New(fault.Environment, "the directory holds an OCI layout of another version (%q)", l.Version).
			With("Write to an empty directory.")
	}
	return nil
}

// updateIndex adds the artifact to index.json under a lock on the directory.
func updateIndex(dir string, a Artifact, names []string) (err error) {
	lock, err := os.Open(dir)
	if err != nil {
		return onDisk("open layout", err)
	}
	defer func() { _ = lock.Close() }() // also unlocks
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return onDisk("lock layout", err)
	}
	index := map[string]json.RawMessage{}
	path := filepath.Join(dir, indexFile)
	data, err := os.ReadFile(path)
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &index); err != nil {
			return fault.New(fault.Environment, "the layout's index.json is broken: %w", err).With("Write to an empty directory.")
		}
	case !errors.Is(err, fs.ErrNotExist):
		return onDisk("read index.json", err)
	}
	var manifests []json.RawMessage
	if m := index["manifests"]; m != nil {
		if err := json.Unmarshal(m, &manifests); err != nil {
			return fault.New(fault.Environment, "the layout's index.json is broken: %w", err).With("Write to an empty directory.")
		}
	}
	entries, err := entries(a, names)
	if err != nil {
		return err
	}
	manifests = replace(manifests, entries)
	for _, e := range entries {
		raw, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("encode descriptor: %w", err)
		}
		manifests = append(manifests, raw)
	}
	return writeIndex(path, index, manifests)
}

func writeIndex(path string, index map[string]json.RawMessage, manifests []json.RawMessage) error {
	raw, err := json.Marshal(manifests)
	if err != nil {
		return fmt.Errorf("encode index: %w", err)
	}
	index["schemaVersion"] = json.RawMessage("2")
	if _, ok := index["mediaType"]; !ok {
		index["mediaType"] = json.RawMessage(`"` + string(types.OCIImageIndex) + `"`)
	}
	index["manifests"] = raw
	out, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return fmt.Errorf("encode index: %w", err)
	}
	return writeAtomic(path, 0o644, func(w io.Writer) error {
		_, err := w.Write(append(out, '\n'))
		return err
	})
}

// entries are the descriptors for index.json, one a name.
func entries(a Artifact, names []string) ([]v1.Descriptor, error) {
	if len(names) == 0 {
		names = []string{""}
	}
	var out []v1.Descriptor
	for _, n := range names {
		d, err := descriptor(a, n)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// replace drops what the new entries take the place of: the same name, or
// without a name the same digest.
func replace(old []json.RawMessage, entries []v1.Descriptor) []json.RawMessage {
	kept := old[:0:0]
	for _, raw := range old {
		var d v1.Descriptor
		drop := false
		if err := json.Unmarshal(raw, &d); err == nil {
			for _, e := range entries {
				name := e.Annotations[annotationName]
				drop = drop || d.Annotations[annotationName] == name && (name != "" || d.Digest == e.Digest)
			}
		}
		if !drop {
			kept = append(kept, raw)
		}
	}
	return kept
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// ctxWriter fails when ctx has ended.
func ctxWriter(ctx context.Context, w io.Writer) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, readError{context.Cause(ctx)}
		}
		return w.Write(p)
	})
}
