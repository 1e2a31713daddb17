package act_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

// TestOurOwnWorkflow: the project's continuous integration comes to its test command
// as root, with what GitHub's machines have. The tests themselves are not run once
// more: make is a word that says how it was called.
func TestOurOwnWorkflow(t *testing.T) {
	w, bin := inWorld(t), t.TempDir()
	mounts := ""
	for name, script := range map[string]string{
		"sudo": "#!/bin/sh\nwhile [ \"${1#-}\" != \"$1\" ]; do echo \"sudo $1\"; shift; done\nexec \"$@\"\n",
		"make": "#!/bin/sh\necho \"make $*, user $(id -u), CI=$CI, $(ls Makefile)\"\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755))
		mounts += " -v " + filepath.Join(bin, name) + ":/usr/local/bin/" + name
	}
	files := map[string]string{"Makefile": "", "tools/x/go.sum": ""}
	for _, name := range []string{".ci/run", "go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(parts.Repo(), name))
		require.NoError(t, err)
		files[name] = string(text)
	}
	for _, event := range []string{"push", "pull_request"} {
		e := w.run(t, job{workflow: ".github/workflows/ci.yml", event: event, files: files, args: []string{"-j", "test", "--container-options", mounts}})
		require.True(t, e.ok, e.all)
		require.Contains(t, e.log, "setup go 1.")
		require.Contains(t, e.log, "cached by tools/x/go.sum")
		require.Contains(t, e.log, "sudo --preserve-env=PATH,HOME")
		require.Contains(t, e.log, "make test, user 0, CI=true, Makefile")
	}
}
