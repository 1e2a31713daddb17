package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// WriteOptions are the choices of Write. The zero value is fine.
type WriteOptions struct {
	// Sum, when set, gets the fast hash (as in Observed) of each regular file
	// that was read.
	Sum func(path string, sum uint64)
}

// Write writes a layer: the changes, found in the tree at root, as a tar
// stream, byte for byte what containerd's archive writer makes of them in this
// order (BuildKit uses it). What a layer contains:
//
//   - every change, in the order of ComparePaths, each path once;
//   - before a change, the directories above it that the layer has not listed
//     yet, as they are in the tree; never the root itself;
//   - times cut to whole seconds; numeric owners without names;
//   - of the extended attributes only security.capability;
//   - names of one inode as hardlinks to the first that the layer lists;
//   - whiteouts with time zero and owner root;
//   - no sockets, and no holes: sparse files are written out.
//
// The same tree and changes yield the same bytes. Files are streamed. The changes
// are put in order in place: there may be half a million. They can be written again.
func Write(ctx context.Context, w io.Writer, root string, changes []Change, opts WriteOptions) error {
	at, err := openDirs(root)
	if err != nil {
		return err
	}
	defer at.close()
	lw := &writer{dirs: at, tw: tar.NewWriter(w), opts: opts,
		listed: map[string]bool{}, inodes: map[uint64]string{}, buf: make([]byte, 256<<10)}
	slices.SortStableFunc(changes, func(a, b Change) int { return ComparePaths(a.Path, b.Path) })
	for i, c := range changes {
		if i > 0 && c == changes[i-1] {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := lw.change(ctx, c); err != nil {
			return fmt.Errorf("write layer: %s: %w", c.Path, err)
		}
	}
	return lw.tw.Close()
}

// ComparePaths orders paths as a walk meets them: a directory before what is
// below it, names of one directory by bytes.
func ComparePaths(a, b string) int {
	for {
		i, j := strings.IndexByte(a, '/'), strings.IndexByte(b, '/')
		x, y := a, b
		if i >= 0 {
			x = a[:i]
		}
		if j >= 0 {
			y = b[:j]
		}
		if c := strings.Compare(x, y); c != 0 || (i < 0 && j < 0) {
			return c
		}
		if i < 0 {
			return -1
		}
		if j < 0 {
			return 1
		}
		a, b = a[i+1:], b[j+1:]
	}
}

type writer struct {
	dirs *dirs
	tw   *tar.Writer
	opts WriteOptions
	// listed are the directories that the layer has, inodes the first name
	// of files with several.
	listed map[string]bool
	inodes map[uint64]string
	buf    []byte
}

func (w *writer) change(ctx context.Context, c Change) error {
	if c.Delete {
		dir, base := path.Split(c.Path)
		return w.whiteout(ctx, dir+whiteoutPrefix+base)
	}
	if err := w.entry(ctx, c.Path); err != nil {
		return err
	}
	if c.Opaque {
		return w.whiteout(ctx, c.Path+"/"+opaqueMarker)
	}
	return nil
}

// whiteout's format is left to the tar writer, as in containerd: plain ustar
// where the name fits.
func (w *writer) whiteout(ctx context.Context, name string) error {
	if err := w.parents(ctx, name); err != nil {
		return err
	}
	return w.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, ModTime: time.Unix(0, 0).UTC()})
}

// parents lists the directories above a name.
func (w *writer) parents(ctx context.Context, name string) error {
	dir := path.Dir(name)
	if dir == "." || w.listed[dir] {
		return nil
	}
	w.listed[dir] = true
	return w.entry(ctx, dir)
}

// enter goes to a directory and gives its handle.
func (w *writer) enter(dir string) (int, error) {
	depth := 0
	for name := range strings.SplitSeq(dir, "/") {
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			return -1, pathError("open", dir, unix.EINVAL)
		}
		if err := w.dirs.enter(depth, name); err != nil {
			return -1, pathError("open", dir, err)
		}
		depth++
	}
	return w.dirs.at(depth)
}

func (w *writer) entry(ctx context.Context, name string) (err error) {
	if err := w.parents(ctx, name); err != nil {
		return err
	}
	dir, base := path.Split(name)
	fd, err := w.enter(dir)
	if err != nil {
		return err
	}
	st, err := lstatAt(fd, base)
	if err != nil {
		return pathError("lstat", name, err)
	}
	h, err := header(fd, name, st)
	if h == nil || err != nil {
		return err
	}
	if isDir(st) {
		w.listed[name] = true
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		w.link(h, st)
		return w.tw.WriteHeader(h)
	}
	return w.file(ctx, fd, base, h, st)
}

// link turns the header of a further name of a file into a hardlink's.
func (w *writer) link(h *tar.Header, st *unix.Stat_t) {
	if st.Nlink < 2 || isDir(st) {
		return
	}
	if first, ok := w.inodes[st.Ino]; ok {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
	} else {
		w.inodes[st.Ino] = h.Name
	}
}

// file writes a regular file.
func (w *writer) file(ctx context.Context, dir int, base string, h *tar.Header, st *unix.Stat_t) (err error) {
	fd, err := retryInt(func() (int, error) {
		return unix.Openat(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return pathError("open", h.Name, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	v, err := fileCapability(fd, w.buf)
	if err != nil {
		return err
	}
	if len(v) > 0 {
		h.PAXRecords = map[string]string{xattrPrefix + capability: string(v)}
	}
	w.link(h, st)
	if err := w.tw.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		return nil
	}
	return w.content(ctx, fd, h.Name, h.Size)
}

func (w *writer) content(ctx context.Context, fd int, name string, size int64) error {
	d := xxhash.New()
	for left := size; left > 0; {
		buf := w.buf[:min(int64(len(w.buf)), left)]
		n, err := retryInt(func() (int, error) { return unix.Read(fd, buf) })
		if err != nil {
			return pathError("read", name, err)
		}
		if n == 0 {
			return fmt.Errorf("file shrank from %d to %d bytes while it was read", size, size-left)
		}
		if _, ok := HollowSum(buf[:n], size); ok && left == size {
			return fault.New(fault.Internal, "read %s: %w", name, ErrHollow)
		}
		if _, err := w.tw.Write(buf[:n]); err != nil {
			return err
		}
		if w.opts.Sum != nil {
			_, _ = d.Write(buf[:n]) // never fails
		}
		if left -= int64(n); left > 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if w.opts.Sum != nil {
		w.opts.Sum(name, d.Sum64())
	}
	return nil
}

// header is the tar header of a path, base in the directory fd; nil for a
// socket.
func header(fd int, name string, st *unix.Stat_t) (*tar.Header, error) {
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()).Truncate(time.Second), Format: tar.FormatPAX,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case unix.S_IFLNK:
		target, err := readlinkAt(fd, path.Base(name))
		if err != nil {
			return nil, pathError("readlink", name, err)
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFSOCK:
		return nil, nil
	default:
		return nil, fmt.Errorf("unknown file type %o", st.Mode)
	}
	return h, nil
}
