package plugin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerwright/layerwright/core"
)

// merge makes the requests of a job that builds nothing, one for each repository.
func (p *Plan) merge(c *checker, values Values, facts Facts) {
	s := p.Settings
	if !s.Merge {
		if len(s.Digests) > 0 {
			c.add("digests", "only merge uses them: set %s to true, or leave them out", c.spell("merge"))
		}
		return
	}
	for _, name := range []string{"push-by-digest", "outputs", "oci-layout-path", "tar-path", "labels"} {
		if v := values[name]; len(given(v.Values)) > 0 && v.Source != "default" && (name != "push-by-digest" || s.PushByDigest) {
			c.add(name, "merge makes only an index, of images that have been pushed: leave it out")
		}
	}
	p.buildOnly(c, values)
	if p.pushUnsaid {
		p.Request.Outputs.NoPush = false
	}
	o := p.Request.Outputs
	sources := c.digests(s.Digests)
	if len(sources) == 0 && !c.has("digests") {
		c.add("digests", "nothing to merge: name the digests that the jobs have pushed, or files with them")
	}
	if len(o.Destinations) == 0 && p.Names.Skip == "" && !c.has("images", "tags", "flavor", "auto-tag") {
		c.add("tags", "nowhere to put the index: give an image's name")
	}
	if !s.Push && !p.pushUnsaid && p.Names.Skip == "" {
		p.Names.Skip = "merge only pushes, and " + c.spell("push") + " is false"
	}
	outputs := core.Outputs{DigestFile: o.DigestFile, MetadataFile: o.MetadataFile}
	outputs.Annotations = c.indexAnnotations(o.Annotations, p.Labels, len(s.Annotations))
	var repositories []string
	byRepository := map[string][]string{}
	for _, d := range o.Destinations {
		repo := cmp.Or(strings.Join(withoutTags([]string{d}), ""), d)
		if byRepository[repo] == nil {
			repositories = append(repositories, repo)
		}
		byRepository[repo] = append(byRepository[repo], d)
	}
	for _, repo := range repositories {
		r := core.MergeRequest{Sources: sources, Platforms: p.Request.Platforms, Revision: facts.Event.SHA, Outputs: outputs, Registry: p.Request.Registry}
		r.Outputs.Destinations = byRepository[repo]
		p.Merge = append(p.Merge, r)
	}
	if p.Merge == nil { // refused or skipped
		p.Merge = []core.MergeRequest{}
	}
}

// buildOnly tells of settings that say how to build.
func (p *Plan) buildOnly(c *checker, values Values) {
	var list []string
	for _, f := range slices.Concat(buildFields(), cacheFields()) {
		if v := values[f.Name]; !slices.Contains([]string{"context", "file", "platforms", "github-token"}, f.Name) && len(given(v.Values)) > 0 && v.Source != "default" {
			list = append(list, c.spell(f.Name))
		}
	}
	if len(list) > 0 {
		p.Notices = append(p.Notices, "nothing is built: "+strings.Join(list, ", ")+" has no effect beside "+c.spell("merge"))
	}
}

// digests reads the files among what is to be merged.
func (c *checker) digests(list []string) (out []string) {
	for _, text := range split(list) {
		if strings.HasPrefix(text, "sha256:") {
			out = append(out, text)
			continue
		}
		files, err := c.host.Glob(text)
		switch {
		case err != nil:
			c.add("digests", "%s: %w", text, err)
		case len(files) == 0 && strings.Contains(text, ":"):
			out = append(out, text) // a reference
		case len(files) == 0:
			c.add("digests", "%s: there is no such file, and it is no digest", text)
		}
		for _, f := range files {
			data, err := c.host.ReadFile(f)
			found := strings.Fields(string(data))
			if err == nil && (len(found) == 0 || len(found) > 1000) {
				err = fmt.Errorf("it has no digests")
			}
			if err != nil {
				c.add("digests", "%s: %w", f, err)
				continue
			}
			out = append(out, found...)
		}
	}
	return out
}

// indexAnnotations are those of the index: the default ones, but for the time, which
// would make another index of each attempt; and the user's last own.
func (c *checker) indexAnnotations(list []core.Annotation, defaults map[string]string, own int) (out []core.Annotation) {
	for _, a := range list {
		switch {
		case a.Key == ocispecs.AnnotationCreated && !a.Index:
		case !a.Index && !a.Descriptor && a.Platform == "" && defaults[a.Key] == a.Value:
			a.Index = true
			out = append(out, a)
		case !a.Index || a.Descriptor:
			if own > 0 {
				c.add("annotations", "%s: merge makes only the index: write index:KEY=VALUE", a.Key)
			}
		default:
			out = append(out, a)
		}
	}
	return out
}

// mergeAll carries the requests out; the result is that of the first, with the
// destinations of all.
func (p *Plan) mergeAll(ctx context.Context, sink core.Sink) (*core.Result, error) {
	var out *core.Result
	for _, r := range p.Merge {
		r.Progress = sink
		res, err := core.Merge(ctx, r)
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = res
		} else {
			out.Destinations = append(out.Destinations, res.Destinations...)
		}
	}
	return out, nil
}
