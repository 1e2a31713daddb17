package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// greeting is what the image's command prints.
const greeting = "Hello from Layerwright"

func discardLogger() *log.Logger { return log.New(io.Discard, "", 0) }

// layerwright is the built program.
type layerwright struct{ path, dir string }

// run shows a command, runs it, and returns what it printed.
func (l layerwright) run(ctx context.Context, args ...string) (string, error) {
	fmt.Println("$ bin/layerwright " + strings.Join(args, " "))
	var seen bytes.Buffer
	cmd := exec.CommandContext(ctx, l.path, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Dir = l.dir
	both := io.MultiWriter(os.Stdout, &seen)
	cmd.Stdout, cmd.Stderr = both, both
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return seen.String(), &exitError{exit.ExitCode(), fmt.Errorf("layerwright %s: %w", args[0], err), "See the error above; bin/layerwright doctor says what this machine allows."}
	}
	return seen.String(), err
}

// pulled is what a registry has given back.
type pulled struct {
	digest string
	layers int
	cmd    []string
}

// check compares an image in a registry with what examples/hello says, byte by
// byte against its digests.
func check(ctx context.Context, ref, digestFile string) (*pulled, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	img, err := remote.Image(r, remote.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if err := validate.Image(img); err != nil {
		return nil, err
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	written, err := os.ReadFile(digestFile)
	if err != nil {
		return nil, err
	}
	if got := strings.TrimSpace(string(written)); got != digest.String() {
		return nil, fmt.Errorf("the digest file says %s, the registry %s", got, digest)
	}
	conf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	if !slices.Contains(conf.Config.Env, "LANG=C.UTF-8") {
		return nil, fmt.Errorf("LANG is missing in its environment: %q", conf.Config.Env)
	}
	if len(conf.Config.Cmd) == 0 {
		return nil, errors.New("it has no command")
	}
	script := conf.Config.Cmd[len(conf.Config.Cmd)-1]
	text, err := readFile(img, script)
	if err != nil {
		return nil, err
	}
	if want := "echo \"" + greeting + "\"\n"; text != want {
		return nil, fmt.Errorf("%s is %q instead of %q", script, text, want)
	}
	if _, err := readFile(img, "/src/hello.sh"); err == nil {
		return nil, errors.New("a file of the first stage is in the last one")
	}
	layers, err := img.Layers()
	return &pulled{digest.String(), len(layers), conf.Config.Cmd}, err
}

// readFile is a file of an image's file system.
func readFile(img v1.Image, file string) (text string, err error) {
	stream := mutate.Extract(img)
	defer func() { err = errors.Join(err, stream.Close()) }()
	t := tar.NewReader(stream)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return "", fmt.Errorf("%s is not in the image", file)
		}
		if err != nil {
			return "", err
		}
		if path.Join("/", h.Name) == file {
			b, err := io.ReadAll(t)
			return string(b), err
		}
	}
}

// runCommand runs an image's command: no container engine is needed for it.
func (l layerwright) runCommand(ctx context.Context, out, ref string, cmd []string) error {
	argv, err := json.Marshal(cmd)
	if err != nil {
		return err
	}
	dir := filepath.Join(out, "run")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), fmt.Appendf(nil, "FROM %s\nRUN %s\n", ref, argv), 0o644); err != nil {
		return err
	}
	seen, err := l.run(ctx, "build", "--log-format", "plain", "--no-push", dir)
	if err != nil {
		return err
	}
	if !strings.Contains(seen, " "+greeting+"\n") {
		return fmt.Errorf("its output lacks %q", greeting)
	}
	return nil
}
