package layer

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// whiteout carries out a deletion that the layer records: of one name, or of
// all that lower layers have in a directory.
func (a *applier) whiteout(parent, base string) error {
	if base == opaqueMarker {
		return a.opaque(parent)
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if name == "" || name == "." || name == ".." || strings.HasPrefix(name, ".wh.") {
		return nil // aufs' own bookkeeping
	}
	at := filepath.Join(parent, name)
	if a.opts.Whiteouts == Remove {
		if _, err := os.Lstat(at); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return a.remove(at)
	}
	if err := os.RemoveAll(at); err != nil {
		return err
	}
	if err := unix.Mknod(at, unix.S_IFCHR, 0); err != nil {
		return mknodError(err)
	}
	return nil
}

// opaque hides what lower layers have in a directory, not what this layer has
// put there already.
func (a *applier) opaque(dir string) error {
	switch a.opts.Whiteouts {
	case OverlayTrusted:
		return unix.Lsetxattr(dir, "trusted.overlay.opaque", []byte("y"), 0)
	case OverlayUser:
		return unix.Lsetxattr(dir, "user.overlay.opaque", []byte("y"), 0)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		at := filepath.Join(dir, e.Name())
		if !a.ownBelow(a.rel(at)) {
			if err := a.remove(at); err != nil {
				return err
			}
			continue
		}
		if e.IsDir() {
			if err := a.opaque(at); err != nil {
				return err
			}
		}
	}
	return nil
}

// ownBelow says whether this layer has made rel or something below it.
func (a *applier) ownBelow(rel string) bool {
	if a.own[rel] {
		return true
	}
	for p := range a.own {
		if strings.HasPrefix(p, rel+"/") {
			return true
		}
	}
	return false
}

// copyUp brings a lower layer's file into this layer, for a hardlink to it.
func (a *applier) copyUp(at string) (err error) {
	from, err := a.opts.Lower(a.rel(at))
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("not a regular file in the layers below")
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return copyAttributes(from, at, &st)
}

// copyAttributes gives a file another one's owner, mode, capabilities and time.
func copyAttributes(from, to string, st *unix.Stat_t) error {
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	if v := getXattr(from, "security.capability"); len(v) > 0 {
		if err := unix.Lsetxattr(to, "security.capability", v, 0); err != nil {
			return err
		}
	}
	ts := []unix.Timespec{st.Mtim, st.Mtim}
	return unix.UtimesNanoAt(unix.AT_FDCWD, to, ts, unix.AT_SYMLINK_NOFOLLOW)
}

func getXattr(path, name string) []byte {
	var buf [256]byte
	n, err := unix.Lgetxattr(path, name, buf[:])
	if err != nil {
		return nil
	}
	return buf[:n]
}
