package filecopy_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/filecopy"
)

func TestClone(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(at("a"), []byte("content"), 0o644))
	require.NoError(t, os.Symlink("a", at("l")))
	require.NoError(t, filecopy.Clone(at("a"), at("b")))
	b, err := os.ReadFile(at("b"))
	require.NoError(t, err)
	require.Equal(t, "content", string(b))
	require.Error(t, filecopy.Clone(at("a"), at("b")), "an existing file is not overwritten")
	require.Error(t, filecopy.Clone(at("l"), at("c")), "a link is not followed")
	require.Error(t, filecopy.Clone(at("a"), at("l")), "nor written through")
}
