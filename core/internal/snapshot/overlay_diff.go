package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/layer"
)

// changes walks the upper directory and compares it with what is below, as
// BuildKit's overlay differ does.
func (m *overlayMutable) changes(ctx context.Context) (_ []layer.Change, err error) {
	lower, err := m.parent.store.view(m.lower)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lower.Close()) }()
	d := &upperDiff{ctx: ctx, upper: m.upper, lower: lower.Dir()}
	err = d.dir("", true, false)
	return d.out, err
}

type upperDiff struct {
	ctx          context.Context //nolint:containedctx // lives as long as one walk
	upper, lower string
	out          []layer.Change
}

// dir compares one directory. below says that there is a directory below, too:
// where there is a link instead, its target's names are none of this one's.
// opaque says that nothing from below shows through: what upper lacks is
// deleted.
func (d *upperDiff) dir(rel string, below, opaque bool) error {
	if d.ctx.Err() != nil {
		return context.Cause(d.ctx)
	}
	entries, err := os.ReadDir(filepath.Join(d.upper, rel))
	if err != nil {
		return err
	}
	present := map[string]bool{}
	for _, e := range entries {
		p := path.Join(rel, e.Name())
		var st, old unix.Stat_t
		if err := unix.Lstat(filepath.Join(d.upper, p), &st); err != nil {
			return err
		}
		exists := below && unix.Lstat(filepath.Join(d.lower, p), &old) == nil
		if isWhiteout(&st) {
			if exists && !opaque {
				d.out = append(d.out, layer.Change{Path: p, Delete: true})
			}
			continue
		}
		present[e.Name()] = true
		if !exists || !d.same(p, &old, &st) {
			d.out = append(d.out, layer.Change{Path: p})
		}
		if isDir(&st) {
			both := exists && isDir(&old)
			if err := d.dir(p, both, both && (opaque || isOpaque(filepath.Join(d.upper, p)))); err != nil {
				return err
			}
		}
	}
	if opaque {
		return d.missing(rel, present)
	}
	return nil
}

// missing records what an opaque directory hides, name by name.
func (d *upperDiff) missing(rel string, present map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(d.lower, rel))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !present[e.Name()] {
			d.out = append(d.out, layer.Change{Path: path.Join(rel, e.Name()), Delete: true})
		}
	}
	return nil
}

// same is containerd's sameDirent: see index.compare.
func (d *upperDiff) same(p string, a, b *unix.Stat_t) bool {
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Rdev != b.Rdev {
		return false
	}
	lower, upper := filepath.Join(d.lower, p), filepath.Join(d.upper, p)
	if capsOf(lower, a.Mode) != capsOf(upper, b.Mode) {
		return false
	}
	if isDir(b) {
		return true
	}
	if a.Size != b.Size || a.Mtim != b.Mtim {
		return false
	}
	if b.Mtim.Nano()%int64(time.Second) != 0 || b.Size == 0 && b.Mode&unix.S_IFMT != unix.S_IFLNK {
		return true
	}
	x, okx := sumOf(lower, a)
	y, oky := sumOf(upper, b)
	return okx && oky && x == y
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func isOpaque(dir string) bool {
	var buf [8]byte
	for _, name := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		if n, err := unix.Lgetxattr(dir, name, buf[:]); err == nil && n == 1 && buf[0] == 'y' {
			return true
		}
	}
	return false
}

// hasWhiteouts says whether a lone layer's directory shows any deletion.
func hasWhiteouts(dir string) bool {
	found := errors.New("found")
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&fs.ModeCharDevice == 0 {
			return err
		}
		var st unix.Stat_t
		if unix.Lstat(p, &st) == nil && isWhiteout(&st) {
			return found
		}
		return nil
	})
	return errors.Is(err, found)
}

// inherit gives a directory that a layer does not list the attributes that the
// layers below have for it.
func inherit(ctx context.Context, chain []*layerDir, dir, p string) error {
	from, err := lookup(ctx, chain, p, ready)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: from, Err: err}
	}
	if !isDir(&st) {
		return nil
	}
	return copyDirAttributes(from, filepath.Join(dir, p))
}

func copyDirAttributes(from, to string) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: from, Err: err}
	}
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	ts := []unix.Timespec{st.Mtim, st.Mtim}
	return unix.UtimesNanoAt(unix.AT_FDCWD, to, ts, unix.AT_SYMLINK_NOFOLLOW)
}
