package core

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/frontend"
	"github.com/layerwright/layerwright/core/internal/hostview"
)

// outputs are the paths of files that are written at the end, valid whatever
// "/" is then.
type outputs struct{ layout, tar, digest string }

// openContext finds the Dockerfile, so that what is missing is said first.
func (b *build) openContext() error {
	if b.req.Context == "" {
		b.req.Context = "."
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
	dirs := map[string]string{frontend.Context: b.req.Context}
	if b.data == nil {
		dirs[frontend.Dockerfile] = filepath.Dir(b.file)
		b.file = filepath.Base(b.file)
	}
	for name, value := range b.req.NamedContexts {
		if local(value) {
			dirs[localName(name)] = value
		}
	}
	b.locals = map[string]string{}
	for name, path := range dirs {
		d, err := hostview.OpenDir(path)
		if err != nil {
			return fault.New(fault.User, "open context %q: %w", name, err).With("Name an existing directory.")
		}
		b.atEnd(d.Close)
		b.locals[name] = d.Path()
	}
	for _, o := range []struct {
		name string
		path *string
	}{{b.req.Outputs.OCILayout, &b.outputs.layout}, {b.req.Outputs.DockerTar, &b.outputs.tar}, {b.req.Outputs.DigestFile, &b.outputs.digest}} {
		if o.name == "" {
			continue
		}
		path, parent, err := hostview.Output(o.name)
		if err != nil {
			return fault.New(fault.Usage, "output %s: %w", o.name, err).With("Name a place that can be written.")
		}
		b.atEnd(parent.Close)
		*o.path = path
	}
	return nil
}

// localName is the local source of a named context: a context that somebody
// calls "context" must not take the place of the build context.
func localName(name string) string { return "_" + name }

// local says whether a named context's value is a directory.
func local(value string) bool {
	for _, p := range []string{"docker-image://", "oci-layout://", "target:", "http://", "https://", "git://", "git@", "input:"} {
		if strings.HasPrefix(value, p) {
			return false
		}
	}
	return true
}

func (b *build) frontendRequest() frontend.Request {
	r := b.req
	f := frontend.Request{
		Locals: b.locals, Filename: b.file, Data: b.data, Target: r.Target, BuildArgs: r.BuildArgs, Labels: r.Labels,
		NamedContexts: map[string]string{}, NoCache: r.NoCache, NoCacheFilter: r.NoCacheFilter, ExtraHosts: r.ExtraHosts,
		Ulimits: r.Ulimits, ShmSize: r.ShmSize, Hostname: r.Hostname, Progress: b.sink, Platforms: b.platforms,
	}
	if r.Network != "default" {
		f.Network = r.Network
	}
	for name, value := range r.NamedContexts {
		if local(value) {
			value = "local:" + localName(name)
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

// checkPlatforms refuses what this machine cannot run, before anything runs.
func checkPlatforms(res *frontend.Result) error {
	for _, v := range res.Graph.Vertices {
		p := v.Op.Platform
		if v.Op.GetExec() == nil || p == nil || p.OS == "linux" && runs(p.Architecture) {
			continue
		}
		return fault.At(fault.New(fault.Environment, "RUN for %s/%s on a machine of linux/%s", p.OS, p.Architecture, runtime.GOARCH).
			With(fmt.Sprintf("Build on a machine of that architecture, or run the step on this one with FROM --platform=$BUILDPLATFORM (linux/%s).", runtime.GOARCH)), v.Location)
	}
	return nil
}

// runs says whether this machine's processor runs programs of an architecture.
func runs(arch string) bool {
	return arch == runtime.GOARCH || runtime.GOARCH == "amd64" && arch == "386"
}
