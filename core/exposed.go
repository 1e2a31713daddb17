package core

import (
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// exposed gives a function that says, once for each, which mounts of the job steps
// can see: the kernel does not let a mount be set aside that lies in a directory of
// the job's own image. The build context is none of them, since nobody takes it
// for a secret (docs/security.md).
func (b *build) exposed() func(mounts []string) {
	known := []string{b.req.Cache.Dir}
	if dir, err := filepath.Abs(b.req.Context); err == nil && b.locals != nil {
		known = append(known, dir)
	}
	var mu sync.Mutex
	said := map[string]bool{}
	return func(mounts []string) {
		mu.Lock()
		defer mu.Unlock()
		fresh := slices.DeleteFunc(slices.Clone(mounts), func(m string) bool {
			old := said[m] || slices.ContainsFunc(known, func(k string) bool { return k == m || strings.HasPrefix(k, m+"/") })
			said[m] = true
			return old
		})
		if len(fresh) > 0 {
			b.notice("steps can see what the job has mounted at " + strings.Join(fresh, ", ") +
				": it lies in a directory of the job's image and cannot be set aside (docs/security.md)")
		}
	}
}
