// Package local owns the build context on this machine: which of its files a
// build may see (.dockerignore, the paths that the graph asks for) and handing
// them over as a tree of their own. It refuses to follow links out of the
// context and to change anything in it.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/moby/buildkit/solver/pb"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/content"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/filecopy"
)

// Copy copies what the attributes of a local source (pb.AttrIncludePatterns
// and its kin) select of the directory from to the existing, empty directory
// to. Owners become root, as BuildKit's client makes them; modes, times, links
// and extended attributes are kept, sockets become empty files. The selection is
// fsutil's, which BuildKit uses.
func Copy(ctx context.Context, from string, attrs map[string]string, to string) error {
	selected, err := selectFiles(from, attrs)
	if err != nil {
		return err
	}
	c := &copier{from: from, to: to}
	c.group, ctx = errgroup.WithContext(ctx)
	c.group.SetLimit(2 * runtime.GOMAXPROCS(0))
	err = selected.Walk(ctx, "", c.entry)
	if err = errors.Join(err, c.group.Wait()); err != nil {
		return contextError(from, err)
	}
	return c.finish()
}

// List describes what Copy would copy, without copying it.
func List(ctx context.Context, from string, attrs map[string]string) (*content.Listed, error) {
	selected, err := selectFiles(from, attrs)
	if err != nil {
		return nil, err
	}
	l, err := content.List(ctx, selected, from)
	if err != nil {
		return nil, contextError(from, err)
	}
	return l, nil
}

// selectFiles is the view of a directory that attributes give.
func selectFiles(from string, attrs map[string]string) (fsutil.FS, error) {
	opt, err := filter(attrs)
	if err != nil {
		return nil, err
	}
	base, err := fsutil.NewFS(from)
	if err != nil {
		return nil, contextError(from, err)
	}
	selected, err := fsutil.NewFilterFS(base, opt)
	if err != nil {
		return nil, (&fault.Error{Kind: fault.User, Op: "filter context", Err: err}).With("Correct the pattern: a [ needs its ].")
	}
	return selected, nil
}

func contextError(from string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return (&fault.Error{Kind: fault.User, Op: "read context", Err: err}).With("Make the file readable, or name it in .dockerignore.")
	}
	return fmt.Errorf("read context %s: %w", from, err)
}

func filter(attrs map[string]string) (*fsutil.FilterOpt, error) {
	opt := &fsutil.FilterOpt{Map: func(_ string, st *fstypes.Stat) fsutil.MapResult {
		st.Uid, st.Gid = 0, 0
		return fsutil.MapResultKeep
	}}
	for key, list := range map[string]*[]string{
		pb.AttrIncludePatterns: &opt.IncludePatterns,
		pb.AttrExcludePatterns: &opt.ExcludePatterns,
		pb.AttrFollowPaths:     &opt.FollowPaths,
	} {
		if v := attrs[key]; v != "" {
			if err := json.Unmarshal([]byte(v), list); err != nil {
				return nil, fmt.Errorf("decode %s: %w", key, err)
			}
		}
	}
	return opt, nil
}

type copier struct {
	from, to string
	group    *errgroup.Group
	// dirs get their times last, links are made when their targets are there.
	dirs, links []*fstypes.Stat
}

func (c *copier) entry(_ string, e fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	info, err := e.Info()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*fstypes.Stat)
	if !ok {
		return fmt.Errorf("walk context: %s: no attributes", e.Name())
	}
	st = st.Clone()
	mode := fs.FileMode(st.Mode)
	at := filepath.Join(c.to, st.Path)
	switch {
	case mode.IsDir():
		c.dirs = append(c.dirs, st)
		return os.Mkdir(at, 0o700)
	case mode&fs.ModeSymlink != 0:
		if err := os.Symlink(st.Linkname, at); err != nil {
			return err
		}
		return attributes(at, st)
	case mode&(fs.ModeDevice|fs.ModeNamedPipe|fs.ModeCharDevice) != 0:
		return c.node(at, st, mode)
	case st.Linkname != "":
		c.links = append(c.links, st)
		return nil
	}
	c.group.Go(func() error {
		if err := copyContent(filepath.Join(c.from, st.Path), at); err != nil {
			return err
		}
		return attributes(at, st)
	})
	return nil
}

func (c *copier) node(at string, st *fstypes.Stat, mode fs.FileMode) error {
	kind := uint32(unix.S_IFIFO)
	switch {
	case mode&fs.ModeCharDevice != 0:
		kind = unix.S_IFCHR
	case mode&fs.ModeDevice != 0:
		kind = unix.S_IFBLK
	}
	if err := unix.Mknod(at, kind|0o600, int(unix.Mkdev(uint32(st.Devmajor), uint32(st.Devminor)))); err != nil {
		return &fs.PathError{Op: "mknod", Path: st.Path, Err: err}
	}
	return attributes(at, st)
}

func (c *copier) finish() error {
	for _, st := range c.links {
		if err := os.Link(filepath.Join(c.to, st.Linkname), filepath.Join(c.to, st.Path)); err != nil {
			return fmt.Errorf("copy context: %w", err)
		}
	}
	for i := len(c.dirs) - 1; i >= 0; i-- {
		if err := attributes(filepath.Join(c.to, c.dirs[i].Path), c.dirs[i]); err != nil {
			return fmt.Errorf("copy context: %w", err)
		}
	}
	return nil
}

// copyContent copies a file. A socket, such as the one of git's fsmonitor, cannot be
// opened; fsutil calls it a regular file and BuildKit sends it as an empty one.
func copyContent(from, to string) error {
	err := filecopy.Clone(from, to)
	if errors.Is(err, unix.ENXIO) {
		return os.WriteFile(to, nil, 0o600)
	}
	return err
}

// attributes sets what a context keeps: mode, extended attributes, time.
func attributes(at string, st *fstypes.Stat) error {
	mode := fs.FileMode(st.Mode)
	if err := os.Lchown(at, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if mode&fs.ModeSymlink == 0 {
		if err := os.Chmod(at, mode&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
			return err
		}
	}
	for k, v := range st.Xattrs {
		if err := unix.Lsetxattr(at, k, v, 0); err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("set attribute %s: %w", k, err)
		}
	}
	ts := unix.NsecToTimespec(st.ModTime)
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, at, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimes", Path: st.Path, Err: err}
	}
	return nil
}
