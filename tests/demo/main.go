// Command demo shows a build from beginning to end on a machine that has
// nothing but Linux and Go: it makes a base image, starts a registry on
// loopback, lets bin/layerwright build and push examples/hello, pulls the image
// back, checks it, and runs its command. It knows Layerwright only as a program.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	repo, err := os.Getwd()
	if err == nil {
		err = demo(ctx, repo)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		code := 1
		var e *exitError
		if errors.As(err, &e) {
			code = e.code
			fmt.Fprintln(os.Stderr, "remedy:", e.remedy)
		}
		stop()
		os.Exit(code) //nolint:gocritic // stop has been called
	}
}

// exitError is an error with an exit code of its own.
type exitError struct {
	code   int
	err    error
	remedy string
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func say(format string, args ...any) { fmt.Printf("\n== "+format+"\n", args...) }

// demo does everything; repo is the checkout.
func demo(ctx context.Context, repo string) error {
	out := filepath.Join(repo, ".demo")
	if err := os.RemoveAll(out); err != nil {
		return fmt.Errorf("clear %s: %w", out, err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	shell, err := findShell(ctx, repo, out)
	if err != nil {
		return err
	}
	reg, err := startRegistry(out)
	if err != nil {
		return err
	}
	defer reg.close()
	base, ref := reg.addr+"/base:1", reg.addr+"/hello:1"
	say("1. Base image %s, made here of %s", base, shell.origin)
	if err := pushBase(ctx, base, shell); err != nil {
		return fmt.Errorf("push base image: %w", err)
	}

	lw := layerwright{path: filepath.Join(repo, "bin", "layerwright"), dir: repo}
	say("2. Build examples/hello and push it to %s", ref)
	layout, archive, digest := filepath.Join(out, "hello"), filepath.Join(out, "hello.tar"), filepath.Join(out, "digest")
	if _, err := lw.run(ctx, "build", "--build-arg", "BASE="+base, "--destination", ref,
		"--oci-layout-path", layout, "--tar-path", archive, "--digest-file", digest, "examples/hello"); err != nil {
		return err
	}

	say("3. Pull %s back and check it", ref)
	pulled, err := check(ctx, ref, digest)
	if err != nil {
		return fmt.Errorf("check %s: %w", ref, err)
	}
	fmt.Printf("digest, config, history, %d layers and files agree\n", pulled.layers)

	say("4. Run its command %q, as a step of another build", pulled.cmd)
	if err := lw.runCommand(ctx, out, ref, pulled.cmd); err != nil {
		return err
	}

	say("Done. The registry was in this process and is gone; the image stays:")
	fmt.Printf("   %s\n   %s   (docker load < %s)\n   digest %s\n", layout, archive, archive, pulled.digest)
	return nil
}
