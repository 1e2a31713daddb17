package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

// TestExchangeOfTheRealRoot runs the sandbox's own tests in a default container:
// those that exchange "/" may run nowhere else.
func TestExchangeOfTheRealRoot(t *testing.T) {
	d := parts.Engine(t)
	image := parts.JobImage(t, d)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", filepath.Join(dir, "sandbox.test"), "./core/internal/sandbox")
	cmd.Dir = parts.Repo()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	got := run(t, d.Command(t.Context(), "run", "--rm", "--network", "host", "-v", dir+":/test:ro", "-w", "/",
		"-e", "LAYERWRIGHT_TEST_DISPOSABLE_ROOT=1", "--entrypoint", "/test/sandbox.test", image, "-test.run", "RealRoot|Disposable|Inplace", "-test.v"))
	require.Equal(t, 0, got.code, got.output)
	require.Contains(t, got.output, "--- PASS: TestInplaceRuns")
	require.Contains(t, got.output, "--- PASS: TestInplaceKeepsSecretsFromTheStep")
	require.NotContains(t, got.output, "exchanges the real /", "none was skipped")
}
