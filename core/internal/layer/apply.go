package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	xattrPrefix    = "SCHILY.xattr."
	capability     = "security.capability"
	// maxLinks is how many symbolic links one path may lead through.
	maxLinks = 40
)

// ErrEscape is in the chain of an error about an entry that tries to leave the
// root.
var ErrEscape = errors.New("entry tries to leave its root")

// ErrTooLarge is in the chain of an error about more content than
// ApplyOptions.Limit.
var ErrTooLarge = errors.New("more content than allowed")

// Apply unpacks one layer's uncompressed tar stream onto root, an existing
// directory. Owners, modes, times, extended attributes, devices and hardlinks
// are as in the stream; attributes of a hardlink's entry count for the file
// that it links to, and an entry for the root itself is ignored, both as
// containerd does it. Of the extended attributes trusted.* is left out (a layer
// must not speak to overlayfs), and what the file system cannot hold.
//
// Parents of an entry follow only links that this layer itself has made, inside
// root; a link of a lower layer in a parent's place is replaced by a directory,
// as it is where layers are directories of their own (BuildKit, Docker). A
// whiteout or opaque marker hides what is below this layer, wherever in the
// stream it stands. Nothing outside of root is ever touched: a name that climbs
// out of it is an error that wraps ErrEscape.
//
// With ApplyOptions.Literal, for archives, the rules are those of Docker's ADD
// instead: every link in a parent's place is followed, inside root (an archive
// with bin/x must not turn the link /bin of a base image into a directory), and
// what is no directory there is an error.
func Apply(ctx context.Context, root string, r io.Reader, opts ApplyOptions) (err error) {
	at, err := openDirs(root)
	if err != nil {
		return err
	}
	a := &applier{root: filepath.Clean(root), opts: opts, dirs: at, own: newNode(dirNode), buf: make([]byte, 256<<10)}
	defer a.dirs.close()
	tr := tar.NewReader(r)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
		if err := a.entry(ctx, h, tr); err != nil {
			return fmt.Errorf("unpack %q: %w", h.Name, err)
		}
	}
	// Whatever follows the end marker belongs to the digest.
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, a.buf); err != nil {
		return fmt.Errorf("read layer: %w", err)
	}
	return a.directoryTimes(a.own, 0)
}

type applier struct {
	root string
	opts ApplyOptions
	dirs *dirs
	// own is what this layer has made so far, from the root down.
	own *node
	buf []byte
	// written is the content so far.
	written int64
}

// place is the directory that an entry goes to.
type place struct {
	// depth is its level in dirs, path its real path relative to the root,
	// without links, own what this layer has in it.
	depth int
	path  string
	own   *node
}

func (p place) join(name string) string { return path.Join(p.path, name) }

// relative is the cleaned name, relative to the root: an absolute name is meant
// to be below it, one that climbs out of it is refused.
func relative(name string) (string, error) {
	c := path.Clean(name)
	if c == ".." || strings.HasPrefix(c, "../") {
		return "", escape(name)
	}
	return strings.TrimPrefix(path.Clean("/"+c), "/"), nil
}

func escape(name string) error {
	return &fault.Error{Kind: fault.Registry, Err: fmt.Errorf("%w: %q", ErrEscape, name),
		Remedy: "The image or archive is malformed or hostile. Do not use it; build or pull it again from a source you trust."}
}

func (a *applier) entry(ctx context.Context, h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	rel, err := relative(h.Name)
	if err != nil || rel == "" {
		return err
	}
	dir, base := path.Split(rel)
	in, err := a.walk(dir, make0755)
	if err != nil {
		return err
	}
	if !a.opts.Literal && strings.HasPrefix(base, whiteoutPrefix) {
		return a.whiteout(in, base)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return a.directory(in, base, h)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return a.file(ctx, in, base, h, r)
	case tar.TypeLink:
		return a.hardlink(in, base, h)
	case tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return a.special(in, base, h)
	default:
		return fmt.Errorf("unsupported tar entry type %q", h.Typeflag)
	}
}

// missing is what walk does about a directory that is not there.
type missing bool

const (
	fail     missing = false
	make0755 missing = true
)

// walk goes to the directory of an entry.
func (a *applier) walk(dir string, m missing) (place, error) {
	at := place{own: a.own}
	var above []place // the places from the root to at, for ".."
	todo := strings.Split(dir, "/")
	linked := 0 // how many of todo come from a link's target
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		here := m
		if linked > 0 {
			linked--
			if a.opts.Literal {
				here = fail // Docker makes no directory at the end of a dangling link
			}
		}
		switch name {
		case "", ".":
			continue
		case "..":
			if n := len(above); n > 0 {
				at, above = above[n-1], above[:n-1]
			}
			continue
		}
		target, err := a.step(at, name, here)
		if err != nil {
			return place{}, err
		}
		if target == "" {
			above = append(above, at)
			next := place{depth: at.depth + 1, path: at.join(name)}
			if m == make0755 {
				next.own = at.own.dir(name)
			} else {
				next.own = at.own.child(name)
			}
			at = next
			continue
		}
		if links++; links > maxLinks {
			return place{}, &fs.PathError{Op: "open", Path: dir, Err: unix.ELOOP}
		}
		if path.IsAbs(target) {
			at, above = place{own: a.own}, nil
		}
		parts := strings.Split(target, "/")
		linked += len(parts)
		todo = append(parts, todo...)
	}
	return at, nil
}

// step enters the directory name. Where a link that counts is in its place, the
// link's target comes back instead.
func (a *applier) step(at place, name string, m missing) (target string, err error) {
	err = a.dirs.enter(at.depth, name)
	switch {
	case err == nil:
		return "", nil
	case errors.Is(err, unix.ENOENT):
		if m == fail {
			return "", pathError("open", at.join(name), err)
		}
		return "", a.implicit(at, name)
	case !errors.Is(err, unix.ENOTDIR):
		return "", pathError("open", at.join(name), err)
	}
	fd, err := a.dirs.at(at.depth)
	if err != nil {
		return "", pathError("open", at.path, err)
	}
	st, err := lstatAt(fd, name)
	if err != nil {
		return "", pathError("lstat", at.join(name), err)
	}
	mine := at.own.child(name)
	if isLink(st) && (a.opts.Literal || mine != nil && mine.kind == linkNode) {
		target, err := readlinkAt(fd, name)
		if err != nil {
			return "", pathError("readlink", at.join(name), err)
		}
		return target, nil
	}
	// A lower layer's link or file is replaced, for this layer wants a
	// directory; its own is a contradiction.
	if m == fail || a.opts.Literal || mine != nil && mine.kind != hiddenNode {
		return "", pathError("open", at.join(name), unix.ENOTDIR)
	}
	if err := a.remove(at, name); err != nil {
		return "", err
	}
	return "", a.implicit(at, name)
}

// implicit makes and enters a directory that the layer does not list.
func (a *applier) implicit(in place, name string) error {
	fd, err := a.dirs.at(in.depth)
	if err != nil {
		return pathError("open", in.path, err)
	}
	if err := mkdirAt(fd, name, 0o755); err != nil {
		return pathError("mkdir", in.join(name), err)
	}
	if err := a.madeDirectory(in, name); err != nil {
		return err
	}
	if a.opts.Implicit != nil {
		a.opts.Implicit(in.join(name))
	}
	if err := a.observe(in, name, 0, false); err != nil {
		return err
	}
	return a.dirs.enter(in.depth, name)
}

// madeDirectory notes a directory that was not there. Where this layer has
// removed the name, what lower layers have in it stays hidden.
func (a *applier) madeDirectory(in place, name string) error {
	mine := in.own.child(name)
	in.own.dir(name)
	if mine == nil || mine.kind != hiddenNode || a.opts.Whiteouts == Remove {
		return nil
	}
	return a.markOpaque(in, name)
}

// mkdirAt makes a directory with exactly this mode.
func mkdirAt(fd int, name string, mode uint32) error {
	if err := unix.Mkdirat(fd, name, mode); err != nil {
		return err
	}
	return unix.Fchmodat(fd, name, mode, 0)
}

// remove takes away what is in an entry's place.
func (a *applier) remove(in place, name string) error {
	fd, err := a.dirs.at(in.depth)
	if err != nil {
		return pathError("open", in.path, err)
	}
	if err := removeAllAt(fd, name); err != nil {
		return pathError("remove", in.join(name), err)
	}
	a.dirs.forget(in.depth, name)
	if mine := in.own.child(name); mine != nil {
		delete(in.own.kids, name)
		// What has hidden a lower layer's name goes on hiding it.
		if a.opts.Whiteouts != Remove && mine.kind != dirNode {
			in.own.put(name, newNode(hiddenNode))
		}
	}
	if a.opts.Observe != nil {
		a.opts.Observe(Observed{Path: in.join(name), Removed: true})
	}
	return nil
}

// create calls f, which makes name in the directory fd, and once more after
// what was there is removed.
func (a *applier) create(in place, name string, f func(fd int) error) error {
	fd, err := a.dirs.at(in.depth)
	if err != nil {
		return pathError("open", in.path, err)
	}
	err = retry(func() error { return f(fd) })
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := a.remove(in, name); err != nil {
		return err
	}
	return retry(func() error { return f(fd) })
}

func (a *applier) observe(in place, name string, sum uint64, hardlink bool) error {
	if a.opts.Observe == nil {
		return nil
	}
	fd, err := a.dirs.at(in.depth)
	if err != nil {
		return pathError("open", in.path, err)
	}
	st, err := lstatAt(fd, name)
	if err != nil {
		return pathError("lstat", in.join(name), err)
	}
	a.opts.Observe(Observed{Path: in.join(name), Stat: st, Sum: sum, Hardlink: hardlink})
	return nil
}

// directoryTimes sets the times of directories, which every entry below has
// changed, the deepest first.
func (a *applier) directoryTimes(n *node, depth int) error {
	for name, kid := range n.kids {
		if kid.kind != dirNode {
			continue
		}
		if err := a.dirs.enter(depth, name); err != nil {
			return pathError("open", name, err)
		}
		if err := a.directoryTimes(kid, depth+1); err != nil {
			return err
		}
		if !kid.hasTime {
			continue
		}
		fd, err := a.dirs.at(depth)
		if err != nil {
			return pathError("open", name, err)
		}
		if err := setTime(fd, name, kid.time, kid.time); err != nil {
			return pathError("utimes", name, err)
		}
	}
	return nil
}

// setTime sets the times of a path itself, links not followed. Times that
// nanoseconds since 1970 cannot hold become 1970, as in containerd.
func setTime(fd int, name string, atime, mtime time.Time) error {
	ts := []unix.Timespec{timespec(atime), timespec(mtime)}
	return retry(func() error { return unix.UtimesNanoAt(fd, name, ts, unix.AT_SYMLINK_NOFOLLOW) })
}

func timespec(t time.Time) unix.Timespec {
	if t.Before(time.Unix(0, 0)) || t.After(time.Unix(0, 1<<63-1)) {
		return unix.Timespec{}
	}
	return unix.NsecToTimespec(t.UnixNano())
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func pathError(op, name string, err error) error {
	if name == "" {
		name = "."
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}
