package main

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

func TestMain(m *testing.M) { parts.Run(m) }

// TestDemo: what README.md promises of make demo.
func TestDemo(t *testing.T) {
	parts.Binary(t)
	repo, err := filepath.Abs(parts.Repo())
	require.NoError(t, err)
	require.NoError(t, demo(t.Context(), repo))
	require.FileExists(t, filepath.Join(repo, ".demo", "hello.tar"))
	require.FileExists(t, filepath.Join(repo, ".demo", "hello", "index.json"))
}
