package snapshot

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sort"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"
)

// format is what layers are, a rule a row: what a step does to the lower tree, and
// every entry of the layer that must come of it, by both drivers. An entry is its
// type, name, mode, owner, size or target, and what PAX records say beside times.
// Directories that hold an entry come before it, as the tree has them.
var format = []struct {
	rule, script string
	entries      []string
}{
	{"nothing done is an empty layer", "true", nil},
	{"a new file comes with its directories", "printf new > d/e/n", []string{"dir d/ 755 0:0", "dir d/e/ 755 0:0", "file d/e/n 644 0:0 3"}},
	{"a changed file", "printf more >> f", []string{"file f 644 0:0 8"}},
	{"a removed file is a whiteout", "rm d/e/x", []string{"dir d/ 755 0:0", "dir d/e/ 755 0:0", "file d/e/.wh.x 0 0:0 0"}},
	{"a removed directory is one whiteout", "rm -r d", []string{"file .wh.d 0 0:0 0"}},
	// As BuildKit's: not by an opaque marker, which TestFormatReadsOpaqueDirectories reads.
	{"a directory made anew names what is gone", "rm -r d; mkdir d; printf 1 > d/y", []string{"dir d/ 755 0:0", "file d/.wh.e 0 0:0 0", "file d/y 644 0:0 1"}},
	{"a file in place of a directory", "rm -r d; printf 1 > d", []string{"file d 644 0:0 1"}},
	{"a directory in place of a file", "rm f; mkdir f; printf 1 > f/g", []string{"dir f/ 755 0:0", "file f/g 644 0:0 1"}},
	{"a link in place of a directory", "rm -r d; ln -s f d", []string{"link d 777 0:0 f"}},
	{"a file, a directory and a file again", "rm f; mkdir f; rmdir f; printf again! > f", []string{"file f 644 0:0 6"}},
	{"hard links across directories", "mkdir h; printf 12 > h/1; ln h/1 d/2; ln h/1 3",
		[]string{"file 3 644 0:0 2", "dir d/ 755 0:0", "hard d/2 644 0:0 3", "dir h/ 755 0:0", "hard h/1 644 0:0 3"}},
	// The layer has the content again: it cannot point at a file of another layer.
	{"a second name for an older file", "ln f d/also", []string{"dir d/ 755 0:0", "file d/also 644 0:0 4"}},
	{"a sparse file is written out", "truncate -s 100000 s", []string{"file s 644 0:0 100000"}},
	{"setuid, setgid and sticky bits", "printf 1 > u; chmod 4755 u; printf 1 > g; chmod 2755 g; mkdir t; chmod 1777 t",
		[]string{"file g 2755 0:0 1", "dir t/ 1777 0:0", "file u 4755 0:0 1"}},
	{"a changed mode, owner or both", "chmod 600 f; chown 5:6 d/e/x", []string{"dir d/ 755 0:0", "dir d/e/ 755 0:0", "file d/e/x 644 5:6 1", "file f 600 0:0 4"}},
	{"owners of more than 16 and 21 bits", "printf 1 > o; chown 70000:70001 o; printf 1 > p; chown 4000000:4000001 p",
		[]string{"file o 644 70000:70001 1", "file p 644 4000000:4000001 1"}},
	{"capabilities", "printf 1 > c; setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 c",
		[]string{"file c 644 0:0 1 security.capability=0100000200040000000000000000000000000000"}},
	{"names in unicode, with spaces and patterns", "printf 1 > 'ü 語'; printf 2 > '*[x]?'", []string{"file *[x]? 644 0:0 1", "file ü 語 644 0:0 1"}},
	{"a new line in a name", "printf 1 > 'a\nb'", []string{"file a\nb 644 0:0 1"}},
	{"devices and FIFOs", "mknod n c 1 3; mknod b b 7 0; mkfifo p", []string{"block b 644 0:0 7,0", "char n 644 0:0 1,3", "fifo p 644 0:0"}},
	{"symbolic links, dangling too", "ln -s /nowhere l; ln -s ../f d/m", []string{"dir d/ 755 0:0", "link d/m 777 0:0 ../f", "link l 777 0:0 /nowhere"}},
	{"a link that was aimed elsewhere", "ln -sfn f sym", []string{"link sym 777 0:0 f"}},
	{"what is written through a linked directory is below the real one", "printf 1 > sym/through", []string{"dir d/ 755 0:0", "file d/through 644 0:0 1"}},
	{"renamed", "mv d/e d/r", []string{"dir d/ 755 0:0", "file d/.wh.e 0 0:0 0", "dir d/r/ 755 0:0", "file d/r/x 644 0:0 1"}},
	{"the same content at the same time is no change", "touch -r f /tmp/.layerwright-format; cat f > f.new; cat f.new > f; rm f.new; touch -r /tmp/.layerwright-format f; rm /tmp/.layerwright-format", nil},
	{"the same mode and owner again is no change", "chmod 644 f; chown 0:0 f", nil},
	{"another time is a change", "touch -d @1000000000 f", []string{"file f 644 0:0 4"}},
	{"made and removed again leaves its directory alone", "printf 1 > d/temporary; rm d/temporary", nil},
	{"a socket is left out", "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")' 2>/dev/null || perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => \"sock\", Listen => 1)'; test -S sock", nil},
	{"a mode of a directory", "chmod 700 d/e", []string{"dir d/ 755 0:0", "dir d/e/ 700 0:0"}},
}

func TestFormatOfLayers(t *testing.T) {
	lower := tarLayer(t, "d/", "d/e/", "d/e/x=1", "f=1234", "sym -> d")
	for _, c := range format {
		t.Run(c.rule, func(t *testing.T) {
			var first []byte
			drivers(t, func(t *testing.T, s Store) {
				m, err := s.FromLayers([]v1.Layer{lower}).Claims([]int{1})[0].Mutate(t.Context())
				require.NoError(t, err)
				cmd := exec.Command("sh", "-euc", "umask 022; "+c.script)
				cmd.Dir = m.Dir()
				out, err := cmd.CombinedOutput()
				require.NoError(t, err, "%s", out)
				want := listing(t, m.Dir())
				capture, data := capturing(t)
				next, err := m.Commit(t.Context(), Changes{}, capture)
				require.NoError(t, err)
				_, err = next.Layers()[1].DiffID()
				require.NoError(t, err)
				require.Equal(t, c.entries, entriesOf(t, data()))
				// Both drivers write the same, but for the times of what is new.
				if first == nil {
					first = data()
				}
				require.Equal(t, entriesOf(t, first), entriesOf(t, data()))
				// And the layer on the lower tree is the upper tree.
				again := s.FromLayers([]v1.Layer{lower, static.NewLayer(data(), types.OCIUncompressedLayer)}).Claims([]int{1})[0]
				view, err := again.View(t.Context())
				require.NoError(t, err)
				require.Equal(t, comparable(want), comparable(listing(t, view.Dir())))
				require.NoError(t, view.Close())
				again.Release()
			})
		})
	}
}

// comparable leaves out what a layer cannot hold: sockets, and that a file of the
// lower layer has got a second name.
func comparable(list string) string {
	var out []string
	for _, l := range strings.Split(list, "\n") {
		if !strings.HasPrefix(l, "/sock ") {
			out = append(out, strings.TrimSuffix(l, " = /d/also"))
		}
	}
	return strings.Join(out, "\n")
}

// TestFormatReadsOpaqueDirectories, which other tools write.
func TestFormatReadsOpaqueDirectories(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		view, err := s.FromLayers([]v1.Layer{tarLayer(t, "d/", "d/old=1", "d/e/", "d/e/x=1"), tarLayer(t, "d/", "d/new=2", "d/.wh..wh..opq=")}).Claims([]int{1})[0].View(t.Context())
		require.NoError(t, err)
		require.Equal(t, "/d drwxr-xr-x 0:0\n/d/new -rw-r--r-- 0:0 \"2\" 1577836800", strings.TrimSpace(listing(t, view.Dir())))
		require.NoError(t, view.Close())
	})
}

// TestFormatHoldsPathsOf4000Bytes, longer than any single system call takes.
func TestFormatHoldsPathsOf4000Bytes(t *testing.T) {
	long := strings.Repeat(strings.Repeat("n", 199)+"/", 20)
	drivers(t, func(t *testing.T, s Store) {
		m, err := s.Scratch().Claims([]int{1})[0].Mutate(t.Context())
		require.NoError(t, err)
		script := "i=0; while test $i -lt 20; do mkdir " + strings.Repeat("n", 199) + "; cd " + strings.Repeat("n", 199) + "; i=$((i+1)); done; printf deep > f"
		cmd := exec.Command("sh", "-euc", script)
		cmd.Dir = m.Dir()
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		capture, data := capturing(t)
		next, err := m.Commit(t.Context(), Changes{}, capture)
		require.NoError(t, err)
		_, err = next.Layers()[0].DiffID()
		require.NoError(t, err)
		list := entriesOf(t, data())
		require.Len(t, list, 21)
		require.Contains(t, list, "file "+long+"f 644 0:0 4")
	})
}

// entriesOf describes a layer in order. Times: whole seconds, and those of
// directories as the tree has them (TestFormatKeepsTimes).
func entriesOf(t *testing.T, data []byte) (out []string) {
	t.Helper()
	kinds := map[byte]string{tar.TypeReg: "file", tar.TypeDir: "dir", tar.TypeLink: "hard", tar.TypeSymlink: "link", tar.TypeChar: "char", tar.TypeBlock: "block", tar.TypeFifo: "fifo"}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		require.Zero(t, h.ModTime.Nanosecond())
		require.Empty(t, h.Uname+h.Gname, "owners are numbers")
		line := fmt.Sprintf("%s %s %o %d:%d", kinds[h.Typeflag], h.Name, h.Mode, h.Uid, h.Gid)
		switch h.Typeflag {
		case tar.TypeReg:
			line += fmt.Sprintf(" %d", h.Size)
		case tar.TypeLink, tar.TypeSymlink:
			line += " " + h.Linkname
		case tar.TypeChar, tar.TypeBlock:
			line += fmt.Sprintf(" %d,%d", h.Devmajor, h.Devminor)
		}
		var more []string
		for k, v := range h.PAXRecords {
			if x, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
				more = append(more, fmt.Sprintf("%s=%x", x, v))
			}
		}
		sort.Strings(more)
		out = append(out, strings.Join(append([]string{line}, more...), " "))
	}
}

// TestFormatKeepsTimes: of files and of directories, those above an entry too.
func TestFormatKeepsTimes(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		m, err := s.FromLayers([]v1.Layer{tarLayer(t, "d/", "d/x=1")}).Claims([]int{1})[0].Mutate(t.Context())
		require.NoError(t, err)
		cmd := exec.Command("sh", "-euc", "printf 2 > d/y; touch -d @1111111111 d/y; touch -d @1222222222 d; mkdir n; touch -d @1333333333 n")
		cmd.Dir = m.Dir()
		require.NoError(t, cmd.Run())
		capture, data := capturing(t)
		next, err := m.Commit(t.Context(), Changes{}, capture)
		require.NoError(t, err)
		_, err = next.Layers()[1].DiffID()
		require.NoError(t, err)
		got := map[string]time.Time{}
		r := tar.NewReader(bytes.NewReader(data()))
		for h, err := r.Next(); err == nil; h, err = r.Next() {
			got[h.Name] = h.ModTime.UTC()
		}
		require.Equal(t, map[string]time.Time{"d/": time.Unix(1222222222, 0).UTC(), "d/y": time.Unix(1111111111, 0).UTC(), "n/": time.Unix(1333333333, 0).UTC()}, got)
	})
}
