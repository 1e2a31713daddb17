package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/needs"
)

const inNamespace = "LAYERWRIGHT_SNAPSHOT_TEST_NAMESPACE"

// TestMain runs the tests in a mount namespace of their own, where this is
// allowed, so that driver overlay can be tested.
func TestMain(m *testing.M) {
	if os.Getenv(inNamespace) == "" && os.Geteuid() == 0 {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inNamespace+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		err := cmd.Run()
		var exit *exec.ExitError
		if err == nil || errors.As(err, &exit) {
			os.Exit(cmd.ProcessState.ExitCode())
		}
	}
	if os.Getenv(inNamespace) != "" {
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			fmt.Fprintln(os.Stderr, "private mounts:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// drivers runs a test on every driver.
func drivers(t *testing.T, f func(t *testing.T, s Store)) {
	t.Run("flat", func(t *testing.T) {
		needs.Root(t)
		s, err := NewFlat(filepath.Join(t.TempDir(), "s"), Options{})
		require.NoError(t, err)
		f(t, s)
		require.NoError(t, s.Close())
	})
	t.Run("overlay", func(t *testing.T) {
		needs.Root(t)
		dir := t.TempDir()
		xattr, err := ProbeOverlay(dir)
		if err != nil {
			needs.Missing(t, err.Error())
		}
		s, err := NewOverlay(filepath.Join(dir, "s"), Options{UserXattr: xattr})
		require.NoError(t, err)
		f(t, s)
		require.NoError(t, s.Close())
	})
}

// entry is a tar entry of a test layer: "name", "name/", "name -> target",
// "name => hardlink", with content.
func tarLayer(t *testing.T, entries ...string) v1.Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	old := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, e := range entries {
		name, data, _ := strings.Cut(e, "=")
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data)), ModTime: old, Format: tar.FormatPAX}
		if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Mode, h.Size = tar.TypeDir, 0o755, 0
			data = ""
		}
		if n, target, ok := strings.Cut(e, " -> "); ok {
			h.Name, h.Typeflag, h.Linkname, h.Size = n, tar.TypeSymlink, target, 0
			data = ""
		}
		if n, target, ok := strings.Cut(e, " >> "); ok {
			h.Name, h.Typeflag, h.Linkname, h.Size = n, tar.TypeLink, target, 0
			data = ""
		}
		require.NoError(t, w.WriteHeader(h))
		_, err := w.Write([]byte(data))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return static.NewLayer(buf.Bytes(), types.OCIUncompressedLayer)
}

// capturing is a Capture that keeps the bytes.
func capturing(t *testing.T) (Capture, func() []byte) {
	var mu sync.Mutex
	var got []byte
	return func(ctx context.Context, write func(context.Context, io.Writer) error) (v1.Layer, error) {
			var buf bytes.Buffer
			if err := write(ctx, &buf); err != nil {
				return nil, err
			}
			mu.Lock()
			got = buf.Bytes()
			mu.Unlock()
			return static.NewLayer(buf.Bytes(), types.OCIUncompressedLayer), nil
		}, func() []byte {
			mu.Lock()
			defer mu.Unlock()
			return got
		}
}

// change applies f to a new mutable of the state and lists what the layer
// records.
func change(t *testing.T, s State, f func(dir string), known ...string) (State, []string) {
	t.Helper()
	m, err := s.Claims([]int{1})[0].Mutate(t.Context())
	require.NoError(t, err)
	f(m.Dir())
	capture, bytes := capturing(t)
	var changes Changes
	if len(known) > 0 {
		changes.Known = known
	}
	next, err := m.Commit(t.Context(), changes, capture)
	require.NoError(t, err)
	layers := next.Layers()
	_, err = layers[len(layers)-1].DiffID()
	require.NoError(t, err)
	return next, names(t, bytes())
}

func names(t *testing.T, data []byte) []string {
	t.Helper()
	var out []string
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		require.NoError(t, err)
		n := h.Name
		if h.Typeflag == tar.TypeLink {
			n += " >> " + h.Linkname
		}
		out = append(out, n)
	}
}

func write(t *testing.T, path, data string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(data), 0o644))
}

// listing describes a tree: names, types, modes, contents.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	inodes := map[uint64]string{}
	require.NoError(t, filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(p, dir)
		if rel == "" {
			return nil
		}
		st := fi.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%s %s %d:%d", rel, fi.Mode(), st.Uid, st.Gid)
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(p)
			require.NoError(t, err)
			line += fmt.Sprintf(" %q %d", b, fi.ModTime().Unix())
			if st.Nlink > 1 {
				if first, ok := inodes[st.Ino]; ok {
					line += " = " + first
				} else {
					inodes[st.Ino] = rel
				}
			}
		case fi.Mode()&os.ModeSymlink != 0:
			l, err := os.Readlink(p)
			require.NoError(t, err)
			line += " -> " + l
		}
		lines = append(lines, line)
		return nil
	}))
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func view(t *testing.T, s State) string {
	t.Helper()
	c := s.Claims([]int{1})[0]
	v, err := c.View(t.Context())
	require.NoError(t, err)
	out := listing(t, v.Dir())
	require.NoError(t, v.Close())
	c.Release()
	return out
}

func TestScratchIsEmpty(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		require.Empty(t, view(t, s.Scratch()))
		_, got := change(t, s.Scratch(), func(dir string) { write(t, dir+"/a", "1") })
		require.Equal(t, []string{"a"}, got)
	})
}

func TestLayersApplyInOrder(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		got := view(t, s.FromLayers([]v1.Layer{
			tarLayer(t, "d/", "d/a=1", "d/b=1", "e/", "e/x=1", "l -> d"),
			tarLayer(t, "d/", "d/.wh.a", "d/b=2", "e/", "e/.wh..wh..opq", "e/y=2"),
		}))
		require.Equal(t, "/d drwxr-xr-x 0:0\n/d/b -rw-r--r-- 0:0 \"2\" 1577836800\n/e drwxr-xr-x 0:0\n/e/y -rw-r--r-- 0:0 \"2\" 1577836800\n/l Lrwxrwxrwx 0:0 -> d", got)
	})
}

func TestADirectoryReplacesALowerLayersLink(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		got := view(t, s.FromLayers([]v1.Layer{tarLayer(t, "real/", "real/a=1", "l -> real"), tarLayer(t, "l/b=2")}))
		require.Contains(t, got, "/l drwxr-xr-x")
		require.NotContains(t, got, "/real/b")
	})
}

func TestAHardlinkIntoALowerLayer(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		got := view(t, s.FromLayers([]v1.Layer{tarLayer(t, "a=1"), tarLayer(t, "b >> a")}))
		require.Contains(t, got, "/b -rw-r--r-- 0:0 \"1\"")
	})
}

// base is a state for changes.
func base(t *testing.T, s Store) State {
	return s.FromLayers([]v1.Layer{tarLayer(t, "d/", "d/a=1", "d/b=22", "d/sub/", "d/sub/c=333", "f=file", "l -> f")})
}

func TestWhatALayerRecords(t *testing.T) {
	old := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	cases := []struct {
		name string
		f    func(t *testing.T, dir string)
		want []string
	}{
		{"nothing", func(*testing.T, string) {}, nil},
		{"a new file with its directories", func(t *testing.T, d string) { write(t, d+"/d/sub/new", "x") }, []string{"d/", "d/sub/", "d/sub/new"}},
		{"a deleted file", func(t *testing.T, d string) { require.NoError(t, os.Remove(d+"/d/a")) }, []string{"d/", "d/.wh.a"}},
		{"a deleted directory is one whiteout", func(t *testing.T, d string) { require.NoError(t, os.RemoveAll(d+"/d")) }, []string{".wh.d"}},
		{"a directory made again", func(t *testing.T, d string) {
			require.NoError(t, os.RemoveAll(d+"/d"))
			require.NoError(t, os.Mkdir(d+"/d", 0o755))
			write(t, d+"/d/z", "z")
		}, []string{"d/", "d/.wh.a", "d/.wh.b", "d/.wh.sub", "d/z"}},
		{"a directory replaced by a file", func(t *testing.T, d string) { require.NoError(t, os.RemoveAll(d+"/d")); write(t, d+"/d", "x") }, []string{"d"}},
		{"a file replaced by a directory", func(t *testing.T, d string) {
			require.NoError(t, os.Remove(d+"/f"))
			require.NoError(t, os.Mkdir(d+"/f", 0o755))
			write(t, d+"/f/in", "x")
		}, []string{"f/", "f/in"}},
		{"the same mode again", func(t *testing.T, d string) { require.NoError(t, os.Chmod(d+"/f", 0o644)) }, nil},
		{"another mode", func(t *testing.T, d string) { require.NoError(t, os.Chmod(d+"/f", 0o600)) }, []string{"f"}},
		{"another owner", func(t *testing.T, d string) { require.NoError(t, os.Lchown(d+"/l", 7, 8)) }, []string{"l"}},
		{"another time", func(t *testing.T, d string) { require.NoError(t, os.Chtimes(d+"/f", old, old.Add(time.Second))) }, []string{"f"}},
		{"a directory's time alone", func(t *testing.T, d string) { require.NoError(t, os.Chtimes(d+"/d", old, old.Add(time.Second))) }, nil},
		{"a directory's mode alone", func(t *testing.T, d string) { require.NoError(t, os.Chmod(d+"/d/sub", 0o700)) }, []string{"d/", "d/sub/"}},
		{"the same content and time again", func(t *testing.T, d string) {
			write(t, d+"/f", "file")
			require.NoError(t, os.Chtimes(d+"/f", old, old))
		}, nil},
		{"other content with the same size and time", func(t *testing.T, d string) {
			write(t, d+"/f", "FILE")
			require.NoError(t, os.Chtimes(d+"/f", old, old))
		}, []string{"f"}},
		{"an identical copy in its place", func(t *testing.T, d string) {
			write(t, d+"/f2", "file")
			require.NoError(t, os.Chtimes(d+"/f2", old, old))
			require.NoError(t, os.Rename(d+"/f2", d+"/f"))
		}, nil},
		{"two names of a new file", func(t *testing.T, d string) { write(t, d+"/n", "n"); require.NoError(t, os.Link(d+"/n", d+"/d/m")) }, []string{"d/", "d/m", "n >> d/m"}},
		{"a second name of an old file", func(t *testing.T, d string) { require.NoError(t, os.Link(d+"/f", d+"/g")) }, []string{"g"}},
		{"a link that points elsewhere", func(t *testing.T, d string) {
			require.NoError(t, os.Remove(d+"/l"))
			require.NoError(t, os.Symlink("d", d+"/l"))
		}, []string{"l"}},
		{"a socket is left out", func(t *testing.T, d string) { require.NoError(t, unix.Mknod(d+"/s", unix.S_IFSOCK|0o600, 0)) }, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			drivers(t, func(t *testing.T, s Store) {
				_, got := change(t, base(t, s), func(dir string) { c.f(t, dir) })
				require.Equal(t, c.want, got)
			})
		})
	}
}

func TestKnownPathsNeedNoWalk(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		next, got := change(t, base(t, s), func(dir string) {
			write(t, dir+"/d/new", "x")
			require.NoError(t, os.Remove(dir+"/f"))
		}, "d", "d/new", "f")
		require.Equal(t, []string{"d/", "d/new", ".wh.f"}, got)
		_, got = change(t, next, func(string) {})
		require.Empty(t, got, "the change is not found a second time")
	})
}

func TestIgnoredPathsAreInTheTreeAndInNoLayer(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		m, err := base(t, s).Claims([]int{1})[0].Mutate(t.Context())
		require.NoError(t, err)
		write(t, m.Dir()+"/d/new", "x")
		write(t, m.Dir()+"/d/newer", "x")
		require.NoError(t, os.Remove(m.Dir()+"/f"))
		capture, got := capturing(t)
		next, err := m.Commit(t.Context(), Changes{Ignore: []string{"/d/new", "f"}}, capture)
		require.NoError(t, err)
		layers := next.Layers()
		_, err = layers[len(layers)-1].DiffID() // waits for it
		require.NoError(t, err)
		var names []string
		r := tar.NewReader(bytes.NewReader(got()))
		for h, err := r.Next(); err == nil; h, err = r.Next() {
			names = append(names, h.Name)
		}
		require.Equal(t, []string{"d/", "d/newer"}, names)
		m, err = next.Claims([]int{1})[0].Mutate(t.Context())
		require.NoError(t, err)
		require.FileExists(t, m.Dir()+"/d/new")
		require.NoFileExists(t, m.Dir()+"/f")
		require.NoError(t, m.Discard())
	})
}

func TestBranchesDoNotSeeEachOther(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		claims := base(t, s).Claims([]int{1, 2, 3})
		var wg sync.WaitGroup
		out := make([]string, 3)
		for i, c := range claims {
			wg.Go(func() {
				m, err := c.Mutate(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				_ = os.WriteFile(m.Dir()+"/d/a", []byte(fmt.Sprint("branch ", i)), 0o644)
				capture, _ := capturing(t)
				next, err := m.Commit(t.Context(), Changes{}, capture)
				if err != nil {
					t.Error(err)
					return
				}
				out[i] = view(t, next)
			})
		}
		wg.Wait()
		for i := range claims {
			require.Contains(t, out[i], fmt.Sprintf("branch %d", i))
		}
	})
}

func TestAViewStaysWhileABranchChanges(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		claims := base(t, s).Claims([]int{1, 2})
		v, err := claims[1].View(t.Context())
		require.NoError(t, err)
		m, err := claims[0].Mutate(t.Context())
		require.NoError(t, err)
		write(t, m.Dir()+"/d/a", "changed")
		got, err := os.ReadFile(v.Dir() + "/d/a")
		require.NoError(t, err)
		require.Equal(t, "1", string(got))
		require.NoError(t, m.Discard())
		require.NoError(t, v.Close())
		claims[1].Release()
	})
}

func TestChangingInPlaceWaitsForReadersAndEndsWithTheContext(t *testing.T) {
	needs.Root(t)
	s, err := NewFlat(filepath.Join(t.TempDir(), "s"), Options{})
	require.NoError(t, err)
	claims := base(t, s).Claims([]int{1, 2})
	v, err := claims[0].View(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	done := make(chan error, 1)
	go func() {
		_, err := claims[1].Mutate(ctx)
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	cancel(stop)
	require.ErrorIs(t, <-done, stop)
	go func() {
		m, err := claims[1].Mutate(t.Context())
		if err == nil {
			err = m.Discard()
		}
		done <- err
	}()
	require.NoError(t, v.Close())
	claims[0].Release()
	require.NoError(t, <-done)
	require.NoError(t, s.Close())
}

func TestTheOneWhoUsesAStateTwiceGetsABranch(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		claims := base(t, s).Claims([]int{5, 5})
		m, err := claims[0].Mutate(t.Context())
		require.NoError(t, err)
		write(t, m.Dir()+"/d/a", "changed")
		v, err := claims[1].View(t.Context())
		require.NoError(t, err)
		got, err := os.ReadFile(v.Dir() + "/d/a")
		require.NoError(t, err)
		require.Equal(t, "1", string(got))
		require.NoError(t, v.Close())
		require.NoError(t, m.Discard())
		claims[1].Release()
	})
}

func TestOnlyTheLastOneMayTakeTheTree(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		claims := base(t, s).Claims([]int{1, 2})
		_, ok, err := claims[0].Take(t.Context())
		require.NoError(t, err)
		require.False(t, ok, "another one may still ask")
		claims[1].Release()
		v, ok, err := claims[0].Take(t.Context())
		require.NoError(t, err)
		if _, flat := s.(*flat); !flat {
			require.False(t, ok)
			claims[0].Release()
			return
		}
		require.True(t, ok)
		require.NoError(t, os.Rename(v.Dir()+"/d/a", filepath.Join(t.TempDir(), "a")))
		require.Len(t, claims[0].State().Layers(), 1)
		claims[0].Release()
		require.DirExists(t, v.Dir(), "it is the taker's")
		require.NoError(t, v.Close())
		require.NoError(t, s.Close())
		require.NoDirExists(t, v.Dir())
	})
}

// stalled is a layer of a registry that does not go on.
type stalled struct{ v1.Layer }

func (stalled) UncompressedContext(ctx context.Context) (io.ReadCloser, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// TestNobodyWaitsForALayerAfterTheEnd: neither who prepares a tree nor who wants it.
func TestNobodyWaitsForALayerAfterTheEnd(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		claim := s.FromLayers([]v1.Layer{stalled{tarLayer(t, "f=1")}}).Claims([]int{1})[0]
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("another step failed")
		done := make(chan error, 2)
		go func() { claim.Prepare(ctx, true); done <- nil }()
		go func() { _, err := claim.View(ctx); done <- err }()
		cancel(enough)
		require.ErrorIs(t, errors.Join(<-done, <-done), enough)
		claim.Release()
	})
}

func TestExtendPutsLayersOnTop(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		got := view(t, s.Extend(base(t, s), []v1.Layer{tarLayer(t, "d/", "d/a=new")}))
		require.Contains(t, got, `/d/a -rw-r--r-- 0:0 "new"`)
		require.Contains(t, got, `/d/b -rw-r--r-- 0:0 "22"`)
	})
}

func TestCommitEndsAChangeOnce(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		m, err := s.Scratch().Claims([]int{1})[0].Mutate(t.Context())
		require.NoError(t, err)
		_, err = m.Commit(t.Context(), Changes{}, nil)
		require.NoError(t, err)
		_, err = m.Commit(t.Context(), Changes{}, nil)
		require.Error(t, err)
		require.NoError(t, m.Discard())
	})
}

// TestTickOfTheClock: a change in the same tick of the file system's clock as
// the last one that was indexed would not show; Mutate waits for the next.
func TestTickOfTheClock(t *testing.T) {
	needs.Root(t)
	now := time.Now().Add(time.Hour).UnixNano()
	calls := 0
	s, err := NewFlat(filepath.Join(t.TempDir(), "s"), Options{Clock: func() int64 { calls++; return now + int64(calls-3) }})
	require.NoError(t, err)
	state := base(t, s).(*flatState)
	tr, err := state.materialise(t.Context())
	require.NoError(t, err)
	tr.index.newest = now
	_, err = state.Claims([]int{1})[0].Mutate(t.Context())
	require.NoError(t, err)
	require.Equal(t, 4, calls)
	require.NoError(t, s.Close())
}

// TestRandomChanges: whatever is done to a tree, its layers, applied anew, give
// the tree, and both drivers record the same.
func TestRandomChanges(t *testing.T) {
	recorded := map[int64]map[string][]string{}
	drivers(t, func(t *testing.T, s Store) {
		for seed := range int64(50) {
			r := rand.New(rand.NewSource(seed))
			state := base(t, s)
			var all []string
			for range 3 {
				seedOfStep := r.Int63()
				var got []string
				state, got = change(t, state, func(dir string) { mutate(t, rand.New(rand.NewSource(seedOfStep)), dir) })
				all = append(all, got...)
			}
			again := s.FromLayers(state.Layers())
			require.Equal(t, view(t, again), view(t, state), "seed %d", seed)
			if recorded[seed] == nil {
				recorded[seed] = map[string][]string{}
			}
			recorded[seed][t.Name()] = all
		}
	})
	for seed, by := range recorded {
		var first []string
		for _, got := range by {
			if first != nil {
				require.Equal(t, first, got, "seed %d", seed)
			}
			first = got
		}
	}
}

// mutate does a few random things. Names are chosen by the generator alone, so
// that the same seed does the same in both drivers. Files with several names
// are left out: overlayfs breaks such links on writing (docs/differences.md).
func mutate(t *testing.T, r *rand.Rand, dir string) {
	t.Helper()
	paths := []string{"d", "d/a", "d/b", "d/sub", "d/sub/c", "f", "l", "n1", "n2", "d/n3", "d/sub/n4", "n1/x", "n2/y"}
	pick := func() string { return filepath.Join(dir, paths[r.Intn(len(paths))]) }
	for range 8 {
		p, q := pick(), pick()
		switch r.Intn(7) {
		case 0:
			_ = os.WriteFile(p, []byte(fmt.Sprint(r.Intn(10))), 0o644)
		case 1:
			_ = os.RemoveAll(p)
		case 2:
			_ = os.Mkdir(p, 0o755)
		case 3:
			if fi, err := os.Lstat(p); err == nil && fi.Mode()&os.ModeSymlink == 0 {
				_ = os.Chmod(p, os.FileMode(0o700+r.Intn(64)))
			}
		case 4:
			_ = os.Symlink("t", p)
		case 5:
			if err := os.Rename(p, q); errors.Is(err, syscall.EXDEV) {
				// overlayfs does not rename lower directories; mv copies.
				_ = exec.Command("mv", "-T", p, q).Run()
			}
		case 6:
			_ = os.Lchown(p, r.Intn(3), r.Intn(3))
		}
	}
}

func BenchmarkWalk(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := b.TempDir()
			for i := range n {
				d := filepath.Join(dir, fmt.Sprint(i/100))
				if i%100 == 0 {
					require.NoError(b, os.Mkdir(d, 0o755))
				}
				require.NoError(b, os.WriteFile(filepath.Join(d, fmt.Sprint(i)), []byte("x"), 0o644))
			}
			ix := newIndex(dir)
			_, err := ix.walk(b.Context(), dir, nil)
			require.NoError(b, err)
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				changes, err := ix.walk(b.Context(), dir, nil)
				if err != nil || len(changes) != 0 {
					b.Fatal(changes, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(n), "µs/file")
		})
	}
}
