package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/needs"
)

// A supervising process that was killed too leaves its journal.
func TestPlacementIsRecoveredFromItsJournal(t *testing.T) {
	root := busyboxRoot(t)
	before := walk(t, root)
	scratch, src := t.TempDir(), filepath.Join(t.TempDir(), "c")
	require.NoError(t, os.Mkdir(src, 0o755))
	_, err := placeMounts(root, scratch, []Mount{
		{Kind: Secret, Target: "/etc/passwd", Data: []byte("x"), Mode: 0o400},
		{Kind: Cache, Target: "/var/cache", Source: src},
		{Kind: Tmpfs, Target: "/tmp"},
	})
	require.NoError(t, err)
	require.NoError(t, recoverPlacement(scratch))
	require.Equal(t, before, walk(t, root))
	require.DirExists(t, src)
	require.NoError(t, recoverPlacement(scratch), "again is nothing")
}

func TestFailedPlacementLeavesNothing(t *testing.T) {
	root := busyboxRoot(t)
	before := walk(t, root)
	_, err := placeMounts(root, t.TempDir(), []Mount{
		{Kind: Secret, Target: "/a/s", Data: []byte("x"), Mode: 0o400},
		{Kind: Bind, Target: "/z", Source: "/does/not/exist"},
	})
	require.ErrorContains(t, err, "mount /z")
	require.Equal(t, before, walk(t, root))
}

func TestPlacedCacheOfAnotherFilesystemIsCopiedBack(t *testing.T) {
	root := busyboxRoot(t)
	src, err := os.MkdirTemp("/dev/shm", "cache-")
	require.NoError(t, err)
	defer os.RemoveAll(src)
	require.NoError(t, os.WriteFile(src+"/old", nil, 0o600))
	p, err := placeMounts(root, t.TempDir(), []Mount{{Kind: Cache, Target: "/c", Source: src}})
	require.NoError(t, err)
	require.FileExists(t, root+"/c/old")
	require.NoError(t, os.WriteFile(root+"/c/new", nil, 0o600))
	require.NoError(t, p.Undo())
	require.FileExists(t, src+"/new")
	require.NoDirExists(t, root+"/c")
	require.Contains(t, p.Suspect(), ".")
}

func TestMountTargetCannotLeaveTheRoot(t *testing.T) {
	eachMode(t, func(t *testing.T, sb Sandbox) {
		root := busyboxRoot(t)
		outside := t.TempDir()
		require.NoError(t, os.Symlink(outside, root+"/link"))
		require.NoError(t, os.Symlink("../../../../../../../.."+outside, root+"/up"))
		step := sh(t, root, "cat /link/s /up/s")
		step.Mounts = []Mount{{Kind: Secret, Target: "/link/s", Data: []byte("1"), Mode: 0o400}, {Kind: Secret, Target: "/up/s", Data: []byte("2"), Mode: 0o400}}
		out := output(t, sb, step)
		require.NotEmpty(t, out)
		left, err := os.ReadDir(outside)
		require.NoError(t, err)
		require.Empty(t, left)
	})
}

func TestOverlayMountAsRoot(t *testing.T) {
	sb, err := NewNamespaces(NamespacesOptions{})
	if err != nil {
		needs.Missing(t, err.Error())
	}
	lower := busyboxRoot(t)
	dir, err := os.MkdirTemp("/dev/shm", "overlay-")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	for _, d := range []string{"upper", "work", "root"} {
		require.NoError(t, os.Mkdir(dir+"/"+d, 0o755))
	}
	if err := syscall.Mount("overlay", dir+"/root", "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower, dir, dir)); err != nil {
		needs.Missing(t, "no overlay here: "+err.Error())
	}
	defer syscall.Unmount(dir+"/root", syscall.MNT_DETACH)
	step := sh(t, dir+"/root", "echo x > /new; rm /etc/group; test -e /etc/hosts")
	step.Mounts = []Mount{{Kind: Tmpfs, Target: "/m"}}
	output(t, sb, step)
	var changed []string
	for _, line := range walk(t, dir+"/upper") {
		changed = append(changed, strings.Fields(line)[0])
	}
	require.Equal(t, []string{".", "etc", "etc/group", "new"}, changed)
}
