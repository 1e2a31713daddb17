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
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"
)

// WriteOptions are the choices of Write. The zero value is fine.
type WriteOptions struct {
	// Sum, when set, gets the fast hash (as in Observed) of each regular file
	// that was read.
	Sum func(path string, sum uint64)
}

// Write writes a layer: the changes, found in the tree at root, as a tar stream
// in PAX format, byte for byte what containerd's archive writer makes of them
// (BuildKit uses it): parents of a change are included once, times are cut to
// seconds, of the extended attributes only security.capability is kept, names
// of one inode become hardlinks to the first, sockets are skipped, whiteouts
// have time zero. The same tree and changes yield the same bytes. Files are
// streamed.
func Write(ctx context.Context, w io.Writer, root string, changes []Change, opts WriteOptions) error {
	lw := &writer{root: root, tw: tar.NewWriter(w), opts: opts, dirs: map[string]bool{}, inodes: map[uint64]string{}, buf: make([]byte, 256<<10)}
	changes = slices.Clone(changes)
	slices.SortFunc(changes, func(a, b Change) int { return ComparePaths(a.Path, b.Path) })
	for _, c := range changes {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := lw.change(c); err != nil {
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
	root   string
	tw     *tar.Writer
	opts   WriteOptions
	dirs   map[string]bool
	inodes map[uint64]string
	buf    []byte
}

func (w *writer) change(c Change) error {
	if c.Delete {
		dir, base := path.Split(c.Path)
		return w.special(dir + whiteoutPrefix + base)
	}
	if err := w.entry(c.Path); err != nil {
		return err
	}
	if c.Opaque {
		return w.special(c.Path + "/" + opaqueMarker)
	}
	return nil
}

// special writes a whiteout.
func (w *writer) special(name string) error {
	if err := w.parents(name); err != nil {
		return err
	}
	zero := time.Unix(0, 0).UTC()
	return w.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, ModTime: zero, AccessTime: zero, ChangeTime: zero, Format: tar.FormatPAX})
}

func (w *writer) parents(name string) error {
	dir := path.Dir(name)
	if dir == "." || w.dirs[dir] {
		return nil
	}
	w.dirs[dir] = true
	return w.entry(dir)
}

func (w *writer) entry(name string) (err error) {
	at := filepath.Join(w.root, name)
	var st unix.Stat_t
	if err := unix.Lstat(at, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	h, err := header(at, name, &st)
	if h == nil || err != nil {
		return err
	}
	if st.Nlink > 1 && h.Typeflag != tar.TypeDir {
		if first, ok := w.inodes[st.Ino]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			w.inodes[st.Ino] = h.Name
		}
	}
	if v := getXattr(at, "security.capability"); len(v) > 0 {
		h.PAXRecords = map[string]string{xattrPrefix + "security.capability": string(v)}
	}
	if err := w.parents(name); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		w.dirs[name] = true
	}
	if err := w.tw.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	return w.content(at, name, h.Size)
}

func (w *writer) content(at, name string, size int64) (err error) {
	d := xxhash.New()
	if size > 0 {
		f, err := os.OpenFile(at, os.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		dst := io.Writer(w.tw)
		if w.opts.Sum != nil {
			dst = io.MultiWriter(w.tw, d)
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{io.LimitReader(f, size)}, w.buf)
		if err != nil {
			return err
		}
		if n != size {
			return fmt.Errorf("file shrank from %d to %d bytes while it was read", size, n)
		}
	}
	if w.opts.Sum != nil {
		w.opts.Sum(name, d.Sum64())
	}
	return nil
}

// header is the tar header of a path; nil for a socket.
func header(at, name string, st *unix.Stat_t) (*tar.Header, error) {
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
		target, err := os.Readlink(at)
		if err != nil {
			return nil, err
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
