package main

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
)

// TestAShellIsStartedOnlyForGitLab: everywhere else sh is a command that there is not.
func TestAShellIsStartedOnlyForGitLab(t *testing.T) {
	job := jobOf(t, "gitlab/testdata/runner")
	for name, c := range map[string]struct {
		env  map[string]string
		args []string
		want bool
	}{
		"GitLab's runner":     {job, []string{"layerwright", "sh", "-c", "true"}, true},
		"a path":              {job, []string{"/layerwright/bin/layerwright", "/bin/bash"}, true},
		"another program":     {job, []string{"layerwright", "cat"}, false},
		"a command of ours":   {job, []string{"layerwright", "gitlab"}, false},
		"no argument":         {job, []string{"layerwright"}, false},
		"another CI":          {jobOf(t, "github/testdata/tag"), []string{"layerwright", "sh"}, false},
		"no CI":               {nil, []string{"layerwright", "sh"}, false},
		"not the first of it": {job, []string{"layerwright", "build", "sh"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := &process{args: c.args, env: c.env}
			require.Equal(t, c.want, p.isShell())
		})
	}
}

func TestAnImageWithoutAShellSaysSo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	p := &process{args: []string{"layerwright", "bash", "-c", "true"}, env: jobOf(t, "gitlab/testdata/runner")}
	var e *core.Error
	require.True(t, errors.As(p.becomeShell(), &e))
	require.Equal(t, core.KindEnvironment, e.Kind)
	require.Contains(t, e.Remedy, "-debug")
}
