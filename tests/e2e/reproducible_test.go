package e2e_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/stretchr/testify/require"
)

// reproducibleDockerfile has what could differ between builds: times, the order
// in which files were made, links, deletions, directories of the base that a
// step touches, mounts that leave something behind.
const reproducibleDockerfile = `FROM %s AS build
RUN mkdir -p /made/z /made/a /made/m && for i in 3 1 2; do echo $i >/made/z/$i; done
RUN ln /made/z/3 /made/a/link && ln -s ../z/1 /made/a/sym && mkfifo /made/fifo && chown 70000:4000 /made/m && chmod 1777 /made/m
COPY . /context
COPY --chmod=600 --chown=5:6 data/file /context2/
RUN --mount=type=cache,target=/made/cache echo cached >/made/cache/x
RUN rm -r /made/z/2 /context/data/sub && echo more >>/context/data/file && mkdir /made/z/2
RUN touch /etc/new && rm /etc/new && echo name >/etc/reproducible && truncate -s 100000 /sparse
WORKDIR /new/work
FROM %[1]s
COPY --from=build /made /made
COPY --link --from=build /context /linked
RUN echo last >/last
`

// reproducibleContext is the same context with other times.
func reproducibleContext(t *testing.T, base string, at time.Time) string {
	dir := buildContext(t, map[string]string{
		"Dockerfile": fmt.Sprintf(reproducibleDockerfile, base), ".dockerignore": "out*\n",
		"data/file": "content\n", "data/sub/a": "a", "data/sub/b": "b", "z": "z", "a/b/c": "c",
	})
	require.NoError(t, filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(p, at, at)
	}))
	return dir
}

// layoutImage is the one image of a layout.
func layoutImage(t *testing.T, dir string) v1.Image {
	t.Helper()
	idx, err := layout.ImageIndexFromPath(dir)
	require.NoError(t, err)
	m, err := idx.IndexManifest()
	require.NoError(t, err)
	require.Len(t, m.Manifests, 1)
	img, err := idx.Image(m.Manifests[0].Digest)
	require.NoError(t, err)
	return img
}

// imageListing is what an image is made of, for reading a difference.
func imageListing(t *testing.T, img v1.Image) string {
	t.Helper()
	var b strings.Builder
	raw, err := img.RawConfigFile()
	require.NoError(t, err)
	fmt.Fprintf(&b, "%s\n", raw)
	layers, err := img.Layers()
	require.NoError(t, err)
	for i, l := range layers {
		rc, err := l.Uncompressed()
		require.NoError(t, err)
		r := tar.NewReader(rc)
		for i > 0 { // the base is what it is
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			fmt.Fprintf(&b, "%d %c %s -> %s %o %d:%d %d %d %d,%d %v\n", i, h.Typeflag, h.Name, h.Linkname, h.Mode, h.Uid, h.Gid, h.Size, h.ModTime.Unix(), h.Devmajor, h.Devminor, h.PAXRecords)
		}
		require.NoError(t, rc.Close())
	}
	digest, err := img.Digest()
	require.NoError(t, err)
	return b.String() + digest.String()
}

// TestReproducible builds one Dockerfile in surroundings that differ in whatever
// a build could see of them: every image must be the same, bit by bit.
func TestReproducible(t *testing.T) {
	base := smallBase(t)
	build := []string{"build", "--log-format", "plain", "--oci-layout-path"}
	var want string
	same := func(t *testing.T, dir, out string, got outcome) {
		t.Helper()
		require.Equal(t, 0, got.code, got.output)
		list := imageListing(t, layoutImage(t, filepath.Join(dir, out)))
		if want == "" {
			want = list
		}
		require.Equal(t, want, list)
	}
	for name, c := range map[string]struct {
		docker []string
		args   []string
		at     time.Time
	}{
		"container":                {nil, nil, time.Unix(1700000000, 5)},
		"one core, other zone":     {[]string{"--cpus", "1", "-e", "GOMAXPROCS=1", "-e", "TZ=Asia/Tokyo", "--hostname", "other"}, nil, time.Unix(1600000000, 0)},
		"store on tmpfs":           {[]string{"--tmpfs", "/store:exec,size=512m"}, []string{"--store", "/store"}, time.Now()},
		"store on the host's disk": {[]string{"-v", t.TempDir() + ":/store"}, []string{"--store", "/store"}, time.Unix(1, 0)},
		"chroot":                   {nil, []string{"--isolation", "chroot"}, time.Unix(1500000000, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := reproducibleContext(t, base, c.at)
			args := append(append(append([]string{}, build...), "/workspace/out", "--context", "/workspace", "--reproducible"), c.args...)
			same(t, dir, "out", run(t, jobCommand(t.Context(), t, c.docker, dir, args...)))
		})
	}
	for name, args := range hostModes {
		t.Run("host "+name, func(t *testing.T) {
			dir := reproducibleContext(t, base, time.Now())
			same(t, dir, "out", onHost(t, append(append(append([]string{}, build...), filepath.Join(dir, "out"), "--context", dir, "--reproducible"), args...)...))
		})
	}
	t.Run("without the flag times differ", func(t *testing.T) {
		dir := reproducibleContext(t, base, time.Now())
		got := onHost(t, append(build, filepath.Join(dir, "out"), "--context", dir)...)
		require.Equal(t, 0, got.code, got.output)
		cf, err := layoutImage(t, filepath.Join(dir, "out")).ConfigFile()
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), cf.Created.Time, time.Hour)
		require.NotContains(t, want, cf.Created.Format(time.RFC3339Nano))
	})
}
