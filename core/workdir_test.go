package core

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

func TestAStartRemovesWhatKilledBuildsLeftAndNothingElse(t *testing.T) {
	store := t.TempDir()
	alive, err := newWorkdir(store)
	require.NoError(t, err)
	dead := filepath.Join(store, "builds", "dead")
	require.NoError(t, os.MkdirAll(filepath.Join(dead, "trees", "1"), 0o755))
	require.NoError(t, os.WriteFile(dead+".lock", nil, 0o600))
	caches := filepath.Join(store, "caches", "c")
	require.NoError(t, os.MkdirAll(caches, 0o755))
	next, err := newWorkdir(store)
	require.NoError(t, err)
	require.NoDirExists(t, dead)
	require.NoFileExists(t, dead+".lock")
	require.DirExists(t, alive.dir)
	require.DirExists(t, caches)
	require.NoError(t, alive.close())
	require.NoError(t, next.close())
	entries, err := os.ReadDir(filepath.Join(store, "builds"))
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestAStoreThatCannotBeWrittenIsTheEnvironments(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	_, err := makeStore(filepath.Join(file, "store"))
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.Environment, e.Kind)
	require.Contains(t, e.Remedy, "--store")
}

func TestAFullDiskIsTheEnvironmentsWhateverSaysIt(t *testing.T) {
	b := &build{}
	for _, err := range []error{
		unix.ENOSPC,
		&os.PathError{Op: "write", Path: "x", Err: unix.ENOSPC},
		fault.At(&os.PathError{Op: "write", Path: "x", Err: unix.ENOSPC}, &fault.Location{File: "Dockerfile", Start: 3}),
	} {
		e, ok := fault.As(b.classify(err))
		require.True(t, ok)
		require.Equal(t, fault.Environment, e.Kind)
		require.NotEmpty(t, e.Remedy)
	}
	plain := errors.New("plain")
	require.Equal(t, plain, b.classify(plain))
}

func TestPlatforms(t *testing.T) {
	ps, err := parsePlatforms([]string{"linux/amd64", "linux/arm64/v8"})
	require.NoError(t, err)
	require.Len(t, ps, 2)
	_, err = parsePlatforms([]string{"a/b/c/d"})
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.Usage, e.Kind)
}
