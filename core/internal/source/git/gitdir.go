package git

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/index"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/moby/buildkit/util/gitutil"
	"golang.org/x/sys/unix"
)

// looseObjects is from how many objects on git keeps a pack.
const looseObjects = 100

const description = "Unnamed repository; edit this file 'description' to name the repository.\n"

const exclude = `# git ls-files --others --exclude-from=.git/info/exclude
# Lines that start with '#' are comments.
# For a project mostly in C, the following would be a good set of
# exclude patterns (uncomment them if you want to use them):
# *.[oa]
# *~
`

// gitRefs are the refs of a kept .git, by name: those that BuildKit's fetch
// leaves there.
func gitRefs(q *request, at *fetched) map[string]string {
	if gitutil.IsCommitSHA(at.head.ref) {
		return nil
	}
	commit, refs := at.commit.Hash.String(), map[string]string{}
	name := q.ref
	switch {
	case q.byCommit:
		name = at.head.ref
	case name == "":
		name = strings.TrimPrefix(at.head.ref, "refs/heads/")
	}
	switch {
	case at.tag:
		refs["refs/tags/"+strings.TrimPrefix(name, "refs/tags/")] = at.head.object
	case strings.HasPrefix(name, "refs/"):
		refs[name] = commit
	case strings.HasPrefix(name, "heads/"), strings.HasPrefix(name, "tags/"), strings.HasPrefix(name, "remotes/"):
		refs["refs/"+name] = commit
	default:
		refs["refs/heads/"+name] = commit
	}
	if !q.byCommit && !at.tag && !strings.HasPrefix(name, "refs/tags/") {
		refs["refs/tags/"+name] = commit // where BuildKit keeps what it fetches, and git brings tags along
	}
	return refs
}

// writeGitDir makes the directory .git of a tree that has been laid out: a
// shallow clone of its one commit with the head detached, as BuildKit has it, but
// for the sample hooks, and for stat data in the index, which git renews.
func (t *tree) writeGitDir(top *os.Root, refs map[string]string) (err error) {
	if err := mkdirAll(top, t.gitDir); err != nil {
		return err
	}
	dir, err := top.OpenRoot(t.gitDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	for _, name := range []string{"branches", "info", "logs", "objects/info", "objects/pack", "refs/heads", "refs/tags"} {
		if err := mkdirAll(dir, name); err != nil {
			return err
		}
	}
	commit := t.commit.Hash.String() + "\n"
	files := map[string]string{"HEAD": commit, "shallow": commit, "description": description, "info/exclude": exclude, "config": t.gitConfig(), "logs/HEAD": ""}
	for name, hash := range refs {
		files[name] = hash + "\n"
		if strings.HasPrefix(name, "refs/heads/") {
			files["logs/"+name] = ""
		}
	}
	for name, text := range files {
		if err := mkdirAll(dir, path.Dir(name)); err != nil {
			return err
		}
		if err := writeNew(dir, name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := t.writeIndex(dir); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	objects, err := t.objects(refs)
	if err != nil {
		return err
	}
	if len(objects) < looseObjects {
		return t.writeLoose(dir, objects)
	}
	return t.writePack(dir, objects)
}

// gitConfig is the repository's configuration, without credentials.
func (t *tree) gitConfig() string {
	var b strings.Builder
	b.WriteString("[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n")
	if t.place != "" {
		fmt.Fprintf(&b, "\tworktree = %s\n", value(relativePath(t.gitDir, t.place)))
	}
	fmt.Fprintf(&b, "[remote \"origin\"]\n\turl = %s\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n", value(t.remote.shown))
	if t.req.skipSubmodules {
		return b.String()
	}
	for _, m := range t.modules {
		if !slices.ContainsFunc(t.links, func(l link) bool { return l.path == m.path }) || m.skip {
			continue
		}
		r, err := t.relative(m.url)
		if err != nil {
			continue // has been refused before
		}
		fmt.Fprintf(&b, "[submodule %s]\n\tactive = true\n\turl = %s\n", quoted(m.name), value(r.shown))
	}
	return b.String()
}

// value writes a value of git's configuration, in quotes where it needs them.
func value(s string) string {
	if strings.ContainsAny(s, "\"\\#;\t ") {
		return quoted(s)
	}
	return s
}

func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// mkdirAll makes directories with mode 0755 whatever the umask.
func mkdirAll(root *os.Root, name string) error {
	at := ""
	for _, p := range strings.Split(name, "/") {
		at = path.Join(at, p)
		if fi, err := root.Lstat(at); err == nil && fi.IsDir() {
			continue
		}
		if err := makeDir(root, at); err != nil {
			return err
		}
	}
	return nil
}

// writeNew writes a file that is not there yet.
func writeNew(root *os.Root, name string, data []byte, mode os.FileMode) (err error) {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Chmod(mode)
}

// writeIndex lists the files. Times and inodes are left out: no two builds would
// have the same.
func (t *tree) writeIndex(dir *os.Root) error {
	idx := &index.Index{Version: 2}
	for _, f := range t.files {
		mode := f.mode
		if mode == filemode.Deprecated {
			mode = filemode.Regular
		}
		idx.Entries = append(idx.Entries, &index.Entry{Name: f.path, Mode: mode, Hash: f.hash, Size: uint32(f.size)}) //nolint:gosec // git keeps the low 32 bits
	}
	var b bytes.Buffer
	if err := index.NewEncoder(&b).Encode(idx); err != nil {
		return err
	}
	return writeNew(dir, "index", b.Bytes(), 0o644)
}

// objects are the hashes of a commit, its trees and files, and of the tags
// among refs.
func (t *tree) objects(refs map[string]string) ([]plumbing.Hash, error) {
	seen := map[plumbing.Hash]bool{t.commit.Hash: true}
	out := []plumbing.Hash{t.commit.Hash}
	add := func(h plumbing.Hash) bool {
		if seen[h] {
			return false
		}
		seen[h] = true
		out = append(out, h)
		return true
	}
	for _, r := range slices.Sorted(maps.Values(refs)) {
		h := plumbing.NewHash(r)
		for !seen[h] {
			tag, err := object.GetTag(t.store, h)
			if err != nil {
				return nil, err
			}
			add(h)
			h = tag.Target
		}
	}
	var walk func(h plumbing.Hash) error
	walk = func(h plumbing.Hash) error {
		if !add(h) {
			return nil
		}
		at, err := object.GetTree(t.store, h)
		if err != nil {
			return err
		}
		for _, e := range at.Entries {
			if e.Mode == filemode.Dir {
				if err := walk(e.Hash); err != nil {
					return err
				}
			} else if e.Mode != filemode.Submodule {
				add(e.Hash)
			}
		}
		return nil
	}
	return out, walk(t.commit.TreeHash)
}

func (t *tree) writeLoose(dir *os.Root, objects []plumbing.Hash) error {
	for _, h := range objects {
		o, err := t.store.EncodedObject(plumbing.AnyObject, h)
		if err != nil {
			return err
		}
		data, err := content(o)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		z := zlib.NewWriter(&b)
		if _, err := fmt.Fprintf(z, "%s %d\x00", o.Type(), len(data)); err != nil {
			return err
		}
		if _, err := z.Write(data); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		hex := h.String()
		if err := mkdirAll(dir, "objects/"+hex[:2]); err != nil {
			return err
		}
		if err := writeNew(dir, "objects/"+hex[:2]+"/"+hex[2:], b.Bytes(), 0o444); err != nil {
			return err
		}
	}
	return nil
}

// writePack writes the objects as one pack with its index.
func (t *tree) writePack(dir *os.Root, objects []plumbing.Hash) (err error) {
	const temporary = "objects/pack/tmp"
	f, err := dir.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum, err := packfile.NewEncoder(f, t.store, false).Encode(objects, 0)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	w := &idxfile.Writer{}
	p, err := packfile.NewParserWithStorage(packfile.NewScanner(f), nil, w)
	if err != nil {
		return err
	}
	if _, err := p.Parse(); err != nil {
		return err
	}
	idx, err := w.Index()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if _, err := idxfile.NewEncoder(&b).Encode(idx); err != nil {
		return err
	}
	if err := f.Chmod(0o444); err != nil {
		return err
	}
	base := "objects/pack/pack-" + sum.String()
	if err := dir.Rename(temporary, base+".pack"); err != nil {
		return err
	}
	return writeNew(dir, base+".idx", b.Bytes(), 0o444)
}

// setTimes gives everything in a directory, and it, one time.
func setTimes(dir *os.Root, at time.Time) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	entries, err := d.ReadDir(-1)
	if err != nil {
		return err
	}
	ts := unix.NsecToTimespec(at.UnixNano())
	for _, e := range entries {
		if e.IsDir() {
			sub, err := dir.OpenRoot(e.Name())
			if err != nil {
				return err
			}
			if err := errors.Join(setTimes(sub, at), sub.Close()); err != nil {
				return err
			}
			continue
		}
		if err := unix.UtimesNanoAt(int(d.Fd()), e.Name(), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("set times of %s: %w", e.Name(), err)
		}
	}
	return dir.Chtimes(".", at, at)
}
