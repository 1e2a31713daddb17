package syntax

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"github.com/layerwright/layerwright/core"
)

// Reference is the name of an image. What has a capital and no dot is taken for a host
// by the library, for a mistake by us.
func Reference(text string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return nil, err
	}
	if host := reference.Domain(named); host != strings.ToLower(host) && !strings.ContainsAny(host, ".:") {
		return nil, errors.New("repository name must be lowercase")
	}
	return named, nil
}

// Repository is the name of a cache repository, which has no tag, or oci:DIR.
func Repository(text string) (string, error) {
	if dir, ok := strings.CutPrefix(text, "oci:"); ok {
		if dir == "" {
			return "", errors.New("name a directory: oci:DIR")
		}
		return text, nil
	}
	named, err := Reference(text)
	switch {
	case err != nil:
		return "", err
	case !reference.IsNameOnly(named):
		return "", errors.New("give a repository without a tag: every result gets its own")
	}
	return named.Name(), nil
}

// CachePlace is the repository of docker's cache-from and cache-to: a name, or
// type=registry,ref=NAME. A name with a tag is one image to docker; here many results
// share a repository, so that it is the one that belongs to that image. A note says so,
// and of a type that only docker has that there is no repository.
func CachePlace(text string) (repository, note string, err error) {
	ref := strings.TrimSpace(text)
	if strings.Contains(ref, "=") {
		fields, err := Fields(ref)
		if err != nil {
			return "", "", err
		}
		switch kind := fields["type"]; {
		case slices.Contains([]string{"gha", "inline", "local", "s3", "azblob"}, kind):
			return "", "type=" + kind + " has no effect: results of steps are kept in a registry", nil
		case kind != "registry" && kind != "":
			return "", "", fmt.Errorf("unknown type %q: use registry", kind)
		case fields["ref"] == "":
			return "", "", errors.New("ref= is missing")
		}
		ref = fields["ref"]
	}
	if strings.HasPrefix(ref, "oci:") {
		repository, err = Repository(ref)
		return repository, "", err
	}
	named, err := Reference(ref)
	if err != nil {
		return "", "", err
	}
	_, digested := named.(reference.Digested)
	switch {
	case reference.IsNameOnly(named):
		return named.Name(), "", nil
	case digested:
		return "", "", errors.New("give a repository, or an image by its tag")
	}
	if repository, err = core.DefaultCacheRepo(named.String()); err != nil {
		return "", "", err
	}
	return repository, ref + ": results of steps are kept in the repository " + repository, nil
}
