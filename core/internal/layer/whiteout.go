package layer

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// whiteout carries out a deletion that the layer records: of one name, or of
// all that lower layers have in a directory. What this layer has itself made
// there stays (OCI image-spec, layer.md: whiteouts apply to lower layers only).
func (a *applier) whiteout(in place, base string) error {
	if base == opaqueMarker {
		return a.opaque(in)
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if strings.HasPrefix(name, whiteoutPrefix) {
		return nil // aufs' own bookkeeping
	}
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("invalid whiteout %q", base)
	}
	if mine := in.own.child(name); mine != nil {
		if mine.kind != dirNode {
			return nil
		}
		if err := a.dirs.enter(in.depth, name); err != nil {
			return pathError("open", in.join(name), err)
		}
		return a.opaque(place{depth: in.depth + 1, path: in.join(name), own: mine})
	}
	fd, err := a.dirs.at(in.depth)
	if err != nil {
		return pathError("open", in.path, err)
	}
	if a.opts.Whiteouts == Remove {
		if _, err := lstatAt(fd, name); errors.Is(err, unix.ENOENT) {
			return nil
		}
		return a.remove(in, name)
	}
	if err := unix.Mknodat(fd, name, unix.S_IFCHR, 0); err != nil {
		return mknodError(in.join(name), err)
	}
	in.own.put(name, newNode(hiddenNode))
	return nil
}

// opaque hides what lower layers have in a directory.
func (a *applier) opaque(in place) error {
	fd, err := a.dirs.at(in.depth)
	if err != nil {
		return pathError("open", in.path, err)
	}
	if a.opts.Whiteouts != Remove {
		return a.markOpaque(in, "")
	}
	var removed []string
	err = eachAt(fd, ".", func(_ int, name string) error {
		if in.own.child(name) == nil {
			removed = append(removed, name)
		}
		return nil
	})
	if err != nil {
		return pathError("read", in.path, err)
	}
	for _, name := range removed {
		if err := a.remove(in, name); err != nil {
			return err
		}
	}
	for name, kid := range in.own.kids {
		if kid.kind != dirNode {
			continue
		}
		if err := a.dirs.enter(in.depth, name); err != nil {
			return pathError("open", in.join(name), err)
		}
		if err := a.opaque(place{depth: in.depth + 1, path: in.join(name), own: kid}); err != nil {
			return err
		}
	}
	return nil
}

// markOpaque tells overlayfs that a directory, name in the directory in or that
// itself, hides what lower layers have in it.
func (a *applier) markOpaque(in place, name string) (err error) {
	fd, err := a.dirs.at(in.depth)
	if err != nil {
		return pathError("open", in.path, err)
	}
	if name == "" {
		name = "."
	}
	dir, err := retryInt(func() (int, error) {
		return unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return pathError("open", in.join(name), err)
	}
	defer func() { err = errors.Join(err, unix.Close(dir)) }()
	key := "trusted.overlay.opaque"
	if a.opts.Whiteouts == OverlayUser {
		key = "user.overlay.opaque"
	}
	if err := unix.Fsetxattr(dir, key, []byte("y"), 0); err != nil {
		return pathError("setxattr "+key, in.join(name), err)
	}
	return nil
}

// copyUp brings a lower layer's file into this layer, for a hardlink to it.
func (a *applier) copyUp(in place, name string) (err error) {
	from, err := a.opts.Lower(in.join(name))
	if err != nil {
		return err
	}
	src, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return pathError("stat", in.join(name), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("not a regular file in the layers below")
	}
	dir, err := a.dirs.at(in.depth)
	if err != nil {
		return pathError("open", in.path, err)
	}
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return pathError("create", in.join(name), err)
	}
	dst := os.NewFile(uintptr(fd), in.join(name))
	_, err = dst.ReadFrom(src)
	if err == nil {
		err = copyAttributes(src, dst, &st)
	}
	if err = errors.Join(err, dst.Close()); err != nil {
		return err
	}
	in.own.put(name, newNode(fileNode))
	ts := []unix.Timespec{st.Mtim, st.Mtim}
	if err := unix.UtimesNanoAt(dir, name, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return pathError("utimes", in.join(name), err)
	}
	return nil
}

// copyAttributes gives a file another one's owner, mode and capabilities.
func copyAttributes(from, to *os.File, st *unix.Stat_t) error {
	if err := to.Chown(int(st.Uid), int(st.Gid)); err != nil {
		return ownerError(err)
	}
	if err := unix.Fchmod(int(to.Fd()), st.Mode&0o7777); err != nil {
		return pathError("chmod", to.Name(), err)
	}
	v, err := fileCapability(int(from.Fd()), make([]byte, 256))
	if err != nil || len(v) == 0 {
		return err
	}
	if err := unix.Fsetxattr(int(to.Fd()), capability, v, 0); err != nil {
		return pathError("setxattr", to.Name(), err)
	}
	return nil
}

// fileCapability is an open file's security.capability, in buf; nil for none.
func fileCapability(fd int, buf []byte) ([]byte, error) {
	n, err := retryInt(func() (int, error) { return unix.Fgetxattr(fd, capability, buf) })
	switch {
	case err == nil:
		return buf[:n], nil
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return nil, nil
	}
	return nil, fmt.Errorf("get %s: %w", capability, err)
}
