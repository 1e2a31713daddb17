// Package e2e tests the built binary as people run it: in default containers of
// a real Docker engine, against a real registry.
package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

func TestMain(m *testing.M) { parts.Run(m) }

// outcome is what a finished build left to be seen.
type outcome struct {
	output string
	code   int
}

// run runs a command to its end; only a command that cannot start fails the
// test.
func run(t *testing.T, cmd *exec.Cmd) outcome {
	t.Helper()
	var buf bytes.Buffer
	cmd.Stdout, cmd.Stderr = &buf, &buf
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return outcome{output: buf.String(), code: cmd.ProcessState.ExitCode()}
}

// inJob runs "layerwright args…" in a fresh default container with dir mounted
// at /workspace.
func inJob(t *testing.T, dir string, args ...string) outcome {
	t.Helper()
	return run(t, jobCommand(t.Context(), t, nil, dir, args...))
}

func jobCommand(ctx context.Context, t *testing.T, docker []string, dir string, args ...string) *exec.Cmd {
	t.Helper()
	d := parts.Engine(t)
	all := append([]string{"run", "--rm", "--network", "host", "-v", dir + ":/workspace"}, docker...)
	all = append(append(all, parts.JobImage(t, d)), args...)
	return d.Command(ctx, all...)
}

// inShell runs a script by busybox' shell as PID 1 of a default container, with
// dir mounted at /workspace. The binary is on PATH.
func inShell(t *testing.T, dir, script string, docker ...string) outcome {
	t.Helper()
	d := parts.Engine(t)
	all := append([]string{"run", "--rm", "--network", "host", "--entrypoint", "/busybox/sh", "-v", dir + ":/workspace"}, docker...)
	all = append(all, parts.JobImage(t, d), "-c", script)
	return run(t, d.Command(t.Context(), all...))
}

// onHost runs the binary on the machine, with a store of its own.
func onHost(t *testing.T, args ...string) outcome {
	t.Helper()
	return onHostIn(t, filepath.Join(t.TempDir(), "store"), args...)
}

func onHostIn(t *testing.T, store string, args ...string) outcome {
	t.Helper()
	args = append(args, "--store", store)
	return run(t, exec.CommandContext(t.Context(), parts.Binary(t), args...))
}

// context writes files to a new directory.
func buildContext(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	for name, data := range files {
		p := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, []byte(data), 0o644))
	}
	return dir
}

// smallBase pushes the small base image once and gives its reference.
func smallBase(t *testing.T) string {
	t.Helper()
	ref := parts.SharedRegistry(t).Addr + "/small:1"
	parts.PushBase(t, ref, parts.SmallBase(t))
	return ref
}

// eventually waits up to a generous bound.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
