package core

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/layerwright/layerwright/core/internal/export"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/frontend"
	"github.com/layerwright/layerwright/core/internal/hostview"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/registry"
)

// WarmRequest asks for base images in a directory, which builds then read instead
// of the registry (Cache.Dir).
type WarmRequest struct {
	// Dir becomes an OCI image layout; several processes may fill it at once,
	// and builds read it meanwhile.
	Dir string
	// Images are references; Platforms "os/arch", the machine's own when empty.
	Images, Platforms []string
	// Dockerfiles are files whose base images are fetched too, with BuildArgs.
	Dockerfiles []string
	BuildArgs   map[string]string
	// Force fetches what is there again.
	Force    bool
	Registry Registry
	Progress Sink
}

// Warm fetches images into a directory. What is there is not fetched again. The
// first failure ends it; what was complete stays.
func Warm(ctx context.Context, r WarmRequest) (err error) {
	if r.Progress == nil {
		r.Progress = progress.Discard
	}
	list, err := parsePlatforms(r.Platforms)
	if err != nil {
		return err
	}
	b := &build{req: &Request{Registry: r.Registry}, machine: &machine{}, sink: r.Progress}
	if b.client, err = registry.New(b.registryOptions()); err != nil {
		return err
	}
	images, err := r.images()
	if err != nil {
		return err
	}
	path, parent, err := hostview.Output(r.Dir)
	if err != nil {
		return fault.New(fault.Usage, "cache directory %s: %w", r.Dir, err).With("Name a directory that can be written.")
	}
	defer func() { err = errors.Join(err, parent.Close()) }()
	var targets []*v1.Platform
	for _, p := range list {
		targets = append(targets, &v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant})
	}
	if len(targets) == 0 {
		targets = []*v1.Platform{nil}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelWarms)
	for _, ref := range images {
		for _, p := range targets {
			g.Go(func() error {
				img, err := b.client.Resolve(ctx, ref, p)
				if err != nil {
					return err
				}
				name := img.Name
				if p != nil {
					name += " " + p.String() // one name for each platform's image
				}
				if r.Force {
					for _, d := range append(img.Manifest.Layers, img.Manifest.Config) {
						_ = os.Remove(filepath.Join(path, "blobs", d.Digest.Algorithm, d.Digest.Hex)) // readers ask the registry meanwhile
					}
				}
				if err := export.OCILayout(ctx, path, warmed{img}, name); err != nil {
					return err
				}
				r.Progress.Emit(progress.Notice{Level: progress.Info, Text: fmt.Sprintf("%s is in %s", name, r.Dir), Time: time.Now()})
				return nil
			})
		}
	}
	return g.Wait()
}

// images are those asked for by name and by Dockerfiles.
func (r *WarmRequest) images() ([]string, error) {
	out := slices.Clone(r.Images)
	for _, name := range r.Dockerfiles {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fault.New(fault.User, "%w", err).With("Name an existing Dockerfile.")
		}
		more, err := frontend.BaseImages(name, text, r.BuildArgs)
		if err != nil {
			return nil, fault.Wrap(fault.User, err, "read base images")
		}
		for _, image := range more {
			if !slices.Contains(out, image) {
				out = append(out, image)
			}
		}
	}
	return out, nil
}

// parallelWarms is how many images are fetched at once.
const parallelWarms = 3

// warmed is an image of a registry as what can be exported.
type warmed struct{ img *registry.Image }

var _ v1.Image = warmed{}

func (w warmed) Layers() ([]v1.Layer, error)         { return w.img.Layers, nil }
func (w warmed) MediaType() (types.MediaType, error) { return w.img.Manifest.MediaType, nil }
func (w warmed) Size() (int64, error)                { return int64(len(w.img.RawManifest)), nil }
func (w warmed) ConfigName() (v1.Hash, error)        { return w.img.Manifest.Config.Digest, nil }
func (w warmed) ConfigFile() (*v1.ConfigFile, error) { return w.img.Config, nil }
func (w warmed) RawConfigFile() ([]byte, error)      { return w.img.RawConfig, nil }
func (w warmed) Digest() (v1.Hash, error)            { return w.img.ManifestDigest, nil }
func (w warmed) Manifest() (*v1.Manifest, error)     { return w.img.Manifest, nil }
func (w warmed) RawManifest() ([]byte, error)        { return w.img.RawManifest, nil }
func (w warmed) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	for _, l := range w.img.Layers {
		if d, err := l.Digest(); err == nil && d == h {
			return l, nil
		}
	}
	if h == w.img.Manifest.Config.Digest {
		return partial.ConfigLayer(w)
	}
	return nil, fmt.Errorf("no layer %s", h)
}

func (w warmed) LayerByDiffID(h v1.Hash) (v1.Layer, error) {
	for _, l := range w.img.Layers {
		if d, err := l.DiffID(); err == nil && d == h {
			return l, nil
		}
	}
	return nil, fmt.Errorf("no layer with diffID %s", h)
}

// openCacheDir opens the directory of base images; none if there is none.
func (b *build) openCacheDir() ([]string, error) {
	if b.req.Cache.Dir == "" {
		return nil, nil
	}
	d, err := hostview.OpenDir(b.req.Cache.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, fault.New(fault.Usage, "cache directory %s: %w", b.req.Cache.Dir, err).With("Name a directory that layerwright warmer has filled.")
	}
	b.hold(d)
	return []string{d.Path()}, nil
}
