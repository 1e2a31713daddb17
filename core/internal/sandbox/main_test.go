package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	inside := Inside(os.Args)
	if handled, code := Main(os.Args); handled {
		os.Exit(code)
	}
	if len(os.Args) > 2 && os.Args[1] == "helper" {
		os.Exit(helper(inside, os.Args[2:]))
	}
	os.Exit(m.Run())
}

// helper is the test binary as a small program of its own.
func helper(inside bool, args []string) int {
	switch args[0] {
	case "inplace": // inplace FLAGS SCRIPT
		return inplaceHelper(args[1:])
	case "instep": // instep WHAT ARGS: the command of a step in place
		return inStep(args[1:])
	case "probe": // probe STORE
		r := Probe(ctxBackground(), ProbeOptions{Store: args[1], Namespaces: true, Chroot: true})
		_ = json.NewEncoder(os.Stdout).Encode(r)
		return 0
	case "steps": // steps MODE ROOT SCRATCH SCRIPT [USER]
		return stepsHelper(inside, args[1:])
	}
	if !inside {
		code, err := EnterNamespaces(ctxBackground(), os.Args, append(os.Environ(), "PASSED=1"))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 99
		}
		return code
	}
	switch args[0] {
	case "show":
		fmt.Println(os.Args[0], os.Getenv("PASSED"), unix.Mount("tmpfs", args[1], "tmpfs", 0, "") == nil, mappedIDs())
	case "exit":
		return 42
	case "signal":
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGTERM)
		fmt.Println("ready")
		<-c
		return 7
	case "wait":
		fmt.Println(os.Getpid())
		time.Sleep(time.Minute)
	}
	return 0
}
