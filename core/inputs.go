package core

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerwright/layerwright/core/internal/emulation"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/frontend"
	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/hostview"
)

// openContext finds the Dockerfile, so that what is missing is said first.
func (b *build) openContext() error {
	if b.req.Context == "" {
		b.req.Context = "."
	}
	for name, value := range b.req.NamedContexts {
		if err := CheckContext(value, true); err != nil {
			return fault.New(fault.Usage, "--build-context %s=%s: %w", name, withoutSecrets(value), err).With("Correct --build-context.")
		}
	}
	if done, err := b.openRemote(); done || err != nil {
		return err
	}
	fi, err := os.Stat(b.req.Context)
	if err == nil && !fi.IsDir() {
		err = errors.New("it is not a directory")
	}
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return fault.New(fault.User, "build context %s: %w", b.req.Context, err).
			With("Name the directory with the files to build from: --context DIR.")
	}
	name := b.req.Dockerfile
	if name == "" {
		name = "Dockerfile"
	}
	if b.req.DockerfileData != nil {
		b.file, b.data = filepath.Base(name), b.req.DockerfileData
		return nil
	}
	if isURL(name) {
		b.file = name // fetched later
		return nil
	}
	path := name
	if !filepath.IsAbs(name) && !isFile(name) || b.req.Dockerfile == "" {
		path = filepath.Join(b.req.Context, name)
	}
	if !isFile(path) {
		if lower := filepath.Join(filepath.Dir(path), strings.ToLower(filepath.Base(path))); filepath.Base(path) == "Dockerfile" && isFile(lower) {
			path = lower
		} else {
			return fault.New(fault.User, "no Dockerfile at %s", path).
				With("Name it with --dockerfile FILE; a relative path is looked for in the working directory and then in the context.")
		}
	}
	b.file = path
	return nil
}

func isFile(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && !fi.IsDir()
}

// openHandles opens the job's own directories.
func (b *build) openHandles() error {
	dirs := map[string]string{}
	if b.remote.kind == contextDir {
		dirs[frontend.Context] = b.req.Context
	}
	if b.data == nil && !isURL(b.file) && (b.remote.kind == contextDir || filepath.IsAbs(b.file)) {
		dirs[frontend.Dockerfile] = filepath.Dir(b.file)
		b.file = filepath.Base(b.file)
	}
	for name, value := range b.req.NamedContexts {
		if kind, dir, err := contextOf(value); err == nil && kind == contextDir {
			dirs[localName(name)] = dir
		}
	}
	if err := b.openLayouts(); err != nil {
		return err
	}
	b.locals = map[string]string{}
	for name, path := range dirs {
		d, err := hostview.OpenDir(path)
		if err != nil {
			return fault.New(fault.User, "open context %q: %w", name, err).With("Name an existing directory.")
		}
		b.hold(d)
		b.locals[name] = d.Path()
	}
	return b.openOutputs()
}

// localName is the local source of a named context: a context that somebody
// calls "context" must not take the place of the build context.
func localName(name string) string { return "_" + name }

func (b *build) frontendRequest() frontend.Request {
	r := b.req
	f := frontend.Request{
		Locals: b.locals, Filename: b.file, Data: b.data, Target: r.Target, BuildArgs: r.BuildArgs, Labels: r.Labels,
		NamedContexts: map[string]string{}, NoCache: r.NoCache, NoCacheFilter: r.NoCacheFilter, ExtraHosts: r.ExtraHosts,
		Ulimits: r.Ulimits, ShmSize: r.ShmSize, Hostname: r.Hostname, Progress: b.sink, Platforms: b.platforms,
		ContextURL: b.remote.url, ContextSubDir: r.ContextSubPath, Contexts: b,
	}
	if r.Network != "default" {
		f.Network = r.Network
	}
	for name, value := range r.NamedContexts {
		kind, rest, err := contextOf(value)
		switch {
		case err != nil: // refused before
		case kind == contextDir:
			value = "local:" + localName(name)
		case kind == contextRemote:
			value = rest
		case kind == contextLayout:
			value = b.remote.values[name]
		}
		f.NamedContexts[name] = value
	}
	return f
}

// parsePlatforms reads the platforms asked for.
func parsePlatforms(list []string) ([]ocispecs.Platform, error) {
	var out []ocispecs.Platform
	for _, s := range list {
		p, err := platforms.Parse(s)
		if err != nil {
			return nil, fault.New(fault.Usage, "platform %q: %w", s, err).With("Write it as os/architecture[/variant]: linux/arm64.")
		}
		out = append(out, platforms.Normalize(p))
	}
	return out, nil
}

// alwaysIndex says that one platform makes an index as well: BuildKit's
// predefined argument. The frontend refuses what is no truth value.
func (b *build) alwaysIndex() bool {
	on, err := strconv.ParseBool(b.req.BuildArgs["BUILDKIT_MULTI_PLATFORM"])
	return err == nil && on
}

// checkPlatforms refuses steps of another operating system.
func checkPlatforms(res *frontend.Result) error {
	for _, v := range res.Graph.Vertices {
		if p := v.Op.Platform; v.Op.GetExec() != nil && p != nil && p.OS != "linux" {
			return fault.At(fault.New(fault.Environment, "RUN for %s/%s on a machine of linux/%s", p.OS, p.Architecture, runtime.GOARCH).
				With("Steps run on Linux only: build this platform with what copies, or where it runs."), v.Location)
		}
	}
	return nil
}

// checkEmulation refuses steps that this machine cannot run, before anything runs: it
// tries a program of each architecture that a step which is not known yet is for.
func (b *build) checkEmulation(ctx context.Context, running []*graph.Vertex) error {
	answers := map[string]error{}
	for _, v := range running {
		p := v.Op.Platform
		if v.Op.GetExec() == nil || p == nil {
			continue
		}
		answer, tried := answers[p.Architecture]
		if !tried {
			dir, err := b.work.sub("steps")
			if err != nil {
				return err
			}
			answer = emulation.Try(ctx, dir, p.Architecture)
			answers[p.Architecture] = answer
		}
		if answer != nil {
			name := platforms.Format(ocispecs.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant})
			return fault.At(fault.New(fault.Environment, "%s is a step for %s, which this machine (linux/%s) cannot run: %w", v.Name, name, runtime.GOARCH, answer).
				With(fmt.Sprintf("Register an emulator on the machine, with the flag F (Debian: apt-get install qemu-user-static binfmt-support; Docker: docker run --privileged --rm tonistiigi/binfmt --install %s). "+
					"Or build %s on a machine of its own with --push-by-digest, and join the images with layerwright merge, or by a BuildKit there: --engine. "+
					"Or let the stage run on this machine and compile for the other: FROM --platform=$BUILDPLATFORM.", p.Architecture, name)), v.Location)
		}
	}
	return nil
}
