package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/room"
)

// Limits of what is read into memory of a repository, as git has them or larger.
const (
	maxAttributes = 100 << 20
	maxModules    = 16 << 20
	maxLink       = 4095
	// maxConverted is what a file may have whose line ends are changed.
	maxConverted = 512 << 20
	// maxDepth is how far submodules of submodules go.
	maxDepth = 64
)

// checkout lays out one source's files.
type checkout struct {
	src   *Source
	req   *request
	limit room.Limit
	left  int64
}

// tree is one repository's files being laid out.
type tree struct {
	*checkout
	remote *remote
	store  *store
	commit *object.Commit
	// gitDir is where the repository's .git is to be in the target; "" for
	// nowhere. place is where its files are.
	gitDir, place string
	depth         int
	modules       []module
	// macros are the attributes that stand for others (gitattributes(5)).
	macros map[string][][2]string
	// links are the submodules that were met, files everything for the index.
	links []link
	files []indexed
}

// link is a submodule's place: in its repository, and as a directory of the
// target.
type link struct {
	path string
	hash plumbing.Hash
	dir  *os.Root
	// place is the directory as a path of the target.
	place string
}

// indexed is one file of a tree.
type indexed struct {
	path string
	mode filemode.FileMode
	hash plumbing.Hash
	size int64
}

func (c *checkout) run(ctx context.Context, root *os.Root, at *fetched) error {
	t := &tree{checkout: c, remote: c.req.remote, store: at.store, commit: at.commit}
	keep := c.req.keepGit && c.req.subdir == "" // as BuildKit
	if keep {
		t.gitDir = ".git"
	}
	if err := t.lay(ctx, root, root, c.req.subdir); err != nil {
		return err
	}
	if keep {
		if err := t.writeGitDir(root, gitRefs(c.req, at)); err != nil {
			return fmt.Errorf("write .git: %w", err)
		}
	}
	if c.req.commitTime {
		return setTimes(root, at.commit.Committer.When)
	}
	return nil
}

// lay puts the files of a repository's directory subdir into dir, and the
// submodules that are there; top is the target itself.
func (t *tree) lay(ctx context.Context, top, dir *os.Root, subdir string) error {
	at, err := t.commit.Tree()
	if err != nil {
		return fmt.Errorf("read tree: %w", err)
	}
	if err := t.readModules(at); err != nil {
		return err
	}
	var rules attributes
	prefix := ""
	parts := strings.Split(subdir, "/")
	for i, name := range parts {
		if subdir == "" {
			break
		}
		if rules, err = t.attributesOf(at, prefix, rules); err != nil {
			return err
		}
		e, err := at.FindEntry(name)
		switch {
		case err != nil, e.Mode != filemode.Dir && e.Mode != filemode.Submodule:
			return t.noSubdir(path.Join(parts[:i+1]...), err == nil)
		case e.Mode == filemode.Submodule:
			rest := strings.Join(parts[i+1:], "/")
			if t.req.skipSubmodules {
				if rest != "" {
					return t.noSubdir(subdir, false)
				}
				return nil
			}
			l := link{path: path.Join(prefix, name), hash: e.Hash, dir: dir, place: t.place}
			return t.submodule(ctx, top, l, rest)
		}
		prefix = path.Join(prefix, name)
		if at, err = object.GetTree(t.store, e.Hash); err != nil {
			return fmt.Errorf("read tree %s: %w", prefix, err)
		}
	}
	if err := t.directory(ctx, dir, at, prefix, t.place, rules); err != nil {
		return err
	}
	return t.submodules(ctx, top)
}

func (t *tree) noSubdir(name string, other bool) error {
	what := "has no directory"
	if other {
		what = "has something else than a directory at"
	}
	return fault.New(fault.User, "git repository %s: %s %s %q", t.remote.shown, t.req.refShown(head{}), what, name).
		With("Correct the directory behind the colon of #REF:DIRECTORY; links are not followed.")
}

// directory puts the entries of a tree into dir.
func (t *tree) directory(ctx context.Context, dir *os.Root, at *object.Tree, prefix, place string, rules attributes) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	rules, err := t.attributesOf(at, prefix, rules)
	if err != nil {
		return err
	}
	for _, e := range at.Entries {
		full := path.Join(prefix, e.Name)
		if !safeName(e.Name) {
			return fault.New(fault.User, "git repository %s has a file with the name %q", t.remote.shown, full).
				With("Such a name cannot come from git itself: the repository is damaged or means harm.")
		}
		size := int64(0)
		switch e.Mode {
		case filemode.Dir, filemode.Submodule:
			err = t.enter(ctx, dir, e, full, path.Join(place, e.Name), rules)
		case filemode.Symlink:
			size, err = t.symlink(dir, e)
		case filemode.Regular, filemode.Deprecated, filemode.Executable:
			size, err = t.file(dir, e, rules.match(full))
		default:
			err = errMode
		}
		if err != nil {
			if _, ok := fault.As(err); ok || ctx.Err() != nil {
				return err
			}
			return t.damaged(full, err)
		}
		if t.gitDir != "" && e.Mode != filemode.Dir {
			t.files = append(t.files, indexed{full, e.Mode, e.Hash, size})
		}
	}
	return nil
}

// damaged is about a tree that git would not have made; other errors stay what
// they are.
func (t *tree) damaged(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrExist):
		err = errors.New("the repository has it twice")
	case errors.Is(err, plumbing.ErrObjectNotFound):
		err = errors.New("the server has not sent it")
	case errors.Is(err, errMode):
	default:
		return fmt.Errorf("%s: %w", name, err)
	}
	return fault.New(fault.User, "git repository %s: %s: %w", t.remote.shown, name, err).With("Check the repository with git fsck.")
}

// errMode is an entry that is neither file, link, directory nor submodule.
var errMode = errors.New("it has an unknown mode")

// safeName says whether git itself would accept a name in a tree.
func safeName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.EqualFold(name, ".git") && !strings.ContainsAny(name, "/\x00")
}

// enter makes a directory and fills it; one of a submodule is filled later.
func (t *tree) enter(ctx context.Context, dir *os.Root, e object.TreeEntry, full, place string, rules attributes) error {
	if err := makeDir(dir, e.Name); err != nil {
		return err
	}
	sub, err := dir.OpenRoot(e.Name)
	if err != nil {
		return err
	}
	if e.Mode == filemode.Submodule {
		t.links = append(t.links, link{path: full, hash: e.Hash, dir: sub, place: place})
		return nil
	}
	defer func() { _ = sub.Close() }()
	at, err := object.GetTree(t.store, e.Hash)
	if err != nil {
		return fmt.Errorf("read tree: %w", err)
	}
	return t.directory(ctx, sub, at, full, place, rules)
}

func makeDir(dir *os.Root, name string) error {
	if err := dir.Mkdir(name, 0o755); err != nil {
		return err
	}
	return dir.Chmod(name, 0o755)
}

func (t *tree) symlink(dir *os.Root, e object.TreeEntry) (int64, error) {
	to, err := t.store.blob(e.Hash, maxLink)
	if err != nil {
		return 0, err
	}
	return int64(len(to)), dir.Symlink(string(to), e.Name)
}

// file writes one file as its attributes want it.
func (t *tree) file(dir *os.Root, e object.TreeEntry, c conversion) (_ int64, err error) {
	mode := os.FileMode(0o644)
	if e.Mode == filemode.Executable {
		mode = 0o755
	}
	o, err := t.store.EncodedObject(plumbing.BlobObject, e.Hash)
	if err != nil {
		return 0, fmt.Errorf("read file: %w", err)
	}
	f, err := dir.OpenFile(e.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY|unix.O_NOFOLLOW, mode)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	in, err := o.Reader()
	if err != nil {
		return 0, fmt.Errorf("read file: %w", err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	from := io.Reader(in)
	if c.any() && o.Size() <= maxConverted {
		if from, err = c.apply(in, e.Hash.String()); err != nil {
			return 0, fmt.Errorf("read file: %w", err)
		}
	}
	n, err := io.Copy(f, &limited{r: from, left: t.left})
	if errors.Is(err, errTooMuch) {
		return 0, t.limit.Exceeded("git repository " + t.remote.shown)
	}
	if t.left -= n; err != nil {
		return 0, err
	}
	return n, f.Chmod(mode) // whatever the umask
}
