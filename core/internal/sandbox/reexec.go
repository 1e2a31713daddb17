package sandbox

import (
	"context"
	"os"
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

// Main is for a process that the sandbox has started from its own binary to map user
// ids, or to go on as the program that it is, in namespaces. Package entrypoint, and
// TestMain of every test binary that runs steps, call it before anything else
// and exit with code when handled is true. It takes the mark that EnterNamespaces
// leaves off args[0]: ask Inside before. Parts of steps never get there (init).
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
	return false, 0
}

// A step starts this binary twice. What other packages set up for a build, half of
// the time that a start takes, is not for it: the parts of a step begin as soon as
// this package can run.
func init() {
	if len(os.Args) == 0 {
		return
	}
	switch filepath.Base(os.Args[0]) {
	case childName:
		os.Exit(childMain())
	case initName:
		os.Exit(initMain())
	case chrootName:
		os.Exit(chrootMain())
	case probeName:
		os.Exit(probeMain(false))
	case probeNamespacesName:
		os.Exit(probeMain(true))
	case supervisorName:
		os.Exit(supervisorMain())
	}
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
