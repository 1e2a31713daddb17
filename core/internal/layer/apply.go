package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	xattrPrefix    = "SCHILY.xattr."
)

// ErrEscape is in the chain of an error about an entry that tries to leave the
// root.
var ErrEscape = errors.New("entry tries to leave its root")

// Apply unpacks one layer's uncompressed tar stream onto root, an existing
// directory. Owners, modes, times, extended attributes, devices and hardlinks
// are as in the stream. Parents of an entry follow only links that this layer
// itself has made, inside root; a link of a lower layer in a parent's place is
// replaced by a directory, as it is where layers are directories of their own
// (BuildKit, Docker). Nothing outside of root is ever touched.
func Apply(ctx context.Context, root string, r io.Reader, opts ApplyOptions) error {
	a := &applier{root: filepath.Clean(root), opts: opts, links: map[string]bool{}, own: map[string]bool{}, dirTimes: map[string]time.Time{}, buf: make([]byte, 256<<10)}
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
		if err := a.entry(h, tr); err != nil {
			return fmt.Errorf("unpack %q: %w", h.Name, err)
		}
	}
	// Whatever follows the end marker belongs to the digest.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("read layer: %w", err)
	}
	return a.finish()
}

type applier struct {
	root string
	opts ApplyOptions
	// links are the symbolic links, own all paths, that this layer has made.
	links, own map[string]bool
	dirTimes   map[string]time.Time
	buf        []byte
	// lastDir and lastPath remember the parent of the entry before.
	lastDir, lastPath string
}

// relative is the cleaned name, relative to the root: an absolute name is meant
// to be below it; one that climbs out of it is refused.
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

func (a *applier) entry(h *tar.Header, r io.Reader) error {
	rel, err := relative(h.Name)
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if rel == "" {
		if h.Typeflag != tar.TypeDir {
			return nil
		}
		return a.directoryAttributes("", a.root, h)
	}
	dir, base := path.Split(rel)
	dir = strings.TrimSuffix(dir, "/")
	parent, err := a.parent(dir)
	if err != nil {
		return err
	}
	at := filepath.Join(parent, base)
	real := a.rel(at)
	if !a.opts.Literal && strings.HasPrefix(base, whiteoutPrefix) {
		return a.whiteout(parent, base)
	}
	if err := a.clear(at, real, h.Typeflag == tar.TypeDir); err != nil {
		return err
	}
	sum, err := a.create(at, h, r)
	if err != nil {
		return err
	}
	a.own[real] = true
	if h.Typeflag == tar.TypeDir {
		return a.directoryAttributes(real, at, h)
	}
	if h.Typeflag != tar.TypeLink {
		if err := a.attributes(at, h); err != nil {
			return err
		}
	}
	return a.observe(real, at, sum, h.Typeflag == tar.TypeLink)
}

func (a *applier) rel(abs string) string {
	return strings.TrimPrefix(strings.TrimPrefix(abs, a.root), "/")
}

// parent gives the absolute path of an entry's directory, made where missing.
func (a *applier) parent(dir string) (string, error) {
	if dir == "" {
		return a.root, nil
	}
	if a.lastPath != "" && a.lastDir == dir {
		return a.lastPath, nil
	}
	at, err := a.walk(dir, 0)
	if err != nil {
		return "", err
	}
	a.lastDir, a.lastPath = dir, at
	return at, nil
}

func (a *applier) walk(dir string, depth int) (string, error) {
	if depth > 40 {
		return "", fmt.Errorf("too many levels of symbolic links: %q", dir)
	}
	at := a.root
	parts := strings.Split(dir, "/")
	for i, part := range parts {
		switch part {
		case "", ".":
			continue
		case "..":
			if at != a.root {
				at = filepath.Dir(at)
			}
			continue
		}
		next := filepath.Join(at, part)
		var st unix.Stat_t
		err := unix.Lstat(next, &st)
		switch {
		case err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
			at = next
			continue
		case err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK && a.links[a.rel(next)]:
			target, err := os.Readlink(next)
			if err != nil {
				return "", err
			}
			rest := strings.Join(parts[i+1:], "/")
			if !path.IsAbs(target) {
				target = a.rel(at) + "/" + target
			}
			return a.walk(strings.Trim(target+"/"+rest, "/"), depth+1)
		case err == nil:
			// A lower layer's link or file: this layer wants a directory.
			if err := a.remove(next); err != nil {
				return "", err
			}
		case !errors.Is(err, unix.ENOENT):
			return "", &fs.PathError{Op: "lstat", Path: a.rel(next), Err: err}
		}
		if err := a.implicit(next); err != nil {
			return "", err
		}
		at = next
	}
	return at, nil
}

func (a *applier) implicit(at string) error {
	if err := os.Mkdir(at, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(at, 0o755); err != nil {
		return err
	}
	if a.opts.Implicit != nil {
		a.opts.Implicit(a.rel(at))
	}
	return a.observe(a.rel(at), at, 0, false)
}

// clear makes room for an entry. A directory stays where a directory comes.
func (a *applier) clear(at, rel string, wantDir bool) error {
	var st unix.Stat_t
	err := unix.Lstat(at, &st)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "lstat", Path: rel, Err: err}
	}
	if wantDir && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil
	}
	return a.remove(at)
}

func (a *applier) remove(at string) error {
	rel := a.rel(at)
	if err := os.RemoveAll(at); err != nil {
		return err
	}
	delete(a.links, rel)
	a.lastPath = ""
	if a.opts.Observe != nil {
		a.opts.Observe(Observed{Path: rel, Removed: true})
	}
	return nil
}

func (a *applier) create(at string, h *tar.Header, r io.Reader) (sum uint64, err error) {
	mode := uint32(h.Mode & 0o7777)
	switch h.Typeflag {
	case tar.TypeDir:
		if err := os.Mkdir(at, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return 0, err
		}
		return 0, nil
	case tar.TypeReg:
		return a.file(at, h, r)
	case tar.TypeSymlink:
		a.links[a.rel(at)] = true
		a.lastPath = ""
		return 0, os.Symlink(h.Linkname, at)
	case tar.TypeLink:
		return 0, a.hardlink(at, h)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[h.Typeflag]
		dev := int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))
		if err := unix.Mknod(at, kind|mode, dev); err != nil {
			return 0, mknodError(err)
		}
		return 0, nil
	default:
		return 0, fmt.Errorf("unsupported tar entry type %q", h.Typeflag)
	}
}

func mknodError(err error) error {
	if errors.Is(err, unix.EPERM) {
		return &fault.Error{Kind: fault.Environment, Err: fmt.Errorf("mknod: %w", err),
			Remedy: "Device files need CAP_MKNOD outside of a user namespace: run as root in a container with default capabilities."}
	}
	return fmt.Errorf("mknod: %w", err)
}

func (a *applier) file(at string, h *tar.Header, r io.Reader) (sum uint64, err error) {
	f, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if a.opts.Observe == nil {
		_, err = io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{r}, a.buf)
		return 0, err
	}
	d := xxhash.New()
	_, err = io.CopyBuffer(io.MultiWriter(f, d), struct{ io.Reader }{r}, a.buf)
	return d.Sum64(), err
}

func (a *applier) hardlink(at string, h *tar.Header) error {
	rel, err := relative(h.Linkname)
	if err != nil {
		return err
	}
	dir, base := path.Split(rel)
	parent, err := a.walk(strings.TrimSuffix(dir, "/"), 0)
	if err != nil {
		return err
	}
	target := filepath.Join(parent, base)
	var st unix.Stat_t
	err = unix.Lstat(target, &st)
	if errors.Is(err, unix.ENOENT) && a.opts.Lower != nil {
		err = a.copyUp(target)
	}
	if err != nil {
		return fmt.Errorf("hardlink to %q: %w", h.Linkname, err)
	}
	return unix.Linkat(unix.AT_FDCWD, target, unix.AT_FDCWD, at, 0)
}

// attributes sets owner, mode, extended attributes and time of what is not a
// directory. The mode comes after the owner (chown clears setuid), and file
// capabilities after both.
func (a *applier) attributes(at string, h *tar.Header) error {
	uid, gid := a.owner(h)
	if err := os.Lchown(at, uid, gid); err != nil {
		return ownerError(err)
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Chmod(at, uint32(h.Mode&0o7777)); err != nil {
			return &fs.PathError{Op: "chmod", Path: a.rel(at), Err: err}
		}
	}
	if err := setXattrs(at, h); err != nil {
		return err
	}
	return setTime(at, h.ModTime)
}

func (a *applier) owner(h *tar.Header) (uid, gid int) {
	if a.opts.Owner != nil {
		return a.opts.Owner.UID, a.opts.Owner.GID
	}
	return h.Uid, h.Gid
}

func ownerError(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
		return &fault.Error{Kind: fault.Environment, Err: err,
			Remedy: "The files of an image belong to several users; run as root, or give this user a range of ids in /etc/subuid and /etc/subgid."}
	}
	return err
}

func (a *applier) directoryAttributes(rel, at string, h *tar.Header) error {
	uid, gid := a.owner(h)
	if err := os.Lchown(at, uid, gid); err != nil {
		return ownerError(err)
	}
	if err := unix.Chmod(at, uint32(h.Mode&0o7777)); err != nil {
		return &fs.PathError{Op: "chmod", Path: rel, Err: err}
	}
	if err := setXattrs(at, h); err != nil {
		return err
	}
	a.dirTimes[rel] = h.ModTime
	return a.observe(rel, at, 0, false)
}

// finish sets the times of directories, which every entry below has changed.
func (a *applier) finish() error {
	for rel, t := range a.dirTimes {
		at := filepath.Join(a.root, rel)
		var st unix.Stat_t
		if err := unix.Lstat(at, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue // replaced by a later entry
		}
		if err := setTime(at, t); err != nil {
			return err
		}
	}
	return nil
}

func setTime(at string, t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	if t.Unix() < -1<<33 || t.Unix() > 1<<33 { // beyond what nanoseconds hold
		ts = unix.Timespec{Sec: t.Unix()}
	}
	err := unix.UtimesNanoAt(unix.AT_FDCWD, at, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return &fs.PathError{Op: "utimes", Path: at, Err: err}
	}
	return nil
}

func setXattrs(at string, h *tar.Header) error {
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, xattrPrefix)
		if !ok {
			continue
		}
		err := unix.Lsetxattr(at, name, []byte(v), 0)
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EPERM) && name != "security.capability":
			// As containerd: what this file system or user cannot hold is
			// left out; capabilities are part of what a program can do.
		default:
			return fmt.Errorf("set attribute %s: %w", name, err)
		}
	}
	return nil
}

func (a *applier) observe(rel, at string, sum uint64, hardlink bool) error {
	if a.opts.Observe == nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Lstat(at, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: rel, Err: err}
	}
	a.opts.Observe(Observed{Path: rel, Stat: &st, Sum: sum, Hardlink: hardlink})
	return nil
}
