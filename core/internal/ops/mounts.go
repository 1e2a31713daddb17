package ops

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	cfs "github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/solver/pb"
	copy "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/sandbox"
	"github.com/layerwright/layerwright/core/internal/snapshot"
	"github.com/layerwright/layerwright/core/internal/solve"
)

// mountSet is what the mounts of one step hold until it has ended.
type mountSet struct {
	env  *Env
	in   []solve.Claim
	ends []func() error
	// ran end as soon as the command has ended.
	ran []func() error
}

func (s *mountSet) atEnd(f func() error) { s.ends = append(s.ends, f) }

func (s *mountSet) close() error {
	err := s.endRun()
	for i := len(s.ends) - 1; i >= 0; i-- {
		err = errors.Join(err, s.ends[i]())
	}
	return err
}

// stepMount is a mount with the operation's own words for it.
type stepMount struct {
	sandbox.Mount
	pb *pb.Mount
}

func mounted(list []stepMount) []sandbox.Mount {
	out := make([]sandbox.Mount, len(list))
	for i, m := range list {
		out[i] = m.Mount
	}
	return out
}

// keepShared looks at every tree that several mounts of the step use, the root
// being one: LLB has equal inputs once, so they share one claim, and what has
// been looked at is not changed in place.
func (s *mountSet) keepShared(ctx context.Context, o *execOp) error {
	uses := map[int64]int{}
	for _, m := range o.op.Mounts {
		uses[m.Input]++
		if m.Input < 0 || uses[m.Input] != 2 {
			continue
		}
		v, err := claimOf(s.in[m.Input]).View(ctx)
		if err != nil {
			return err
		}
		s.atEnd(v.Close)
	}
	return nil
}

// prepare makes the sources of all mounts but the root and the caches, which
// lockCaches adds.
func (s *mountSet) prepare(ctx context.Context, o *execOp) ([]stepMount, error) {
	var out []stepMount
	for _, m := range o.op.Mounts {
		if m == o.root {
			continue
		}
		sm := sandbox.Mount{Target: filepath.Join("/", o.op.Meta.Cwd, m.Dest), ReadOnly: m.Readonly}
		if filepath.IsAbs(m.Dest) {
			sm.Target = filepath.Clean(m.Dest)
		}
		var err error
		switch m.MountType {
		case pb.MountType_BIND:
			sm.Kind = sandbox.Bind
			sm.Source, err = s.bind(ctx, m)
		case pb.MountType_CACHE:
			sm.Kind = sandbox.Cache
		case pb.MountType_TMPFS:
			sm.Kind = sandbox.Tmpfs
			sm.Size = m.TmpfsOpt.GetSize()
		case pb.MountType_SECRET:
			data, ok := s.env.Secrets[m.SecretOpt.ID]
			if !ok {
				continue // optional: checked before
			}
			sm.Kind, sm.Data = sandbox.Secret, data
			sm.UID, sm.GID, sm.Mode = int(m.SecretOpt.Uid), int(m.SecretOpt.Gid), fs.FileMode(m.SecretOpt.Mode&0o777)
		case pb.MountType_SSH:
			var given bool
			if given, err = s.agent(ctx, o, m, &sm); !given && err == nil {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		out = append(out, stepMount{sm, m})
	}
	return out, nil
}

// bind gives the source of a bind mount: the tree itself where it is only read
// and can be mounted, otherwise one of its own, thrown away afterwards.
func (s *mountSet) bind(ctx context.Context, m *pb.Mount) (string, error) {
	claim := s.env.scratch()
	if m.Input >= 0 {
		claim = claimOf(s.in[m.Input])
	}
	if m.Readonly && !s.env.Sandbox.MovesBinds() {
		v, err := claim.View(ctx)
		if err != nil {
			return "", err
		}
		s.atEnd(v.Close)
		return selectPath(v.Dir(), m.Selector)
	}
	t, err := claim.Mutate(ctx)
	if err != nil {
		return "", err
	}
	s.atEnd(t.Discard)
	return selectPath(t.Dir(), m.Selector)
}

// selectPath is the file or directory of a tree that a mount shows.
func selectPath(root, selector string) (string, error) {
	at, err := cfs.RootPath(root, filepath.Join("/", selector))
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(at); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", fault.New(fault.User, "%q: not found", filepath.Join("/", selector)).
				With("Check the mount's source: it is relative to the build context (or to the stage or image of from=), and .dockerignore may exclude it.")
		}
		return "", err
	}
	return at, nil
}

// lockCaches finds the directories of the cache mounts. All steps of all builds
// lock in the order of the directories' names, so that none waits in a circle;
// a directory that the step mounts twice is locked once.
func (s *mountSet) lockCaches(ctx context.Context, o *execOp, list []stepMount) error {
	byName := map[string][]*stepMount{}
	for i := range list {
		if m := &list[i]; m.Kind == sandbox.Cache {
			name := cacheName(o, m.pb)
			byName[name] = append(byName[name], m)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		dir, err := s.cache(ctx, name, byName[name])
		if err != nil {
			return err
		}
		for _, m := range byName[name] {
			m.Source = dir
		}
	}
	return nil
}

// cacheName is a cache mount's directory below Env.Caches.
func cacheName(o *execOp, m *pb.Mount) string {
	id := m.CacheOpt.GetID()
	if id == "" {
		id = m.Dest
	}
	if m.Input >= 0 {
		id += "\x00" + o.v.Inputs[m.Input].Vertex.Digest.String() + "\x00" + m.Selector
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}

// sharingOf is the strictest of what a step's mounts of one cache ask for.
func (s *mountSet) sharingOf(mounts []*stepMount) pb.CacheSharingOpt {
	sharing := pb.CacheSharingOpt_SHARED
	if s.env.Sandbox.MovesBinds() {
		sharing = pb.CacheSharingOpt_LOCKED // what is moved is in one place
	}
	for _, m := range mounts {
		switch m.pb.CacheOpt.GetSharing() {
		case pb.CacheSharingOpt_LOCKED:
			return pb.CacheSharingOpt_LOCKED
		case pb.CacheSharingOpt_PRIVATE:
			sharing = pb.CacheSharingOpt_PRIVATE
		}
	}
	return sharing
}

// cache gives a cache's directory, made when it is first used: empty, or with
// what from= and source= say. It is locked until the step has ended where its
// sharing, or the way it is mounted, demands that.
func (s *mountSet) cache(ctx context.Context, name string, mounts []*stepMount) (string, error) {
	if err := os.MkdirAll(s.env.Caches, 0o700); err != nil {
		return "", err
	}
	dir, release, err := s.env.locks.acquire(ctx, filepath.Join(s.env.Caches, name), s.sharingOf(mounts))
	if err != nil {
		return "", err
	}
	s.atEnd(func() error { release(); return nil })
	// One step at a time makes it: what is restored has to be what is kept.
	made, err := s.env.locks.enter(ctx, dir+" is being made", true)
	if err != nil {
		return "", err
	}
	defer made()
	kept := s.env.CacheMounts != nil && dir == filepath.Join(s.env.Caches, name) // not one more for sharing=private
	if _, err := os.Lstat(dir); err == nil {
		if kept && s.env.used.add(name, mounts[0].Target) {
			s.env.CacheMounts.Adopt(ctx, name, dir)
		}
		return dir, nil
	}
	restore := func(string) bool { return false }
	if kept {
		s.env.used.add(name, mounts[0].Target)
		restore = func(fresh string) bool { return s.env.CacheMounts.Restore(ctx, name, mounts[0].Target, fresh) }
	}
	return dir, s.newCache(ctx, mounts[0].pb, dir, restore)
}

// newCache fills a cache directory for the first time, with what restore finds
// or else what from= says; it appears whole.
func (s *mountSet) newCache(ctx context.Context, m *pb.Mount, dir string, restore func(fresh string) bool) error {
	tmp, err := os.MkdirTemp(s.env.Caches, ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	fresh := filepath.Join(tmp, "c")
	if err := os.Mkdir(fresh, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	if !restore(fresh) && m.Input >= 0 {
		if err := s.fill(ctx, claimOf(s.in[m.Input]), m.Selector, fresh); err != nil {
			return err
		}
	}
	if err := os.Rename(fresh, dir); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil
}

func (s *mountSet) fill(ctx context.Context, claim snapshot.Claim, selector, to string) (err error) {
	v, err := claim.View(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	from, err := selectPath(v.Dir(), selector)
	if err != nil {
		return err
	}
	if err := copy.Copy(ctx, from, "/", to, "/", func(ci *copy.CopyInfo) { ci.CopyDirContents = true }); err != nil {
		return err
	}
	// The copy leaves a directory that is there as it is, and the source's
	// owner and mode are what uid=, gid= and mode= ask for.
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return err
	}
	if err := os.Chown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Chmod(to, st.Mode&0o7777)
}

// cacheLocks arbitrates cache directories between the steps of this build and,
// by lock files, with other builds.
type cacheLocks struct {
	mu   sync.Mutex
	busy map[string]chan struct{}
}

// acquire gives the directory to use and a function that gives it back. For
// sharing private another directory is taken when the first is in use.
func (c *cacheLocks) acquire(ctx context.Context, path string, sharing pb.CacheSharingOpt) (string, func(), error) {
	if sharing == pb.CacheSharingOpt_SHARED {
		f, err := flock(ctx, path+".lock", unix.LOCK_SH, true)
		return path, func() { closeFile(f) }, err
	}
	for i := 0; ; i++ {
		p := path
		if sharing == pb.CacheSharingOpt_PRIVATE && i > 0 {
			p += "-" + strconv.Itoa(i)
		}
		wait := sharing == pb.CacheSharingOpt_LOCKED
		free, err := c.enter(ctx, p, wait)
		if err != nil {
			return "", nil, err
		}
		if free == nil {
			continue // private, and in use here
		}
		f, err := flock(ctx, p+".lock", unix.LOCK_EX, wait)
		if err == nil {
			return p, func() { closeFile(f); free() }, nil
		}
		free()
		if wait || !errors.Is(err, unix.EWOULDBLOCK) {
			return "", nil, err
		}
	}
}

// enter takes a path for this process; nil when it is in use and wait is false.
func (c *cacheLocks) enter(ctx context.Context, path string, wait bool) (func(), error) {
	for {
		c.mu.Lock()
		ch, taken := c.busy[path]
		if !taken {
			if c.busy == nil {
				c.busy = map[string]chan struct{}{}
			}
			mine := make(chan struct{})
			c.busy[path] = mine
			c.mu.Unlock()
			return func() {
				c.mu.Lock()
				delete(c.busy, path)
				c.mu.Unlock()
				close(mine)
			}, nil
		}
		c.mu.Unlock()
		if !wait {
			return nil, nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func closeFile(f *os.File) {
	if f != nil {
		_ = f.Close()
	}
}

// flock locks a file; waiting ends with ctx.
func flock(ctx context.Context, path string, how int, wait bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock cache: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !wait || !errors.Is(err, unix.EWOULDBLOCK) {
			closeFile(f)
			return nil, err
		}
		if err := sleep(ctx); err != nil {
			closeFile(f)
			return nil, err
		}
	}
}

// sleep is the pause between two tries for a lock.
func sleep(ctx context.Context) error {
	select {
	case <-time.After(20 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
