package main

import (
	"bufio"
	"context"
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/layerwright/layerwright/tests/parts"
)

// Builders, as flags and tables name them.
const (
	inplace  = "inplace"
	overlay  = "overlay"
	buildKit = "buildkit"
	buildah  = "buildah"
)

// titles say what the names mean.
var titles = map[string]string{
	inplace:  "Layerwright in a Docker default container",
	overlay:  "Layerwright as root with overlay",
	buildKit: "BuildKit, a privileged daemon that is running already",
	buildah:  "buildah as root with overlay, chroot isolation",
}

// job is one build.
type job struct {
	dir string
	// ref is the destination, cache the repository of the cache; empty is none.
	ref, cache string
	// read says that the cache is read, write that it is written.
	read, write bool
	// platforms are those to build for; none is the machine's.
	platforms []string
	// profile is a directory for Layerwright's --profile; empty is none.
	profile string
}

// timing is what a build took.
type timing struct {
	wall time.Duration
	// steps is how long commands of steps ran, at the same time or not.
	steps time.Duration
	// between is what lies between the commands of two steps, on average.
	between time.Duration
	peak    int64
}

// builder builds jobs, each as if on a machine that has never seen it.
type builder interface {
	// forget removes what earlier builds left on the machine. It is not timed.
	forget(ctx context.Context) error
	build(ctx context.Context, j job) (timing, error)
	version(ctx context.Context) (string, error)
}

// newBuilder starts what a builder needs; nil where buildah is not installed.
func newBuilder(ctx context.Context, set *parts.Set, name, registry string) (builder, error) {
	switch name {
	case inplace:
		d, err := set.Engine()
		if err != nil {
			return nil, err
		}
		image, err := set.JobImage(ctx, d)
		return &inContainer{docker: d, image: image}, err
	case overlay:
		if os.Geteuid() != 0 {
			return nil, fmt.Errorf("root: run as root, or leave out builder %q", overlay)
		}
		binary, err := set.Binary()
		return &onMachine{binary: binary, dir: set.Dir()}, err
	case buildKit:
		b, err := set.BuildKit(registry)
		return &daemon{b}, err
	default:
		if _, err := exec.LookPath("buildah"); err != nil {
			return nil, nil
		}
		return &buildahs{dir: filepath.Join(set.Dir(), "buildah")}, nil
	}
}

// Lines that a container's shell prints before and after the builder's process,
// and each step after its command.
const (
	before = "bench: the builder starts"
	after  = "bench: the builder has ended"
)

var stepTook = regexp.MustCompile(`step took (\d+) ms`)

// timed runs a command and measures it from its start to its end, or between the
// lines before and after where it prints them.
func timed(cmd *exec.Cmd, belongs func(exe, cmdline string) bool) (timing, error) {
	var t timing
	r, w, err := os.Pipe()
	if err != nil {
		return t, err
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	watch := newWatch(belongs)
	start := time.Now()
	err = cmd.Start()
	if closeErr := w.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		watch.end()
		return t, err
	}
	began, ended, ran, output, err := follow(r)
	waitErr := cmd.Wait()
	if began.IsZero() {
		began, ended = start, time.Now()
	}
	t.wall, t.peak, t.steps, t.between = ended.Sub(began), watch.end(), covered(ran), between(ran)
	if waitErr != nil {
		return t, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), waitErr, output)
	}
	return t, err
}

// span is when the command of a step ran.
type span struct{ from, to time.Time }

// covered is how long at least one of them lasted.
func covered(list []span) (sum time.Duration) {
	slices.SortFunc(list, func(a, b span) int { return a.from.Compare(b.from) })
	var end time.Time
	for _, s := range list {
		if s.from.Before(end) {
			s.from = end
		}
		if s.to.After(s.from) {
			sum += s.to.Sub(s.from)
			end = s.to
		}
	}
	return sum
}

// follow reads a builder's lines to the end. ran is when commands of steps did.
func follow(r io.Reader) (began, ended time.Time, ran []span, output string, err error) {
	var all strings.Builder
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		now := time.Now()
		switch strings.TrimSpace(line) {
		case before:
			began = now
		case after:
			ended = now
		default:
			all.WriteString(line)
		}
		if m := stepTook.FindStringSubmatch(line); m != nil {
			if ms, err := strconv.Atoi(m[1]); err == nil {
				ran = append(ran, span{now.Add(-time.Duration(ms) * time.Millisecond), now})
			}
		}
		if err == io.EOF {
			return began, ended, ran, all.String(), nil
		}
		if err != nil {
			return began, ended, ran, all.String(), err
		}
	}
}

// layerwright are the arguments of a build.
func (j job) layerwright(context, profile string, isolation ...string) []string {
	args := append([]string{"build", "--log-format", "plain", "--context", context, "--destination", j.ref}, isolation...)
	if j.cache != "" {
		args = append(args, "--cache-repo", j.cache)
	}
	if j.platforms != nil {
		args = append(args, "--platform", strings.Join(j.platforms, ","))
	}
	if j.profile != "" {
		args = append(args, "--profile", profile)
	}
	return args
}

func (j job) layerwrightProcess(exe, cmdline string) bool {
	return exe == "layerwright" && strings.Contains(cmdline, j.ref)
}

// inContainer is Layerwright in a fresh container with Docker's defaults. What
// Docker takes for the container is not counted: with a CI it is the runner's.
type inContainer struct {
	docker *parts.Docker
	image  string
}

func (b *inContainer) forget(context.Context) error { return nil }

func (b *inContainer) build(ctx context.Context, j job) (timing, error) {
	script := "echo '" + before + "'; layerwright \"$@\"; code=$?; echo '" + after + "'; exit $code"
	args := []string{"run", "--rm", "--network", "host", "--entrypoint", "/busybox/sh", "-v", j.dir + ":/workspace:ro"}
	if j.profile != "" {
		args = append(args, "-v", j.profile+":/profile")
	}
	args = append(args, b.image, "-c", script, "sh")
	return timed(b.docker.Command(ctx, append(args, j.layerwright("/workspace", "/profile", "--isolation", "inplace")...)...), j.layerwrightProcess)
}

func (b *inContainer) version(ctx context.Context) (string, error) {
	out, err := b.docker.Command(ctx, "version", "--format", "Docker {{.Server.Version}}").Output()
	if err != nil {
		return "", fmt.Errorf("docker version: %w", err)
	}
	driver, err := b.docker.Command(ctx, "info", "--format", "{{.Driver}}").Output()
	return strings.TrimSpace(string(out)) + " with " + strings.TrimSpace(string(driver)), err
}

// onMachine is Layerwright as root, with mounts.
type onMachine struct{ binary, dir string }

func (b *onMachine) store() string { return filepath.Join(b.dir, "store") }

func (b *onMachine) forget(context.Context) error { return os.RemoveAll(b.store()) }

func (b *onMachine) build(ctx context.Context, j job) (timing, error) {
	args := j.layerwright(j.dir, j.profile, "--isolation", "namespaces", "--snapshots", "overlay", "--store", b.store())
	cmd := exec.CommandContext(ctx, b.binary, args...)
	// A Dockerfile in the working directory comes before the context's, as with Kaniko.
	cmd.Dir = j.dir
	return timed(cmd, j.layerwrightProcess)
}

func (b *onMachine) version(ctx context.Context) (string, error) {
	return firstLine(exec.CommandContext(ctx, b.binary, "version"))
}

// daemon is a buildkitd that has been running since before the first build.
type daemon struct{ *parts.BuildKit }

func (b *daemon) forget(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, b.Buildctl, "--addr", b.Addr, "prune", "--all").CombinedOutput()
	if err != nil {
		return fmt.Errorf("buildctl prune: %w\n%s", err, out)
	}
	return nil
}

func (b *daemon) belongs(exe, cmdline string) bool {
	return (exe == "buildkitd" || exe == "buildctl") && strings.Contains(cmdline, b.Addr)
}

func (b *daemon) build(ctx context.Context, j job) (timing, error) {
	args := []string{"--addr", b.Addr, "build", "--progress", "plain", "--frontend", "dockerfile.v0",
		"--local", "context=" + j.dir, "--local", "dockerfile=" + j.dir,
		"--output", "type=image,oci-mediatypes=true,push=true,name=" + j.ref}
	if j.platforms != nil {
		args = append(args, "--opt", "platform="+strings.Join(j.platforms, ","))
	}
	if j.read {
		args = append(args, "--import-cache", "type=registry,ref="+j.cache+":all")
	}
	if j.write {
		args = append(args, "--export-cache", "type=registry,mode=max,ref="+j.cache+":all")
	}
	forgetPeaks(b.belongs)
	return timed(exec.CommandContext(ctx, b.Buildctl, args...), b.belongs)
}

func (b *daemon) version(context.Context) (string, error) {
	info, err := buildinfo.ReadFile(b.Buildctl)
	if err != nil {
		return "", err
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == "github.com/moby/buildkit" {
			return "BuildKit " + m.Version, nil
		}
	}
	return "BuildKit", nil
}

// buildahs is buildah. Its cache in a registry is an image a step.
type buildahs struct{ dir string }

func (b *buildahs) flags() []string {
	return []string{"--root", filepath.Join(b.dir, "root"), "--runroot", filepath.Join(b.dir, "run"), "--storage-driver", "overlay"}
}

func (b *buildahs) forget(ctx context.Context) error {
	if _, err := os.Stat(b.dir); err != nil {
		return nil //nolint:nilerr // nothing has been built yet
	}
	if out, err := exec.CommandContext(ctx, "buildah", append(b.flags(), "rmi", "--all", "--force")...).CombinedOutput(); err != nil {
		return fmt.Errorf("buildah rmi: %w\n%s", err, out)
	}
	return nil
}

func (b *buildahs) build(ctx context.Context, j job) (timing, error) {
	script := `buildah "$@" bud --isolation chroot --network host --tls-verify=false $CACHE -t "$REF" "$DIR" && buildah "$@" push --tls-verify=false "$REF"`
	var cache []string
	if j.read || j.write {
		cache = append(cache, "--layers")
	}
	if j.read {
		cache = append(cache, "--cache-from="+j.cache)
	}
	if j.write {
		cache = append(cache, "--cache-to="+j.cache)
	}
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", script, "sh"}, b.flags()...)...)
	cmd.Env = append(os.Environ(), "REF="+j.ref, "DIR="+j.dir, "CACHE="+strings.Join(cache, " "))
	return timed(cmd, func(exe, cmdline string) bool { return exe == "buildah" && strings.Contains(cmdline, b.dir) })
}

func (b *buildahs) version(ctx context.Context) (string, error) {
	return firstLine(exec.CommandContext(ctx, "buildah", "--version"))
}

func firstLine(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line, nil
}

// settle writes what is dirty to the disk, so that a build does not pay for the
// one before it.
func settle() { syscall.Sync() }
