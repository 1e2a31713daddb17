package cache

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/layerwright/layerwright/core/internal/registry"
)

// Entry is one record of a repository, for people.
type Entry struct {
	// Step is the instruction, or what else the record holds; Platform is
	// empty where it has none.
	Step, Platform string
	Created        time.Time
	// Size is the sum of the record's layers, which other records may share.
	Size int64
	// Tags are its names, Digest that of its manifest.
	Tags   []string
	Digest v1.Hash

	layers map[v1.Hash]int64
}

// managed is a repository whose records can be listed and removed.
type managed interface {
	Repository
	tags(ctx context.Context) ([]string, error)
	// read is Get for records of every format.
	read(ctx context.Context, tag string) (*Record, error)
	remove(ctx context.Context, e Entry) error
}

// List gives all records, newest first, also those of formats that no build looks at
// any more: nobody else would remove them. Records that vanish meanwhile are left out.
func List(ctx context.Context, repo Repository) ([]Entry, error) {
	m := repo.(managed) //nolint:forcetypeassert // all of ours are
	tags, err := m.tags(ctx)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	byDigest := map[v1.Hash]*Entry{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelLookups)
	for _, tag := range tags {
		if !strings.HasPrefix(tag, "lw") {
			continue
		}
		g.Go(func() error {
			r, err := m.read(gctx, tag)
			if err != nil {
				if gctx.Err() != nil {
					return context.Cause(gctx)
				}
				return nil // damaged, or no record
			}
			d, err := r.Manifest.Digest()
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			e, ok := byDigest[d]
			if !ok {
				e = r.entry(d)
				byDigest[d] = e
			}
			e.Tags = append(e.Tags, tag)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var out []Entry
	for _, e := range byDigest {
		slices.Sort(e.Tags)
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b Entry) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.Digest.Hex, b.Digest.Hex))
	})
	return out, nil
}

func (r *Record) entry(d v1.Hash) *Entry {
	e := &Entry{Step: r.Step, Platform: r.Platform, Created: r.Created, Digest: d, layers: map[v1.Hash]int64{}}
	for _, l := range r.Layers {
		digest, derr := l.Digest()
		size, serr := l.Size()
		if derr == nil && serr == nil {
			e.layers[digest] = size
			e.Size += size
		}
	}
	return e
}

// PruneOptions say what may stay; 0 means that it does not matter.
type PruneOptions struct {
	// OlderThan removes records of more than that age.
	OlderThan time.Duration
	// KeepLast keeps that many of the newest, whatever their age.
	KeepLast int
	// MaxSize removes the oldest until all layers together have no more
	// bytes, each counted once.
	MaxSize int64
	// DryRun removes nothing.
	DryRun bool
	Now    time.Time
}

// Prune removes records and gives those that it removed (or would). What their
// layers take is freed by the registry's own garbage collection.
func Prune(ctx context.Context, repo Repository, opts PruneOptions) ([]Entry, error) {
	entries, err := List(ctx, repo)
	if err != nil {
		return nil, err
	}
	var removed []Entry
	for _, e := range chosen(entries, opts) {
		if !opts.DryRun {
			if err := repo.(managed).remove(ctx, e); err != nil { //nolint:forcetypeassert // as in List
				return removed, err
			}
		}
		removed = append(removed, e)
	}
	return removed, nil
}

// chosen are the entries to remove; entries are newest first.
func chosen(entries []Entry, opts PruneOptions) (out []Entry) {
	seen := map[v1.Hash]bool{}
	var total int64
	for i, e := range entries {
		for d, size := range e.layers {
			if !seen[d] {
				seen[d] = true
				total += size
			}
		}
		old := opts.OlderThan > 0 && opts.Now.Sub(e.Created) > opts.OlderThan
		large := opts.MaxSize > 0 && total > opts.MaxSize
		if i >= opts.KeepLast && (old || large) {
			out = append(out, e)
		}
	}
	return out
}

func (r *remote) tags(ctx context.Context) ([]string, error) { return r.client.Tags(ctx, r.Name()) }
func (r *remote) remove(ctx context.Context, e Entry) error {
	return r.client.Delete(ctx, r.Name(), e.Digest)
}

// NoDeletion says whether an error means that the registry does not delete.
func NoDeletion(err error) bool { return errors.Is(err, registry.ErrNoDeletion) }
