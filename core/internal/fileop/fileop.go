// Package fileop owns what COPY, ADD, WORKDIR and heredocs do to a tree: copy,
// make a directory, make a file, remove, link. The semantics are BuildKit's
// (solver/llbsolver/file), the copying is fsutil's, which BuildKit uses. Paths
// of both trees are resolved inside their roots. It does not know where trees
// come from.
package fileop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	cfs "github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/sys/user"
	"github.com/tonistiigi/fsutil"
	copy "github.com/tonistiigi/fsutil/copy"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/room"
)

// Op is one action on the tree at Root.
type Op struct {
	Root   string
	Action *pb.FileAction
	// Source is the tree that a copy reads from.
	Source string
	// Taken says that the source is the caller's alone, and that nobody looks at it
	// again: what is copied may be moved, which leaves less of the source.
	Taken bool
	// Names gives the tree whose /etc/passwd and /etc/group an owner's name
	// is looked up in, by the index of a vertex input (pb.NamedUserOpt);
	// "" for scratch.
	Names func(input int64) (string, error)
	// Limit is what an archive may unpack to; room.Of(Root) when zero.
	Limit room.Limit
}

// Run carries the action out and gives the paths, relative to Root, that it
// made, changed or removed, with the directories above them.
func Run(ctx context.Context, op Op) (changed []string, err error) {
	t := &tracker{root: op.Root, paths: map[string]bool{}}
	switch a := op.Action.Action.(type) {
	case *pb.FileAction_Copy:
		err = copyOp(ctx, op, a.Copy, t)
	case *pb.FileAction_Mkdir:
		err = mkdir(op, a.Mkdir, t)
	case *pb.FileAction_Mkfile:
		err = mkfile(op, a.Mkfile, t)
	case *pb.FileAction_Rm:
		err = rm(op, a.Rm, t)
	case *pb.FileAction_Symlink:
		err = symlink(op, a.Symlink, t)
	default:
		return nil, fault.New(fault.User, "file operation %T is not supported", a)
	}
	return t.list(), withoutRoots(err, op.Root, op.Source)
}

// withoutRoots takes our own directories out of an error's paths.
func withoutRoots(err error, roots ...string) error {
	if err == nil {
		return nil
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		for _, r := range roots {
			if r != "" {
				pe.Path = strings.TrimPrefix(pe.Path, r)
			}
		}
	}
	text := err.Error()
	clean := text
	for _, r := range roots {
		if r != "" {
			clean = strings.ReplaceAll(clean, r, "")
		}
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EPERM) || clean == text {
		return err
	}
	return &cleaned{text: clean, err: err}
}

// cleaned is an error in other words.
type cleaned struct {
	text string
	err  error
}

func (c *cleaned) Error() string { return c.text }
func (c *cleaned) Unwrap() error { return c.err }

// tracker collects changed paths.
type tracker struct {
	root  string
	paths map[string]bool
	// last is the absolute path of the file that was copied last.
	last string
}

// add takes an absolute path below the root.
func (t *tracker) add(at string) {
	rel := strings.TrimPrefix(strings.TrimPrefix(at, t.root), "/")
	for rel != "" && rel != "." && !t.paths[rel] {
		t.paths[rel] = true
		rel = filepath.Dir(rel)
	}
}

func (t *tracker) list() []string {
	out := make([]string, 0, len(t.paths))
	for p := range t.paths {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

func clean(p string) string {
	c := filepath.Join("/", p)
	if c != "/" && (strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.")) {
		c += "/"
		if strings.HasSuffix(p, "/.") {
			c += "."
		}
	}
	return c
}

func stamp(ns int64) *time.Time {
	if ns == -1 {
		return nil
	}
	t := time.Unix(0, ns)
	return &t
}

func mkdir(op Op, a *pb.FileActionMkDir, t *tracker) error {
	at, err := cfs.RootPath(op.Root, clean(a.Path))
	if err != nil {
		return err
	}
	owner, err := chowner(op, a.Owner)
	if err != nil {
		return err
	}
	mode := os.FileMode(a.Mode) & 0o777
	if a.MakeParents {
		made, err := copy.MkdirAll(at, mode, owner, stamp(a.Timestamp))
		for _, d := range made {
			t.add(d)
		}
		return err
	}
	if err := os.Mkdir(at, mode); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return err
	}
	t.add(at)
	if err := os.Chmod(at, mode); err != nil {
		return err
	}
	if err := copy.Chown(at, nil, owner); err != nil {
		return err
	}
	return copy.Utimes(at, stamp(a.Timestamp))
}

func mkfile(op Op, a *pb.FileActionMkFile, t *tracker) (err error) {
	at, err := cfs.RootPath(op.Root, clean(a.Path))
	if err != nil {
		return err
	}
	if at == op.Root {
		return &os.PathError{Op: "mkfile", Path: a.Path, Err: syscall.EISDIR}
	}
	owner, err := chowner(op, a.Owner)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(at), ".tmp-mkfile")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(a.Data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Chmod(f.Name(), os.FileMode(a.Mode)&0o777); err != nil {
		return err
	}
	if err := copy.Chown(f.Name(), nil, owner); err != nil {
		return err
	}
	if tm := stamp(a.Timestamp); tm != nil {
		if err := os.Chtimes(f.Name(), *tm, *tm); err != nil {
			return err
		}
	}
	t.add(at)
	return os.Rename(f.Name(), at)
}

func symlink(op Op, a *pb.FileActionSymlink, t *tracker) error {
	at, err := cfs.RootPath(op.Root, filepath.Join("/", a.Newpath))
	if err != nil {
		return err
	}
	owner, err := chowner(op, a.Owner)
	if err != nil {
		return err
	}
	if err := os.Symlink(a.Oldpath, at); err != nil {
		return err
	}
	t.add(at)
	if err := copy.Chown(at, nil, owner); err != nil {
		return err
	}
	return copy.Utimes(at, stamp(a.Timestamp))
}

func rm(op Op, a *pb.FileActionRm, t *tracker) error {
	paths := []string{a.Path}
	if a.AllowWildcard {
		var err error
		if paths, err = copy.ResolveWildcards(op.Root, clean(a.Path), false); err != nil {
			return err
		}
	}
	for _, p := range paths {
		dir, base := filepath.Split(filepath.Join("/", p))
		if base == "" {
			return errors.New("rm: the root cannot be removed")
		}
		dir, err := cfs.RootPath(op.Root, dir)
		if err != nil {
			return err
		}
		at := filepath.Join(dir, base)
		if _, err := os.Lstat(at); err != nil && !a.AllowNotFound {
			return err
		}
		if err := os.RemoveAll(at); err != nil {
			return err
		}
		t.add(at)
	}
	return nil
}

func copyOp(ctx context.Context, op Op, a *pb.FileActionCopy, t *tracker) error {
	from, to := clean(a.Src), clean(a.Dest)
	if !a.CreateDestPath {
		p, err := cfs.RootPath(op.Root, filepath.Join("/", a.Dest))
		if err != nil {
			return err
		}
		if _, err := os.Lstat(filepath.Dir(p)); err != nil {
			return fmt.Errorf("stat %s: %w", a.Dest, err)
		}
	}
	owner, err := chowner(op, a.Owner)
	if err != nil {
		return err
	}
	sources := []string{from}
	if a.AllowWildcard {
		if sources, err = copy.ResolveWildcards(op.Source, from, a.FollowSymlink); err != nil {
			return notFound(from, err)
		}
		if len(sources) == 0 {
			if a.AllowEmptyWildcard {
				return nil
			}
			return notFound(from, nil)
		}
	}
	if len(a.RequiredPaths) > 0 {
		if err := required(op.Source, a); err != nil {
			return err
		}
	}
	info := func(ci *copy.CopyInfo) {
		ci.IncludePatterns, ci.ExcludePatterns = a.IncludePatterns, a.ExcludePatterns
		ci.Chown, ci.Utime = owner, stamp(a.Timestamp)
		if a.ModeStr != "" {
			ci.ModeStr = a.ModeStr
		} else if m := int(a.Mode); m != -1 {
			ci.Mode = &m
		}
		ci.CopyDirContents, ci.FollowLinks = a.DirCopyContents, a.FollowSymlink
		ci.AlwaysReplaceExistingDestPaths = a.AlwaysReplaceExistingDestPaths
		ci.ChangeFunc = func(_ fsutil.ChangeKind, p string, _ os.FileInfo, err error) error {
			t.last = filepath.Join(op.Root, p)
			t.add(t.last)
			return err
		}
		// As BuildKit: an attribute that the target cannot hold is left out.
		ci.XAttrErrorHandler = func(_, _, _ string, _ error) error { return nil }
	}
	for _, s := range sources {
		if a.AttemptUnpackDockerCompatibility {
			done, err := unpack(ctx, op, s, to, owner, stamp(a.Timestamp), t)
			if err != nil {
				return err
			}
			if done {
				continue
			}
		}
		one := op
		one.Taken = op.Taken && len(sources) == 1 // two of them may be one by a link
		if err := copyOne(ctx, one, s, to, a, info, owner, t); err != nil {
			return err
		}
	}
	return nil
}

// copyOne copies one source and tracks, beside the files that are reported,
// the directories that were made.
func copyOne(ctx context.Context, op Op, from, to string, a *pb.FileActionCopy, info copy.Opt, owner copy.Chowner, t *tracker) error {
	if _, err := sourceStat(op.Source, from, a.FollowSymlink); err != nil {
		return notFound(from, err)
	}
	target, err := cfs.RootPath(op.Root, to)
	if err != nil {
		return err
	}
	into := target
	if _, err := os.Stat(target); err == nil && !a.DirCopyContents {
		into = filepath.Join(target, filepath.Base(from)) // the directory itself goes there
	}
	rest := func() error { return copy.Copy(ctx, op.Source, from, op.Root, to, info) }
	if op.Taken {
		err = move(op, from, to, a, owner, rest, t)
	} else {
		err = rest()
	}
	if err != nil {
		return err
	}
	t.add(target)
	return t.directories(op, from, into, a.FollowSymlink)
}

// directories tracks the directories of a copied tree: fsutil reports files.
func (t *tracker) directories(op Op, from, target string, follow bool) error {
	src, err := sourcePath(op.Source, from, follow)
	if err != nil {
		return err
	}
	if fi, err := os.Lstat(src); err != nil || !fi.IsDir() {
		return nil
	}
	return filepath.WalkDir(src, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		at := filepath.Join(target, strings.TrimPrefix(p, src))
		if fi, err := os.Lstat(at); err == nil && fi.IsDir() {
			t.add(at)
		}
		return nil
	})
}

func sourcePath(root, p string, follow bool) (string, error) {
	if follow {
		return cfs.RootPath(root, p)
	}
	dir, base := filepath.Split(filepath.Clean(p))
	parent, err := cfs.RootPath(root, dir)
	if err != nil {
		return "", err
	}
	return filepath.Join(parent, base), nil
}

func sourceStat(root, p string, follow bool) (os.FileInfo, error) {
	at, err := sourcePath(root, p, follow)
	if err != nil {
		return nil, err
	}
	return os.Lstat(at)
}

// notFound is BuildKit's text for a source that is not there.
func notFound(p string, err error) error {
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fault.New(fault.User, "%q: not found", p).
		With("Check the path: it is relative to the build context (or to the stage or image of --from), and .dockerignore may exclude it.")
}

// required checks that the paths that COPY --parents names exist.
func required(root string, a *pb.FileActionCopy) error {
	for _, p := range a.RequiredPaths {
		if _, err := sourceStat(root, clean(p), a.FollowSymlink); err != nil {
			return notFound(clean(p), err)
		}
	}
	return nil
}

// chowner gives files an owner; nil keeps what they have. As in BuildKit a user's
// name that does not exist means root, and a group's that of the user.
func chowner(op Op, o *pb.ChownOpt) (copy.Chowner, error) {
	u, err := owner(op, o)
	if err != nil {
		return nil, err
	}
	return func(old *copy.User) (*copy.User, error) {
		if u == nil {
			return old, nil
		}
		return u, nil
	}, nil
}

func owner(op Op, o *pb.ChownOpt) (*copy.User, error) {
	if o == nil {
		return nil, nil
	}
	var u copy.User
	var err error
	if u.UID, u.GID, err = userIDs(op, o.User); err != nil {
		return nil, err
	}
	if o.Group == nil {
		return &u, nil
	}
	switch g := o.Group.User.(type) {
	case *pb.UserOpt_ByName:
		u.GID, err = groupID(op, g.ByName, u.GID)
	case *pb.UserOpt_ByID:
		u.GID = int(g.ByID)
	}
	return &u, err
}

func userIDs(op Op, o *pb.UserOpt) (uid, gid int, err error) {
	if o == nil {
		return 0, 0, nil
	}
	switch n := o.User.(type) {
	case *pb.UserOpt_ByID:
		return int(n.ByID), int(n.ByID), nil
	case *pb.UserOpt_ByName:
		at, err := names(op, n.ByName, "/etc/passwd")
		if at == "" || err != nil {
			return 0, 0, err
		}
		us, err := user.ParsePasswdFileFilter(at, func(u user.User) bool { return u.Name == n.ByName.Name })
		if err != nil || len(us) == 0 {
			return 0, 0, ignoreMissing(err)
		}
		return us[0].Uid, us[0].Gid, nil
	}
	return 0, 0, nil
}

func groupID(op Op, n *pb.NamedUserOpt, otherwise int) (int, error) {
	at, err := names(op, n, "/etc/group")
	if at == "" || err != nil {
		return otherwise, err
	}
	gs, err := user.ParseGroupFileFilter(at, func(g user.Group) bool { return g.Name == n.Name })
	if err != nil || len(gs) == 0 {
		return otherwise, ignoreMissing(err)
	}
	return gs[0].Gid, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return err
}

func names(op Op, n *pb.NamedUserOpt, file string) (string, error) {
	root, err := op.Names(n.Input)
	if root == "" || err != nil {
		return "", err
	}
	return cfs.RootPath(root, file)
}
