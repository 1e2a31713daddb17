package plugin

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/distribution/reference"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/syntax"
)

// outputs are where the image goes.
func (p *Plan) outputs(c *checker) {
	s, o := p.Settings, &p.Request.Outputs
	o.NoPush, o.PushByDigest = !s.Push, s.PushByDigest
	if s.PushByDigest && p.pushUnsaid {
		o.NoPush = false // it is a way of pushing
	}
	o.OCILayout, o.DockerTar, o.DigestFile, o.ImageIDFile, o.MetadataFile = s.OCILayout, s.Tar, s.DigestFile, s.ImageIDFile, s.MetadataFile
	o.AnyDestination = c.choice("destination-policy", s.DestinationPolicy, "all", "any") == "any"
	o.ImageFormat = c.choice("image-format", s.ImageFormat, "oci", "docker")
	o.Compression = c.choice("compression", s.Compression, "gzip", "zstd", "none")
	o.Reproducible, o.RewriteTimestamp, o.SingleSnapshot = s.Reproducible, s.RewriteTimestamp, s.SingleSnapshot
	o.NameDigestFile, o.NameTagDigestFile = s.NameDigestFile, s.NameTagDigestFile
	if s.PushFrom != "" && o.NoPush {
		c.add("push-from", "nothing is left to do: it pushes what was built before, and pushing is off")
	}
	setting := "outputs"
	if s.CompressionLevel != "" {
		setting = "compression-level"
		if level, err := strconv.Atoi(s.CompressionLevel); err == nil {
			o.CompressionLevel = &level
		} else {
			c.add(setting, "%q is no number", s.CompressionLevel)
		}
	}
	p.further(c)
	if o.CompressionLevel != nil {
		if err := core.CheckCompression(o.Compression, *o.CompressionLevel); err != nil {
			c.add(setting, "%w", err)
		}
	}
	if o.PushByDigest {
		o.Destinations = withoutTags(o.Destinations)
	}
	if o.ImageFormat == "docker" && o.Compression == "zstd" {
		c.add("compression", "image-format docker has no media type for zstd: use oci")
	}
	if !o.NoPush && len(o.Destinations) == 0 && p.Names.Skip == "" && !c.has("images", "tags", "flavor", "auto-tag", "outputs") && o.OCILayout+o.OCITar+o.DockerTar+o.RootDir+o.RootTar == "" {
		c.add("tags", "nowhere to push to: give an image's name, or turn push off")
	}
}

// withoutTags are the repositories of destinations.
func withoutTags(destinations []string) (out []string) {
	for _, d := range destinations {
		if named, err := reference.ParseNormalizedNamed(d); err == nil {
			d = named.Name()
		}
		if !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}

// further are docker's outputs.
func (p *Plan) further(c *checker) {
	o := &p.Request.Outputs
	more := &syntax.Outputs{Push: p.Settings.Push}
	for _, text := range p.Settings.Outputs {
		if err := more.Add(text, o); err != nil {
			c.add("outputs", "%s: %w", text, err)
		}
	}
	o.NoPush = o.NoPush && !more.Pushes()
	if err := more.Settle(o); err != nil {
		c.add("outputs", "%w", err)
	}
	if slices.Contains([]string{o.OCILayout, o.OCITar, o.DockerTar, o.RootDir, o.RootTar}, "-") {
		c.add("outputs", "standard output is the log of the job: write to a file")
	}
	if o.ImageFormat == "docker" && len(o.Annotations) > 0 {
		c.add("outputs", "image-format docker has no annotations: leave them out")
	}
}

// cache says where results of steps are kept.
func (p *Plan) cache(c *checker, facts Facts) {
	s, out := p.Settings, &p.Request.Cache
	out.Dir = cmp.Or(s.CacheDir, "/cache")
	repo := c.repository("cache-repo", s.CacheRepo)
	for _, line := range s.CacheTo {
		to := p.cachePlace(c, "cache-to", line)
		if repo != "" && to != "" && to != repo {
			c.add("cache-to", "results are kept in one repository, and there are two: %s and %s", repo, to)
		} else if to != "" {
			repo = to
		}
	}
	if repo == "" && s.Cache {
		if d := p.Request.Outputs.Destinations; len(d) > 0 {
			repo, _ = core.DefaultCacheRepo(d[0]) // an invalid destination was complained about
		} else if p.Names.Skip == "" {
			c.add("cache", "without a destination there is no place for it: set %s", c.spell("cache-repo"))
		}
	}
	for _, line := range s.CacheFrom {
		if from := p.cachePlace(c, "cache-from", line); from != "" && from != repo {
			out.From = append(out.From, from)
		}
	}
	if repo != "" || len(out.From) > 0 {
		out.Repo, out.TTL = repo, s.CacheTTL
		out.NoRunLayers, out.NoCopyLayers = !s.CacheRunLayers, !s.CacheCopyLayers
		mounts := c.choice("cache-mounts", s.CacheMounts, "auto", "on", "off")
		out.Mounts = mounts == "on" || mounts == "auto" && s.CacheRepo != "" // as on the command line: a repository that was named
		out.MaxMountSize = cmp.Or(c.size("cache-mount-max-size", s.CacheMountMaxSize), 2<<30)
		out.Scope = s.CacheScope
		p.onlyRead(c, facts.Event.PullRequest())
	}
}

// onlyRead keeps jobs for pull requests, which may come from anybody, from
// writing what later builds trust (docs/cache.md).
func (p *Plan) onlyRead(c *checker, pullRequest bool) {
	out := &p.Request.Cache
	switch only, err := strconv.ParseBool(p.Settings.NoPushCache); {
	case p.Settings.NoPushCache == "":
		if out.NoPush = pullRequest; pullRequest && out.Repo != "" {
			p.Notices = append(p.Notices, fmt.Sprintf("the cache is only read, since this is a pull request (%s)", c.spell("no-push-cache")))
		}
	case err != nil:
		c.add("no-push-cache", "%q is neither true nor false", p.Settings.NoPushCache)
	default:
		out.NoPush = only
	}
}

// cachePlace reads a line of docker's cache-from and cache-to.
func (p *Plan) cachePlace(c *checker, setting, line string) string {
	repo, note, err := syntax.CachePlace(line)
	if err != nil {
		c.add(setting, "%s: %w", line, err)
	}
	if note != "" {
		p.Notices = append(p.Notices, c.spell(setting)+" "+note)
	}
	return repo
}

// repository checks a name without a tag.
func (c *checker) repository(setting, name string) string {
	if name == "" {
		return ""
	}
	repo, err := syntax.Repository(name)
	if err != nil {
		c.add(setting, "%s: %w", name, err)
	}
	return repo
}

// registry is how registries are reached and with which credentials.
func (p *Plan) registry(c *checker, facts Facts) {
	s, r := p.Settings, &p.Request.Registry
	r.Insecure, r.SkipTLSVerify = s.Insecure, s.SkipTLSVerify
	r.InsecureRegistries, r.SkipTLSVerifyRegistries, r.Mirrors = split(s.InsecureRegistries), split(s.SkipTLSVerifyRegistries), split(s.Mirrors)
	r.PushRetries, r.PullRetries = c.retries("push-retry", s.PushRetry), c.retries("pull-retry", s.PullRetry)
	r.InsecurePull, r.SkipTLSVerifyPull = s.Insecure || s.InsecurePull, s.SkipTLSVerify || s.SkipTLSVerifyPull
	r.SkipPushCheck, r.NoFallback, r.IgnoreImmutableTags = s.SkipPushCheck, s.NoFallback, s.IgnoreImmutableTags
	var errs []error
	r.Maps, errs = syntax.RegistryMaps(s.RegistryMaps)
	c.list("registry-maps", errs)
	if len(s.CredentialHelpers) > 0 {
		r.CredentialHelpers, errs = syntax.CredentialHelpers(s.CredentialHelpers)
		c.list("credential-helpers", errs)
	}
	r.ClientCertificates, errs = syntax.ClientCertificates(s.ClientCertificates)
	c.list("registry-client-certs", errs)
	r.Certificates, errs = syntax.Certificates(split(s.Certificates))
	c.list("registry-certificates", errs)
	r.Environment = maps.Clone(c.host.Env)
	if r.Environment == nil {
		r.Environment = map[string]string{}
	}
	if text := string(facts.AuthConfig); text != "" && s.DockerConfig == "" {
		r.Environment["DOCKER_CONFIG"] = text
	} else if text != "" {
		r.Environment["DOCKER_AUTH_CONFIG"] = text
	}
	if s.DockerConfig != "" {
		r.Environment["DOCKER_CONFIG"] = s.DockerConfig
	}
	switch {
	case s.Password == "" && s.Username != "":
		c.add("password", "it is missing, and %s is set", c.spell("username"))
	case s.Password != "" && s.Username == "":
		c.add("username", "it is missing, and %s is set", c.spell("password"))
	case s.Password != "" && p.Login.Registry == "":
		if d := p.Request.Outputs.Destinations; len(d) > 0 {
			if named, err := reference.ParseNormalizedNamed(d[0]); err == nil {
				p.Login.Registry = reference.Domain(named)
			}
		}
		if p.Login.Registry == "" && p.Names.Skip == "" {
			c.add("registry", "it is missing: %s and %s are set, but not what for", c.spell("username"), c.spell("password"))
		}
	}
	for _, l := range append([]Login{p.Login}, facts.Logins...) {
		if l.Password != "" {
			r.Credentials = append(r.Credentials, core.Credential{Host: l.Registry, Username: l.Username, Password: l.Password})
		}
	}
}

// retries is a number as the engine has it: there 0 is the default, and less
// than 0 none.
func (c *checker) retries(setting, text string) int {
	n, err := strconv.Atoi(text)
	switch {
	case text == "":
		return 0
	case err != nil || n < 0:
		c.add(setting, "%q is not a number of attempts", text)
	case n == 0:
		return -1
	}
	return n
}
