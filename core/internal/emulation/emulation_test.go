package emulation

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/needs"
)

// TestPrograms runs each program by its emulator, whatever is registered.
func TestPrograms(t *testing.T) {
	emulators := map[string]string{"386": "i386", "amd64": "x86_64", "arm": "arm", "arm64": "aarch64", "loong64": "loongarch64", "mips64le": "mips64el", "ppc64le": "ppc64le", "riscv64": "riscv64", "s390x": "s390x"}
	for arch, p := range programs() {
		t.Run(arch, func(t *testing.T) {
			qemu, err := exec.LookPath("qemu-" + emulators[arch] + "-static")
			if err != nil {
				needs.Missing(t, "qemu-user-static")
			}
			file := filepath.Join(t.TempDir(), "program")
			require.NoError(t, os.WriteFile(file, p.elf(), 0o755))
			out, err := exec.CommandContext(t.Context(), qemu, file).CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
}

func TestTry(t *testing.T) {
	require.NoError(t, Try(t.Context(), t.TempDir(), runtime.GOARCH), "our own needs no emulator")
	require.ErrorContains(t, Try(t.Context(), t.TempDir(), "pdp11"), `"pdp11"`)
	require.Error(t, Try(t.Context(), filepath.Join(t.TempDir(), "missing"), "s390x"))
}
