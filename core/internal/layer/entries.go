package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"path/filepath"
	"strings"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// directory makes a directory or, where there is one, gives it attributes.
func (a *applier) directory(in place, name string, h *tar.Header) error {
	fd, err := a.dirs.at(in.depth)
	if err != nil {
		return pathError("open", in.path, err)
	}
	err = unix.Mkdirat(fd, name, 0o700)
	if errors.Is(err, unix.EEXIST) {
		st, serr := lstatAt(fd, name)
		if serr != nil {
			return pathError("lstat", in.join(name), serr)
		}
		if isDir(st) {
			in.own.dir(name)
			return a.directoryAttributes(in, name, h)
		}
		if err := a.remove(in, name); err != nil {
			return err
		}
		err = unix.Mkdirat(fd, name, 0o700)
	}
	if err != nil {
		return pathError("mkdir", in.join(name), err)
	}
	if err := a.madeDirectory(in, name); err != nil {
		return err
	}
	return a.directoryAttributes(in, name, h)
}

func (a *applier) directoryAttributes(in place, name string, h *tar.Header) error {
	if err := a.attributes(in, name, h); err != nil {
		return err
	}
	n := in.own.dir(name)
	n.time, n.hasTime = h.ModTime, true
	return a.observe(in, name, 0, false)
}

// special makes what has no content: links, devices and FIFOs.
func (a *applier) special(in place, name string, h *tar.Header) error {
	op, kind := "mknod", fileNode
	f := func(fd int) error { return mknod(fd, name, h) }
	if h.Typeflag == tar.TypeSymlink {
		op, kind = "symlink", linkNode
		f = func(fd int) error { return unix.Symlinkat(h.Linkname, fd, name) }
	}
	if err := a.create(in, name, f); err != nil {
		if op == "mknod" {
			return mknodError(in.join(name), err)
		}
		return pathError(op, in.join(name), err)
	}
	in.own.put(name, newNode(kind))
	if err := a.attributes(in, name, h); err != nil {
		return err
	}
	if err := a.setTimes(in, name, h); err != nil {
		return err
	}
	return a.observe(in, name, 0, false)
}

func mknod(fd int, name string, h *tar.Header) error {
	mode := uint32(h.Mode & 0o7777)
	switch h.Typeflag {
	case tar.TypeChar:
		mode |= unix.S_IFCHR
	case tar.TypeBlock:
		mode |= unix.S_IFBLK
	default:
		return unix.Mknodat(fd, name, mode|unix.S_IFIFO, 0)
	}
	if h.Devmajor < 0 || h.Devmajor > math.MaxUint32 || h.Devminor < 0 || h.Devminor > math.MaxUint32 {
		return fmt.Errorf("device number %d:%d is out of range", h.Devmajor, h.Devminor)
	}
	return unix.Mknodat(fd, name, mode, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
}

func mknodError(name string, err error) error {
	err = pathError("mknod", name, err)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	return &fault.Error{Kind: fault.Environment, Err: err,
		Remedy: "Device files need CAP_MKNOD outside of a user namespace: run as root in a container with default capabilities."}
}

// file writes a regular file.
func (a *applier) file(ctx context.Context, in place, name string, h *tar.Header, r io.Reader) (err error) {
	if a.written += h.Size; a.opts.Limit > 0 && (a.written > a.opts.Limit || a.written < 0) {
		return ErrTooLarge
	}
	var fd int
	err = a.create(in, name, func(dir int) (err error) {
		fd, err = unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return pathError("create", in.join(name), err)
	}
	open := true
	defer func() {
		if open {
			err = errors.Join(err, unix.Close(fd))
		}
	}()
	in.own.put(name, newNode(fileNode))
	var sum uint64
	if a.opts.Hollow && h.Size >= hollowFrom {
		sum, err = a.hollow(ctx, fd, in.join(name), r, h.Size)
	} else {
		sum, err = a.content(ctx, fd, in.join(name), r)
	}
	if err != nil {
		return err
	}
	if err := a.fileAttributes(fd, in.join(name), h); err != nil {
		return err
	}
	open = false
	if err := unix.Close(fd); err != nil {
		return pathError("close", in.join(name), err)
	}
	if err := a.setTimes(in, name, h); err != nil {
		return err
	}
	return a.observe(in, name, sum, false)
}

// content copies what is left of r, with the hash that Observe wants.
func (a *applier) content(ctx context.Context, fd int, name string, r io.Reader) (uint64, error) {
	d := xxhash.New()
	for {
		n, rerr := r.Read(a.buf)
		for b := a.buf[:n]; len(b) > 0; {
			w, err := retryInt(func() (int, error) { return unix.Write(fd, b) })
			if err != nil {
				return 0, pathError("write", name, err)
			}
			b = b[w:]
		}
		if a.opts.Observe != nil {
			_, _ = d.Write(a.buf[:n]) // never fails
		}
		if errors.Is(rerr, io.EOF) {
			return d.Sum64(), nil
		}
		if rerr != nil {
			return 0, fmt.Errorf("read layer: %w", rerr)
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
	}
}

// fileAttributes sets an open file's owner, mode and extended attributes. The
// mode comes after the owner (chown clears setuid), and so do capabilities.
func (a *applier) fileAttributes(fd int, name string, h *tar.Header) error {
	uid, gid := a.owner(h)
	if err := retry(func() error { return unix.Fchown(fd, uid, gid) }); err != nil {
		return ownerError(pathError("chown", name, err))
	}
	if err := a.xattrs(h, func(key string, value []byte) error { return unix.Fsetxattr(fd, key, value, 0) }); err != nil {
		return pathError("setxattr", name, err)
	}
	if err := retry(func() error { return unix.Fchmod(fd, uint32(h.Mode&0o7777)) }); err != nil {
		return pathError("chmod", name, err)
	}
	return nil
}

// attributes is fileAttributes for what is not open.
func (a *applier) attributes(in place, name string, h *tar.Header) error {
	fd, err := a.dirs.at(in.depth)
	if err != nil {
		return pathError("open", in.path, err)
	}
	uid, gid := a.owner(h)
	if err := retry(func() error { return unix.Fchownat(fd, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return ownerError(pathError("chown", in.join(name), err))
	}
	if err := a.pathXattrs(in, name, h); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	if err := retry(func() error { return unix.Fchmodat(fd, name, uint32(h.Mode&0o7777), 0) }); err != nil {
		return pathError("chmod", in.join(name), err)
	}
	return nil
}

func (a *applier) setTimes(in place, name string, h *tar.Header) error {
	fd, err := a.dirs.at(in.depth)
	if err != nil {
		return pathError("open", in.path, err)
	}
	if err := setTime(fd, name, later(h.AccessTime, h.ModTime), h.ModTime); err != nil {
		return pathError("utimes", in.join(name), err)
	}
	return nil
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

// pathXattrs sets extended attributes by path: the kernel has no call for a
// name relative to a directory (before Linux 6.13). The path has no links in
// it, as dirs has found.
func (a *applier) pathXattrs(in place, name string, h *tar.Header) error {
	at := filepath.Join(a.root, in.join(name))
	err := a.xattrs(h, func(key string, value []byte) error { return unix.Lsetxattr(at, key, value, 0) })
	if err != nil {
		return pathError("setxattr", in.join(name), err)
	}
	return nil
}

func (a *applier) xattrs(h *tar.Header, set func(key string, value []byte) error) error {
	for k, v := range h.PAXRecords {
		key, ok := strings.CutPrefix(k, xattrPrefix)
		if !ok || strings.HasPrefix(key, "trusted.") || a.opts.Whiteouts == OverlayUser && strings.HasPrefix(key, "user.overlay.") {
			continue
		}
		err := retry(func() error { return set(key, []byte(v)) })
		switch {
		case err == nil:
		case key == capability && errors.Is(err, unix.EPERM):
			// What a program can do is part of what it is.
			return &fault.Error{Kind: fault.Environment, Err: fmt.Errorf("%s: %w", key, err),
				Remedy: "File capabilities need CAP_SETFCAP: run as root in a container with default capabilities."}
		case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EPERM):
			// As containerd: what this file system or user cannot hold.
		default:
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

// hardlink links to a file that this layer, or in a tree of all layers one
// below, has made.
func (a *applier) hardlink(in place, name string, h *tar.Header) error {
	rel, err := relative(h.Linkname)
	if err != nil {
		return err
	}
	// Both directories are needed at once, and dirs keeps one.
	fd, err := a.dirs.at(in.depth)
	if err != nil {
		return pathError("open", in.path, err)
	}
	if fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return pathError("open", in.path, err)
	}
	defer unix.Close(fd)
	target, base, err := a.linkTarget(rel)
	if err != nil {
		return fmt.Errorf("hardlink to %q: %w", h.Linkname, err)
	}
	from, err := a.dirs.at(target.depth)
	if err != nil {
		return pathError("open", target.path, err)
	}
	st, err := lstatAt(from, base)
	if err == nil {
		err = unix.Linkat(from, base, fd, name, 0)
	}
	if errors.Is(err, unix.EEXIST) {
		if err = a.replaceByLink(in, name, rel, fd); err != nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("hardlink to %q: %w", h.Linkname, err)
	}
	kind := fileNode
	if isLink(st) {
		kind = linkNode
	}
	// dirs has moved on; go back.
	if in, err = a.walk(in.path, make0755); err != nil {
		return err
	}
	in.own.put(name, newNode(kind))
	changed, err := a.linkAttributes(in, name, h, st)
	if err != nil {
		return err
	}
	if err := a.observe(in, name, 0, true); err != nil || !changed {
		return err
	}
	if target, base, err = a.linkTarget(rel); err != nil {
		return err
	}
	return a.observe(target, base, 0, true)
}

// linkTarget finds the directory of a hardlink's target; with Lower the target
// is copied up where it is not there.
func (a *applier) linkTarget(rel string) (place, string, error) {
	dir, base := path.Split(rel)
	if base == "" {
		return place{}, "", unix.EPERM // the root
	}
	at, err := a.walk(dir, fail)
	if err == nil {
		var fd int
		if fd, err = a.dirs.at(at.depth); err == nil {
			_, err = lstatAt(fd, base)
		}
	}
	if err == nil || a.opts.Lower == nil || !errors.Is(err, unix.ENOENT) {
		return at, base, err
	}
	if at, err = a.walk(dir, make0755); err != nil {
		return place{}, "", err
	}
	return at, base, a.copyUp(at, base)
}

// replaceByLink is for a link whose name is taken; it may be that of the
// target itself, or of a directory above it.
func (a *applier) replaceByLink(in place, name, rel string, fd int) error {
	in, err := a.walk(in.path, make0755)
	if err != nil {
		return err
	}
	if err := a.remove(in, name); err != nil {
		return err
	}
	target, base, err := a.linkTarget(rel)
	if err != nil {
		return err
	}
	from, err := a.dirs.at(target.depth)
	if err != nil {
		return err
	}
	return unix.Linkat(from, base, fd, name, 0)
}

// linkAttributes gives a linked file what its entry says, where that differs:
// a chown would needlessly clear its capabilities.
func (a *applier) linkAttributes(in place, name string, h *tar.Header, st *unix.Stat_t) (changed bool, err error) {
	fd, err := a.dirs.at(in.depth)
	if err != nil {
		return false, pathError("open", in.path, err)
	}
	uid, gid := a.owner(h)
	if int(st.Uid) != uid || int(st.Gid) != gid {
		changed = true
		if err := unix.Fchownat(fd, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return false, ownerError(pathError("chown", in.join(name), err))
		}
	}
	if err := a.pathXattrs(in, name, h); err != nil {
		return false, err
	}
	mode := uint32(h.Mode & 0o7777)
	if !isLink(st) && (changed || st.Mode&0o7777 != mode) {
		changed = true
		if err := unix.Fchmodat(fd, name, mode, 0); err != nil {
			return false, pathError("chmod", in.join(name), err)
		}
	}
	if changed || st.Mtim != timespec(h.ModTime) {
		return true, a.setTimes(in, name, h)
	}
	return false, nil
}
