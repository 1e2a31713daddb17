package sandbox

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDevicesAreAsBefore(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.Mkdir(root+"/dev", 0o755))
	if err := makeDevices(root+"/dev", false); err != nil { // not as root
		_ = os.RemoveAll(root + "/dev")
		require.NoError(t, os.MkdirAll(root+"/dev/shm", 0o755))
		require.NoError(t, os.Symlink("/proc/self/fd", root+"/dev/fd"))
	}
	require.NoError(t, os.WriteFile(root+"/dev/shm/jobs", []byte("j"), 0o600))
	x := emptyExchange(nil, realOps(root))
	x.Root = root
	for _, dir := range deviceDirs {
		d, err := readDevices(root, dir)
		require.NoError(t, err)
		x.devices = append(x.devices, d)
	}
	require.NotEmpty(t, x.devices[0].Entries)
	require.NoError(t, os.WriteFile(root+"/dev/shm/steps", []byte("s"), 0o600))
	require.NoError(t, os.MkdirAll(root+"/dev/new/dir", 0o755))
	_ = os.Remove(root + "/dev/null")
	_ = os.Chmod(root+"/dev/zero", 0o600)
	require.NoError(t, os.Remove(root+"/dev/fd"))
	require.NoError(t, os.WriteFile(root+"/dev/fd", nil, 0o600))
	require.NoError(t, restoreDevices(x))
	for i, dir := range deviceDirs {
		d, err := readDevices(root, dir)
		require.NoError(t, err)
		x.devices[i].Own.Atime = d.Own.Atime // reading moves it
		require.Equal(t, x.devices[i], d)
	}
}
