package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// back puts everything where it was, from any phase, and can be called again
// after it failed. What is at the root and is not the container's goes to the
// tree: also what a step has made, and what it has deleted is missing there.
func (x *exchange) back() error {
	switch x.phase {
	case inPhase, runPhase, outPhase:
		ran := x.phase != inPhase
		if ran {
			if err := x.bringHome(); err != nil {
				return err
			}
			if err := x.note(journalRecord{Phase: outPhase}); err != nil {
				return err
			}
		}
		if err := x.moveOut("", ran); err != nil {
			return err
		}
		if err := x.note(journalRecord{Phase: backPhase}); err != nil {
			return err
		}
	}
	if err := x.restore(""); err != nil {
		return err
	}
	if err := os.Remove(x.Aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove directory: %w", err)
	}
	_ = removeAll(x.strayDir())
	return nil
}

// strayDir is where things are kept that are in the way for a moment.
func (x *exchange) strayDir() string { return x.Aside + ".stray" }

// setStray moves what is at an absolute path out of the way.
func (x *exchange) setStray(name string) (string, error) {
	if err := os.MkdirAll(x.strayDir(), 0o700); err != nil {
		return "", fmt.Errorf("create directory: %w", err)
	}
	for i := 0; ; i++ {
		to := in(x.strayDir(), strconv.Itoa(i))
		if !exists(to) {
			return to, x.ops.rename(name, to)
		}
	}
}

// moveOut moves what is at the root's directory rel, and is not the container's,
// to the tree. Taken says that the directory's attributes are the step's.
func (x *exchange) moveOut(rel string, taken bool) error {
	m := x.merged[rel]
	if m == nil {
		return nil // the failure was before the first entry
	}
	now, err := readAttrs(in(x.Root, rel))
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(in(x.Root, rel))
	if err != nil {
		return fmt.Errorf("read directory: %w", err)
	}
	for _, e := range entries {
		p := path.Join(rel, e.Name())
		if _, ok := x.fixed[p]; ok {
			continue
		}
		if sub := x.merged[p]; sub != nil && e.IsDir() {
			if _, gone := x.gone[p]; gone {
				continue // nothing of the step is left in it
			}
			if err := x.moveOut(p, taken); err != nil {
				return err
			}
			continue
		}
		if err := x.moveOutEntry(rel, p); err != nil {
			return err
		}
	}
	if err := x.dropRemoved(rel, taken); err != nil {
		return err
	}
	switch st, err := os.Lstat(in(x.Tree, rel)); {
	case err != nil || !st.IsDir():
		return nil
	case m.Tree == nil || taken:
		return now.apply(in(x.Tree, rel))
	default:
		return m.Tree.apply(in(x.Tree, rel))
	}
}

// moveOutEntry moves one entry, making its directory in the tree where the image
// has none.
func (x *exchange) moveOutEntry(rel, p string) error {
	if !exists(in(x.Tree, rel)) {
		if err := os.MkdirAll(in(x.Tree, rel), 0o755); err != nil {
			return fmt.Errorf("create directory: %w", err)
		}
	}
	if x.merged[p] != nil && exists(in(x.Tree, p)) {
		// The step has put something else in the place of a directory:
		// what the tree has there is an empty shell.
		if err := removeAll(in(x.Tree, p)); err != nil {
			return fmt.Errorf("remove /%s: %w", p, cause(err))
		}
	}
	if err := x.ops.rename(in(x.Root, p), in(x.Tree, p)); err != nil {
		return fmt.Errorf("move /%s back into the tree: %w", p, linkCause(err))
	}
	x.suspect[p] = true
	x.suspect[path.Join(".", rel)] = true
	return nil
}

// dropRemoved removes from the tree the merged directories directly in rel that
// the step has removed, or moved elsewhere.
func (x *exchange) dropRemoved(rel string, taken bool) error {
	if !taken {
		return nil
	}
	for p, m := range x.merged {
		if p == "" || dirOf(p) != rel {
			continue
		}
		occupant, moved := x.gone[p]
		if !moved && exists(in(x.Root, p)) {
			continue
		}
		// A directory is the shell that stayed; anything else has just been
		// moved there.
		if st, err := os.Lstat(in(x.Tree, p)); err == nil && st.IsDir() && (moved || m.Tree != nil) {
			if err := removeAll(in(x.Tree, p)); err != nil {
				return fmt.Errorf("remove /%s: %w", p, cause(err))
			}
		}
		if occupant != "" {
			if err := x.ops.rename(occupant, in(x.Tree, p)); err != nil {
				return fmt.Errorf("move /%s back into the tree: %w", p, linkCause(err))
			}
			x.suspect[p] = true
		}
	}
	return nil
}

// dirOf is the directory of a relative path, "" at the top.
func dirOf(rel string) string {
	if dir := path.Dir(rel); dir != "." {
		return dir
	}
	return ""
}

// bringHome looks whether the step has renamed a directory with mounts in it,
// such as /etc. The directory goes back to its place, and what the tree is to
// have at the new name is put there.
func (x *exchange) bringHome() error {
	for range len(x.fixed) {
		mounts, err := x.ops.mounts()
		if err != nil {
			return err
		}
		from, to, ok := x.displaced(mounts)
		if !ok {
			return nil
		}
		if err := x.bringBack(from, to); err != nil {
			return fmt.Errorf("bring /%s back from /%s: %w", to, from, linkCause(err))
		}
	}
	return nil
}

// displaced finds a directory with a fixed mount that is at from and belongs to
// home.
func (x *exchange) displaced(mounts []mountPoint) (from, home string, ok bool) {
	for _, f := range x.fixed {
		for _, m := range mounts {
			if f.Mount == 0 || m.ID != f.Mount || m.Path == f.Path {
				continue
			}
			// A mount point itself cannot be renamed, its directory can, or
			// one further up, which is then missing at its place.
			from, home = dirOf(m.Path), dirOf(f.Path)
			for path.Base(from) == path.Base(home) && dirOf(home) != "" && dirOf(from) != "" && !exists(in(x.Root, dirOf(home))) {
				from, home = dirOf(from), dirOf(home)
			}
			return from, home, home != "" && from != ""
		}
	}
	return "", "", false
}

// bringBack renames the root's directory from to home, and leaves at from what
// the step has there.
func (x *exchange) bringBack(from, home string) error {
	if err := os.MkdirAll(x.strayDir(), 0o700); err != nil {
		return err
	}
	steps, err := os.MkdirTemp(x.strayDir(), "moved-")
	if err != nil {
		return err
	}
	if err := x.split(from, home, steps); err != nil {
		return err
	}
	occupant := ""
	if exists(in(x.Root, home)) {
		if occupant, err = x.setStray(in(x.Root, home)); err != nil {
			return err
		}
	}
	if err := x.ops.rename(in(x.Root, from), in(x.Root, home)); err != nil {
		return err
	}
	x.gone[home] = occupant
	return x.ops.rename(steps, in(x.Root, from))
}

// split moves what belongs to the step out of the root's directory from, whose
// place is home, into the directory steps; also what the tree has unseen there.
func (x *exchange) split(from, home, steps string) error {
	a, err := readAttrs(in(x.Root, from))
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(in(x.Root, from))
	if err != nil {
		return err
	}
	for _, e := range entries {
		p := path.Join(home, e.Name())
		_, fixed := x.fixed[p]
		sub := x.merged[p] != nil && e.IsDir()
		switch {
		case fixed && exists(in(x.Tree, p)):
			err = x.ops.rename(in(x.Tree, p), in(steps, e.Name()))
		case fixed:
		case sub:
			if err = os.Mkdir(in(steps, e.Name()), 0o755); err == nil {
				err = x.split(path.Join(from, e.Name()), p, in(steps, e.Name()))
			}
		default:
			err = x.ops.rename(in(in(x.Root, from), e.Name()), in(steps, e.Name()))
		}
		if err != nil {
			return err
		}
	}
	return a.apply(steps)
}

// restore puts the container's entries of rel back to the root and gives the
// directory its own attributes.
func (x *exchange) restore(rel string) error {
	entries, err := os.ReadDir(in(x.Aside, rel))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read directory: %w", err)
	}
	for _, e := range entries {
		if err := x.restoreEntry(path.Join(rel, e.Name()), e); err != nil {
			return err
		}
	}
	// Also those of which nothing was set aside.
	for p := range x.merged {
		if p != "" && dirOf(p) == rel &&
			!slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == path.Base(p) }) && exists(in(x.Root, p)) {
			if err := x.restore(p); err != nil {
				return err
			}
		}
	}
	if m := x.merged[rel]; m != nil {
		return m.Own.apply(in(x.Root, rel))
	}
	return nil
}

func (x *exchange) restoreEntry(p string, e fs.DirEntry) error {
	own, aside := in(x.Root, p), in(x.Aside, p)
	st, err := os.Lstat(own)
	if err == nil && st.IsDir() && e.IsDir() {
		// Attributes of one that was about to be made anew: from aside.
		var a attrs
		if x.merged[p] == nil {
			if a, err = readAttrs(aside); err != nil {
				return err
			}
		}
		if err := x.restore(p); err != nil {
			return err
		}
		if x.merged[p] == nil {
			if err := a.apply(own); err != nil {
				return err
			}
		}
		if err := os.Remove(aside); err != nil {
			return fmt.Errorf("remove directory: %w", err)
		}
		return nil
	}
	if err == nil {
		if _, err := x.setStray(own); err != nil {
			return fmt.Errorf("restore /%s: %w", p, linkCause(err))
		}
	}
	if err := x.ops.rename(aside, own); err != nil {
		return fmt.Errorf("restore /%s: %w", p, linkCause(err))
	}
	// Where the step has removed merged directories, those set aside have
	// taken their places and still need their attributes, the deepest first.
	var within []string
	for q := range x.merged {
		if q == p || strings.HasPrefix(q, p+"/") {
			within = append(within, q)
		}
	}
	slices.SortFunc(within, func(a, b string) int { return len(b) - len(a) })
	for _, q := range within {
		if err := x.merged[q].Own.apply(in(x.Root, q)); err != nil {
			return err
		}
	}
	return nil
}
