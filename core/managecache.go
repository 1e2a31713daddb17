package core

import (
	"context"
	"time"

	"github.com/layerwright/layerwright/core/internal/cache"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/registry"
)

// CacheEntry is one record of a cache repository.
type CacheEntry struct {
	// Step is the instruction whose result it is, Platform its
	// "os/architecture", empty for what has none (cache mounts).
	Step, Platform string
	Created        time.Time
	// Size is that of its layers in bytes; other records may share them.
	Size int64
}

// ListCache gives the records of a cache repository ("host/path" or "oci:DIR"),
// newest first.
func ListCache(ctx context.Context, repo string, r Registry) ([]CacheEntry, error) {
	c, end, err := managedCache(repo, r)
	if err != nil {
		return nil, err
	}
	defer end()
	entries, err := cache.List(ctx, c)
	return cacheEntries(entries), err
}

// PruneOptions say which records of a cache repository may go; 0 means that it
// does not matter. See cache.PruneOptions.
type PruneOptions struct {
	OlderThan time.Duration
	KeepLast  int
	MaxSize   int64
	DryRun    bool
}

// PruneCache removes records and gives those that it removed, or with DryRun
// would have. An error of kind Registry says where a registry does not allow it.
func PruneCache(ctx context.Context, repo string, r Registry, opts PruneOptions) ([]CacheEntry, error) {
	c, end, err := managedCache(repo, r)
	if err != nil {
		return nil, err
	}
	defer end()
	entries, err := cache.Prune(ctx, c, cache.PruneOptions{OlderThan: opts.OlderThan, KeepLast: opts.KeepLast, MaxSize: opts.MaxSize, DryRun: opts.DryRun, Now: time.Now()})
	if cache.NoDeletion(err) {
		err = fault.New(fault.Registry, "%w", err).
			With("Allow deletion in the registry's settings, use its own rules for the age of tags, or remove the repository there.")
	}
	return cacheEntries(entries), err
}

func cacheEntries(list []cache.Entry) (out []CacheEntry) {
	for _, e := range list {
		out = append(out, CacheEntry{Step: e.Step, Platform: e.Platform, Created: e.Created, Size: e.Size})
	}
	return out
}

// managedCache opens a cache repository outside of a build, until end.
func managedCache(repo string, r Registry) (c cache.Repository, end func(), err error) {
	b := &build{req: &Request{Registry: r, Cache: Cache{Repo: repo}}, machine: &machine{}, sink: progress.Discard}
	if b.client, err = registry.New(b.registryOptions()); err != nil {
		return nil, nil, err
	}
	if c, err = b.cacheRepository(repo); err != nil {
		return nil, nil, err
	}
	return c, func() { _ = b.close() }, nil
}
