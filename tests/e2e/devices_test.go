package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/conformance"
)

// TestNothingWrittenToDevIsInTheImage, also where the store's file system has no
// device nodes, as Docker's tmpfs: /dev/null is then an ordinary file.
func TestNothingWrittenToDevIsInTheImage(t *testing.T) {
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + smallBase(t) + "\nRUN echo x > /dev/null; echo y > /dev/left; test -s /dev/left\n"})
	for _, mode := range []string{"chroot", "inplace"} {
		ref := newRepo(t) + ":" + mode
		got := run(t, jobCommand(t.Context(), t, []string{"--tmpfs", "/store:exec"}, dir, "build", "--log-format", "plain", "--context", "/workspace",
			"--isolation", mode, "--destination", ref, "--store", map[string]string{"chroot": "/store/s", "inplace": ""}[mode]))
		require.Equal(t, 0, got.code, got.output)
		image, err := conformance.Load(t.Context(), ref)
		require.NoError(t, err)
		require.NotContains(t, image.Root, "dev/null")
		require.NotContains(t, image.Root, "dev/left")
		require.Contains(t, image.Root, "dev")
	}
}
