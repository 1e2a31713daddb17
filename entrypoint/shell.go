package main

import (
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin"
)

// becomeShell turns this process into the shell that a CI's runner starts a job's
// script with, where the runner leaves the image's entry point, which this program
// is, in front of it: image ENTRYPOINT ["layerwright"], command sh -c SCRIPT. It
// returns nil where that is not so, and does not return where it worked.
func (p *process) becomeShell() error {
	if !p.isShell() {
		return nil
	}
	path, err := exec.LookPath(p.args[1])
	if err == nil {
		err = syscall.Exec(path, p.args[1:], p.environ()) // #nosec G204 -- what the runner has asked for
	}
	return &core.Error{
		Kind: core.KindEnvironment, Op: "start the job's shell " + p.args[1], Err: err,
		Remedy: "This CI runs scripts by a shell of the image: use the image whose tag ends in -debug.",
	}
}

// isShell says whether the first argument is a shell, in a CI that starts one so.
func (p *process) isShell() bool {
	if p.inside || len(p.args) < 2 || !slices.Contains([]string{"sh", "bash", "ash"}, filepath.Base(p.args[1])) {
		return false
	}
	return slices.ContainsFunc(hosts(), func(h plugin.CI) bool { return h.StartsShell && h.Detect(p.env) })
}
