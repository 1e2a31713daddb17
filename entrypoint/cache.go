package main

import (
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/syntax"
)

// cacheFlags are the flags of the layer cache as they were written.
type cacheFlags struct {
	on                    bool
	repo                  string
	from                  []string
	ttl                   time.Duration
	runLayers, copyLayers bool
	noPush, explain       bool
	mounts                choice
	mountSize, scope, dir string

	// notices are what the settings come to, where that may surprise.
	notices []string
}

// defaultCacheTTL is Kaniko's: two weeks.
const defaultCacheTTL = 14 * 24 * time.Hour

func (f *cacheFlags) register(fs *pflag.FlagSet) {
	fs.BoolVar(&f.on, "cache", false, "\tkeep results of steps in DESTINATION/cache")
	fs.StringVar(&f.repo, "cache-repo", "", "REPOSITORY\tkeep results of steps there; oci:DIR is a directory")
	fs.StringArrayVar(&f.from, "cache-from", nil, "REPOSITORY\tlook for results there too; again for more")
	fs.DurationVar(&f.ttl, "cache-ttl", defaultCacheTTL, "DURATION\tuse no older results, 336h by default")
	fs.BoolVar(&f.runLayers, "cache-run-layers", true, "\t=false keeps RUN out of the cache")
	fs.BoolVar(&f.copyLayers, "cache-copy-layers", true, "\t=false keeps COPY, ADD and WORKDIR out of it")
	f.mounts = oneOf("auto", "on", "off")
	fs.Var(&f.mounts, "cache-mounts", "MODE\tkeep RUN --mount=type=cache too; auto: with --cache-repo")
	fs.StringVar(&f.mountSize, "cache-mount-max-size", "2g", "SIZE\tof a cache mount that is kept, 2g by default")
	fs.StringVar(&f.scope, "cache-scope", "", "NAME\tseparates cache mounts, of branches for example")
	fs.StringVar(&f.dir, "cache-dir", "/cache", "DIR\tbase images that layerwright warmer has fetched")
	fs.BoolVar(&f.explain, "explain-cache", false, "\tsay more about hits and misses at the end")
	fs.BoolVar(&f.noPush, "no-push-cache", false, "\tonly read the cache")
}

// settings makes the engine's settings of the flags. A repository that is named
// turns the cache on, --cache=false off.
func (f *cacheFlags) settings(c *checker, given map[string]bool, destinations []string) (out core.Cache) {
	out.Dir = f.dir
	if given["cache"] && !f.on || !f.on && f.repo == "" && len(f.from) == 0 {
		return out
	}
	if f.ttl < 0 {
		c.add("--cache-ttl %s: it must not be negative", f.ttl)
	}
	out = core.Cache{Dir: f.dir, Repo: f.repo, TTL: f.ttl, NoPush: f.noPush, NoRunLayers: !f.runLayers, NoCopyLayers: !f.copyLayers}
	if out.Repo == "" && f.on {
		if len(destinations) == 0 {
			c.add("--cache: without a destination there is no place for it: give --cache-repo REPOSITORY")
			return out
		}
		repo, err := core.DefaultCacheRepo(destinations[0])
		if err != nil {
			return out // the destination itself has been complained about
		}
		out.Repo = repo
	}
	out.Repo = c.repository(out.Repo)
	out.Mounts = f.mounts.value == "on" || f.mounts.value == "auto" && f.repo != ""
	out.Scope = f.scope
	var err error
	if out.MaxMountSize, err = units.RAMInBytes(f.mountSize); err != nil || out.MaxMountSize <= 0 {
		c.add("--cache-mount-max-size %s: write a size such as 500m or 2g", f.mountSize)
	}
	for _, from := range f.from {
		repo, note, err := syntax.CachePlace(from)
		if err != nil {
			c.add("--cache-from %s: %w", from, err)
		}
		if note != "" {
			f.notices = append(f.notices, "--cache-from "+note)
		}
		if repo != "" {
			out.From = append(out.From, repo)
		}
	}
	return out
}

// repository checks the name of a cache repository.
func (c *checker) repository(name string) string {
	if name == "" {
		return ""
	}
	repo, err := syntax.Repository(name)
	if err != nil {
		c.add("--cache-repo %s: %w", name, err)
	}
	return repo
}
