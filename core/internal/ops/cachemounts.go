package ops

import (
	"cmp"
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/moby/buildkit/solver/pb"

	"github.com/layerwright/layerwright/core/internal/progress"
)

// CacheMounts keeps the directories of cache mounts between jobs. id is the name
// of a directory, name what messages call it. Nothing of it fails a build.
type CacheMounts interface {
	// Restore fills a new directory; false if there is nothing for it.
	Restore(ctx context.Context, id, name, dir string) bool
	// Adopt is told of a directory that was there before.
	Adopt(ctx context.Context, id, dir string)
	// Save stores what has changed.
	Save(ctx context.Context, id, name, dir string)
}

// usedCaches are the cache mounts that steps of this build have had, with the
// place of the first one.
type usedCaches struct {
	mu    sync.Mutex
	names map[string]string
}

// add says whether the cache is new to this build.
func (u *usedCaches) add(id, name string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.names[id]; ok {
		return false
	}
	if u.names == nil {
		u.names = map[string]string{}
	}
	u.names[id] = name
	return true
}

// lockPatience is how long saving a cache waits for another build's step.
const lockPatience = 10 * time.Second

// SaveCaches stores what steps have changed in cache mounts, all side by side,
// and waits for it. To be called when no step runs any more.
func (e *Env) SaveCaches(ctx context.Context) {
	if e.CacheMounts == nil {
		return
	}
	var wg sync.WaitGroup
	for id, name := range e.used.names {
		wg.Go(func() {
			limited, cancel := context.WithTimeout(ctx, cmp.Or(e.lockPatience, lockPatience))
			defer cancel()
			dir, release, err := e.locks.acquire(limited, filepath.Join(e.Caches, id), pb.CacheSharingOpt_LOCKED)
			if err != nil {
				if ctx.Err() == nil {
					e.Progress.Emit(progress.Notice{Level: progress.Info, Time: time.Now(),
						Text: "cache mount " + name + " is not saved by this build: another one uses it, and will save what both have changed"})
				}
				return
			}
			defer release()
			e.CacheMounts.Save(ctx, id, name, dir)
		})
	}
	wg.Wait()
}
