package sandbox

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/needs"
)

func TestProbeTriesEverythingAndLeavesNothing(t *testing.T) {
	store := t.TempDir()
	start := time.Now()
	r := Probe(t.Context(), ProbeOptions{Store: store, Namespaces: true, Chroot: true})
	t.Log(time.Since(start))
	for _, a := range r.Attempts {
		t.Logf("%-22s %-50s %-5v %-20s %s", a.Name, a.Tried, a.OK, a.Answer, a.Meaning)
		require.NotEmpty(t, a.Tried)
		require.NotEmpty(t, a.Answer)
		require.NotEmpty(t, a.Meaning)
	}
	left, err := os.ReadDir(store)
	require.NoError(t, err)
	require.Empty(t, left)
	if os.Getuid() != 0 || !hasCap(21) {
		needs.Missing(t, "privilege for what follows")
	}
	for _, name := range []string{TryNamespaces, TryIDs, TryTmpfs, TryBind, TryOverlay, TryProc, TryProcBind, TryNetwork, TryPivot, TryChroot, TryDevices} {
		if name == TryNetwork && !hasCap(12) {
			continue
		}
		require.True(t, r.ok(name), name)
	}
	i, overlay, err := r.Choose(Auto)
	require.NoError(t, err)
	require.Equal(t, Namespaces, i)
	require.True(t, overlay)
}

func TestChoose(t *testing.T) {
	report := func(ids int, ok ...string) Report {
		r := Report{MappedIDs: ids}
		for _, n := range []string{TryNamespaces, TryTmpfs, TryBind, TryOverlay, TryProc, TryProcBind, TryPivot, TryChroot, TryInplace} {
			a := Attempt{Name: n, Tried: "try " + n, Answer: "operation not permitted"}
			for _, o := range ok {
				a.OK = a.OK || o == n
			}
			r.Attempts = append(r.Attempts, a)
		}
		return r
	}
	spaces := []string{TryNamespaces, TryTmpfs, TryBind, TryPivot, TryProcBind}
	for _, tc := range []struct {
		name    string
		report  Report
		want    Isolation
		got     Isolation
		overlay bool
		err     string
	}{
		{"namespaces first", report(1000, append(spaces, TryOverlay, TryInplace, TryChroot)...), Auto, Namespaces, true, ""},
		{"overlay is a choice of its own", report(1000, spaces...), Auto, Namespaces, false, ""},
		{"then inplace", report(1000, TryInplace, TryChroot), Auto, Inplace, false, ""},
		{"then chroot", report(1000, TryChroot), Auto, Chroot, false, ""},
		{"asked for is not replaced", report(1000, TryChroot), Inplace, 0, false, "isolation inplace: try exchanging /: operation not permitted"},
		{"one mapped id", report(1, spaces...), Auto, 0, false, "only one user id is mapped"},
		{"nothing works", report(0), Auto, 0, false, "no isolation works here"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, overlay, err := tc.report.Choose(tc.want)
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				f, ok := fault.As(err)
				require.True(t, ok)
				require.Equal(t, fault.Environment, f.Kind)
				require.NotEmpty(t, f.Remedy)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.got, got)
			require.Equal(t, tc.overlay, overlay)
		})
	}
}

func helperCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if os.Getuid() != 0 || !hasCap(21) {
		needs.Missing(t, "CAP_SYS_ADMIN")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	return exec.CommandContext(t.Context(), self, append([]string{"helper"}, args...)...)
}

func TestEnterNamespaces(t *testing.T) {
	dir := t.TempDir()
	out, err := helperCommand(t, "show", dir).Output()
	require.NoError(t, err)
	fields := strings.Fields(string(out))
	require.Equal(t, []string{"1", "true"}, fields[1:3])
	require.NotContains(t, fields[0], insidePrefix)
	require.False(t, isMountPoint(t, dir), "mounts stay inside")

	err = helperCommand(t, "exit").Run()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 42, exit.ExitCode())
}

func TestEnterNamespacesPassesSignalsOn(t *testing.T) {
	cmd := helperCommand(t, "signal")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	require.Equal(t, 7, exit.ExitCode())
}

func TestEnterNamespacesDiesWithItsParent(t *testing.T) {
	cmd := helperCommand(t, "wait")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.Eventually(t, func() bool { _, ok := parentOf(strconv.Itoa(pid)); return !ok || zombie(pid) }, 2*time.Second, 10*time.Millisecond)
}

func zombie(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	return err != nil || strings.Contains(string(data), "State:\tZ")
}

func isMountPoint(t *testing.T, p string) bool {
	data, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	return strings.Contains(string(data), " "+p+" ")
}
