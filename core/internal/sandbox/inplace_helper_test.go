package sandbox

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// inplaceHelper is a small builder: it runs one step in place.
func inplaceHelper(args []string) int {
	flags := flag.NewFlagSet("inplace", flag.ExitOnError)
	store := flags.String("store", "/lw/store", "")
	tree := flags.String("tree", "/lw/store/tree", "")
	timeout := flags.Duration("cancel", 0, "")
	cwd := flags.String("cwd", "/", "")
	user := flags.String("user", "", "")
	hosts := flags.String("hosts", "", "")
	network := flags.Bool("no-network", false, "")
	mounts := flags.String("mounts", "", "")
	force := flags.Bool("force", false, "")
	repairOnly := flags.Bool("repair", false, "")
	suspect := flags.Bool("suspect", false, "")
	repeat := flags.Int("repeat", 1, "")
	_ = flags.Parse(args)
	_ = Harden()
	fail := func(err error) int {
		fmt.Fprintf(os.Stderr, "error: %T %v\n", err, err)
		return 99
	}
	_ = os.MkdirAll(*store, 0o755)
	if err := Repair(*store); err != nil || *repairOnly {
		if err != nil {
			return fail(err)
		}
		return 0
	}
	ctx := context.Background()
	probe := ProbeInplace
	if *force {
		probe = ProbeInplaceForced
	}
	if err := probe(ctx, *store); err != nil {
		return fail(err)
	}
	sb, err := NewInplace(ctx, InplaceOptions{Store: *store, Keep: []string{"/lw", "/busybox"}, Force: *force, Notice: func(s string) { fmt.Fprintln(os.Stderr, "notice:", s) }})
	if err != nil {
		return fail(err)
	}
	defer sb.Close()
	if err := sb.Prepare(ctx, func() error { return nil }); err != nil {
		return fail(err)
	}
	scratch, err := os.MkdirTemp(*store, "scratch-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(scratch)
	step := Step{Root: *tree, Scratch: scratch, Args: append([]string{"/bin/bash", "-c"}, flags.Args()...), Env: testEnv, Cwd: *cwd, User: *user, Stdout: os.Stdout, Stderr: os.Stderr}
	if flags.NArg() > 1 {
		step.Args = flags.Args()
	}
	if *hosts != "" {
		step.ExtraHosts = []HostIP{{Host: *hosts, IP: "10.9.8.7"}}
		step.Hostname = "wanted"
	}
	if *network {
		step.Network = NetworkNone
	}
	if *mounts != "" {
		for m := range strings.SplitSeq(*mounts, ",") {
			kind, rest, _ := strings.Cut(m, ":")
			target, source, _ := strings.Cut(rest, "=")
			mount := Mount{Target: target, Source: source}
			switch kind {
			case "secret":
				mount.Kind, mount.Data, mount.Mode = Secret, []byte("the-secret"), 0o400
			case "cache":
				mount.Kind = Cache
			case "tmpfs":
				mount.Kind = Tmpfs
			}
			step.Mounts = append(step.Mounts, mount)
		}
	}
	if *timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *timeout)
		defer cancel()
	}
	code := 0
	for range *repeat {
		start := time.Now()
		out, err := sb.Run(ctx, step)
		fmt.Fprintln(os.Stderr, "took", time.Since(start).Round(time.Millisecond))
		if *suspect {
			_ = json.NewEncoder(os.Stdout).Encode(out.Suspect)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "step: %T %v\n", err, err)
			code = 1
		}
	}
	if left, _ := filepath.Glob(*store + "/inplace/*"); len(left) != 2 {
		fmt.Fprintln(os.Stderr, "left:", left)
	}
	return code
}
