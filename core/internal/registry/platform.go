package registry

import (
	"sort"
	"strings"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func spec(p v1.Platform) ocispec.Platform {
	return platforms.Normalize(ocispec.Platform{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures,
	})
}

// isAttestation recognises BuildKit's provenance and SBOM manifests.
func isAttestation(d v1.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" ||
		d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

// candidates are the entries of an index that may be the wanted image, best
// first; those that do not say what they are for come last.
func candidates(idx *v1.IndexManifest, want platforms.MatchComparer) []v1.Descriptor {
	const mostUnknown = 8
	var match, unknown []v1.Descriptor
	for _, d := range idx.Manifests {
		switch {
		case isAttestation(d):
		case d.Platform == nil || d.Platform.OS == "" && d.Platform.Architecture == "":
			if len(unknown) < mostUnknown && (d.MediaType == "" || d.MediaType.IsImage() || d.MediaType.IsIndex()) {
				d.Platform = nil
				unknown = append(unknown, d)
			}
		case want.Match(spec(*d.Platform)):
			match = append(match, d)
		}
	}
	sort.SliceStable(match, func(i, j int) bool { return want.Less(spec(*match[i].Platform), spec(*match[j].Platform)) })
	return append(match, unknown...)
}

// available lists the platforms of an index for people.
func available(idx *v1.IndexManifest) string {
	var out []string
	seen := map[string]bool{}
	for _, d := range idx.Manifests {
		if d.Platform == nil || isAttestation(d) {
			continue
		}
		s := clean(platforms.Format(spec(*d.Platform)))
		if !seen[s] && len(out) < 30 {
			seen[s] = true
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return "nothing that names its platform"
	}
	return strings.Join(out, ", ")
}
