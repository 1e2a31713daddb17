package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/needs"
)

// exchangeWorld is a root and a tree in a temporary directory, where some inodes
// behave like mount points and some like directories of an image on overlayfs.
type exchangeWorld struct {
	root, tree, ours string
	mountIDs         map[node]int
	lower            map[node]bool
	heldDirs         map[string]bool
	// failAt makes that rename, counted from 1, fail; 0 none.
	failAt, renames int
}

var errInjected = errors.New("injected")

func newExchangeWorld(t *testing.T) *exchangeWorld {
	dir := t.TempDir()
	w := &exchangeWorld{root: dir + "/root", tree: dir + "/root/ours/store/tree", ours: dir + "/root/ours/store/inplace",
		mountIDs: map[node]int{}, lower: map[node]bool{}, heldDirs: map[string]bool{}}
	require.NoError(t, os.MkdirAll(w.tree, 0o755))
	require.NoError(t, os.MkdirAll(w.ours, 0o755))
	return w
}

// node names a file for good: numbers of removed ones are used again.
type node struct {
	ino  uint64
	born unix.StatxTimestamp
}

func nodeOf(name string) node {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &st) != nil {
		return node{}
	}
	return node{ino: st.Ino, born: st.Btime}
}

func (w *exchangeWorld) mount(t *testing.T, rel string) {
	w.mountIDs[nodeOf(in(w.root, rel))] = 100 + len(w.mountIDs)
}

func (w *exchangeWorld) ops(t *testing.T) exchangeOps {
	return exchangeOps{
		rename: func(oldpath, newpath string) error {
			w.renames++
			if w.renames == w.failAt {
				return errInjected
			}
			return w.rename(oldpath, newpath)
		},
		mounts: func() ([]mountPoint, error) {
			var list []mountPoint
			err := filepath.WalkDir(w.root, func(p string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				if id := w.mountIDs[nodeOf(p)]; id != 0 {
					rel, _ := filepath.Rel(w.root, p)
					list = append(list, mountPoint{ID: id, Path: rel})
				}
				return nil
			})
			return list, err
		},
		held: func(dir string) bool { return w.heldDirs[dir] },
	}
}

// rename answers as the kernel does for mount points and lower directories.
func (w *exchangeWorld) rename(oldpath, newpath string) error {
	if w.mountIDs[nodeOf(oldpath)] != 0 || w.mountIDs[nodeOf(newpath)] != 0 {
		return unix.EBUSY
	}
	if w.lower[nodeOf(oldpath)] {
		return unix.EXDEV
	}
	return os.Rename(oldpath, newpath)
}

func (w *exchangeWorld) begin(t *testing.T) *exchange {
	j, err := createJournal(w.ours + "/journal")
	require.NoError(t, err)
	x, err := newExchange(journalBegin{Root: w.root, Tree: w.tree, Aside: w.ours + "/aside", Keep: []string{"ours"}}, j, w.ops(t))
	require.NoError(t, err)
	return x
}

// resume is a new process that has only the journal.
func (w *exchangeWorld) resume(t *testing.T) *exchange {
	j, records, err := openJournal(w.ours + "/journal")
	require.NoError(t, err)
	require.NotNil(t, j)
	return resumeExchange(j, records, w.ops(t))
}

func (w *exchangeWorld) fill(t *testing.T, dir string, entries ...string) {
	for _, e := range entries {
		name, content, isFile := strings.Cut(e, "=")
		p := in(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		switch {
		case strings.HasPrefix(content, "->"):
			require.NoError(t, os.Symlink(content[2:], p))
		case isFile:
			require.NoError(t, os.WriteFile(p, []byte(content), 0o644))
		default:
			require.NoError(t, os.MkdirAll(p, 0o755))
		}
	}
	old := time.Unix(1500000000, 123456789)
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		ours := strings.HasPrefix(p, in(w.root, "ours")) && !strings.HasPrefix(p, w.tree)
		if err == nil && d.Type()&fs.ModeSymlink == 0 && !ours {
			return os.Chtimes(p, old, old)
		}
		return err
	}))
}

// shot is everything about a directory's entries that must come back.
func shot(t *testing.T, dir string, skip ...string) map[string]string {
	m := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		rel, _ := filepath.Rel(dir, p)
		if slices.Contains(skip, rel) {
			return filepath.SkipDir
		}
		st, err := os.Lstat(p)
		require.NoError(t, err)
		sys := st.Sys().(*unixStat)
		text := ""
		switch {
		case st.Mode().IsRegular():
			data, err := os.ReadFile(p)
			require.NoError(t, err)
			text = string(data)
		case st.Mode()&fs.ModeSymlink != 0:
			text, _ = os.Readlink(p)
		}
		mtime := st.ModTime().UnixNano()
		if st.Mode()&fs.ModeSymlink != 0 {
			mtime = 0
		}
		m[rel] = fmt.Sprintf("%v %d:%d %d %q", st.Mode(), sys.Uid, sys.Gid, mtime, text)
		return nil
	}))
	return m
}

func withoutTimes(m map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		f := strings.SplitN(v, " ", 4)
		out[k] = f[0] + " " + f[1] + " " + f[3]
	}
	return out
}

// plainWorld has a mounted file in /etc, a mount of its own, a mount within a
// directory that moves, and directories that cannot be renamed.
func plainWorld(t *testing.T) *exchangeWorld {
	w := newExchangeWorld(t)
	w.fill(t, w.tree, "bin=->usr/bin", "usr/bin/sh=sh", "etc/passwd=image", "etc/hosts=image's", "dev/x=", "proc", "sys", "tmp", "var/lib/dpkg/status=st", "srv=->/nowhere")
	w.fill(t, w.root, ".dockerenv=", "bin/sh=job", "etc/passwd=job", "etc/hosts=job's", "etc/conf.d/a=b", "dev/null=", "proc/1", "sys", "github/workspace/src=code", "checkout/file=c", "lib/deep/er=f", "var/run/docker.sock=", "var/cache/x=y")
	w.mount(t, "etc/hosts")
	w.mount(t, "dev")
	w.mount(t, "proc")
	w.mount(t, "sys")
	w.mount(t, "github/workspace")
	w.mount(t, "checkout")
	w.mount(t, "var/run/docker.sock")
	for _, d := range []string{"bin", "etc", "lib", "lib/deep", "var", "var/run"} {
		w.lower[nodeOf(in(w.root, d))] = true
	}
	require.NoError(t, os.Chmod(w.root, 0o751))
	require.NoError(t, os.Chmod(w.tree, 0o705))
	require.NoError(t, os.Chmod(w.tree+"/etc", 0o711))
	old := time.Unix(1400000000, 5)
	require.NoError(t, os.Chtimes(w.root, old, old))
	require.NoError(t, os.Chtimes(w.tree, old.Add(9), old.Add(9)))
	return w
}

func TestExchangeThereAndBack(t *testing.T) {
	w := plainWorld(t)
	root, tree := shot(t, w.root, "ours"), shot(t, w.tree)
	x := w.begin(t)
	require.NoError(t, x.forth())
	seen := shot(t, w.root, "ours")
	require.Equal(t, []string{".", "bin", "checkout", "checkout/file", "dev", "dev/null", "etc", "etc/hosts", "etc/passwd", "proc", "proc/1",
		"srv", "sys", "tmp", "usr", "usr/bin", "usr/bin/sh", "var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/status", "var/run", "var/run/docker.sock"},
		slices.Sorted(maps.Keys(seen)), "nothing of the job's that can be moved is seen")
	require.Equal(t, tree["."], seen["."], "attributes of / are the image's")
	require.Equal(t, tree["etc"], seen["etc"])
	require.NoError(t, x.back())
	require.NoError(t, x.journal.remove())
	require.Equal(t, root, shot(t, w.root, "ours"))
	require.Equal(t, tree, shot(t, w.tree))
	require.Subset(t, slices.Collect(maps.Keys(x.suspect)), []string{".", "etc", "etc/passwd", "usr", "bin", "tmp", "srv"})
	left, err := os.ReadDir(w.ours)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestExchangeRollsBackWhateverRenameFails(t *testing.T) {
	for k := 1; ; k++ {
		w := plainWorld(t)
		root, tree := shot(t, w.root, "ours"), shot(t, w.tree)
		x := w.begin(t)
		w.failAt = k
		err := x.forth()
		if err == nil {
			require.Greater(t, k, 15, "all renames were counted")
			return
		}
		require.ErrorIs(t, err, errInjected)
		require.NoError(t, x.back())
		require.Equal(t, root, shot(t, w.root, "ours"), "rename %d", k)
		require.Equal(t, tree, shot(t, w.tree), "rename %d", k)
	}
}

func TestRepairAfterDeathAtAnyRename(t *testing.T) {
	for k := 1; ; k++ {
		w := plainWorld(t)
		root, tree := shot(t, w.root, "ours"), shot(t, w.tree)
		x := w.begin(t)
		w.failAt = k
		err := x.forth()
		if err == nil {
			err = x.back()
		}
		if err == nil {
			require.Greater(t, k, 30)
			return
		}
		// The process is gone; another one has the journal only.
		x = w.resume(t)
		require.NoError(t, x.back())
		require.Equal(t, root, shot(t, w.root, "ours"), "rename %d", k)
		require.Equal(t, withoutTimes(tree), withoutTimes(shot(t, w.tree)), "rename %d", k)
	}
}

func TestExchangeCollisionMovesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		tree, mount, path string
		lower             string
	}{
		"directory at the top":            {tree: "checkout/file=image", mount: "/checkout", path: "/checkout"},
		"link at the top":                 {tree: "checkout=->tmp", mount: "/checkout", path: "/checkout"},
		"deeper":                          {tree: "opt/data/file=image", mount: "/opt/data", path: "/opt/data", lower: "opt"},
		"no directory on the way":         {tree: "opt=file", mount: "/opt/data", path: "/opt", lower: "opt"},
		"etc is a link":                   {tree: "etc=->usr/etc", mount: "/etc/config", path: "/etc"},
		"a file of etc that is a mount":   {tree: "etc/config=image", mount: "/etc/config", path: "/etc/config"},
		"a directory over a mounted file": {tree: "etc/config/x=image", mount: "/etc/config", path: "/etc/config"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newExchangeWorld(t)
			w.fill(t, w.root, "a=", "checkout/f=", "opt/data/f=", "etc/hosts=", "etc/config=")
			w.fill(t, w.tree, c.tree, "usr")
			for _, m := range []string{"checkout", "opt/data", "etc/hosts", "etc/config"} {
				w.mount(t, m)
			}
			if c.lower != "" {
				w.lower[nodeOf(in(w.root, c.lower))] = true
			}
			root, tree := shot(t, w.root, "ours"), shot(t, w.tree)
			x := w.begin(t)
			var collision *CollisionError
			require.ErrorAs(t, x.forth(), &collision)
			require.Equal(t, CollisionError{Mount: c.mount, Path: c.path}, *collision)
			require.NoError(t, x.back())
			require.Equal(t, root, shot(t, w.root, "ours"))
			require.Equal(t, tree, shot(t, w.tree))
		})
	}
}

func TestExchangeTakesWhatTheStepDid(t *testing.T) {
	for name, c := range map[string]struct {
		step func(t *testing.T, root string)
		want map[string]string // path → content; "" a directory, "-" missing, "->x" a link
	}{
		"deletes top-level entries": {func(t *testing.T, r string) {
			require.NoError(t, os.RemoveAll(r+"/usr"))
			require.NoError(t, os.Remove(r+"/bin"))
		}, map[string]string{"usr": "-", "bin": "-", "tmp": ""}},
		"creates and replaces": {func(t *testing.T, r string) {
			require.NoError(t, os.WriteFile(r+"/new", []byte("n"), 0o600))
			require.NoError(t, os.RemoveAll(r+"/tmp"))
			require.NoError(t, os.Symlink("var/tmp", r+"/tmp"))
			require.NoError(t, os.WriteFile(r+"/.dockerenv", []byte("mine"), 0o600))
			require.NoError(t, os.MkdirAll(r+"/github/mine", 0o755))
		}, map[string]string{"new": "n", "tmp": "->var/tmp", ".dockerenv": "mine", "github/mine": "", "github/workspace": "-"}},
		"renames at the top": {func(t *testing.T, r string) {
			require.NoError(t, os.Rename(r+"/usr", r+"/usr2"))
			require.NoError(t, os.Rename(r+"/tmp", r+"/usr2/tmp"))
		}, map[string]string{"usr": "-", "usr2/bin/sh": "sh", "usr2/tmp": ""}},
		"changes etc": {func(t *testing.T, r string) {
			require.NoError(t, os.WriteFile(r+"/etc/new", []byte("n"), 0o600))
			require.NoError(t, os.Remove(r+"/etc/passwd"))
			require.NoError(t, os.Chmod(r+"/etc", 0o500))
		}, map[string]string{"etc/new": "n", "etc/passwd": "-", "etc/hosts": "image's"}},
		"renames etc with its mounts": {func(t *testing.T, r string) {
			require.NoError(t, os.Rename(r+"/etc", r+"/etc2"))
		}, map[string]string{"etc": "-", "etc2/passwd": "image", "etc2/hosts": "image's"}},
		"renames etc and makes another": {func(t *testing.T, r string) {
			require.NoError(t, os.Rename(r+"/etc", r+"/usr/etc"))
			require.NoError(t, os.Symlink("usr/etc", r+"/etc"))
		}, map[string]string{"etc": "->usr/etc", "usr/etc/passwd": "image", "usr/etc/hosts": "image's"}},
		"replaces a merged directory by a link": {func(t *testing.T, r string) {
			require.NoError(t, os.RemoveAll(r+"/held"))
			require.NoError(t, os.Symlink("usr", r+"/held"))
		}, map[string]string{"held": "->usr"}},
		"removes a merged directory": {func(t *testing.T, r string) {
			require.NoError(t, os.RemoveAll(r+"/held"))
		}, map[string]string{"held": "-"}},
		"makes a merged directory anew": {func(t *testing.T, r string) {
			require.NoError(t, os.RemoveAll(r+"/held"))
			require.NoError(t, os.MkdirAll(r+"/held/again", 0o700))
		}, map[string]string{"held/again": "", "held/image": "-"}},
	} {
		for _, crash := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, crash %v", name, crash), func(t *testing.T) {
				w := plainWorld(t)
				w.fill(t, w.root, "held/sub/job=j")
				w.fill(t, w.tree, "held/image=i")
				delete(w.lower, nodeOf(w.root+"/etc"))
				w.lower[nodeOf(w.root+"/held")] = true
				w.lower[nodeOf(w.root+"/held/sub")] = true
				w.heldDirs[w.root+"/held"], w.heldDirs[w.root+"/held/sub"] = true, true
				root := shot(t, w.root, "ours")
				x := w.begin(t)
				require.NoError(t, x.forth())
				c.step(t, w.root)
				if crash {
					x = w.resume(t)
				}
				require.NoError(t, x.back())
				require.Equal(t, root, shot(t, w.root, "ours"))
				for p, want := range c.want {
					st, err := os.Lstat(in(w.tree, p))
					if want == "-" {
						require.ErrorIs(t, err, fs.ErrNotExist, p)
						continue
					}
					require.NoError(t, err, p)
					switch {
					case want == "":
						require.True(t, st.IsDir(), p)
					case strings.HasPrefix(want, "->"):
						to, err := os.Readlink(in(w.tree, p))
						require.NoError(t, err)
						require.Equal(t, want[2:], to)
					default:
						data, err := os.ReadFile(in(w.tree, p))
						require.NoError(t, err, p)
						require.Equal(t, want, string(data))
					}
				}
				require.FileExists(t, w.tree+"/dev/x", "unseen, and not lost")
			})
		}
	}
}

func TestExchangeTreeWithoutEtc(t *testing.T) {
	for _, writes := range []bool{false, true} {
		w := newExchangeWorld(t)
		w.fill(t, w.root, "etc/hosts=h", "etc/passwd=job", "proc")
		w.mount(t, "etc/hosts")
		w.fill(t, w.tree, "app=a")
		root, tree := shot(t, w.root, "ours"), shot(t, w.tree)
		x := w.begin(t)
		require.NoError(t, x.forth())
		require.NoFileExists(t, w.root+"/etc/passwd")
		if writes {
			require.NoError(t, os.WriteFile(w.root+"/etc/group", []byte("g"), 0o644))
		}
		require.NoError(t, x.back())
		require.Equal(t, root, shot(t, w.root, "ours"))
		if !writes {
			require.Equal(t, tree, shot(t, w.tree))
			continue
		}
		require.FileExists(t, w.tree+"/etc/group")
		require.NoFileExists(t, w.tree+"/etc/hosts")
		require.Contains(t, x.suspect, "etc")
	}
}

func TestExchangeOfAttributes(t *testing.T) {
	w := plainWorld(t)
	if err := unix.Lsetxattr(w.tree+"/etc", "user.image", []byte("1"), 0); err != nil {
		needs.Missing(t, "no user xattrs on this filesystem: "+err.Error())
	}
	require.NoError(t, unix.Lsetxattr(w.root+"/etc", "user.job", []byte("2"), 0))
	x := w.begin(t)
	require.NoError(t, x.forth())
	a, err := readAttrs(w.root + "/etc")
	require.NoError(t, err)
	require.Equal(t, map[string][]byte{"user.image": []byte("1")}, a.Xattrs)
	require.Equal(t, uint32(0o711), a.Mode)
	require.NoError(t, unix.Lsetxattr(w.root+"/etc", "user.step", []byte("3"), 0))
	require.NoError(t, unix.Lremovexattr(w.root+"/etc", "user.image"))
	require.NoError(t, os.Chmod(w.root, 0o700|fs.ModeSticky))
	require.NoError(t, x.back())
	a, err = readAttrs(w.root + "/etc")
	require.NoError(t, err)
	require.Equal(t, map[string][]byte{"user.job": []byte("2")}, a.Xattrs)
	a, err = readAttrs(w.tree + "/etc")
	require.NoError(t, err)
	require.Equal(t, map[string][]byte{"user.step": []byte("3")}, a.Xattrs)
	a, err = readAttrs(w.tree)
	require.NoError(t, err)
	require.Equal(t, uint32(0o1700), a.Mode)
}

// TestExchangeProperty: whatever the root and the tree are and the step does, the
// tree is afterwards what a plain copy of it is after the same, and the root is
// what it was.
func TestExchangeProperty(t *testing.T) {
	for seed := range uint64(150) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			w := newExchangeWorld(t)
			w.fill(t, w.root, "proc", "dev/null=", "sys", "etc/hosts=job")
			w.fill(t, w.root, randomEntries(rng, "job")...)
			w.fill(t, w.tree, "etc/hosts=image", "dev", "proc")
			w.fill(t, w.tree, randomEntries(rng, "image")...)
			for _, m := range []string{"proc", "dev", "sys", "etc/hosts"} {
				w.mount(t, m)
			}
			require.NoError(t, filepath.WalkDir(w.root, func(p string, d fs.DirEntry, err error) error {
				rel, _ := filepath.Rel(w.root, p)
				switch {
				case rel == "ours":
					return filepath.SkipDir
				case d.IsDir() && rel != "." && rng.IntN(3) == 0:
					w.lower[nodeOf(p)] = true
					w.heldDirs[p] = rng.IntN(4) == 0
				case rng.IntN(12) == 0 && strings.Contains(rel, "/") && w.mountIDs[nodeOf(p)] == 0:
					w.mount(t, rel)
				}
				return err
			}))
			plain := t.TempDir() + "/plain"
			require.NoError(t, copyInto(w.tree, plain))
			root, tree := shot(t, w.root, "ours"), shot(t, w.tree)
			x := w.begin(t)
			if err := x.forth(); err != nil {
				var collision *CollisionError
				require.ErrorAs(t, err, &collision)
				require.NoError(t, x.back())
				require.Equal(t, tree, shot(t, w.tree))
			} else {
				for range 12 {
					w.mutate(t, rng, x, plain)
				}
				if rng.IntN(3) == 0 {
					x = w.resume(t)
				}
				require.NoError(t, x.back())
				require.Equal(t, withoutTimes(shot(t, plain)), withoutTimes(shot(t, w.tree)))
			}
			require.Equal(t, root, shot(t, w.root, "ours"))
		})
	}
}

func randomEntries(rng *rand.Rand, content string) []string {
	names := []string{"a", "b", "c", "etc", "usr"}
	seen := map[string]bool{}
	var list []string
	for range 3 + rng.IntN(12) {
		p := ""
		for range 1 + rng.IntN(3) {
			p = path.Join(p, names[rng.IntN(len(names))])
		}
		// No file where a directory is, and the other way round.
		if strings.Count(p, "/") == 2 {
			p += ".txt=" + content
		} else if rng.IntN(5) == 0 {
			p += ".l=->../a"
		}
		if !seen[p] {
			seen[p] = true
			list = append(list, p)
		}
	}
	return list
}

// mutate does one random thing at the root and in the plain copy alike, as far as
// the kernel would let a step.
func (w *exchangeWorld) mutate(t *testing.T, rng *rand.Rand, x *exchange, plain string) {
	var paths []string
	for p := range shot(t, plain) {
		stays := func(f string) bool { return f == p || strings.HasPrefix(f, p+"/") || strings.HasPrefix(p, f+"/") }
		if p != "." && !slices.ContainsFunc(slices.Collect(maps.Keys(x.fixed)), stays) && exists(in(w.root, p)) {
			paths = append(paths, p)
		}
	}
	if len(paths) == 0 {
		return
	}
	slices.Sort(paths)
	p, q := paths[rng.IntN(len(paths))], paths[rng.IntN(len(paths))]
	kind, number := rng.IntN(6), rng.IntN(1000)
	lower := false
	_ = filepath.WalkDir(in(w.root, p), func(name string, d fs.DirEntry, err error) error {
		lower = lower || err == nil && w.lower[nodeOf(name)]
		return nil
	})
	for _, dir := range []string{w.root, plain} {
		name := in(dir, p)
		st, err := os.Lstat(name)
		require.NoError(t, err)
		switch kind {
		case 0:
			require.NoError(t, os.RemoveAll(name))
		case 1:
			require.NoError(t, os.RemoveAll(name))
			require.NoError(t, os.Symlink("to", name))
		case 2:
			if !lower {
				_ = os.Rename(name, filepath.Join(filepath.Dir(in(dir, q)), fmt.Sprint("r", number)))
			}
		case 3:
			require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(name), fmt.Sprint("n", number)), []byte("step"), 0o640))
		case 4:
			if st.IsDir() {
				require.NoError(t, os.Chmod(name, 0o700|fs.FileMode(number&0o77)))
			}
		case 5:
			if st.IsDir() {
				require.NoError(t, os.RemoveAll(name))
				require.NoError(t, os.MkdirAll(in(name, "anew"), 0o755))
			}
		}
	}
}
