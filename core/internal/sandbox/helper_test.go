package sandbox

import (
	"context"
	"fmt"
	"os"
)

func ctxBackground() context.Context { return context.Background() }

// stepsHelper runs one step as a program: "auto" enters namespaces first.
func stepsHelper(inside bool, args []string) int {
	mode, root, scratch, script := args[0], args[1], args[2], args[3]
	var sb Sandbox
	var err error
	if mode == "chroot" {
		sb, err = NewChroot(ChrootOptions{})
	} else {
		if !inside {
			code, err := EnterNamespaces(ctxBackground(), os.Args, os.Environ())
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 99
			}
			return code
		}
		sb, err = NewNamespaces(NamespacesOptions{})
	}
	if err == nil {
		step := Step{Root: root, Scratch: scratch, Args: []string{"/bin/sh", "-c", script}, Env: testEnv, Stdout: os.Stdout, Stderr: os.Stderr}
		step.Mounts = []Mount{{Kind: Secret, Target: "/run/secrets/s", Data: []byte("sec"), UID: 0, Mode: 0o400}}
		if len(args) > 4 {
			step.User = args[4]
		}
		var out Outcome
		out, err = sb.Run(ctxBackground(), step)
		for _, n := range out.Notices {
			fmt.Fprintln(os.Stderr, "notice:", n)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
