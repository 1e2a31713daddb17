package core

import (
	"context"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"github.com/layerwright/layerwright/core/internal/credentials"
	"github.com/layerwright/layerwright/core/internal/registry"
)

// prepareRepositories makes the repositories that are pushed to what they are to
// be, where their registry does not make them by itself.
func (b *build) prepareRepositories(ctx context.Context) error {
	want := b.req.Outputs.Repository
	if want == (Repository{}) || b.req.Outputs.NoPush {
		return nil
	}
	var made []string
	prepare := func(name string, want Repository) error {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return nil //nolint:nilerr // whoever pushes there complains
		}
		at := credentials.Place{Host: reference.Domain(named), Path: reference.Path(named)}
		if slices.Contains(made, at.String()) || !credentials.NeedsRepositories(at.Host) {
			return nil
		}
		made = append(made, at.String())
		opts := credentials.Options{Clouds: b.req.Registry.Clouds, Environment: b.req.Registry.Environment, Outside: b.machine.outside, Transport: b.client.Transport()}
		done, err := credentials.Prepare(ctx, opts, at, want)
		for _, d := range done {
			b.notice("repository " + at.String() + " " + d)
		}
		return err
	}
	for _, d := range b.req.Outputs.Destinations {
		if err := prepare(d, want); err != nil {
			return err
		}
	}
	if len(made) == 0 {
		b.notice("no repository has to be made: these registries do so at the first push")
	}
	if c := b.req.Cache; want.Create && c.Repo != "" && !c.NoPush && !strings.HasPrefix(c.Repo, "oci:") {
		if err := prepare(c.Repo, Repository{Create: true}); err != nil {
			b.warn(err.Error()) // a cache never fails a build
		}
	}
	return nil
}

// ExistingTag is the first of these references whose tag is there already; empty
// where none is.
func ExistingTag(ctx context.Context, references []string, r Registry) (string, error) {
	client, err := registry.New(r.options())
	if err != nil {
		return "", err
	}
	for _, ref := range references {
		named, err := reference.ParseNormalizedNamed(ref)
		if err != nil {
			return "", err
		}
		tagged, ok := reference.TagNameOnly(named).(reference.Tagged)
		if !ok {
			continue
		}
		there, err := client.Tags(ctx, named.Name())
		if err != nil {
			return "", err
		}
		if slices.Contains(there, tagged.Tag()) {
			return ref, nil
		}
	}
	return "", nil
}
