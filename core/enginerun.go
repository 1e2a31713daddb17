package core

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/layerwright/layerwright/core/internal/buildkit"
	"github.com/layerwright/layerwright/core/internal/export"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/registry"
	"github.com/layerwright/layerwright/core/internal/source/saved"
)

// engineRun is one build by engines under way.
type engineRun struct {
	b    *build
	job  buildkit.Job
	sink progress.Sink

	mu      sync.Mutex
	engines []*engine
	n       int // files that were named
	rootTar string
}

// all carries shares out side by side. What an engine that goes away was to build
// another one builds, where there is one.
func (r *engineRun) all(ctx context.Context, shares []share) ([]solved, error) {
	if len(shares) > 1 && r.b.outputs.rootTar != "" {
		return nil, fault.New(fault.Usage, "a tar of root file systems cannot come from several engines").
			With("Use --rootfs-dir, or name one engine for all platforms.")
	}
	lists := make([][]solved, len(shares))
	g, ctx := errgroup.WithContext(ctx)
	for i, s := range shares {
		g.Go(func() (err error) { lists[i], err = r.share(ctx, s, len(shares) > 1); return err })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(lists...), nil
}

func (r *engineRun) share(ctx context.Context, s share, several bool) ([]solved, error) {
	j, place, err := r.jobFor(s, several)
	if err != nil {
		return nil, err
	}
	end := r.b.timed(strings.TrimSpace("engine " + s.label))
	digest, err := s.engine.Build(ctx, j, r.sink)
	end()
	var lost *buildkit.LostError
	if errors.As(err, &lost) {
		return r.elsewhere(ctx, s, lost)
	}
	if err != nil || place == "" {
		return nil, err
	}
	return r.b.handedBack(ctx, place, digest)
}

// elsewhere gives a share to engines that are left.
func (r *engineRun) elsewhere(ctx context.Context, s share, lost *buildkit.LostError) ([]solved, error) {
	r.mu.Lock()
	s.engine.gone = true
	left := slices.ContainsFunc(r.engines, func(e *engine) bool { return !e.gone })
	var again []share
	var err error
	if left {
		again, err = assign(r.engines, s.platforms)
	}
	r.mu.Unlock()
	if !left || err != nil {
		return nil, fault.New(fault.Environment, "%w", lost).
			With("Nothing was tagged. See the engine's log (memory, disk, a restart) and run the job again; with a second --engine another one would have gone on.")
	}
	r.b.warn(lost.Error() + "; another engine builds instead")
	for i := range again {
		if again[i].label == "" {
			again[i].label = s.label
		}
	}
	return r.all(ctx, again)
}

// jobFor is the call for one share, and where the image will be: "repository@", or a
// file; neither where only a build was asked for.
func (r *engineRun) jobFor(s share, several bool) (j buildkit.Job, place string, err error) {
	b := r.b
	j = r.job
	j.Label, j.Attrs = s.label, maps.Clone(r.job.Attrs)
	var names []string
	for _, p := range s.platforms {
		names = append(names, platforms.FormatAll(p))
	}
	if len(names) > 0 {
		j.Attrs["platform"] = strings.Join(names, ",")
	}
	attrs := b.imageAttrs()
	o, out := b.req.Outputs, b.outputs
	switch {
	case len(o.Destinations) > 0 && !o.NoPush:
		repo, _, err := registry.Destination(o.Destinations[0])
		if err != nil {
			return j, "", err
		}
		if b.insecureFor(repo) {
			attrs["registry.insecure"] = "true"
		}
		place = repo + "@"
		j.Exports = append(j.Exports, buildkit.Export{Push: repo, Attrs: attrs})
	case out.layout+out.ociTar+out.dockerTar+out.digest+out.imageID+out.metadata+out.names+out.tagged != "":
		if place, err = r.file("layout.tar"); err != nil {
			return j, "", err
		}
		j.Exports = append(j.Exports, buildkit.Export{Layout: place, Attrs: attrs})
	}
	if out.rootDir != "" {
		split := map[string]string{}
		if several {
			split["platform-split"] = "true"
		}
		j.Exports = append(j.Exports, buildkit.Export{RootDir: out.rootDir, Attrs: split})
	}
	if out.rootTar != "" {
		if r.rootTar, err = r.file("root.tar"); err != nil {
			return j, "", err
		}
		j.Exports = append(j.Exports, buildkit.Export{RootTar: r.rootTar})
	}
	j.CacheFrom, j.CacheTo = b.engineCache(s)
	return j, place, nil
}

// file is a place for what an engine hands back.
func (r *engineRun) file(name string) (string, error) {
	dir, err := r.b.work.sub("engine")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	return filepath.Join(dir, strconv.Itoa(r.n)+"-"+name), err
}

// writeRootTar puts the tar that has come in its place, complete.
func (r *engineRun) writeRootTar(ctx context.Context) (err error) {
	if r.rootTar == "" {
		return nil
	}
	f, err := os.Open(r.rootTar)
	if err != nil {
		return fmt.Errorf("read what the engine has sent: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return export.Copy(ctx, r.b.outputs.rootTar, r.b.stdout(r.b.outputs.rootTar), f)
}

// imageAttrs say how an engine writes images: as it is written without one.
func (b *build) imageAttrs() map[string]string {
	o := b.req.Outputs
	attrs := map[string]string{"oci-mediatypes": strconv.FormatBool(!b.docker())}
	switch o.Compression {
	case "none":
		attrs["compression"] = "uncompressed"
	case "":
		attrs["compression"] = "gzip"
	default:
		attrs["compression"] = o.Compression
	}
	if o.CompressionLevel != nil {
		attrs["compression-level"] = strconv.Itoa(*o.CompressionLevel)
	}
	if o.RewriteTimestamp {
		attrs["rewrite-timestamp"] = "true"
	}
	for _, a := range o.Annotations {
		if a.Index || a.Descriptor {
			continue // made here
		}
		key := "annotation-manifest."
		if a.Platform != "" {
			key = "annotation-manifest[" + a.Platform + "]."
		}
		attrs[key+a.Key] = a.Value
	}
	return attrs
}

// insecureFor says whether an engine may use plain HTTP, or any certificate, with a
// repository that is pushed to.
func (b *build) insecureFor(repo string) bool {
	r := b.req.Registry
	host, _, _ := strings.Cut(repo, "/")
	return r.Insecure || r.SkipTLSVerify || slices.Contains(r.InsecureRegistries, host) || slices.Contains(r.SkipTLSVerifyRegistries, host)
}

// engineCache are the references of BuildKit's own cache in the cache repositories: a
// tag for each scope, and for each set of platforms where several engines build.
func (b *build) engineCache(s share) (from, to []buildkit.CacheRef) {
	c := b.req.Cache
	tag := "buildkit"
	for _, part := range []string{c.Scope, s.label} {
		if part != "" {
			tag += "-" + tagWord.Replace(part)
		}
	}
	for _, repo := range append([]string{c.Repo}, c.From...) {
		if repo == "" {
			continue
		}
		ref := buildkit.CacheRef{Ref: repo + ":" + tag, Insecure: b.insecureFor(repo)}
		from = append(from, ref)
		if repo == c.Repo && !c.NoPush {
			to = append(to, ref)
		}
	}
	return from, to
}

// tagWord makes a part of a tag of a scope or platform.
var tagWord = strings.NewReplacer("/", "-", ",", "-", ":", "-", "@", "-", "#", "-", " ", "-", "+", "-")

// handedBack finds the images that an engine has made: in a repository ("repository@")
// or in a tar of an OCI layout.
func (b *build) handedBack(ctx context.Context, place, digest string) ([]solved, error) {
	if repo, ok := strings.CutSuffix(place, "@"); ok {
		return b.pushedImages(ctx, repo, digest, 0)
	}
	from, err := saved.Open(place)
	if err != nil {
		return nil, err
	}
	b.atEnd(from.Close)
	a, err := from.Image("")
	if err != nil {
		return nil, err
	}
	return b.savedImages(a, 0)
}

// pushedImages are the image, or the images of the index, with a digest in a
// repository.
func (b *build) pushedImages(ctx context.Context, repo, digest string, depth int) ([]solved, error) {
	m, err := b.client.Manifest(ctx, repo+"@"+digest)
	if err != nil {
		return nil, err
	}
	if m.Image == nil {
		var out []solved
		for _, d := range m.Manifests {
			if d.Platform != nil && d.Platform.OS == "unknown" || depth > 2 {
				continue // an attestation
			}
			more, err := b.pushedImages(ctx, repo, d.Digest.String(), depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		}
		return out, nil
	}
	layers, err := b.source.Layers(m.Image.Layers)
	if err != nil {
		return nil, err
	}
	return b.madeElsewhere(&pushedImage{Image: m.Image, mediaType: m.MediaType, layers: layers})
}

// savedImages are the image, or the images of the index, in a layout.
func (b *build) savedImages(a saved.Artifact, depth int) ([]solved, error) {
	if img, ok := a.(v1.Image); ok {
		return b.madeElsewhere(img)
	}
	index, ok := a.(v1.ImageIndex)
	if !ok || depth > 2 {
		return nil, nil
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var out []solved
	for _, d := range m.Manifests {
		if d.Platform != nil && d.Platform.OS == "unknown" || !d.MediaType.IsImage() {
			continue
		}
		img, err := index.Image(d.Digest)
		if err != nil {
			return nil, err
		}
		more, err := b.savedImages(img, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

func (b *build) madeElsewhere(img v1.Image) ([]solved, error) {
	c, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read image configuration: %w", err)
	}
	p := platforms.Normalize(ocispecs.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant, OSVersion: c.OSVersion, OSFeatures: c.OSFeatures})
	own, err := newEngineImage(img, b.annotations(false, true, &p))
	if err != nil {
		return nil, err
	}
	return []solved{{platform: p, image: own}}, nil
}

// stepName is the name of an instruction: "[build 2/4] RUN make".
var stepName = regexp.MustCompile(`\[[^\]]*\d+/\d+\] `)

// cachedSteps watches which steps were known.
type cachedSteps struct {
	progress.Sink
	mu    sync.Mutex
	steps []CachedStep
}

// Emit implements progress.Sink.
func (c *cachedSteps) Emit(e progress.Event) {
	if d, ok := e.(progress.Done); ok && d.Err == nil && stepName.MatchString(d.Step.Name) && !strings.Contains(d.Step.Name, "] FROM ") {
		s := CachedStep{Name: d.Step.Name, Hit: d.Cached}
		if !d.Cached {
			s.Why = "the engine's cache has no result"
		}
		c.mu.Lock()
		c.steps = append(c.steps, s)
		c.mu.Unlock()
	}
	c.Sink.Emit(e)
}

func (c *cachedSteps) list() []CachedStep {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.steps
}
