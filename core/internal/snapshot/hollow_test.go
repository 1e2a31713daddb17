package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/layer"
)

// A tree that nobody reads is unpacked without what large files contain. What is put
// on it is compared with what they would contain.
func TestAHollowTreeKnowsWhatItLacks(t *testing.T) {
	drivers(t, func(t *testing.T, s Store) {
		big, same := strings.Repeat("x", 1<<20), time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
		base := []v1.Layer{
			tarLayer(t, "d/", "d/big="+big, "d/other="+big, "d/small=1", "h >> d/big"),
			tarLayer(t, "d/", "d/third="+big, "d/.wh.other"),
		}
		hollow := func() State {
			state := s.FromLayers(base)
			state.Expect(Use{Hollow: true})
			return state
		}
		put := func(dir, name, data string) {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, name)))
			write(t, filepath.Join(dir, name), data)
			require.NoError(t, os.Chtimes(filepath.Join(dir, name), same, same))
		}
		next, got := change(t, hollow(), func(dir string) {
			for _, name := range []string{"d/big", "h", "d/third"} {
				var st unix.Stat_t
				require.NoError(t, unix.Lstat(filepath.Join(dir, name), &st))
				require.EqualValues(t, 1<<20, st.Size)
				require.LessOrEqual(t, st.Blocks*512, int64(16<<10), name)
			}
			require.NoFileExists(t, filepath.Join(dir, "d/other"))
			small, err := os.ReadFile(filepath.Join(dir, "d/small"))
			require.NoError(t, err)
			require.Equal(t, "1", string(small))
			put(dir, "d/big", big)
			put(dir, "h", strings.Repeat("y", 1<<20))
			put(dir, "new", "2")
		}, "d/big", "h", "new")
		require.Equal(t, []string{"h", "new"}, got)
		// What is seen later is all of it.
		layers := next.Layers()
		next.Claims(nil)
		text := view(t, s.FromLayers(layers))
		require.Contains(t, text, `"`+big+`"`)
		require.Contains(t, text, "/new ")

		// Should anybody read it all the same, nothing wrong gets into a layer.
		other := s.FromLayers([]v1.Layer{tarLayer(t, "d/", "d/big="+strings.Repeat("z", 1<<20))})
		other.Expect(Use{Hollow: true})
		m, err := other.Claims([]int{1})[0].Mutate(t.Context())
		require.NoError(t, err)
		require.NoError(t, os.Chmod(filepath.Join(m.Dir(), "d/big"), 0o600))
		capture, _ := capturing(t)
		state, err := m.Commit(t.Context(), Changes{Known: []string{"d/big"}}, capture)
		if err == nil {
			layers := state.Layers()
			_, err = layers[len(layers)-1].DiffID()
		}
		require.True(t, errors.Is(err, layer.ErrHollow), "%v", err)
	})
}
