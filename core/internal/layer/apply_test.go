package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/needs"
)

// capNetBind is security.capability for cap_net_bind_service=ep.
const capNetBind = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func TestApplyTree(t *testing.T) {
	type m = map[string]string
	for _, c := range []struct {
		rule   string
		layers [][]*tar.Header
		want   m
	}{
		{"parents that are not listed are made", [][]*tar.Header{{file("a/b/c")}}, m{"a": "dir", "a/b": "dir", "a/b/c": "a/b/c"}},
		{"names may be absolute or start with ./", [][]*tar.Header{{file("/x"), file("./y"), dir("./")}}, m{"x": "/x", "y": "./y"}},
		{"unicode and spaces are kept", [][]*tar.Header{{file("ä/日本 語\n")}}, m{"ä": "dir", "ä/日本 語\n": "ä/日本 語\n"}},
		{"a later entry of the same name wins", [][]*tar.Header{{file("a"), symlink("a", "b")}}, m{"a": "-> b"}},
		{"a file replaces a directory", [][]*tar.Header{{file("d/x")}, {file("d")}}, m{"d": "d"}},
		{"a directory replaces a file", [][]*tar.Header{{file("d")}, {dir("d"), file("d/x")}}, m{"d": "dir", "d/x": "d/x"}},
		{"a directory replaces a link", [][]*tar.Header{{dir("u"), file("u/a"), symlink("d", "u")}, {dir("d"), file("d/x")}},
			m{"u": "dir", "u/a": "u/a", "d": "dir", "d/x": "d/x"}},
		{"a directory merges with a directory", [][]*tar.Header{{file("d/x")}, {dir("d"), file("d/y")}}, m{"d": "dir", "d/x": "d/x", "d/y": "d/y"}},
		{"a whiteout removes a file", [][]*tar.Header{{file("a"), file("b")}, {file(".wh.a")}}, m{"b": "b"}},
		{"a whiteout removes a directory", [][]*tar.Header{{file("d/e/f"), file("d/g")}, {file("d/.wh.e")}}, m{"d": "dir", "d/g": "d/g"}},
		{"a whiteout of what is not there is nothing", [][]*tar.Header{{file("a")}, {file(".wh.b")}}, m{"a": "a"}},
		{"a whiteout removes a link, not its target", [][]*tar.Header{{file("a"), symlink("l", "a")}, {file(".wh.l")}}, m{"a": "a"}},
		{"a whiteout spares its own layer's file", [][]*tar.Header{{file("a")}, {file("a"), file(".wh.a")}}, m{"a": "a"}},
		{"a whiteout spares its own layer's directory but not what it hid", [][]*tar.Header{{file("d/old")}, {file("d/new"), file(".wh.d")}},
			m{"d": "dir", "d/new": "d/new"}},
		{"a whiteout before its own layer's directory", [][]*tar.Header{{file("d/old")}, {file(".wh.d"), file("d/new")}}, m{"d": "dir", "d/new": "d/new"}},
		{"an opaque directory hides lower layers", [][]*tar.Header{{file("d/old"), file("d/e/old")}, {dir("d"), file("d/.wh..wh..opq"), file("d/new")}},
			m{"d": "dir", "d/new": "d/new"}},
		{"an opaque marker spares earlier entries of its layer", [][]*tar.Header{{file("d/old"), file("d/e/old")}, {file("d/e/new"), file("d/.wh..wh..opq")}},
			m{"d": "dir", "d/e": "dir", "d/e/new": "d/e/new"}},
		{"an opaque root", [][]*tar.Header{{file("a"), file("d/b")}, {file("c"), file(".wh..wh..opq")}}, m{"c": "c"}},
		{"aufs bookkeeping is ignored", [][]*tar.Header{{file("a")}, {file(".wh..wh.plnk"), file(".wh..wh.aufs")}}, m{"a": "a"}},
		{"own links in parents are followed", [][]*tar.Header{{dir("usr/lib"), symlink("lib", "usr/lib"), file("lib/x")}},
			m{"usr": "dir", "usr/lib": "dir", "usr/lib/x": "lib/x", "lib": "-> usr/lib"}},
		{"own absolute links stay inside", [][]*tar.Header{{dir("usr"), symlink("a/l", "/usr"), file("a/l/x")}},
			m{"usr": "dir", "usr/x": "a/l/x", "a": "dir", "a/l": "-> /usr"}},
		{"own links that climb stop at the root", [][]*tar.Header{{symlink("a/l", "../../../../u"), file("a/l/x")}},
			m{"u": "dir", "u/x": "a/l/x", "a": "dir", "a/l": "-> ../../../../u"}},
		{"own links through links", [][]*tar.Header{{dir("z"), symlink("y", "z"), symlink("x", "./y/../y"), file("x/f")}},
			m{"z": "dir", "z/f": "x/f", "y": "-> z", "x": "-> ./y/../y"}},
		{"a lower layer's link in a parent's place becomes a directory", [][]*tar.Header{{dir("usr/bin"), symlink("bin", "usr/bin")}, {file("bin/x")}},
			m{"usr": "dir", "usr/bin": "dir", "bin": "dir", "bin/x": "bin/x"}},
		{"a lower layer's file in a parent's place becomes a directory", [][]*tar.Header{{file("bin")}, {file("bin/x")}}, m{"bin": "dir", "bin/x": "bin/x"}},
		{"hardlinks across directories", [][]*tar.Header{{file("a/x"), hardlink("b/y", "a/x"), hardlink("c", "/a/x")}},
			m{"a": "dir", "a/x": "a/x", "b": "dir", "b/y": "a/x", "c": "a/x"}},
		{"a hardlink to a lower layer's file", [][]*tar.Header{{file("a/x")}, {hardlink("b", "a/x")}}, m{"a": "dir", "a/x": "a/x", "b": "a/x"}},
		{"a hardlink replaces", [][]*tar.Header{{file("a"), dir("b"), file("b/c"), hardlink("b", "a")}}, m{"a": "a", "b": "a"}},
		{"a hardlink to a link is a link, and is followed", [][]*tar.Header{{dir("u"), symlink("a", "u"), hardlink("b", "a"), file("b/x")}},
			m{"u": "dir", "u/x": "b/x", "a": "-> u", "b": "-> u"}},
		{"global headers are ignored", [][]*tar.Header{{{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "x"}}, file("a")}}, m{"a": "a"}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			var layers []*bytes.Buffer
			for _, l := range c.layers {
				layers = append(layers, archive(t, l...))
			}
			require.Equal(t, c.want, tree(t, apply(t, ApplyOptions{}, layers...)))
		})
	}
}

func TestApplyRefuses(t *testing.T) {
	for _, c := range []struct {
		rule    string
		entries []*tar.Header
		escape  bool
	}{
		{"a name that climbs", []*tar.Header{file("../x")}, true},
		{"a name that climbs later", []*tar.Header{file("a/../../x")}, true},
		{"a directory that climbs", []*tar.Header{dir("..")}, true},
		{"a hardlink's target that climbs", []*tar.Header{file("a"), hardlink("b", "../../etc/passwd")}, true},
		{"a whiteout that climbs", []*tar.Header{file("../.wh.x")}, true},
		{"a whiteout of the directory itself", []*tar.Header{file("d/.wh..")}, false},
		{"a whiteout of the parent", []*tar.Header{file("d/.wh...")}, false},
		{"a whiteout of nothing", []*tar.Header{file("d/.wh.")}, false},
		{"a hardlink to what is not there", []*tar.Header{hardlink("b", "a")}, false},
		{"a hardlink to itself", []*tar.Header{hardlink("a", "a")}, false},
		{"a hardlink to the root", []*tar.Header{hardlink("a", "/")}, false},
		{"links that lead in a circle", []*tar.Header{symlink("a", "b"), symlink("b", "a"), file("a/x")}, false},
		{"its own file as a directory", []*tar.Header{file("a"), file("a/x")}, false},
		{"an unknown type", []*tar.Header{{Name: "v", Typeflag: 'V'}}, false},
	} {
		t.Run(c.rule, func(t *testing.T) {
			err := Apply(t.Context(), t.TempDir(), archive(t, c.entries...), ApplyOptions{})
			require.Error(t, err)
			require.Equal(t, c.escape, errors.Is(err, ErrEscape), "%v", err)
			if c.escape {
				e, ok := fault.As(err)
				require.True(t, ok)
				require.Equal(t, fault.Registry, e.Kind)
				require.NotEmpty(t, e.Remedy)
			}
		})
	}
}

// The layers here once changed times, or could have made files, outside.
func TestApplyTouchesNothingOutside(t *testing.T) {
	for rule, entries := range map[string]func(out string) []*tar.Header{
		"a link in place of a listed directory": func(out string) []*tar.Header {
			return []*tar.Header{dir("a"), dir("a/b"), symlink("a", out)}
		},
		"an entry through an absolute link": func(out string) []*tar.Header { return []*tar.Header{symlink("a", out), file("a/b/x")} },
		"an entry through a climbing link": func(string) []*tar.Header {
			return []*tar.Header{symlink("a", "../out"), file("a/b/x"), file("a/.wh.b")}
		},
		"opaque through a link":     func(out string) []*tar.Header { return []*tar.Header{symlink("a", out), file("a/.wh..wh..opq")} },
		"a hardlink through a link": func(out string) []*tar.Header { return []*tar.Header{symlink("a", out), hardlink("x", "a/b/f")} },
		"attributes of a link":      func(out string) []*tar.Header { return []*tar.Header{symlink("a", out+"/b/f")} },
		"a directory over a link":   func(out string) []*tar.Header { return []*tar.Header{symlink("a", out), dir("a"), dir("a/b")} },
	} {
		t.Run(rule, func(t *testing.T) {
			base := t.TempDir()
			out := filepath.Join(base, "out")
			require.NoError(t, os.MkdirAll(filepath.Join(out, "b"), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(out, "b", "f"), nil, 0o600))
			require.NoError(t, os.Mkdir(filepath.Join(base, "root"), 0o755))
			before := outside(t, out)
			_ = Apply(t.Context(), filepath.Join(base, "root"), archive(t, entries(out)...), ApplyOptions{})
			require.Equal(t, before, outside(t, out))
		})
	}
}

// outside lists a tree with all that lstat says but for the time of access.
func outside(t testing.TB, root string) map[string]unix.Stat_t {
	all := map[string]unix.Stat_t{"": lstat(t, root)}
	for _, p := range paths(t, root) {
		all[p] = lstat(t, root, p)
	}
	for p, st := range all {
		st.Atim = unix.Timespec{}
		all[p] = st
	}
	return all
}

func TestApplyAttributes(t *testing.T) {
	needs.Root(t)
	old := time.Unix(1000000000, 5)
	root := apply(t, ApplyOptions{}, archive(t,
		with(dir("d"), func(h *tar.Header) { h.Mode, h.Uid, h.Gid, h.ModTime = 0o1777, 70000, 4000000000, old }),
		with(file("d/suid"), func(h *tar.Header) { h.Mode, h.Uid, h.Gid = 0o6755, 12, 34 }),
		with(file("d/cap"), func(h *tar.Header) { xattr(capability, capNetBind)(h); h.Uid = 9 }),
		with(symlink("d/l", "suid"), func(h *tar.Header) { h.Uid, h.Gid = 7, 8 }),
		&tar.Header{Name: "d/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: when},
		&tar.Header{Name: "d/loop", Typeflag: tar.TypeBlock, Mode: 0o660, Devmajor: 7, Devminor: 300, ModTime: when, Gid: 6},
		&tar.Header{Name: "d/fifo", Typeflag: tar.TypeFifo, Mode: 0o620, ModTime: when},
		with(file("d/ancient"), func(h *tar.Header) { h.ModTime = time.Unix(-5, 0) }),
		with(dir("."), func(h *tar.Header) { h.Mode, h.Uid = 0o700, 1000 }),
	))
	d := lstat(t, root, "d")
	require.Equal(t, uint32(unix.S_IFDIR|0o1777), d.Mode)
	require.Equal(t, "70000:4000000000", owner(d))
	require.Equal(t, unix.Timespec{Sec: 1000000000, Nsec: 5}, d.Mtim, "the directory's time is set after its entries")
	suid := lstat(t, root, "d/suid")
	require.Equal(t, uint32(unix.S_IFREG|0o6755), suid.Mode)
	require.Equal(t, "12:34", owner(suid))
	require.Equal(t, unix.NsecToTimespec(when.UnixNano()), suid.Mtim)
	var b [64]byte
	n, err := unix.Getxattr(filepath.Join(root, "d/cap"), capability, b[:])
	require.NoError(t, err)
	require.Equal(t, capNetBind, string(b[:n]))
	l := lstat(t, root, "d/l")
	require.Equal(t, "7:8", owner(l))
	require.Equal(t, unix.NsecToTimespec(when.UnixNano()), l.Mtim)
	null, loop := lstat(t, root, "d/null"), lstat(t, root, "d/loop")
	require.Equal(t, uint32(unix.S_IFCHR|0o666), null.Mode)
	require.Equal(t, unix.Mkdev(1, 3), null.Rdev)
	require.Equal(t, uint32(unix.S_IFBLK|0o660), loop.Mode)
	require.Equal(t, unix.Mkdev(7, 300), loop.Rdev)
	require.Equal(t, uint32(unix.S_IFIFO|0o620), lstat(t, root, "d/fifo").Mode)
	require.Equal(t, int64(0), lstat(t, root, "d/ancient").Mtim.Sec)
	require.Equal(t, "0:0", owner(lstat(t, root)), "an entry for the root itself is ignored, as containerd does")
}

// BuildKit's images show the attributes of the last name of a file.
func TestApplyHardlinkAttributes(t *testing.T) {
	needs.Root(t)
	seen := map[string]Observed{}
	root := apply(t, ApplyOptions{Observe: func(o Observed) { seen[o.Path] = o }}, archive(t,
		with(file("a"), func(h *tar.Header) { xattr(capability, capNetBind)(h); h.Uid = 1 }),
		with(hardlink("same", "a"), func(h *tar.Header) { h.Uid = 1 }),
		file("b"),
		with(hardlink("other", "b"), func(h *tar.Header) { h.Uid, h.Mode, h.ModTime = 2, 0o600, time.Unix(5, 0) }),
	))
	var b [64]byte
	_, err := unix.Getxattr(filepath.Join(root, "same"), capability, b[:])
	require.NoError(t, err, "a link that says nothing new keeps the capability")
	st := lstat(t, root, "b")
	require.Equal(t, "2:0", owner(st))
	require.Equal(t, uint32(unix.S_IFREG|0o600), st.Mode)
	require.Equal(t, int64(5), st.Mtim.Sec)
	require.Equal(t, st.Uid, seen["b"].Stat.Uid, "the first name is observed again")
	require.True(t, seen["other"].Hardlink)
}

func TestApplyLeavesOutWhatSpeaksToOverlayfs(t *testing.T) {
	needs.Root(t)
	for _, w := range []Whiteouts{Remove, OverlayTrusted, OverlayUser} {
		root := apply(t, ApplyOptions{Whiteouts: w}, archive(t,
			with(dir("d"), xattr("trusted.overlay.opaque", "y")), with(file("f"), xattr("user.overlay.metacopy", "")), with(file("g"), xattr("user.mine", "1"))))
		var b [8]byte
		_, err := unix.Lgetxattr(filepath.Join(root, "d"), "trusted.overlay.opaque", b[:])
		require.ErrorIs(t, err, unix.ENODATA)
		if w == OverlayUser {
			_, err = unix.Lgetxattr(filepath.Join(root, "f"), "user.overlay.metacopy", b[:])
			require.ErrorIs(t, err, unix.ENODATA)
		}
		_, err = unix.Lgetxattr(filepath.Join(root, "g"), "user.mine", b[:])
		if !errors.Is(err, unix.ENOTSUP) { // tmpfs of an older kernel
			require.NoError(t, err)
		}
	}
}

func TestApplyOverlayWhiteouts(t *testing.T) {
	needs.Root(t)
	opaque := func(root, name string) bool {
		var b [8]byte
		n, err := unix.Lgetxattr(filepath.Join(root, name), "trusted.overlay.opaque", b[:])
		return err == nil && string(b[:n]) == "y"
	}
	var implicit []string
	root := apply(t, ApplyOptions{Whiteouts: OverlayTrusted, Implicit: func(p string) { implicit = append(implicit, p) }}, archive(t,
		file("d/.wh.x"), file("o/.wh..wh..opq"), file("o/new"), file(".wh.r"), file("r/new"), file("s/new"), file(".wh.s"), file("t"), file(".wh.t")))
	st := lstat(t, root, "d/x")
	require.Equal(t, uint32(unix.S_IFCHR), st.Mode&unix.S_IFMT)
	require.Zero(t, st.Rdev)
	require.True(t, opaque(root, "o"))
	require.True(t, opaque(root, "r"), "a directory in place of a name that its layer removed hides what was below")
	require.True(t, opaque(root, "s"), "in either order")
	require.False(t, opaque(root, "d"))
	require.Equal(t, "t", tree(t, root)["t"], "a whiteout spares its own layer's file")
	require.Equal(t, []string{"d", "o", "r", "s"}, implicit)
}

func TestApplyOverlayHardlinkToLowerIsCopiedUp(t *testing.T) {
	needs.Root(t)
	lower := apply(t, ApplyOptions{}, archive(t, with(file("a/x"), func(h *tar.Header) { xattr(capability, capNetBind)(h); h.Uid, h.Mode = 5, 0o755 })))
	var asked string
	upper := apply(t, ApplyOptions{Whiteouts: OverlayTrusted, Lower: func(p string) (string, error) { asked = p; return filepath.Join(lower, p), nil }},
		archive(t, with(hardlink("b/y", "a/x"), func(h *tar.Header) { h.Uid, h.Mode = 5, 0o755 })))
	require.Equal(t, "a/x", asked)
	require.Equal(t, lstat(t, upper, "a/x").Ino, lstat(t, upper, "b/y").Ino)
	require.Equal(t, "a/x", tree(t, upper)["b/y"])
	var b [64]byte
	n, err := unix.Getxattr(filepath.Join(upper, "b/y"), capability, b[:])
	require.NoError(t, err)
	require.Equal(t, capNetBind, string(b[:n]))
	require.Equal(t, "5:0", owner(lstat(t, upper, "a/x")))
}

// What Docker and BuildKit do with an archive that ADD unpacks (tried with
// buildkitd 0.34).
func TestApplyLiteral(t *testing.T) {
	type m = map[string]string
	for _, c := range []struct {
		rule    string
		there   []*tar.Header
		entries []*tar.Header
		want    m
		err     error
	}{
		{"existing links in parents are followed", []*tar.Header{dir("usr/bin"), symlink("bin", "usr/bin")}, []*tar.Header{file("bin/x")},
			m{"usr": "dir", "usr/bin": "dir", "usr/bin/x": "bin/x", "bin": "-> usr/bin"}, nil},
		{"a listed directory replaces an existing link", []*tar.Header{dir("u"), symlink("bin", "u")}, []*tar.Header{dir("bin"), file("bin/x")},
			m{"u": "dir", "bin": "dir", "bin/x": "bin/x"}, nil},
		{"names that climb are refused, where BuildKit lets them stop at the destination", nil, []*tar.Header{file("../x")}, nil, ErrEscape},
		{"names that look like whiteouts are files", []*tar.Header{file("x")}, []*tar.Header{file(".wh.x"), file(".wh..wh..opq")},
			m{"x": "x", ".wh.x": ".wh.x", ".wh..wh..opq": ".wh..wh..opq"}, nil},
		{"a dangling link is not filled", nil, []*tar.Header{symlink("l", "/nowhere"), file("l/x")}, nil, unix.ENOENT},
		{"an existing file in a parent's place stays", []*tar.Header{file("f")}, []*tar.Header{file("f/x")}, nil, unix.ENOTDIR},
	} {
		t.Run(c.rule, func(t *testing.T) {
			root := apply(t, ApplyOptions{}, archive(t, c.there...))
			err := Apply(t.Context(), root, archive(t, c.entries...), ApplyOptions{Literal: true})
			require.ErrorIs(t, err, c.err)
			if c.err == nil {
				require.Equal(t, c.want, tree(t, root))
			}
		})
	}
}

func TestApplyOwner(t *testing.T) {
	needs.Root(t)
	root := apply(t, ApplyOptions{Literal: true, Owner: &Owner{UID: 5, GID: 6}}, archive(t, dir("d"), file("d/x"), file("imp/x")))
	require.Equal(t, "5:6", owner(lstat(t, root, "d")))
	require.Equal(t, "5:6", owner(lstat(t, root, "d/x")))
	require.Equal(t, "0:0", owner(lstat(t, root, "imp")), "directories that are not listed stay root's, as in BuildKit")
}

func TestApplyObserve(t *testing.T) {
	var got []string
	root := apply(t, ApplyOptions{}, archive(t, file("gone/x"), file("d")))
	require.NoError(t, Apply(t.Context(), root, archive(t, file("a/b"), symlink("l", "a"), hardlink("a/c", "a/b"), file(".wh.gone"), dir("d"), file("l/e")),
		ApplyOptions{Observe: func(o Observed) {
			if o.Removed {
				require.Nil(t, o.Stat)
				got = append(got, "- "+o.Path)
				return
			}
			if o.Stat.Mode&unix.S_IFMT == unix.S_IFREG && !o.Hardlink {
				b, err := os.ReadFile(filepath.Join(root, o.Path))
				require.NoError(t, err)
				require.Equal(t, xxhash.Sum64(b), o.Sum)
				st := lstat(t, root, o.Path)
				require.Equal(t, st.Mtim, o.Stat.Mtim, "observed in its final state")
			}
			got = append(got, "+ "+o.Path)
		}}))
	require.Equal(t, []string{"+ a", "+ a/b", "+ l", "+ a/c", "- gone", "- d", "+ d", "+ a/e"}, got)
}

func TestApplyPathsLongerThanTheKernelTakes(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, strings.Repeat("r", 200))
	require.NoError(t, os.Mkdir(root, 0o755))
	long := strings.Repeat("d/", 1900) + strings.Repeat("f", 200) // 4,000 bytes, 1,900 levels
	require.NoError(t, Apply(t.Context(), root, archive(t, file(long), hardlink(long[:len(long)-1], long)), ApplyOptions{}))
	var b bytes.Buffer
	require.NoError(t, Write(t.Context(), &b, root, []Change{{Path: long}, {Path: long[:len(long)-1]}}, WriteOptions{}))
	r, n := tar.NewReader(&b), 0
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if n++; h.Typeflag == tar.TypeReg {
			require.Equal(t, long[:len(long)-1], h.Name)
		}
	}
	require.Equal(t, 1902, n)
	require.NoError(t, Apply(t.Context(), root, archive(t, file(".wh.d")), ApplyOptions{}))
	require.Empty(t, tree(t, root))
}

func TestApplyStops(t *testing.T) {
	cause := errors.New("signal")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	require.ErrorIs(t, Apply(ctx, t.TempDir(), archive(t, file("a")), ApplyOptions{}), cause)
}

// One big file must not have to end before a signal is heard.
func TestApplyStopsInTheMiddleOfAFile(t *testing.T) {
	cause := errors.New("signal")
	ctx, cancel := context.WithCancelCause(t.Context())
	var head bytes.Buffer
	require.NoError(t, tar.NewWriter(&head).WriteHeader(&tar.Header{Name: "big", Typeflag: tar.TypeReg, Size: 1 << 40, Uid: os.Geteuid(), Gid: os.Getegid()}))
	// The stream ends before it could fill a disk, should Apply not stop.
	zeros := readerFunc(func(p []byte) (int, error) { cancel(cause); return len(p), nil })
	require.ErrorIs(t, Apply(ctx, t.TempDir(), io.MultiReader(&head, io.LimitReader(zeros, 64<<20)), ApplyOptions{}), cause)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestApplyReadsTheWholeStream(t *testing.T) {
	b := archive(t, file("a"))
	b.WriteString(strings.Repeat("x", 1000))
	require.NoError(t, Apply(t.Context(), t.TempDir(), b, ApplyOptions{}))
	require.Zero(t, b.Len(), "what follows the end marker belongs to the digest")
}

func TestApplyTruncated(t *testing.T) {
	b := archive(t, file("a/long/enough/name"))
	b.Truncate(1024 + 3)
	require.ErrorIs(t, Apply(t.Context(), t.TempDir(), b, ApplyOptions{}), io.ErrUnexpectedEOF)
}
