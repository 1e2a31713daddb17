// Command compare builds one Dockerfile by Layerwright and by BuildKit and prints
// how the images differ: what a bug report needs. It starts a registry and, where
// it is not given one, a buildkitd of its own, and ends them.
//
//	go run ./tests/conformance/cmd/compare [flags] CONTEXT
//
// It exits with 0 where both made the same image or both refused, 1 where they
// differ, and 2 where it could not compare.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/layerwright/layerwright/tests/conformance"
)

const (
	same          = 0
	different     = 1
	notComparable = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program; the report goes to out, everything else to problems.
func run(ctx context.Context, args []string, out, problems io.Writer) int {
	r, err := parse(args, problems)
	if errors.Is(err, pflag.ErrHelp) {
		return same
	}
	if err != nil {
		fmt.Fprintln(problems, "compare:", err)
		return notComparable
	}
	found, err := r.compare(ctx)
	if err != nil {
		fmt.Fprintln(problems, "compare:", err)
		return notComparable
	}
	found.print(out, r)
	if found.differ() {
		return different
	}
	return same
}

// request is what was asked for.
type request struct {
	context, dockerfile  string
	isolation, snapshots string
	addr                 string
	insecure             []string
	options              conformance.Options
}

func parse(args []string, help io.Writer) (*request, error) {
	var r request
	var buildArgs, labels, secrets, contexts, hosts []string
	fs := pflag.NewFlagSet("compare", pflag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprint(help, "Builds CONTEXT by Layerwright and by BuildKit and prints how the images differ.\n\n  compare [flags] CONTEXT\n\n", fs.FlagUsages())
	}
	fs.StringVarP(&r.dockerfile, "file", "f", "", "the Dockerfile; CONTEXT/Dockerfile by default")
	fs.StringVar(&r.isolation, "isolation", "auto", "auto, namespaces or chroot on this machine, or inplace in a default container of a Docker engine that is started for it")
	fs.StringVar(&r.snapshots, "snapshots", "auto", "auto, overlay or flat")
	fs.StringVar(&r.addr, "addr", "", "address of a running buildkitd, which must reach this machine's loopback; one is started by default")
	fs.StringArrayVar(&r.insecure, "insecure-registry", nil, "a host of which images are pulled by plain HTTP; loopback always is")
	fs.StringArrayVar(&buildArgs, "build-arg", nil, "KEY=VALUE")
	fs.StringArrayVar(&labels, "label", nil, "KEY=VALUE")
	fs.StringVar(&r.options.Target, "target", "", "the stage to build")
	fs.StringVar(&r.options.Platform, "platform", "", "OS/ARCH, more with commas")
	fs.StringArrayVar(&secrets, "secret", nil, "id=NAME,src=FILE")
	fs.StringArrayVar(&contexts, "build-context", nil, "NAME=DIR or NAME=docker-image://REFERENCE")
	fs.StringArrayVar(&hosts, "add-host", nil, "NAME:IP")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() != 1 {
		return nil, errors.New("give one context: compare [flags] CONTEXT")
	}
	var err error
	if r.context, err = filepath.Abs(fs.Arg(0)); err != nil {
		return nil, err
	}
	if r.dockerfile == "" {
		r.dockerfile = filepath.Join(r.context, "Dockerfile")
	}
	if r.dockerfile, err = filepath.Abs(r.dockerfile); err != nil {
		return nil, err
	}
	o := &r.options
	return &r, errors.Join(
		pairs(&o.Args, "build-arg", buildArgs, "="), pairs(&o.Labels, "label", labels, "="), pairs(&o.Hosts, "add-host", hosts, ":"),
		r.contexts(contexts), r.secrets(secrets))
}

func pairs(into *map[string]string, flag string, values []string, between string) error {
	*into = map[string]string{}
	for _, v := range values {
		k, v, ok := strings.Cut(v, between)
		if !ok || k == "" {
			return fmt.Errorf("--%s %s: write NAME%sVALUE", flag, k, between)
		}
		(*into)[k] = v
	}
	return nil
}

func (r *request) contexts(values []string) error {
	if err := pairs(&r.options.Contexts, "build-context", values, "="); err != nil {
		return err
	}
	for k, v := range r.options.Contexts {
		if strings.Contains(v, "://") {
			continue
		}
		abs, err := filepath.Abs(v)
		if err != nil {
			return err
		}
		r.options.Contexts[k] = abs
	}
	return nil
}

func (r *request) secrets(values []string) error {
	r.options.Secrets = map[string]string{}
	for _, v := range values {
		fields := map[string]string{}
		for _, f := range strings.Split(v, ",") {
			k, v, _ := strings.Cut(f, "=")
			fields[k] = v
		}
		if fields["id"] == "" || fields["src"] == "" {
			return fmt.Errorf("--secret %s: write id=NAME,src=FILE", v)
		}
		b, err := os.ReadFile(fields["src"])
		if err != nil {
			return fmt.Errorf("--secret %s: %w", v, err)
		}
		r.options.Secrets[fields["id"]] = string(b)
	}
	return nil
}
