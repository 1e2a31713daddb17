package hostview_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/hostview"
)

// TestADirectoryStaysWhatItWas: as while "/" is exchanged, its path then means
// something else.
func TestADirectoryStaysWhatItWas(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "ctx")
	require.NoError(t, os.Mkdir(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte("mine"), 0o644))
	d, err := hostview.OpenDir(dir)
	require.NoError(t, err)
	require.NoError(t, os.Rename(dir, filepath.Join(base, "aside")))
	require.NoError(t, os.Mkdir(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte("other"), 0o644))
	b, err := os.ReadFile(filepath.Join(d.Path(), "f"))
	require.NoError(t, err)
	require.Equal(t, "mine", string(b))
	require.NoError(t, d.Close())
}

// TestRenewFollowsADirectoryThatWasMadeAnew: by the same path, which others have.
func TestRenewFollowsADirectoryThatWasMadeAnew(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "ctx")
	require.NoError(t, os.Mkdir(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte("mine"), 0o644))
	d, err := hostview.OpenDir(dir)
	require.NoError(t, err)
	path := d.Path()
	require.NoError(t, os.Rename(dir, filepath.Join(base, "aside")))
	require.ErrorContains(t, d.Renew(), dir)
	require.NoError(t, os.Mkdir(dir, 0o755))
	require.NoError(t, os.Rename(filepath.Join(base, "aside", "f"), filepath.Join(dir, "f")))
	require.NoFileExists(t, filepath.Join(path, "f"))
	require.NoError(t, d.Renew())
	b, err := os.ReadFile(filepath.Join(path, "f"))
	require.NoError(t, err)
	require.Equal(t, "mine", string(b))
	require.NoError(t, d.Close())
}

func TestWhatIsNoDirectoryIsAnErrorWithItsName(t *testing.T) {
	f := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(f, nil, 0o644))
	for _, name := range []string{f, f + "-missing"} {
		_, err := hostview.OpenDir(name)
		require.ErrorContains(t, err, name)
	}
}

func TestAnOutputGoesWhereItsParentWas(t *testing.T) {
	base := t.TempDir()
	path, parent, err := hostview.Output(filepath.Join(base, "new", "out"))
	require.NoError(t, err)
	require.NoError(t, os.Rename(filepath.Join(base, "new"), filepath.Join(base, "aside")))
	require.NoError(t, os.WriteFile(path, []byte("x"), 0o644))
	require.NoError(t, parent.Close())
	require.FileExists(t, filepath.Join(base, "aside", "out"))
}

func TestPreload(t *testing.T) { require.NoError(t, hostview.Preload()) }
