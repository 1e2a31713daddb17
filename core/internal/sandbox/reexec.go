package sandbox

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
)

// The names (argv[0]) under which our own binary is started again. Nothing but
// the name is passed by command line or environment: both can be read by others.
const (
	childName      = "layerwright-child"
	initName       = "layerwright-init"
	chrootName     = "layerwright-chroot"
	supervisorName = "layerwright-supervisor"
	probeName      = "layerwright-probe"

	probeNamespacesName = "layerwright-probe-namespaces"
	// mappedPrefix and insidePrefix go before another name: wait until user
	// ids are mapped; we are in the namespaces of EnterNamespaces.
	mappedPrefix = "layerwright-mapped:"
	insidePrefix = "layerwright-inside:"
)

// Main runs the part of the sandbox that args[0] names, in a process that the
// sandbox itself has started from its own binary. Package entrypoint, and
// TestMain of every test binary that runs steps, call it before anything else
// and exit with code when handled is true. It takes the mark that EnterNamespaces
// leaves off args[0]: ask Inside before.
func Main(args []string) (handled bool, code int) {
	if len(args) == 0 {
		return false, 0
	}
	if name, ok := strings.CutPrefix(args[0], mappedPrefix); ok {
		return true, mappedMain(name, args)
	}
	if name, ok := strings.CutPrefix(args[0], insidePrefix); ok {
		args[0] = name
		if err := startInside(); err != nil {
			return true, 70
		}
		return false, 0
	}
	switch filepath.Base(args[0]) {
	case childName:
		return true, childMain()
	case initName:
		return true, initMain()
	case chrootName:
		return true, chrootMain()
	case probeName, probeNamespacesName:
		return true, probeMain(args[0] == probeNamespacesName)
	case supervisorName:
		return true, supervisorMain()
	}
	return false, 0
}

// reexec prepares starting our own binary as name, with an empty environment
// and no arguments. Cancelling ctx kills it.
func reexec(ctx context.Context, name string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, selfExe)
	cmd.Args = []string{name}
	cmd.Env = []string{}
	return cmd
}

// selfExe is our own binary, whatever has become of its path.
const selfExe = "/proc/self/exe"
