package core

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/registry"
)

// MergeRequest asks for an index of images that were pushed before, each by a job
// of its own (Outputs.PushByDigest).
type MergeRequest struct {
	// Sources are digests ("sha256:…") in the repository of the destinations, or
	// references there.
	Sources []string
	// Platforms are what the index must have, no more and no less; none when it
	// may be any. Revision is the commit that images must be of which name one
	// (org.opencontainers.image.revision); may be empty.
	Platforms []string
	Revision  string
	// Outputs are Destinations, tags of one repository, Annotations of the
	// index, and the files with digests and names.
	Outputs  Outputs
	Registry Registry
	Progress Sink
}

// What must agree between the parts of an image.
const (
	revisionKey = ocispecs.AnnotationRevision
	versionKey  = ocispecs.AnnotationVersion
)

// part is one platform's image.
type part struct {
	source   string
	desc     v1.Descriptor
	platform string
	// labels are the configuration's, with the manifest's annotations over them.
	labels      map[string]string
	annotations map[string]string
}

// Merge makes an index and tags it. No blob is transferred: two requests for each
// image and one for each tag. The same images give the same index, in whatever
// order they are named, so that it can be done again. Images of different commits,
// and two for one platform, are refused before anything is written.
func Merge(ctx context.Context, r MergeRequest) (_ *Result, err error) {
	if r.Progress == nil {
		r.Progress = progress.Discard
	}
	b := &build{req: &Request{Registry: r.Registry, Outputs: r.Outputs}, machine: &machine{}, sink: r.Progress}
	defer func() { err = b.classify(errors.Join(err, b.close())) }()
	if b.client, err = registry.New(b.registryOptions()); err != nil {
		return nil, err
	}
	repo, tags, err := oneRepository(r.Outputs.Destinations)
	if err != nil {
		return nil, err
	}
	refs, err := sourcesIn(repo, r.Sources)
	if err != nil {
		return nil, err
	}
	if err := b.openOutputs(); err != nil {
		return nil, err
	}
	parts, err := b.parts(ctx, repo, refs)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(checkParts(parts, b.warn), checkWanted(parts, r)); err != nil {
		return nil, err
	}
	index, err := b.mergedIndex(parts)
	if err != nil {
		return nil, err
	}
	pusher, err := b.client.Pusher(repo)
	if err != nil {
		return nil, err
	}
	digest, err := index.Digest()
	if err != nil {
		return nil, err
	}
	out := &Result{Digest: digest.String(), MediaType: string(index.mediaType), Size: int64(len(index.raw))}
	for _, tag := range tags {
		if err := pusher.Tag(ctx, index, tag); err != nil {
			return out, err
		}
		out.Destinations = append(out.Destinations, repo+":"+tag)
	}
	return out, b.exportNames(ctx, index, out)
}

// oneRepository splits destinations, which must be tags of one repository: an index
// refers to manifests beside it.
func oneRepository(destinations []string) (repo string, tags []string, err error) {
	for _, d := range destinations {
		r, tag, err := registry.Destination(d)
		if err != nil {
			return "", nil, err
		}
		if repo != "" && r != repo {
			return "", nil, fault.New(fault.Usage, "two repositories, %s and %s: an index and its images are in one", repo, r).
				With("Merge in each repository that the images were pushed to.")
		}
		repo, tags = r, append(tags, tag)
	}
	if repo == "" {
		return "", nil, fault.New(fault.Usage, "nowhere to put the index").With("Give --destination IMAGE.")
	}
	return repo, tags, nil
}

// sourcesIn makes references of sources.
func sourcesIn(repo string, sources []string) ([]string, error) {
	var out []string
	for _, s := range sources {
		ref := s
		if strings.HasPrefix(s, "sha256:") {
			ref = repo + "@" + s
		} else {
			name, _, _ := strings.Cut(s, "@")
			other, _, err := registry.Destination(name)
			if err != nil {
				return nil, err
			}
			if other != repo {
				return nil, fault.New(fault.Usage, "%s is not in the repository of the destination, %s", s, repo).
					With("Push it there, by digest (--push-by-digest): an index and its images are in one repository.")
			}
		}
		if !slices.Contains(out, ref) {
			out = append(out, ref)
		}
	}
	if len(out) == 0 {
		return nil, fault.New(fault.Usage, "nothing to merge").With("Name the digests that the jobs have pushed.")
	}
	return out, nil
}

// parts fetches the images, a few at once; an index stands for all that it has.
func (b *build) parts(ctx context.Context, repo string, refs []string) ([]part, error) {
	lists := make([][]part, len(refs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i, ref := range refs {
		g.Go(func() (err error) { lists[i], err = b.partsOf(ctx, repo, ref, 0); return err })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all := slices.Concat(lists...)
	slices.SortFunc(all, func(a, b part) int {
		return cmp.Or(strings.Compare(a.platform, b.platform), strings.Compare(a.desc.Digest.String(), b.desc.Digest.String()))
	})
	return slices.CompactFunc(all, func(a, b part) bool { return a.desc.Digest == b.desc.Digest }), nil
}

func (b *build) partsOf(ctx context.Context, repo, ref string, depth int) ([]part, error) {
	m, err := b.client.Manifest(ctx, ref)
	if err != nil {
		return nil, err
	}
	if m.Config == nil {
		if depth > 2 {
			return nil, fault.New(fault.Registry, "%s: indexes are nested too deeply", ref)
		}
		var out []part
		for _, d := range m.Manifests {
			if d.Platform != nil && d.Platform.OS == "unknown" {
				continue // an attestation
			}
			more, err := b.partsOf(ctx, repo, repo+"@"+d.Digest.String(), depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		}
		return out, nil
	}
	c := m.Config
	p := platforms.Normalize(ocispecs.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant, OSVersion: c.OSVersion, OSFeatures: c.OSFeatures})
	labels := map[string]string{}
	for _, from := range []map[string]string{c.Config.Labels, m.Annotations} {
		for k, v := range from {
			labels[k] = v
		}
	}
	return []part{{source: ref, platform: platforms.FormatAll(p), labels: labels, annotations: m.Annotations,
		desc: v1.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(m.Raw)),
			Platform: &v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures}}}}, nil
}

// checkParts refuses what would be no image.
func checkParts(parts []part, warn func(string)) error {
	if len(parts) == 0 {
		return fault.New(fault.User, "there is no image in what is to be merged").With("Name the digests that the jobs have pushed.")
	}
	byPlatform := map[string]part{}
	for _, p := range parts {
		if other, ok := byPlatform[p.platform]; ok {
			return fault.New(fault.User, "two images for %s: %s and %s", p.platform, other.desc.Digest, p.desc.Digest).
				With("Leave one of them out: each job of a matrix builds another platform.")
		}
		byPlatform[p.platform] = p
	}
	for _, key := range []string{revisionKey, versionKey} {
		first := parts[0]
		for _, p := range parts[1:] {
			if p.labels[key] == first.labels[key] {
				continue
			}
			said := fmt.Sprintf("%s differs: %q for %s, %q for %s", key, first.labels[key], first.platform, p.labels[key], p.platform)
			if key == revisionKey {
				return fault.New(fault.User, "the images are not of one commit: %s", said).
					With("Merge what jobs of the same commit have pushed, and build the others again.")
			}
			warn(said)
		}
	}
	return nil
}

// checkWanted refuses images that are not those asked for.
func checkWanted(parts []part, r MergeRequest) error {
	for _, p := range parts {
		if said := p.labels[revisionKey]; r.Revision != "" && said != "" && said != r.Revision {
			return fault.New(fault.User, "the image for %s (%s) is of commit %s, and this job is of %s", p.platform, p.desc.Digest, said, r.Revision).
				With("Merge what jobs of the same commit have pushed.")
		}
	}
	if len(r.Platforms) == 0 {
		return nil
	}
	wanted, err := parsePlatforms(r.Platforms)
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, w := range wanted {
		names[platforms.FormatAll(w)] = true
	}
	for _, p := range parts {
		if !names[p.platform] {
			return fault.New(fault.User, "there is an image for %s, which is not among the platforms asked for", p.platform).
				With("Name all platforms of the matrix, or none.")
		}
		delete(names, p.platform)
	}
	for _, w := range wanted {
		if names[platforms.FormatAll(w)] {
			return fault.New(fault.User, "there is no image for %s", platforms.FormatAll(w)).
				With("Name the digest that its job has pushed, too; see whether that job has run.")
		}
	}
	return nil
}

// mergedIndex has the annotations that all its images have, and those asked for.
func (b *build) mergedIndex(parts []part) (*listed, error) {
	m := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Annotations: map[string]string{}}
	docker := true
	for _, p := range parts {
		m.Manifests = append(m.Manifests, p.desc)
		docker = docker && p.desc.MediaType == types.DockerManifestSchema2
	}
	for k, v := range parts[0].annotations {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.annotations[k] != v }) && k != ocispecs.AnnotationCreated {
			m.Annotations[k] = v
		}
	}
	for _, a := range b.req.Outputs.Annotations {
		if !a.Index || a.Descriptor {
			return nil, fault.New(fault.Usage, "annotation %s: only the index is made here", a.Key).With("Write --annotation index:KEY=VALUE.")
		}
		m.Annotations[a.Key] = a.Value
	}
	if docker {
		m.MediaType, m.Annotations = types.DockerManifestList, nil
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode index: %w", err)
	}
	return &listed{raw, m.MediaType}, nil
}

// listed is an index whose images are in the registry already.
type listed struct {
	raw       []byte
	mediaType types.MediaType
}

func (l *listed) RawManifest() ([]byte, error)        { return l.raw, nil }
func (l *listed) MediaType() (types.MediaType, error) { return l.mediaType, nil }
func (l *listed) Digest() (v1.Hash, error)            { return partial.Digest(l) }
