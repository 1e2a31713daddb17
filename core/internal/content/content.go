// Package content owns digests of files: what an operation really reads of a
// tree, and nothing else, so that two trees that differ elsewhere, or only in
// times, give the same digest. Counted are, as in BuildKit, names, types, modes,
// owners, sizes, link targets, device numbers, extended attributes and bytes;
// modification times are not. It refuses to know what an operation is: callers
// say which paths (Selection).
package content

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/errgroup"
)

// Tree is a file tree to read. Paths are absolute and clean, "/" is the root; no
// method follows a symbolic link.
type Tree interface {
	// Stat describes one path; an error that is fs.ErrNotExist where there
	// is none.
	Stat(path string) (*types.Stat, error)
	// Names are a directory's entries, sorted.
	Names(path string) ([]string, error)
	// Sum is the digest of a regular file's bytes. Safe for concurrent use.
	Sum(path string) ([]byte, error)
}

// Selection is what of a tree is read, in the words of BuildKit's copy action.
// The zero value is the whole tree.
type Selection struct {
	// Path is a file or directory, with wildcards in the sense of
	// path.Match where Wildcard is set.
	Path     string
	Wildcard bool
	// Follow resolves a link that Path itself is; links on the way to it are
	// always followed, and never out of the tree.
	Follow bool
	// Include and Exclude are patterns below what Path names.
	Include, Exclude []string
}

// Digest is a hex digest over what sel selects of t. Nothing selected is a
// digest too. A file that cannot be read is an error.
func Digest(ctx context.Context, t Tree, sel Selection) (string, error) {
	roots, err := sel.roots(t)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, at := range roots {
		entries, err := sel.entries(ctx, t, at)
		if err != nil {
			return "", err
		}
		name := path.Base(at)
		if !sel.Wildcard {
			name = "" // the operation itself says how it is called
		}
		writeString(h, "root", name)
		for _, e := range entries {
			e.write(h)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// File is what counts of one file, for explanations.
type File struct {
	// Mode is as fs.FileMode; Owner "uid:gid".
	Mode  uint32 `json:"m"`
	Owner string `json:"o"`
	// Sum is over everything else: bytes, link target, device, attributes.
	Sum string `json:"s"`
}

// Files lists what is selected, by its path in the tree.
func Files(ctx context.Context, t Tree, sel Selection) (map[string]File, error) {
	roots, err := sel.roots(t)
	if err != nil {
		return nil, err
	}
	out := map[string]File{}
	for _, at := range roots {
		entries, err := sel.entries(ctx, t, at)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			f := File{Mode: e.st.Mode, Owner: fmt.Sprintf("%d:%d", e.st.Uid, e.st.Gid)}
			rest := e.st.Clone()
			if fs.FileMode(rest.Mode).IsDir() {
				rest.Size = 0
			}
			rest.Mode, rest.Uid, rest.Gid = 0, 0, 0
			h := sha256.New()
			(&entry{st: rest, sum: e.sum}).write(h)
			f.Sum = hex.EncodeToString(h.Sum(nil)[:8])
			out[path.Join(at, e.rel)] = f
		}
	}
	return out, nil
}

// roots are the paths, links resolved, that Path names.
func (s Selection) roots(t Tree) ([]string, error) {
	p := path.Clean("/" + s.Path)
	dir, pattern := splitWildcards(p)
	if !s.Wildcard || pattern == "" {
		at, err := resolve(t, p, s.Follow)
		if err != nil {
			return nil, err
		}
		if _, err := t.Stat(at); err != nil {
			return nil, err
		}
		return []string{at}, nil
	}
	base, err := resolve(t, dir, s.Follow)
	if err != nil {
		return nil, err
	}
	var out []string
	err = walk(t, base, "", func(rel string, _ *types.Stat) (bool, error) {
		if rel == "" {
			return true, nil
		}
		if ok, err := path.Match(pattern, rel); err != nil || !ok {
			// A pattern matches names at its own depth only.
			return err == nil && strings.Count(rel, "/") < strings.Count(pattern, "/"), nil //nolint:nilerr // as the copy itself
		}
		out = append(out, path.Join(base, rel))
		return false, nil
	})
	if err != nil {
		return nil, err
	}
	for i, at := range out { // a match that is a link is copied as Follow says
		if out[i], err = resolve(t, at, s.Follow); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// splitWildcards cuts a clean path before its first component with a wildcard.
func splitWildcards(p string) (dir, pattern string) {
	parts := strings.Split(strings.TrimPrefix(p, "/"), "/")
	for i, c := range parts {
		if hasWildcard(c) {
			return "/" + strings.Join(parts[:i], "/"), strings.Join(parts[i:], "/")
		}
	}
	return p, ""
}

func hasWildcard(s string) bool {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

// maxLinks is Linux's own limit of links in one path.
const maxLinks = 40

// resolve follows the links of a path inside the tree, the last component's
// only if follow is set.
func resolve(t Tree, p string, follow bool) (string, error) {
	todo := strings.Split(strings.Trim(path.Clean("/"+p), "/"), "/")
	at := "/"
	for links := 0; len(todo) > 0; {
		c := todo[0]
		todo = todo[1:]
		switch c {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, c)
		if len(todo) == 0 && !follow {
			return next, nil
		}
		st, err := t.Stat(next)
		if err != nil || fs.FileMode(st.Mode)&fs.ModeSymlink == 0 {
			at = next // what is missing is found out by whoever looks
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "resolve", Path: p, Err: fmt.Errorf("too many links")}
		}
		if path.IsAbs(st.Linkname) {
			at = "/"
		}
		todo = append(strings.Split(st.Linkname, "/"), todo...)
	}
	return at, nil
}

// walk visits at and all below it in order of names; f says whether to go down.
func walk(t Tree, at, rel string, f func(rel string, st *types.Stat) (bool, error)) error {
	st, err := t.Stat(path.Join(at, rel))
	if err != nil {
		return err
	}
	down, err := f(rel, st)
	if err != nil || !down || !fs.FileMode(st.Mode).IsDir() {
		return err
	}
	names, err := t.Names(path.Join(at, rel))
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := walk(t, at, path.Join(rel, n), f); err != nil {
			return err
		}
	}
	return nil
}

// entry is one selected file; rel is "" for what Path itself names.
type entry struct {
	rel string
	st  *types.Stat
	sum []byte
}

func (e *entry) write(h hash.Hash) {
	writeString(h, e.rel, e.st.Linkname)
	var fixed [40]byte
	binary.BigEndian.PutUint32(fixed[0:], e.st.Mode)
	binary.BigEndian.PutUint32(fixed[4:], e.st.Uid)
	binary.BigEndian.PutUint32(fixed[8:], e.st.Gid)
	binary.BigEndian.PutUint64(fixed[12:], uint64(e.st.Devmajor))
	binary.BigEndian.PutUint64(fixed[20:], uint64(e.st.Devminor))
	if !fs.FileMode(e.st.Mode).IsDir() {
		binary.BigEndian.PutUint64(fixed[28:], uint64(e.st.Size))
	}
	binary.BigEndian.PutUint32(fixed[36:], uint32(len(e.st.Xattrs)))
	h.Write(fixed[:])
	keys := make([]string, 0, len(e.st.Xattrs))
	for k := range e.st.Xattrs {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		writeString(h, k, string(e.st.Xattrs[k]))
	}
	writeString(h, string(e.sum))
}

// writeString writes strings so that no two lists look the same.
func writeString(h hash.Hash, list ...string) {
	var n [8]byte
	for _, s := range list {
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
}

// entries are the files at and below a root that the patterns select, hashed
// side by side.
func (s Selection) entries(ctx context.Context, t Tree, at string) ([]*entry, error) {
	m, err := newMatcher(s.Include, s.Exclude)
	if err != nil {
		return nil, err
	}
	var list []*entry
	err = walk(t, at, "", func(rel string, st *types.Stat) (bool, error) {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		take, err := m.take(rel)
		if err != nil {
			return false, err
		}
		// A directory may be made on the way to something below it.
		if take || fs.FileMode(st.Mode).IsDir() {
			list = append(list, &entry{rel: rel, st: st})
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	if len(s.Include) > 0 || len(s.Exclude) > 0 {
		if list, err = m.withoutEmptyDirs(list); err != nil {
			return nil, err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0) + 2)
	for _, e := range list {
		if !fs.FileMode(e.st.Mode).IsRegular() {
			continue
		}
		g.Go(func() (err error) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			e.sum, err = t.Sum(path.Join(at, e.rel))
			return err
		})
	}
	return list, g.Wait()
}

// matcher applies patterns as the copy does: parents count.
type matcher struct {
	include, exclude *patternmatcher.PatternMatcher
}

func newMatcher(include, exclude []string) (m matcher, err error) {
	if len(include) > 0 {
		if m.include, err = patternmatcher.New(include); err != nil {
			return m, fmt.Errorf("pattern: %w", err)
		}
	}
	if len(exclude) > 0 {
		if m.exclude, err = patternmatcher.New(exclude); err != nil {
			return m, fmt.Errorf("pattern: %w", err)
		}
	}
	return m, nil
}

func (m matcher) take(rel string) (bool, error) {
	if rel == "" {
		return true, nil
	}
	if m.include != nil {
		if ok, err := m.include.MatchesOrParentMatches(rel); err != nil || !ok {
			return false, err
		}
	}
	if m.exclude != nil {
		if out, err := m.exclude.MatchesOrParentMatches(rel); err != nil || out {
			return false, err
		}
	}
	return true, nil
}

// withoutEmptyDirs drops directories that are not taken themselves and have
// nothing taken below them. list is in walking order.
func (m matcher) withoutEmptyDirs(list []*entry) ([]*entry, error) {
	needed := map[string]bool{"": true}
	keep := make([]bool, len(list))
	for i := len(list) - 1; i >= 0; i-- {
		rel := list[i].rel
		take, err := m.take(rel)
		if err != nil {
			return nil, err
		}
		if keep[i] = take || needed[rel]; keep[i] {
			for d := path.Dir(rel); d != "." && !needed[d]; d = path.Dir(d) {
				needed[d] = true
			}
		}
	}
	var out []*entry
	for i, e := range list {
		if keep[i] {
			out = append(out, e)
		}
	}
	return out, nil
}
