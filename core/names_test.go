package core

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNamesWithDigestAreKanikos(t *testing.T) {
	list := []string{"registry.example:5000/a/b:1", "app"}
	text, err := namesWithDigest(list, "sha256:00", false)
	require.NoError(t, err)
	require.Equal(t, "registry.example:5000/a/b@sha256:00\nindex.docker.io/library/app@sha256:00\n", text)
	text, err = namesWithDigest(list, "sha256:00", true)
	require.NoError(t, err)
	require.Equal(t, "registry.example:5000/a/b:1@sha256:00\nindex.docker.io/library/app:latest@sha256:00\n", text)
}
