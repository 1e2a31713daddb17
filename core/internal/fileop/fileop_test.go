package fileop_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/moby/buildkit/solver/pb"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/fileop"
	"github.com/layerwright/layerwright/core/internal/needs"
)

// trees are a source and a root, below one directory with a secret outside.
type trees struct{ outer, src, root string }

func newTrees(t *testing.T) trees {
	t.Helper()
	needs.Root(t)
	outer := t.TempDir()
	x := trees{outer, filepath.Join(outer, "src"), filepath.Join(outer, "root")}
	for _, d := range []string{"src/dir/sub", "root/etc", "root/d/sub", "root/real"} {
		require.NoError(t, os.MkdirAll(filepath.Join(outer, d), 0o755))
	}
	for name, data := range map[string]string{"secret": "outside", "src/a.txt": "a", "src/b.txt": "b", "src/dir/one": "1", "src/dir/sub/three": "3",
		"root/d/one": "old", "root/d/keep": "keep", "root/etc/passwd": "app:x:1000:1001::/:/bin/sh\n", "root/etc/group": "staff:x:50:\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(outer, name), []byte(data), 0o644))
	}
	require.NoError(t, os.Symlink("real", x.root+"/link"))
	require.NoError(t, os.Symlink("../../../../../secret", x.src+"/out"))
	require.NoError(t, os.Symlink("../secret", x.root+"/out"))
	past := time.Now().Add(-time.Hour)
	require.NoError(t, filepath.Walk(outer, func(p string, fi os.FileInfo, err error) error {
		if err == nil && fi.Mode()&os.ModeSymlink == 0 {
			err = os.Chtimes(p, past, past)
		}
		return err
	}))
	return x
}

// snapshot describes every path of a tree by what a layer would record.
func snapshot(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	require.NoError(t, filepath.Walk(root, func(p string, fi os.FileInfo, err error) error {
		if err != nil || p == root {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		d := fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
		if !fi.IsDir() {
			d += fmt.Sprintf(" %d %d ino %d", st.Size, st.Mtim.Nano(), st.Ino)
		}
		out[strings.TrimPrefix(p, root+"/")] = d
		return nil
	}))
	return out
}

// do runs an action and checks what the snapshot driver relies on: every path
// that differs afterwards is among the changed ones.
func (x trees) do(t *testing.T, a *pb.FileAction) ([]string, error) {
	t.Helper()
	before := snapshot(t, x.root)
	changed, err := fileop.Run(t.Context(), fileop.Op{Root: x.root, Source: x.src, Action: a, Names: func(int64) (string, error) { return x.root, nil }})
	if err != nil {
		return changed, err
	}
	listed := map[string]bool{}
	for _, c := range changed {
		listed[c] = true
	}
	after := snapshot(t, x.root)
	for p, d := range after {
		if before[p] != d {
			require.True(t, listed[p], "%s has changed and is not listed: %v", p, changed)
		}
	}
	for p := range before {
		if _, ok := after[p]; ok {
			continue
		}
		for q := p; q != "."; q = filepath.Dir(q) {
			if listed[q] {
				p = ""
				break
			}
		}
		require.Empty(t, p, "vanished and is not listed: %v", changed)
	}
	b, err := os.ReadFile(x.outer + "/secret")
	require.NoError(t, err)
	require.Equal(t, "outside", string(b))
	return changed, nil
}

func cp(src, dest string, change ...func(*pb.FileActionCopy)) *pb.FileAction {
	c := &pb.FileActionCopy{Src: src, Dest: dest, Mode: -1, Timestamp: -1, FollowSymlink: true, DirCopyContents: true, CreateDestPath: true, AllowWildcard: true, AllowEmptyWildcard: true}
	for _, f := range change {
		f(c)
	}
	return &pb.FileAction{Action: &pb.FileAction_Copy{Copy: c}}
}

func byName(user, group string) *pb.ChownOpt {
	o := &pb.ChownOpt{User: &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: user}}}}
	if group != "" {
		o.Group = &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: group}}}
	}
	return o
}

func (x trees) read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(x.root, name))
	require.NoError(t, err)
	return string(b)
}

func (x trees) stat(t *testing.T, name string) string {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, unix.Lstat(filepath.Join(x.root, name), &st))
	return fmt.Sprintf("%o %d:%d", st.Mode&0o7777, st.Uid, st.Gid)
}

func TestCopy(t *testing.T) {
	cases := []struct {
		name   string
		action *pb.FileAction
		want   map[string]string
	}{
		{"a file to a new name", cp("/a.txt", "/new"), map[string]string{"new": "a"}},
		{"a file into a directory", cp("/a.txt", "/etc/"), map[string]string{"etc/a.txt": "a"}},
		{"a file onto a directory", cp("/a.txt", "/d"), map[string]string{"d/a.txt": "a"}},
		{"a file with directories to be made", cp("/a.txt", "/x/y/z"), map[string]string{"x/y/z": "a"}},
		{"a directory's content", cp("/dir", "/new"), map[string]string{"new/one": "1", "new/sub/three": "3"}},
		{"a directory over a directory", cp("/dir", "/d"), map[string]string{"d/one": "1", "d/keep": "keep", "d/sub/three": "3"}},
		{"wildcards", cp("/*.txt", "/w/"), map[string]string{"w/a.txt": "a", "w/b.txt": "b"}},
		{"wildcards that match nothing", cp("/*.nope", "/w/"), nil},
		{"through a link of the tree", cp("/a.txt", "/link/f"), map[string]string{"real/f": "a"}},
		{"a directory through a link of the tree", cp("/dir", "/link"), map[string]string{"real/one": "1", "real/sub/three": "3"}},
		{"exclude", cp("/", "/c/", func(c *pb.FileActionCopy) { c.ExcludePatterns = []string{"*.txt", "out"} }), map[string]string{"c/dir/one": "1"}},
		{"include, with parents", cp("/", "/p/", func(c *pb.FileActionCopy) { c.IncludePatterns = []string{"dir/sub/three"} }), map[string]string{"p/dir/sub/three": "3"}},
		{"a type replaced on demand", cp("/a.txt", "/link", func(c *pb.FileActionCopy) { c.AlwaysReplaceExistingDestPaths = true }), nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			x := newTrees(t)
			_, err := x.do(t, c.action)
			require.NoError(t, err)
			for name, data := range c.want {
				require.Equal(t, data, x.read(t, name))
			}
		})
	}
}

func TestCopyOwnerAndMode(t *testing.T) {
	cases := []struct {
		name   string
		change func(*pb.FileActionCopy)
		want   string
	}{
		{"user and group by name", func(c *pb.FileActionCopy) { c.Owner = byName("app", "staff") }, "644 1000:50"},
		{"a user's own group", func(c *pb.FileActionCopy) { c.Owner = byName("app", "") }, "644 1000:1001"},
		{"an unknown group is the user's own", func(c *pb.FileActionCopy) { c.Owner = byName("app", "ghosts") }, "644 1000:1001"},
		{"an unknown name is root", func(c *pb.FileActionCopy) { c.Owner = byName("ghost", "ghosts") }, "644 0:0"},
		{"a uid is also the gid", func(c *pb.FileActionCopy) {
			c.Owner = &pb.ChownOpt{User: &pb.UserOpt{User: &pb.UserOpt_ByID{ByID: 7}}}
		}, "644 7:7"},
		{"octal mode", func(c *pb.FileActionCopy) { c.Mode = 0o600 }, "600 0:0"},
		{"symbolic mode", func(c *pb.FileActionCopy) { c.ModeStr = "u+x,go-r" }, "700 0:0"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			x := newTrees(t)
			_, err := x.do(t, cp("/a.txt", "/n/f", c.change))
			require.NoError(t, err)
			require.Equal(t, c.want, x.stat(t, "n/f"))
		})
	}
}

func TestNothingOutsideIsReadOrWritten(t *testing.T) {
	for name, action := range map[string]*pb.FileAction{
		"a source link that leads out":  cp("/out", "/f"),
		"a source path with dots":       cp("/../secret", "/f"),
		"a destination link":            cp("/a.txt", "/out"),
		"a destination with dots":       cp("/a.txt", "/../../escaped"),
		"mkfile through a link":         {Action: &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{Path: "/out", Data: []byte("x"), Mode: 0o644, Timestamp: -1}}},
		"mkdir with dots":               {Action: &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: "/../../escaped", Mode: 0o755, MakeParents: true, Timestamp: -1}}},
		"removing through a link":       {Action: &pb.FileAction_Rm{Rm: &pb.FileActionRm{Path: "/../secret", AllowNotFound: true}}},
		"a link made with dots in name": {Action: &pb.FileAction_Symlink{Symlink: &pb.FileActionSymlink{Oldpath: "x", Newpath: "/../escaped", Timestamp: -1}}},
	} {
		t.Run(name, func(t *testing.T) {
			x := newTrees(t)
			_, _ = x.do(t, action)
			b, err := os.ReadFile(x.outer + "/secret")
			require.NoError(t, err)
			require.Equal(t, "outside", string(b))
			require.NoFileExists(t, filepath.Join(filepath.Dir(x.outer), "escaped"))
			require.NoFileExists(t, filepath.Join(x.outer, "escaped"))
			if b, err := os.ReadFile(filepath.Join(x.root, "f")); err == nil {
				require.NotEqual(t, "outside", string(b))
			}
		})
	}
}

func TestAMissingSourceIsTheUsersFault(t *testing.T) {
	x := newTrees(t)
	for _, a := range []*pb.FileAction{
		cp("/nothing", "/x"),
		cp("/", "/x", func(c *pb.FileActionCopy) { c.IncludePatterns, c.RequiredPaths = []string{"no"}, []string{"/no"} }),
	} {
		_, err := x.do(t, a)
		e, ok := fault.As(err)
		require.True(t, ok, "%v", err)
		require.Equal(t, fault.User, e.Kind)
		require.Contains(t, err.Error(), "not found")
		require.NotEmpty(t, e.Remedy)
	}
}

func TestADirectoryOntoAFileIsRefused(t *testing.T) {
	x := newTrees(t)
	_, err := x.do(t, cp("/dir", "/etc/passwd"))
	require.ErrorContains(t, err, "cannot copy to non-directory")
	require.NotContains(t, err.Error(), x.outer, "our own directories are nobody's business")
}

func tarball(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		h.Mode, h.Uid, h.Gid = 0o640, 12, 34
		h.ModTime = time.Unix(1_000_000_000, 0)
		data := ""
		if h.Typeflag == tar.TypeReg {
			data, h.Linkname = h.Linkname, ""
			h.Size = int64(len(data))
		}
		require.NoError(t, w.WriteHeader(&h))
		_, err := w.Write([]byte(data))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return buf.Bytes()
}

func add(src, dest string) *pb.FileAction {
	return cp(src, dest, func(c *pb.FileActionCopy) { c.AttemptUnpackDockerCompatibility = true })
}

func TestAddUnpacksWhateverTheCompression(t *testing.T) {
	plain := tarball(t, tar.Header{Typeflag: tar.TypeDir, Name: "in/"}, tar.Header{Typeflag: tar.TypeReg, Name: "in/one", Linkname: "1"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "in/l", Linkname: "one"}, tar.Header{Typeflag: tar.TypeReg, Name: "in/.wh.odd", Linkname: "w"})
	pack := map[string]func() []byte{
		"tar": func() []byte { return plain },
		"gzip": func() []byte {
			var b bytes.Buffer
			w := gzip.NewWriter(&b)
			_, _ = w.Write(plain)
			require.NoError(t, w.Close())
			return b.Bytes()
		},
		"zstd": func() []byte {
			w, err := zstd.NewWriter(nil)
			require.NoError(t, err)
			return w.EncodeAll(plain, nil)
		},
		"xz":    func() []byte { return filter(t, plain, "xz", "-c") },
		"bzip2": func() []byte { return filter(t, plain, "bzip2", "-c") },
	}
	for name, make := range pack {
		t.Run(name, func(t *testing.T) {
			x := newTrees(t)
			require.NoError(t, os.WriteFile(x.src+"/archive", make(), 0o644))
			_, err := x.do(t, add("/archive", "/t/"))
			require.NoError(t, err)
			require.Equal(t, "1", x.read(t, "t/in/one"))
			require.Equal(t, "w", x.read(t, "t/in/.wh.odd"), "an archive is not a layer")
			require.Equal(t, "640 12:34", x.stat(t, "t/in/one"))
		})
	}
}

// filter needs a program only to make the archive; unpacking needs none.
func filter(t *testing.T, data []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		needs.Missing(t, name+": "+err.Error())
	}
	return out
}

func TestAddCopiesWhatIsNoArchive(t *testing.T) {
	x := newTrees(t)
	require.NoError(t, os.WriteFile(x.src+"/fake.tar.gz", []byte("not an archive"), 0o644))
	_, err := x.do(t, add("/fake.tar.gz", "/f/"))
	require.NoError(t, err)
	require.Equal(t, "not an archive", x.read(t, "f/fake.tar.gz"))
}

func TestAHostileArchiveIsRefused(t *testing.T) {
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeReg, Name: "../../escaped", Linkname: "x"},
		{Typeflag: tar.TypeLink, Name: "h", Linkname: "../../secret"},
	} {
		x := newTrees(t)
		require.NoError(t, os.WriteFile(x.src+"/archive", tarball(t, h), 0o644))
		_, err := x.do(t, add("/archive", "/t/"))
		e, ok := fault.As(err)
		require.True(t, ok, "%v", err)
		require.Equal(t, fault.User, e.Kind)
		require.NoFileExists(t, x.outer+"/escaped")
	}
}

func TestMakeAndRemove(t *testing.T) {
	x := newTrees(t)
	_, err := x.do(t, &pb.FileAction{Action: &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: "/m/n", Mode: 0o750, MakeParents: true, Owner: byName("app", ""), Timestamp: -1}}})
	require.NoError(t, err)
	require.Equal(t, "750 1000:1001", x.stat(t, "m/n"))
	_, err = x.do(t, &pb.FileAction{Action: &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{Path: "/m/f", Mode: 0o755, Data: []byte("x"), Timestamp: -1}}})
	require.NoError(t, err)
	require.Equal(t, "x", x.read(t, "m/f"))
	_, err = x.do(t, &pb.FileAction{Action: &pb.FileAction_Symlink{Symlink: &pb.FileActionSymlink{Oldpath: "f", Newpath: "/m/l", Timestamp: -1}}})
	require.NoError(t, err)
	_, err = x.do(t, &pb.FileAction{Action: &pb.FileAction_Rm{Rm: &pb.FileActionRm{Path: "/d"}}})
	require.NoError(t, err)
	require.NoDirExists(t, x.root+"/d")
	_, err = x.do(t, &pb.FileAction{Action: &pb.FileAction_Rm{Rm: &pb.FileActionRm{Path: "/d"}}})
	require.ErrorIs(t, err, os.ErrNotExist)
}
