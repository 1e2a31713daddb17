// Package conformance builds Dockerfiles by Layerwright and by BuildKit and
// compares the images: configuration, history, layers, and every file. It reads
// images with code of its own, so that an error of Layerwright's cannot hide.
package conformance

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"sort"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Entry is one file of a layer or of the flattened root.
type Entry struct {
	Type       string
	Mode       int64
	UID, GID   int
	Size       int64
	Link       string
	Dev        string
	Xattrs     map[string]string
	Sum        string
	ModTime    time.Time
	Whiteout   bool
	hardlinkTo string
}

// Image is a pulled image, ready to be compared.
type Image struct {
	// Annotations are the manifest's.
	Annotations map[string]string
	Config      map[string]any
	History     []map[string]any
	Layers      []map[string]Entry
	// Order holds each layer's names as they come in the tar.
	Order [][]string
	// Root is the flattened file system.
	Root map[string]Entry
}

// Load pulls the image of linux/amd64 from a plain-HTTP registry.
func Load(ctx context.Context, ref string) (*Image, error) {
	r, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		return nil, err
	}
	img, err := remote.Image(r, remote.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	return load(img)
}

// LoadAll pulls what a reference names from a plain-HTTP registry: one image
// under the empty name, or the images of an index by their platforms.
func LoadAll(ctx context.Context, ref string) (map[string]*Image, error) {
	r, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		return nil, err
	}
	d, err := remote.Get(r, remote.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if !d.MediaType.IsIndex() {
		img, err := d.Image()
		if err != nil {
			return nil, err
		}
		one, err := load(img)
		return map[string]*Image{"": one}, err
	}
	index, err := d.ImageIndex()
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	out := map[string]*Image{}
	for _, each := range m.Manifests {
		img, err := index.Image(each.Digest)
		if err != nil {
			return nil, err
		}
		if out[each.Platform.String()], err = load(img); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func load(img v1.Image) (*Image, error) {
	raw, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	m, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	out := &Image{Annotations: m.Annotations, Root: map[string]Entry{}}
	if err := json.Unmarshal(raw, &out.Config); err != nil {
		return nil, err
	}
	if hs, ok := out.Config["history"].([]any); ok {
		for _, h := range hs {
			out.History = append(out.History, h.(map[string]any))
		}
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	for i, l := range layers {
		rc, err := l.Uncompressed()
		if err != nil {
			return nil, err
		}
		entries, order, err := readLayer(rc)
		_ = rc.Close()
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		out.Layers = append(out.Layers, entries)
		out.Order = append(out.Order, order)
		apply(out.Root, entries, order)
	}
	return out, nil
}

func readLayer(r io.Reader) (map[string]Entry, []string, error) {
	entries := map[string]Entry{}
	var order []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return entries, order, nil
		}
		if err != nil {
			return nil, nil, err
		}
		n := strings.Trim(path.Clean("/"+h.Name), "/")
		e := Entry{Type: string(h.Typeflag), Mode: h.Mode & 0o7777, UID: h.Uid, GID: h.Gid, Link: h.Linkname, ModTime: h.ModTime}
		for k, v := range h.PAXRecords {
			if x, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
				if e.Xattrs == nil {
					e.Xattrs = map[string]string{}
				}
				e.Xattrs[x] = fmt.Sprintf("%x", v)
			}
		}
		switch h.Typeflag {
		case tar.TypeReg:
			s := sha256.New()
			if e.Size, err = io.Copy(s, tr); err != nil {
				return nil, nil, err
			}
			e.Sum = fmt.Sprintf("%x", s.Sum(nil))[:16]
		case tar.TypeChar, tar.TypeBlock:
			e.Dev = fmt.Sprintf("%d:%d", h.Devmajor, h.Devminor)
		case tar.TypeLink:
			e.hardlinkTo = strings.Trim(path.Clean("/"+h.Linkname), "/")
			e.Link = e.hardlinkTo
		}
		e.Whiteout = strings.HasPrefix(path.Base(n), ".wh.")
		entries[n] = e
		order = append(order, n)
	}
}

// apply puts a layer on a flattened root (image-spec, layer.md).
func apply(root, layer map[string]Entry, order []string) {
	for _, n := range order {
		e := layer[n]
		if !e.Whiteout {
			continue
		}
		base := path.Base(n)
		if base == ".wh..wh..opq" {
			removeBelow(root, path.Dir(n))
			continue
		}
		victim := path.Join(path.Dir(n), strings.TrimPrefix(base, ".wh."))
		delete(root, victim)
		removeBelow(root, victim)
	}
	for _, n := range order {
		e := layer[n]
		if e.Whiteout {
			continue
		}
		if e.hardlinkTo != "" {
			target, ok := root[e.hardlinkTo]
			if ok {
				e = target
				e.hardlinkTo = layer[n].hardlinkTo
			}
		}
		if e.Type != string(tar.TypeDir) {
			removeBelow(root, n)
		}
		root[n] = e
	}
}

func removeBelow(root map[string]Entry, dir string) {
	prefix := dir + "/"
	if dir == "" || dir == "." {
		prefix = ""
	}
	for n := range root {
		if strings.HasPrefix(n, prefix) && n != dir {
			delete(root, n)
		}
	}
}

func sortedKeys[V any](ms ...map[string]V) []string {
	seen := map[string]bool{}
	for _, m := range ms {
		for k := range m {
			seen[k] = true
		}
	}
	keys := make([]string, 0, len(seen))
	for k := range seen {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
