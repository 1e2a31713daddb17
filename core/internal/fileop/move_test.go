package fileop_test

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fileop"
	"github.com/layerwright/layerwright/core/internal/needs"
)

// plant makes a random tree at root: few names, so that two trees have much in common.
type plant struct {
	t     *testing.T
	r     *rand.Rand
	files []string
}

func (p *plant) grow(dir string, depth int) {
	for _, name := range []string{"a", "b", "c", "d"} {
		at := filepath.Join(dir, name)
		switch n := p.r.Intn(12); {
		case n < 3 && depth > 0:
			require.NoError(p.t, os.Mkdir(at, 0o755))
			p.grow(at, depth-1)
		case n < 6:
			size := p.r.Intn(2000)
			if p.r.Intn(4) == 0 {
				size = 300 << 10
			}
			data := make([]byte, size)
			p.r.Read(data)
			require.NoError(p.t, os.WriteFile(at, data, 0o644))
			p.files = append(p.files, at)
		case n == 6:
			require.NoError(p.t, os.Symlink([]string{"a", "../b", "/c", "nowhere"}[p.r.Intn(4)], at))
		case n == 7 && len(p.files) > 0:
			require.NoError(p.t, os.Link(p.files[p.r.Intn(len(p.files))], at))
		case n == 8:
			require.NoError(p.t, unix.Mkfifo(at, 0o600))
		}
	}
	entries, err := os.ReadDir(dir)
	require.NoError(p.t, err)
	for _, e := range entries {
		p.dress(filepath.Join(dir, e.Name()), e.Type())
	}
}

// dress gives a file attributes and a time in the past.
func (p *plant) dress(at string, kind os.FileMode) {
	owner := []int{0, 0, 1000, 33}[p.r.Intn(4)]
	require.NoError(p.t, os.Lchown(at, owner, owner))
	if kind&os.ModeSymlink == 0 {
		require.NoError(p.t, unix.Chmod(at, []uint32{0o644, 0o755, 0o4755, 0o2711, 0o600}[p.r.Intn(5)]))
		if kind.IsRegular() && p.r.Intn(3) == 0 {
			// CAP_NET_RAW, permitted.
			require.NoError(p.t, unix.Lsetxattr(at, "security.capability", []byte{1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0))
		}
	}
	ts := unix.NsecToTimespec(1_500_000_000_000_000_000 + p.r.Int63n(1e15))
	require.NoError(p.t, unix.UtimesNanoAt(unix.AT_FDCWD, at, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
}

// describe says all that there is to a tree; times since start are "now".
func describe(t *testing.T, root string, start time.Time) string {
	t.Helper()
	var b strings.Builder
	first := map[uint64]string{}
	require.NoError(t, filepath.Walk(root, func(p string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel := strings.TrimPrefix(p, root)
		when := "now"
		if fi.ModTime().Before(start) {
			when = fmt.Sprint(fi.ModTime().UnixNano())
		}
		fmt.Fprintf(&b, "%s %o %d:%d %s", rel, st.Mode, st.Uid, st.Gid, when)
		caps := make([]byte, 64)
		if n, err := unix.Lgetxattr(p, "security.capability", caps); err == nil {
			fmt.Fprintf(&b, " caps %x", caps[:n])
		}
		switch {
		case fi.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
			fmt.Fprintf(&b, " %x links %d first %s", data[:min(len(data), 8)], st.Nlink, first[st.Ino])
			fmt.Fprintf(&b, " size %d", len(data))
		case fi.Mode()&os.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " -> %s", to)
		}
		b.WriteByte('\n')
		return nil
	}))
	return b.String()
}

// moved is what became of one random copy.
type moved struct {
	failed  bool
	changed []string
	tree    string
}

func randomCopy(t *testing.T, seed int64, taken bool) (moved, string) {
	t.Helper()
	outer := t.TempDir()
	r := rand.New(rand.NewSource(seed)) //nolint:gosec // repeatable
	src, root := filepath.Join(outer, "src"), filepath.Join(outer, "root")
	for _, d := range []string{src, root} {
		require.NoError(t, os.Mkdir(d, 0o755))
		p := &plant{t: t, r: r}
		p.grow(d, 3)
		p.dress(d, os.ModeDir)
	}
	pick := func(list ...string) string { return list[r.Intn(len(list))] }
	a := &pb.FileActionCopy{
		Src: pick("/", "/", "/", "/", "/a", "/b", "/a/b"), Dest: pick("/", "/a", "/b/", "/new", "/new/er/", "/a/b/c"),
		Mode: -1, Timestamp: -1, CreateDestPath: true, DirCopyContents: r.Intn(4) > 0,
		FollowSymlink: r.Intn(2) == 0, AlwaysReplaceExistingDestPaths: r.Intn(3) == 0,
	}
	if r.Intn(3) == 0 {
		a.Owner = &pb.ChownOpt{User: &pb.UserOpt{User: &pb.UserOpt_ByID{ByID: 1234}}}
	}
	switch r.Intn(8) {
	case 0:
		a.Mode = 0o4750
	case 1:
		a.ExcludePatterns = []string{"b"}
	case 2:
		a.Timestamp = 1_600_000_000_000_000_000
	}
	start := time.Now().Add(-time.Hour)
	changed, err := fileop.Run(t.Context(), fileop.Op{Root: root, Source: src, Taken: taken,
		Action: &pb.FileAction{Action: &pb.FileAction_Copy{Copy: a}}, Names: func(int64) (string, error) { return root, nil }})
	if err != nil {
		return moved{failed: true}, fmt.Sprint(a, err)
	}
	slices.Sort(changed)
	return moved{changed: changed, tree: describe(t, root, start)}, fmt.Sprint(a)
}

// To move out of a source that nobody looks at again leaves the same tree as to copy.
func TestMovingIsCopying(t *testing.T) {
	needs.Root(t)
	failed := 0
	const seeds = 300
	for seed := range int64(seeds) {
		want, what := randomCopy(t, seed, false)
		got, _ := randomCopy(t, seed, true)
		require.Equal(t, want.failed, got.failed, "seed %d: %s", seed, what)
		require.Equal(t, want.tree, got.tree, "seed %d: %s", seed, what)
		require.Equal(t, want.changed, got.changed, "seed %d: %s", seed, what)
		if want.failed {
			failed++
		}
	}
	require.Less(t, failed, seeds/2, "most of the copies are possible")
}

// What is moved is the file itself, and a small one is not worth it.
func TestALargeFileIsMoved(t *testing.T) {
	x := newTrees(t)
	large := filepath.Join(x.src, "large")
	require.NoError(t, os.WriteFile(large, make([]byte, 1<<20), 0o644))
	inode := func(p string) uint64 {
		var st unix.Stat_t
		require.NoError(t, unix.Lstat(p, &st))
		return st.Ino
	}
	was, small, deep := inode(large), inode(x.src+"/a.txt"), inode(x.src+"/dir/sub/three")
	for from, to := range map[string]string{"/large": "/etc/", "/a.txt": "/etc/", "/dir": "/new"} {
		_, err := fileop.Run(t.Context(), fileop.Op{Root: x.root, Source: x.src, Taken: true,
			Action: &pb.FileAction{Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{Src: from, Dest: to, Mode: -1, Timestamp: -1, DirCopyContents: true, CreateDestPath: true}}}})
		require.NoError(t, err)
	}
	require.Equal(t, was, inode(x.root+"/etc/large"))
	require.NotEqual(t, small, inode(x.root+"/etc/a.txt"))
	require.Equal(t, deep, inode(x.root+"/new/sub/three"))
}
