package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/commit"
	"github.com/layerwright/layerwright/core/internal/image"
	imagesource "github.com/layerwright/layerwright/core/internal/source/image"
)

var then = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// put stores a record of one layer and gives its layer.
func put(t *testing.T, repo Repository, text string, created time.Time, tags ...string) v1.Layer {
	t.Helper()
	l := layerOf(text)
	require.NoError(t, repo.Upload(t.Context(), l))
	img, err := assemble(v1.ConfigFile{OS: "linux", Architecture: "amd64"}, map[string]string{labelStep: "RUN " + text, labelContent: "k-" + text},
		[]image.Layer{{Layer: l, Created: created, Description: "RUN " + text}}, created)
	require.NoError(t, err)
	require.NoError(t, repo.Put(t.Context(), img, tags))
	return l
}

func newLayout(t *testing.T) (Repository, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	return InLayout(dir, "oci:x"), dir
}

func TestARecordComesBackAsItWent(t *testing.T) {
	repo, _ := newLayout(t)
	_, err := repo.Get(t.Context(), "lw2-a")
	require.ErrorIs(t, err, ErrMiss)
	l := put(t, repo, "one", then, "lw2-a", "lw2-b")
	for _, tag := range []string{"lw2-a", "lw2-b"} {
		r, err := repo.Get(t.Context(), tag)
		require.NoError(t, err)
		require.Equal(t, []any{"RUN one", "k-one", "linux/amd64"}, []any{r.Step, r.ContentKey, r.Platform})
		require.True(t, r.Created.Equal(then))
		require.Len(t, r.Layers, 1)
		require.True(t, r.History[0].Created.Equal(then))
		want, err := l.Digest()
		require.NoError(t, err)
		got, err := r.Layers[0].Digest()
		require.NoError(t, err)
		require.Equal(t, want, got)
		rc, err := r.Layers[0].Compressed()
		require.NoError(t, err)
		b, err := io.ReadAll(rc)
		require.NoError(t, err)
		require.Equal(t, "one", string(b))
		require.NoError(t, rc.Close())
		require.NoError(t, repo.Tag(t.Context(), r, []string{"lw2-c"}))
	}
	_, err = repo.Get(t.Context(), "lw2-c")
	require.NoError(t, err)
}

func TestARecordOfAnotherFormatIsAMiss(t *testing.T) {
	repo, _ := newLayout(t)
	img, err := image.Assemble([]byte(`{"os":"linux","architecture":"amd64","config":{"Labels":{"`+labelFormat+`":"0"}}}`), nil, image.Options{EmbedConfig: true})
	require.NoError(t, err)
	require.NoError(t, repo.Put(t.Context(), img, []string{"lw2-a"}))
	_, err = repo.Get(t.Context(), "lw2-a")
	require.ErrorIs(t, err, ErrMiss)
}

func TestARecordOfAnotherFormatCanBeListedAndPruned(t *testing.T) {
	repo, _ := newLayout(t)
	now, err := assemble(v1.ConfigFile{OS: "linux", Architecture: "amd64"}, map[string]string{labelStep: "RUN old"}, nil, then)
	require.NoError(t, err)
	raw, err := now.RawConfigFile()
	require.NoError(t, err)
	old := bytes.Replace(raw, []byte(`"`+labelFormat+`":"`+Format+`"`), []byte(`"`+labelFormat+`":"1"`), 1)
	require.NotEqual(t, raw, old)
	img, err := image.Assemble(old, nil, image.Options{EmbedConfig: true})
	require.NoError(t, err)
	require.NoError(t, repo.Put(t.Context(), img, []string{"lw1-a"}))
	_, err = repo.Get(t.Context(), "lw1-a")
	require.ErrorIs(t, err, ErrMiss)
	put(t, repo, "new", then.Add(2*time.Hour), "lw2-a")
	entries, err := List(t.Context(), repo)
	require.NoError(t, err)
	require.Equal(t, []string{"RUN new", "RUN old"}, []string{entries[0].Step, entries[1].Step})
	_, err = Prune(t.Context(), repo, PruneOptions{OlderThan: time.Hour, Now: then.Add(2 * time.Hour)})
	require.NoError(t, err)
	entries, err = List(t.Context(), repo)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.Equal(t, "RUN new", entries[0].Step)
}

func TestABrokenBlobIsSaidToBeOne(t *testing.T) {
	repo, dir := newLayout(t)
	l := put(t, repo, "one", then, "lw2-a")
	digest, err := l.Digest()
	require.NoError(t, err)
	at := filepath.Join(dir, "blobs/sha256", digest.Hex)
	for _, damage := range []func() error{
		func() error { return os.WriteFile(at, []byte("ONE"), 0o644) },
		func() error { return os.WriteFile(at, []byte("o"), 0o644) },
		func() error { return os.Remove(at) },
	} {
		require.NoError(t, damage())
		r, err := repo.Get(t.Context(), "lw2-a")
		require.NoError(t, err)
		rc, err := r.Layers[0].Compressed()
		if err == nil {
			_, err = io.ReadAll(rc)
			require.NoError(t, rc.Close())
		}
		var broken *BrokenError
		require.ErrorAs(t, err, &broken)
		require.Equal(t, digest, broken.Layer)
	}
}

func TestADistrustedLayerMakesItsRecordsMisses(t *testing.T) {
	repo, _ := newLayout(t)
	l := put(t, repo, "one", then, "lw2-a")
	digest, err := l.Digest()
	require.NoError(t, err)
	c := New(Options{Read: []Repository{repo}, Notice: func(string) {}, Now: time.Now})
	require.NotNil(t, c.find(t.Context(), "lw2-a"))
	put(t, repo, "two", then, "lw2-b")
	first, again := c.Distrust(&BrokenError{Layer: digest})
	require.True(t, first && again)
	require.Nil(t, c.find(t.Context(), "lw2-a"))
	require.NotNil(t, c.find(t.Context(), "lw2-b"))
	first, again = c.Distrust(&BrokenError{Layer: digest})
	require.True(t, !first && again, "a second broken layer is the end of reading")
	require.Nil(t, c.find(t.Context(), "lw2-b"))
	_, again = c.Distrust(&BrokenError{Layer: digest})
	require.False(t, again)
}

// TestPruneLeavesImagesInTheSameLayoutWhole: an image for several platforms is an
// index, whose manifests may share blobs with records.
func TestPruneLeavesImagesInTheSameLayoutWhole(t *testing.T) {
	repo, dir := newLayout(t)
	shared, alone := put(t, repo, "shared", then, "lw2-a"), put(t, repo, "alone", then, "lw2-b")
	l := repo.(*local)
	idx, err := l.index()
	require.NoError(t, err)
	raw, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: idx.Manifests[:1]})
	require.NoError(t, err)
	digest, size, err := v1.SHA256(bytes.NewReader(raw))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "blobs", "sha256", digest.Hex), raw, 0o644))
	require.NoError(t, l.tag(v1.Descriptor{MediaType: types.OCIImageIndex, Digest: digest, Size: size}, []string{"image"}))
	for _, m := range idx.Manifests {
		require.NoError(t, l.remove(t.Context(), Entry{Digest: m.Digest}))
	}
	for layer, kept := range map[v1.Layer]bool{shared: true, alone: false} {
		d, err := layer.Digest()
		require.NoError(t, err)
		_, err = os.Stat(filepath.Join(dir, "blobs", "sha256", d.Hex))
		require.Equal(t, kept, err == nil)
	}
}

func TestAnExpiredRecordIsAMiss(t *testing.T) {
	repo, _ := newLayout(t)
	put(t, repo, "one", then, "lw2-a")
	at := func(now time.Time) *Record {
		return New(Options{Read: []Repository{repo}, TTL: time.Hour, Notice: func(string) {}, Now: func() time.Time { return now }}).find(t.Context(), "lw2-a")
	}
	require.NotNil(t, at(then.Add(time.Hour)))
	require.Nil(t, at(then.Add(time.Hour+time.Second)))
}

func TestPruneChooses(t *testing.T) {
	now := then.Add(100 * time.Hour)
	for _, c := range []struct {
		name string
		opts PruneOptions
		left string
	}{
		{"nothing", PruneOptions{}, "abcd"},
		{"by age", PruneOptions{OlderThan: 98 * time.Hour}, "cd"},
		{"by age, but not the newest", PruneOptions{OlderThan: time.Hour, KeepLast: 1}, "d"},
		{"by size", PruneOptions{MaxSize: 3}, "bcd"},
		{"by size and age", PruneOptions{MaxSize: 3, OlderThan: 98 * time.Hour}, "cd"},
		{"a dry run", PruneOptions{OlderThan: time.Hour, DryRun: true}, "abcd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			repo, dir := newLayout(t)
			for i, name := range []string{"a", "b", "c", "d"} {
				put(t, repo, name, then.Add(time.Duration(i)*time.Hour), "lw2-"+name)
			}
			c.opts.Now = now
			_, err := Prune(t.Context(), repo, c.opts)
			require.NoError(t, err)
			entries, err := List(t.Context(), repo)
			require.NoError(t, err)
			left := ""
			for _, e := range entries {
				left = strings.TrimPrefix(e.Step, "RUN ") + left
			}
			require.Equal(t, c.left, left)
			blobs, err := os.ReadDir(filepath.Join(dir, "blobs/sha256"))
			require.NoError(t, err)
			require.Len(t, blobs, 3*len(c.left), "layer, configuration and manifest of each, and nothing else")
		})
	}
}

// mounts makes Mounts on a layout; every call is another job.
func mounts(t *testing.T, repo Repository, scope string, notices *[]string) *Mounts {
	t.Helper()
	source := imagesource.New(t.Context(), imagesource.Options{Dir: t.TempDir()})
	t.Cleanup(source.Close)
	w := commit.New(t.TempDir(), commit.Options{Compression: commit.Zstd})
	return NewMounts(MountOptions{Read: []Repository{repo}, Write: repo, Scope: scope, MaxSize: 1 << 20, Layers: source.Layers, Now: time.Now,
		Notice: func(s string) { *notices = append(*notices, s) },
		Blob: func(ctx context.Context, write func(context.Context, io.Writer) error) (v1.Layer, error) {
			return w.Layer(ctx, write, nil)
		}})
}

func TestCacheMountsSurvive(t *testing.T) {
	repo, _ := newLayout(t)
	var notices []string
	layers := func() int {
		entries, err := List(t.Context(), repo)
		require.NoError(t, err)
		require.Len(t, entries, 1)
		return len(entries[0].layers)
	}
	// The first job makes it.
	m, dir := mounts(t, repo, "", &notices), t.TempDir()
	require.False(t, m.Restore(t.Context(), "id", "/c", dir))
	require.NoError(t, os.Chmod(dir, 0o750))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "pkg/old"), 0o755))
	for name, text := range map[string]string{"pkg/a": "aaaa", "pkg/old/x": "x", "big": strings.Repeat("b", 1000)} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	m.Save(t.Context(), "id", "/c", dir)
	require.Equal(t, 1, layers())
	m.Save(t.Context(), "id", "/c", dir) // nothing changed since
	require.Equal(t, 1, layers())

	// The second adds, changes and removes; only that is written.
	m, dir = mounts(t, repo, "", &notices), t.TempDir()
	require.True(t, m.Restore(t.Context(), "id", "/c", dir))
	fi, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o750), fi.Mode().Perm())
	b, err := os.ReadFile(filepath.Join(dir, "pkg/a"))
	require.NoError(t, err)
	require.Equal(t, "aaaa", string(b))
	m.Save(t.Context(), "id", "/c", dir) // unchanged
	require.Equal(t, 1, layers())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "pkg/a"), []byte("AAAA"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "pkg/new"), []byte("n"), 0o644))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "pkg/old")))
	m.Save(t.Context(), "id", "/c", dir)
	require.Equal(t, 2, layers())

	// The third finds both.
	m, dir = mounts(t, repo, "", &notices), t.TempDir()
	require.True(t, m.Restore(t.Context(), "id", "/c", dir))
	for name, text := range map[string]string{"pkg/a": "AAAA", "pkg/new": "n", "big": strings.Repeat("b", 1000)} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, text, string(b))
	}
	require.NoDirExists(t, filepath.Join(dir, "pkg/old"))
	// When most of what is stored is dead it is written anew.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "big"), []byte(strings.Repeat("c", 1500)), 0o644))
	m.Save(t.Context(), "id", "/c", dir)
	require.Equal(t, 3, layers())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "big"), []byte(strings.Repeat("d", 1600)), 0o644))
	m.Save(t.Context(), "id", "/c", dir)
	require.Equal(t, 1, layers())
	require.Empty(t, notices)
}

func TestCacheMountsHaveALimitScopesAndOtherIDs(t *testing.T) {
	repo, _ := newLayout(t)
	var notices []string
	m, dir := mounts(t, repo, "", &notices), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), make([]byte, 2<<20), 0o644))
	m.Save(t.Context(), "id", "/c", dir)
	require.Len(t, notices, 1)
	require.Contains(t, notices[0], "--cache-mount-max-size")
	require.False(t, m.Restore(t.Context(), "id", "/c", t.TempDir()))

	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte("main"), 0o644))
	m.Save(t.Context(), "id", "/c", dir)
	require.False(t, mounts(t, repo, "", &notices).Restore(t.Context(), "other", "/c", t.TempDir()))

	branch, at := mounts(t, repo, "branch", &notices), t.TempDir()
	require.True(t, branch.Restore(t.Context(), "id", "/c", at), "a new scope begins with what has none")
	require.NoError(t, os.WriteFile(filepath.Join(at, "f"), []byte("branch"), 0o644))
	branch.Save(t.Context(), "id", "/c", at)
	for scope, want := range map[string]string{"": "main", "branch": "branch"} {
		at := t.TempDir()
		require.True(t, mounts(t, repo, scope, &notices).Restore(t.Context(), "id", "/c", at))
		b, err := os.ReadFile(filepath.Join(at, "f"))
		require.NoError(t, err)
		require.Equal(t, want, string(b))
	}
}

func TestADamagedCacheMountBeginsEmpty(t *testing.T) {
	repo, layout := newLayout(t)
	var notices []string
	m, dir := mounts(t, repo, "", &notices), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte("text"), 0o644))
	m.Save(t.Context(), "id", "/c", dir)
	r := m.find(t.Context(), "id")
	require.NotNil(t, r)
	require.NoError(t, os.Truncate(filepath.Join(layout, "blobs/sha256", r.digests()[0].Hex), 10))
	at := t.TempDir()
	require.False(t, mounts(t, repo, "", &notices).Restore(t.Context(), "id", "/c", at))
	require.Len(t, notices, 1)
	require.Contains(t, notices[0], "begins empty")
	left, err := os.ReadDir(at)
	require.NoError(t, err)
	require.Empty(t, left)
}
