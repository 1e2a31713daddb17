package core

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
)

const inspected = "FROM scratch AS app\nMAINTAINER me\nCOPY Dockerfile /\n"

// TestInspectReadsEveryKindOfContext and leaves nothing behind.
func TestInspectReadsEveryKindOfContext(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(inspected), 0o644))
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: int64(len(inspected))}))
	_, err := io.WriteString(w, inspected)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	file := filepath.Join(t.TempDir(), "context.tar")
	require.NoError(t, os.WriteFile(file, archive.Bytes(), 0o644))
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()

	for name, req := range map[string]Request{
		"directory":                    {Context: dir},
		"Dockerfile as data":           {Context: t.TempDir(), DockerfileData: []byte(inspected)},
		"Dockerfile by URL":            {Context: t.TempDir(), Dockerfile: server.URL + "/Dockerfile"},
		"Dockerfile as context":        {Context: server.URL + "/Dockerfile"},
		"archive by standard input":    {Context: "-", Stdin: bytes.NewReader(archive.Bytes())},
		"archive in a file":            {Context: "tar://" + file},
		"with outputs that it has not": {Context: dir, Outputs: Outputs{Destinations: []string{"127.0.0.1:1/x"}, DockerTar: "/nowhere/x"}, Isolation: "inplace", Store: "/nowhere/store"},
	} {
		t.Run(name, func(t *testing.T) {
			tmp := t.TempDir()
			t.Setenv("TMPDIR", tmp)
			found, err := Inspect(t.Context(), req, AskLint)
			require.NoError(t, err)
			require.NoError(t, found.Err)
			require.Equal(t, 1, found.Warnings)
			require.Contains(t, found.Text, "MaintainerDeprecated")
			left, err := os.ReadDir(tmp)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

func TestInspectErrorsAreThoseOfABuild(t *testing.T) {
	_, err := Inspect(t.Context(), Request{Context: "/nowhere"}, AskTargets)
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.User, e.Kind)

	found, err := Inspect(t.Context(), Request{Context: t.TempDir(), DockerfileData: []byte("FROM 127.0.0.1:1/x\n"), Registry: Registry{PullRetries: -1}}, AskLint)
	require.NoError(t, err)
	e, ok = fault.As(found.Err)
	require.True(t, ok)
	require.Equal(t, fault.Registry, e.Kind)
	require.Equal(t, 1, e.Location.Start)

	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	_, err = Inspect(ctx, Request{Context: t.TempDir(), DockerfileData: []byte("FROM 127.0.0.1:1/x\n")}, AskOutline)
	require.ErrorIs(t, err, gone)
}
