package sandbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	cfs "github.com/containerd/continuity/fs"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// identity is whom a step runs as.
type identity struct {
	uid, gid uint32
	// groups are the supplementary ones, gid among them.
	groups []uint32
	// home is the user's home directory, for a HOME that is not set.
	home string
}

// maxUserFile bounds how much of a tree's passwd or group file is read.
const maxUserFile = 10 << 20

// lookupUser finds USER's argument in the files of the tree at root. The rules
// are BuildKit's (executor/oci/user.go): "uid:gid" is taken as it is, without
// supplementary groups; anything else asks the tree's passwd and group files,
// and an unknown name is an error.
func lookupUser(root, spec string) (identity, error) {
	passwd, group := openInRoot(root, "/etc/passwd"), openInRoot(root, "/etc/group")
	defer closeAll(passwd, group)
	name := spec
	if name == "" {
		name = "0"
	}
	if uid, gid, ok := numericPair(name); ok {
		id := identity{uid: uid, gid: gid, groups: []uint32{gid}, home: "/"}
		if u, err := user.GetExecUser(strconv.FormatUint(uint64(uid), 10), &user.ExecUser{Home: "/"}, limited(passwd), nil); err == nil && u.Home != "" {
			id.home = u.Home
		}
		return id, nil
	}
	u, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, limited(passwd), limited(group))
	if err != nil {
		if spec == "" {
			return identity{groups: []uint32{0}, home: "/"}, nil
		}
		return identity{}, err
	}
	id := identity{uid: uint32(u.Uid), gid: uint32(u.Gid), home: u.Home}
	if id.home == "" {
		id.home = "/"
	}
	for _, g := range u.Sgids {
		id.groups = append(id.groups, uint32(g))
	}
	if !slices.Contains(id.groups, id.gid) {
		id.groups = append([]uint32{id.gid}, id.groups...)
	}
	return id, nil
}

// numericPair reads "uid:gid", where "root" counts as 0.
func numericPair(s string) (uid, gid uint32, ok bool) {
	u, g, found := strings.Cut(s, ":")
	if !found {
		return 0, 0, false
	}
	uid, uok := numericID(u)
	gid, gok := numericID(g)
	return uid, gid, uok && gok
}

func numericID(s string) (uint32, bool) {
	if s == "root" {
		return 0, true
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil
}

// openInRoot opens a regular file of a tree; nil where there is none.
func openInRoot(root, name string) *os.File {
	p, err := cfs.RootPath(root, name)
	if err != nil {
		return nil
	}
	// Not blocking: the tree may have a pipe there.
	f, err := os.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		_ = f.Close()
		return nil
	}
	return f
}

// limited is a reader of f that is a nil interface when f is nil, which is what
// GetExecUser takes for "no such file".
func limited(f *os.File) io.Reader {
	if f == nil {
		return nil
	}
	return io.LimitReader(f, maxUserFile)
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// withHome adds HOME where env has none, as runc does for every container.
func withHome(env []string, home string) []string {
	for _, e := range env {
		if strings.HasPrefix(e, "HOME=") && e != "HOME=" {
			return env
		}
	}
	return append(slices.Clip(env), "HOME="+home)
}

// makeCwd creates a missing working directory in the tree at root, with its
// missing parents, owned by the user.
func makeCwd(root, cwd string, u identity) error {
	p, err := cfs.RootPath(root, cwd)
	if err != nil {
		return fault.New(fault.User, "working dir %s points to invalid target: %w", cwd, err)
	}
	if _, err := os.Stat(p); err == nil {
		return nil
	}
	if err := mkdirAllOwned(p, 0o755, int(u.uid), int(u.gid)); err != nil {
		if errors.Is(err, unix.ENOTDIR) {
			return fault.New(fault.User, "create working directory %s: %w", cwd, cause(err))
		}
		return fault.New(fault.Environment, "create working directory %s: %w", cwd, cause(err))
	}
	return nil
}

// cause takes the path off an error: it is ours, and means nothing to a user.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// mkdirAllOwned creates p and its missing parents; those that it creates get
// mode and owner exactly.
func mkdirAllOwned(p string, mode fs.FileMode, uid, gid int) error {
	st, err := os.Lstat(p)
	switch {
	case err == nil && st.IsDir():
		return nil
	case err == nil:
		return &fs.PathError{Op: "mkdir", Path: p, Err: unix.ENOTDIR}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := mkdirAllOwned(filepath.Dir(p), mode, uid, gid); err != nil {
		return err
	}
	if err := os.Mkdir(p, mode); err != nil {
		return err
	}
	if err := os.Chown(p, uid, gid); err != nil {
		return fmt.Errorf("give directory to user %d: %w", uid, err)
	}
	return os.Chmod(p, mode)
}
