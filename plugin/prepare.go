package plugin

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/display"
	"github.com/layerwright/layerwright/plugin/syntax"
	"github.com/layerwright/layerwright/plugin/tags"
)

// Plan is what is to be done, checked.
type Plan struct {
	Settings Settings
	Request  core.Request
	// Merge is set where an index is made of images that are pushed already, for
	// each repository one; nothing is built then.
	Merge []core.MergeRequest
	// Names are the image's tags and references.
	Names tags.Result
	// Labels are all labels, Annotations those with their default keys.
	Labels map[string]string
	// PushFrom is what is pushed instead of a build; may be empty.
	PushFrom string
	// SkipExisting builds nothing where one of the tags is there already.
	SkipExisting bool
	// Notices say what was changed, or has no effect.
	Notices []string
	// Secrets are values to hide before anything else is printed.
	Secrets [][]byte
	// Login is the user's login; its Password is empty when there is none.
	Login Login
	// Verbosity and Format are those of the log.
	Verbosity display.Verbosity
	Format    display.Format
	// ExplainCache says more about hits and misses at the end.
	ExplainCache bool
	// pushUnsaid says that the user has said nothing of pushing.
	pushUnsaid bool
}

// Login is a name and password for a registry.
type Login struct{ Registry, Username, Password string }

// Skip says why nothing is to be built; empty if something is.
func (p *Plan) Skip() string { return p.Names.Skip }

// Prepare checks the settings and makes the plan. The error has all mistakes
// (Problems); the plan is not nil even then, since its Secrets are to be hidden
// before the error is shown.
func Prepare(values Values, facts Facts, host Host) (*Plan, error) {
	c := &checker{host: host}
	s := c.read(values)
	p := &Plan{Settings: s, Login: Login{Registry: s.Registry, Username: s.Username, Password: s.Password}}
	p.pushUnsaid = len(values["push"].Values) == 0 || values["push"].Source == "default"
	p.PushFrom, p.SkipExisting, p.ExplainCache = s.PushFrom, s.SkipIfTagExists, s.ExplainCache
	p.Notices = append(p.Notices, facts.Notices...)
	for _, name := range slices.Sorted(maps.Keys(facts.Problems)) {
		c.add(name, "%w", facts.Problems[name])
	}
	r := &p.Request
	r.Context, r.Dockerfile, r.Target = c.context(s.Context), s.File, s.Target
	if core.IsRemote(r.Context) && s.File == "Dockerfile" || len(values["file"].Values) == 0 || values["file"].Source == "default" {
		// The context's own, as with build-push-action; and a context that is one
		// file is not in doubt.
		r.Dockerfile = ""
	}
	r.ContextSubPath, r.IgnorePaths = s.ContextSubPath, each(c, "ignore-paths", split(s.IgnorePaths), syntax.ImagePath)
	r.NoCache, r.NoCacheFilter = s.NoCache, split(s.NoCacheFilters)
	r.Hostname, r.CgroupParent, r.Store = s.Hostname, s.CgroupParent, s.Store
	r.Network = c.choice("network", s.Network, "default", "host", "none")
	r.Isolation = c.choice("isolation", s.Isolation, "auto", "namespaces", "inplace", "chroot")
	r.Snapshots = c.choice("snapshots", s.Snapshots, "auto", "overlay", "flat")
	var err error
	if r.MinFree, err = syntax.MinFree(s.MinFree); err != nil {
		c.add("min-free", "%s: %w", s.MinFree, err)
	}
	if r.Engines, err = core.ParseEngines(s.Engine); err != nil {
		c.add("engine", "%w", err)
	}
	r.Platforms = c.platforms(s.Platforms)
	r.BuildArgs = c.buildArgs(s.BuildArgs)
	r.NamedContexts = c.namedContexts(s.BuildContexts)
	r.ExtraHosts, r.Ulimits, r.ShmSize = c.hosts(split(s.AddHosts)), c.ulimits(split(s.Ulimits)), c.size("shm-size", s.ShmSize)
	r.SSH = c.ssh(s)
	r.Secrets = c.secrets(s)
	c.refused(s)
	p.names(c, facts)
	p.outputs(c)
	p.labels(c, facts)
	p.cache(c, facts)
	p.registry(c, facts)
	p.merge(c, values, facts)
	p.clouds(c)
	p.secretValues(facts)
	if s.Verbosity != "" {
		if p.Verbosity, err = display.ParseVerbosity(s.Verbosity); err != nil {
			c.add("verbosity", "%w", err)
		}
	}
	if c.choice("log-format", s.LogFormat, "plain", "json", "auto") == "json" {
		p.Format = display.JSON
	}
	return p, c.err()
}

// refused are settings that would promise what the engine does not do.
func (c *checker) refused(s Settings) {
	if s.Load {
		c.add("load", "there is no Docker engine to load the image into: write a file (%s, or an output of type=docker with dest=) and docker load it, or push", c.spell("tar-path"))
	}
	off := []string{"", "false", "0", "none", "disabled"}
	for name, value := range map[string]string{"provenance": s.Provenance, "sbom": s.SBOM} {
		if !slices.Contains(off, strings.ToLower(value)) {
			c.add(name, "attestations are not made yet: set it to false")
		}
	}
	for _, a := range given([]string{s.Attests}) {
		if !strings.Contains(a, "disabled=true") {
			c.add("attests", "attestations are not made yet: leave it out")
		}
	}
}

// names decides what the image is called.
func (p *Plan) names(c *checker, facts Facts) {
	s := p.Settings
	ts := tags.Settings{Images: s.Images, Flavor: s.Flavor, Preset: tags.Preset(s.AutoTag), Suffix: s.AutoTagSuffix, Expand: s.ExpandTags}
	if s.ShortSHALength != "" {
		var err error
		if ts.ShortSHA, err = strconv.Atoi(s.ShortSHALength); err != nil || ts.ShortSHA < 1 || ts.ShortSHA > 64 {
			c.add("short-sha-length", "%q is no number from 1 to 64", s.ShortSHALength)
			ts.ShortSHA = 0
		}
	}
	rules := len(s.Flavor) > 0 || slices.ContainsFunc(s.Tags, tags.IsRule)
	for _, line := range s.Tags {
		switch {
		case tags.IsRule(line) || rules && !strings.ContainsAny(line, "/:"):
			ts.Rules = append(ts.Rules, line)
		default:
			ts.Explicit = append(ts.Explicit, split([]string{line})...)
		}
	}
	switch {
	case s.AutoTag == "none":
		ts.Preset = tags.None
	case ts.Preset == tags.Metadata && len(s.Images) == 0:
		ts.Preset = tags.None // nothing to put the tags on
	case ts.Preset == tags.Metadata && len(ts.Explicit) > 0 && len(ts.Rules) == 0:
		ts.Preset = tags.None // the default rules are for when nothing is said
	}
	if len(s.Images) > 0 && len(s.Tags) == 0 && ts.Preset == tags.None {
		ts.Explicit = []string{"latest"}
	}
	var found []*tags.Problem
	p.Names, found = tags.Make(facts.Event, ts)
	for _, f := range found {
		c.add(f.Setting, "%s: %w", f.Value, f.Err)
	}
	p.Notices = append(p.Notices, p.Names.Notices...)
	p.Request.Outputs.Destinations = p.Names.References
}

// labels are those of OCI, and over them the user's.
func (p *Plan) labels(c *checker, facts Facts) {
	p.Labels = map[string]string{}
	out := &p.Request.Outputs
	var annotations []core.Annotation
	if p.Settings.DefaultLabels {
		event := facts.Event
		if p.Settings.Reproducible {
			event.Now = event.CommitTime // the time of the build would change the image
		}
		p.Labels = tags.Labels(event, facts.Project, p.Names.Version)
		if out.ImageFormat != "docker" { // which has none
			for _, key := range slices.Sorted(maps.Keys(p.Labels)) {
				annotations = append(annotations, core.Annotation{Key: key, Value: p.Labels[key]})
			}
		}
	}
	maps.Copy(p.Labels, c.pairs("labels", p.Settings.Labels))
	p.Request.Labels = p.Labels
	own := c.annotations(p.Settings.Annotations)
	if out.ImageFormat == "docker" && len(own) > 0 {
		c.add("annotations", "image-format docker has none: use oci, or labels")
	}
	out.Annotations = slices.Concat(annotations, own, out.Annotations)
}

// secretValues collects what must not be shown.
func (p *Plan) secretValues(facts Facts) {
	for _, s := range p.Request.Secrets {
		p.Secrets = append(p.Secrets, s.Value)
	}
	for _, l := range facts.Logins {
		if l.Password != "" {
			p.Secrets = append(p.Secrets, []byte(l.Password))
		}
	}
	for _, text := range append([]string{p.Settings.Context}, p.Settings.BuildContexts...) {
		p.Secrets = append(p.Secrets, syntax.URLSecrets(text)...)
	}
	for _, s := range facts.Secrets {
		p.Secrets = append(p.Secrets, []byte(s))
	}
	for _, s := range append(slices.Clone(p.Settings.Secrets), p.Settings.Password, p.Settings.GitToken, p.Settings.SSHKey) {
		if _, value, ok := strings.Cut(s, "="); ok {
			p.Secrets = append(p.Secrets, []byte(value))
		}
		if s != "" {
			p.Secrets = append(p.Secrets, []byte(s))
		}
	}
}
