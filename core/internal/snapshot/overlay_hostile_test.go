package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/needs"
)

func TestAHardlinkThroughALowerLayersLinkStaysInTheImage(t *testing.T) {
	host := t.TempDir()
	write(t, host+"/secret", "of the host")
	drivers(t, func(t *testing.T, s Store) {
		c := s.FromLayers([]v1.Layer{tarLayer(t, "x -> "+host), tarLayer(t, "stolen >> x/secret")}).Claims([]int{1})[0]
		_, err := c.View(t.Context())
		require.Error(t, err)
	})
}

func TestImplicitParentsTakeNothingThroughALink(t *testing.T) {
	host := t.TempDir()
	require.NoError(t, os.Mkdir(host+"/sub", 0o700))
	drivers(t, func(t *testing.T, s Store) {
		got := view(t, s.FromLayers([]v1.Layer{tarLayer(t, "x -> "+host), tarLayer(t, "x/sub/f=1")}))
		require.Contains(t, got, "/x/sub drwxr-xr-x 0:0")
	})
}

func TestALinkReplacedByACopyOfItsTarget(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		state := s.FromLayers([]v1.Layer{tarLayer(t, "releases/", "releases/1/", "releases/1/app=hello", "current -> releases/1")})
		next, got := change(t, state, func(dir string) {
			cmd := exec.Command("sh", "-c", "rm current && cp -a releases/1 current")
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
		})
		require.Equal(t, []string{"current/", "current/app"}, got)
		require.Equal(t, view(t, next), view(t, s.FromLayers(next.Layers())))
	})
}

func TestACancelledReaderLeavesALayerToOthers(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		c := s.FromLayers([]v1.Layer{tarLayer(t, "a=1"), tarLayer(t, "b=1")}).Claims([]int{1, 2})
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("stop"))
		_, err := c[0].View(ctx)
		require.Error(t, err)
		c[0].Release()
		v, err := c[1].View(t.Context())
		require.NoError(t, err)
		require.NoError(t, v.Close())
	})
}

func TestCloseUndoesWhatIsStillMounted(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		c := s.FromLayers([]v1.Layer{tarLayer(t, "a=1"), tarLayer(t, "b=1")}).Claims([]int{1, 1})
		_, err := c[0].View(t.Context())
		require.NoError(t, err)
		_, err = c[1].Mutate(t.Context())
		require.NoError(t, err)
	}) // drivers closes the store
}

func TestManyLayersOnAnOlderKernel(t *testing.T) {
	needs.Root(t)
	base := t.TempDir()
	if _, err := ProbeOverlay(base); err != nil {
		needs.Missing(t, err.Error())
	}
	dir := func(name string) string {
		d := filepath.Join(base, name)
		require.NoError(t, os.Mkdir(d, 0o755))
		return d
	}
	var lower []string
	for i := range 120 {
		lower = append(lower, dir(fmt.Sprint(i)))
	}
	write(t, lower[0]+"/lowest", "x")
	before, err := os.Getwd()
	require.NoError(t, err)
	merged := dir("merged")
	require.NoError(t, mountByOptions(merged, lower, dir("upper"), dir("work"), false))
	require.FileExists(t, merged+"/lowest")
	require.NoError(t, unix.Unmount(merged, 0))
	after, err := os.Getwd()
	require.NoError(t, err)
	require.Equal(t, before, after)
}

func TestAnIdenticalLinkInPlaceOfAChangedOneIsNoChange(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		state := s.FromLayers([]v1.Layer{tarLayer(t, "a=1", "l -> f")})
		link := func(name string) func(string) {
			return func(dir string) {
				cmd := exec.Command("sh", "-c", "cp -a l new && mv -T new "+name)
				cmd.Dir = dir
				out, err := cmd.CombinedOutput()
				require.NoError(t, err, string(out))
			}
		}
		state, got := change(t, state, link("a"))
		require.Equal(t, []string{"a"}, got, "a file of the same size and time becomes a link")
		_, got = change(t, state, link("a"))
		require.Empty(t, got)
	})
}
