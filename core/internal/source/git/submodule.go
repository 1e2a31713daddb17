package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/config"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// module is what .gitmodules says of one submodule.
type module struct {
	name, path, url string
	skip            bool
}

// readModules reads .gitmodules at the top of a tree.
func (t *tree) readModules(at *object.Tree) error {
	e, err := at.FindEntry(".gitmodules")
	if err != nil || e.Mode == filemode.Dir || e.Mode == filemode.Symlink || e.Mode == filemode.Submodule {
		return nil //nolint:nilerr // it has no submodules, or none that git would know of
	}
	data, err := t.store.blob(e.Hash, maxModules)
	if err != nil {
		return fmt.Errorf("read .gitmodules: %w", err)
	}
	cfg := config.New()
	if err := config.NewDecoder(bytes.NewReader(data)).Decode(cfg); err != nil {
		return fault.New(fault.User, "git repository %s: .gitmodules: %w", t.remote.shown, err).With("Correct the file in the repository.")
	}
	for _, s := range cfg.Section("submodule").Subsections {
		t.modules = append(t.modules, module{name: s.Name, path: path.Clean(s.Option("path")), url: s.Option("url"), skip: s.Option("update") == "none"})
	}
	return nil
}

// submodules fills the directories of the submodules that were met.
func (t *tree) submodules(ctx context.Context, top *os.Root) (err error) {
	for _, l := range t.links {
		if err == nil && !t.req.skipSubmodules {
			err = t.submodule(ctx, top, l, "")
		}
		err = errors.Join(err, l.dir.Close())
	}
	return err
}

// submodule puts the directory subdir of a submodule's files into its
// directory.
func (t *tree) submodule(ctx context.Context, top *os.Root, l link, subdir string) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.User, "git repository %s: submodule %s: "+format, append([]any{t.remote.shown, l.path}, args...)...).
			With("Correct .gitmodules in the repository, or skip submodules with ?submodules=false in the URL.")
	}
	var m *module
	for i := range t.modules {
		if t.modules[i].path == l.path {
			m = &t.modules[i]
		}
	}
	switch {
	case m == nil || m.url == "":
		return bad(".gitmodules has no URL for it")
	case m.skip:
		return nil
	case t.depth >= maxDepth:
		return bad("it is the submodule of too many others")
	case !safeModule(m.name):
		return bad("its name %q is not allowed", m.name)
	}
	r, err := t.relative(m.url)
	if err != nil {
		return bad("%w", err)
	}
	st, err := t.src.get(ctx, r, l.hash.String())
	if err != nil {
		return fault.Wrap(fault.Registry, err, "submodule "+l.path)
	}
	commit, _, err := st.peel(l.hash)
	if err != nil {
		return bad("commit %s: %w", l.hash, err)
	}
	sub := &tree{checkout: t.checkout, remote: r, store: st, commit: commit, place: l.place, depth: t.depth + 1}
	if t.gitDir != "" {
		sub.gitDir = path.Join(t.gitDir, "modules", m.name)
	}
	if err := sub.lay(ctx, top, l.dir, subdir); err != nil {
		return err
	}
	if sub.gitDir == "" {
		return nil
	}
	to := relativePath(l.place, sub.gitDir)
	if err := writeNew(l.dir, ".git", []byte("gitdir: "+to+"\n"), 0o644); err != nil {
		return fmt.Errorf("submodule %s: %w", l.path, err)
	}
	if err := sub.writeGitDir(top, nil); err != nil {
		return fmt.Errorf("submodule %s: write .git: %w", l.path, err)
	}
	return nil
}

// safeModule says whether git accepts a submodule's name, which is a path below
// .git/modules.
func safeModule(name string) bool {
	if name == "" || strings.HasPrefix(name, "-") {
		return false
	}
	for _, p := range strings.FieldsFunc(name, func(r rune) bool { return r == '/' || r == '\\' }) {
		if p == ".." || p == "." {
			return false
		}
	}
	return !strings.HasPrefix(name, "/")
}

// relative reads a submodule's URL, which may be relative to its parent's.
func (t *tree) relative(raw string) (*remote, error) {
	if strings.HasPrefix(raw, "-") || strings.ContainsAny(raw, "\n\r\x00") {
		return nil, errors.New("its URL is not allowed")
	}
	if strings.HasPrefix(raw, "./") || strings.HasPrefix(raw, "../") {
		raw = joinURL(t.remote.url, raw)
	}
	if u, err := url.Parse(raw); err == nil && u.Scheme != "" {
		u.Fragment, u.RawQuery = "", ""
		raw = u.String()
	}
	return parseRemote(raw, t.remote.access)
}

// joinURL applies ./ and ../ to a URL as git does: a last part goes per ../, of
// USER@HOST:PATH also the one before the colon's end.
func joinURL(base, rel string) string {
	base = strings.TrimSuffix(base, "/")
	sep := "/"
	for {
		if r, ok := strings.CutPrefix(rel, "./"); ok {
			rel = r
			continue
		}
		r, ok := strings.CutPrefix(rel, "../")
		if !ok {
			break
		}
		rel = r
		if i := strings.LastIndex(base, "/"); i >= 0 {
			base = base[:i]
		} else if i := strings.LastIndex(base, ":"); i >= 0 {
			base, sep = base[:i], ":"
		}
	}
	return strings.TrimSuffix(base+sep+rel, "/")
}

// relativePath is the way from one directory of the target to another.
func relativePath(from, to string) string {
	return strings.Repeat("../", strings.Count(from, "/")+1) + to
}
