package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/filecopy"
)

// copy branches a tree: every file anew (a clone where the file system can),
// hardlinks, attributes and times kept, and the index with it.
func (f *flat) copy(ctx context.Context, from *tree) (*tree, error) {
	to, err := f.newTree()
	if err != nil {
		return nil, err
	}
	to.stale = from.stale
	c := &copier{from: from.dir, to: to.dir, old: from.index, index: to.index, links: map[uint64]*linked{}}
	c.group, c.ctx = errgroup.WithContext(ctx)
	c.group.SetLimit(2 * runtime.GOMAXPROCS(0))
	err = c.dir(from.index.root, to.index.root, "")
	if err = errors.Join(err, c.group.Wait()); err != nil {
		f.remove(to)
		return nil, fmt.Errorf("branch tree: %w", err)
	}
	return to, nil
}

type copier struct {
	from, to   string
	old, index *index
	group      *errgroup.Group
	ctx        context.Context //nolint:containedctx // lives as long as one copy
	mu         sync.Mutex
	links      map[uint64]*linked
}

// linked is the copy of an inode with several names; others wait for it.
type linked struct {
	done chan struct{}
	path string
	err  error
}

// dir copies one directory's content and sets its attributes last.
func (c *copier) dir(old, node *dirNode, rel string) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	from, to := filepath.Join(c.from, rel), filepath.Join(c.to, rel)
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	type file struct {
		name string
		st   unix.Stat_t
	}
	var files []file
	for _, e := range entries {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(from, e.Name()), &st); err != nil {
			return err
		}
		if !isDir(&st) {
			files = append(files, file{e.Name(), st})
			continue
		}
		if err := os.Mkdir(filepath.Join(to, e.Name()), 0o700); err != nil {
			return err
		}
		child := newDirNode(&st)
		node.addDir(e.Name(), child)
		var oldChild *dirNode
		if old != nil {
			oldChild = old.dirs[e.Name()]
		}
		if err := c.dir(oldChild, child, path.Join(rel, e.Name())); err != nil {
			return err
		}
	}
	finish := func() error {
		for _, f := range files {
			e, err := c.file(path.Join(rel, f.name), &f.st)
			if err != nil {
				return err
			}
			if old != nil {
				if o, ok := old.files.get(f.name); ok {
					e.sum, e.hasSum, e.caps = o.sum, o.hasSum, o.caps
				}
			}
			c.index.seen(e.ctime)
			node.addFile(f.name, e)
		}
		var st unix.Stat_t
		if err := unix.Lstat(from, &st); err != nil {
			return err
		}
		return filecopy.Attributes(from, to, &st)
	}
	if len(files) < 8 || !c.group.TryGo(finish) {
		return finish()
	}
	return nil
}

func (c *copier) file(rel string, st *unix.Stat_t) (fileEntry, error) {
	to := filepath.Join(c.to, rel)
	if st.Nlink > 1 {
		first, mine := c.link(st.Ino, to)
		if !mine {
			<-first.done
			if first.err != nil {
				return fileEntry{}, first.err
			}
			if err := os.Link(first.path, to); err != nil {
				return fileEntry{}, err
			}
			return statEntry(to)
		}
		first.err = c.one(rel, to, st)
		close(first.done)
		if first.err != nil {
			return fileEntry{}, first.err
		}
		return statEntry(to)
	}
	if err := c.one(rel, to, st); err != nil {
		return fileEntry{}, err
	}
	return statEntry(to)
}

func statEntry(at string) (fileEntry, error) {
	var st unix.Stat_t
	if err := unix.Lstat(at, &st); err != nil {
		return fileEntry{}, err
	}
	return entryOf(&st), nil
}

func (c *copier) link(ino uint64, to string) (l *linked, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l, ok := c.links[ino]; ok {
		return l, false
	}
	l = &linked{done: make(chan struct{}), path: to}
	c.links[ino] = l
	return l, true
}

func (c *copier) one(rel, to string, st *unix.Stat_t) error {
	from := filepath.Join(c.from, rel)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if err := filecopy.Clone(from, to); err != nil {
			return err
		}
	case unix.S_IFLNK:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if err := os.Symlink(target, to); err != nil {
			return err
		}
	default:
		if err := unix.Mknod(to, st.Mode, int(st.Rdev)); err != nil {
			return fmt.Errorf("mknod %s: %w", rel, err)
		}
	}
	return filecopy.Attributes(from, to, st)
}
