package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/layerwright/layerwright/tests/conformance"
	"github.com/layerwright/layerwright/tests/parts"
)

// outcome is what one builder did.
type outcome struct {
	version string
	built   bool
	output  string
	took    time.Duration
	images  map[string]*conformance.Image
}

// result is both outcomes and how the images differ.
type result struct {
	layerwright, buildkit outcome
	differences           []string
}

func (res *result) differ() bool {
	return res.layerwright.built != res.buildkit.built || len(res.differences) > 0
}

func (r *request) compare(ctx context.Context) (*result, error) {
	text, err := os.ReadFile(r.dockerfile)
	if err != nil {
		return nil, err
	}
	set, err := parts.New()
	if err != nil {
		return nil, err
	}
	defer set.Close()
	if err := os.Mkdir(filepath.Join(set.Dir(), "blobs"), 0o700); err != nil {
		return nil, err
	}
	reg, stop, err := startRegistry(set.Dir())
	if err != nil {
		return nil, err
	}
	defer stop()
	in := conformance.Inputs{Name: fmt.Sprintf("compare-%d", len(text)), Dir: r.context, Dockerfile: r.dockerfile,
		SecretDir: filepath.Join(set.Dir(), "secrets")}
	if err := os.Mkdir(in.SecretDir, 0o700); err != nil {
		return nil, err
	}
	if err := r.options.WriteSecrets(in.SecretDir); err != nil {
		return nil, err
	}

	began := time.Now().Truncate(time.Second)
	var out result
	in.Ref = reg + "/buildkit:1"
	if out.buildkit, err = r.byBuildKit(ctx, set, in, reg); err != nil {
		return nil, fmt.Errorf("BuildKit: %w", err)
	}
	in.Ref = reg + "/layerwright:1"
	if out.layerwright, err = r.byLayerwright(ctx, set, in); err != nil {
		return nil, fmt.Errorf("Layerwright: %w", err)
	}
	for ref, o := range map[string]*outcome{reg + "/buildkit:1": &out.buildkit, in.Ref: &out.layerwright} {
		if !o.built {
			// The Dockerfile is not to blame for what our registry did.
			if strings.Contains(o.output, reg) {
				return nil, fmt.Errorf("a builder could not push to this program's registry:\n%s", last(o.output, maxOutput))
			}
			continue
		}
		if o.images, err = conformance.LoadAll(ctx, ref); err != nil {
			return nil, fmt.Errorf("read %s: %w", ref, err)
		}
	}
	if out.layerwright.built && out.buildkit.built {
		out.differences = conformance.CompareAll(out.layerwright.images, out.buildkit.images, began)
	}
	return &out, ctx.Err()
}

// startRegistry serves a registry with its blobs below dir.
func startRegistry(dir string) (addr string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)),
		registry.WithBlobHandler(registry.NewDiskBlobHandler(filepath.Join(dir, "blobs")))), ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	return l.Addr().String(), func() { _ = s.Close() }, nil
}

func (r *request) byBuildKit(ctx context.Context, set *parts.Set, in conformance.Inputs, reg string) (o outcome, err error) {
	buildctl, addr := filepath.Join(parts.Repo(), "bin", "buildctl"), r.addr
	if addr == "" {
		b, err := set.BuildKit(append([]string{reg}, r.insecure...)...)
		if err != nil {
			return o, err
		}
		buildctl, addr = b.Buildctl, b.Addr
	}
	info, err := buildinfo.ReadFile(buildctl)
	if err != nil {
		return o, err
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == "github.com/moby/buildkit" {
			o.version = m.Version
		}
	}
	if r.addr != "" {
		o.version += ", the daemon at " + r.addr
	}
	o.run(exec.CommandContext(ctx, buildctl, append([]string{"--addr", addr}, r.options.BuildctlArgs(in)...)...))
	return o, ctx.Err()
}

func (r *request) byLayerwright(ctx context.Context, set *parts.Set, in conformance.Inputs) (o outcome, err error) {
	binary, err := set.Binary()
	if err != nil {
		return o, err
	}
	if o.version, err = version(exec.CommandContext(ctx, binary, "version")); err != nil {
		return o, err
	}
	flags := []string{"--isolation", r.isolation, "--snapshots", r.snapshots}
	for _, h := range r.insecure {
		flags = append(flags, "--insecure-registry", h)
	}
	if r.isolation == "inplace" {
		cmd, err := r.inContainer(ctx, set, in, flags)
		if err != nil {
			return o, err
		}
		o.run(cmd)
		return o, ctx.Err()
	}
	flags = append(flags, "--store", filepath.Join(set.Dir(), "store"))
	o.run(exec.CommandContext(ctx, binary, append(r.options.LayerwrightArgs(in), flags...)...))
	return o, ctx.Err()
}

// inContainer is the build in a default container, as in a job of a CI system.
func (r *request) inContainer(ctx context.Context, set *parts.Set, in conformance.Inputs, flags []string) (*exec.Cmd, error) {
	d, err := set.Engine()
	if err != nil {
		return nil, err
	}
	image, err := set.JobImage(ctx, d)
	if err != nil {
		return nil, err
	}
	args := []string{"run", "--rm", "--network", "host",
		"-v", in.Dir + ":/workspace:ro", "-v", filepath.Dir(in.Dockerfile) + ":/dockerfile:ro", "-v", in.SecretDir + ":/secrets:ro"}
	in.Dir, in.Dockerfile, in.SecretDir = "/workspace", "/dockerfile/"+filepath.Base(in.Dockerfile), "/secrets"
	o := r.options
	o.Contexts = map[string]string{}
	for k, v := range r.options.Contexts {
		if !strings.Contains(v, "://") {
			inside := fmt.Sprintf("/contexts/%d", len(o.Contexts))
			args = append(args, "-v", v+":"+inside+":ro")
			v = inside
		}
		o.Contexts[k] = v
	}
	return d.Command(ctx, append(append(append(args, image), o.LayerwrightArgs(in)...), flags...)...), nil
}

func (o *outcome) run(cmd *exec.Cmd) {
	start := time.Now()
	out, err := cmd.CombinedOutput()
	o.built, o.output, o.took = err == nil, string(out), time.Since(start)
	if err != nil && len(out) == 0 {
		o.output = err.Error()
	}
}

func version(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line, nil
}
