package core

import (
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// namesWithDigest is a line for each destination with the digest, as Kaniko writes
// them: Docker Hub is index.docker.io there, a tag that is missing is latest.
func namesWithDigest(destinations []string, digest string, tagged bool) (string, error) {
	var b strings.Builder
	for _, d := range destinations {
		repo, _, byDigest := strings.Cut(d, "@")
		if byDigest {
			tagged = false
		}
		ref, err := name.NewTag(repo, name.WeakValidation)
		if err != nil {
			return "", fault.Wrap(fault.Usage, err, "destination "+d)
		}
		b.WriteString(ref.Repository.Name())
		if tagged {
			b.WriteString(":" + ref.TagStr())
		}
		b.WriteString("@" + digest + "\n")
	}
	return b.String(), nil
}
