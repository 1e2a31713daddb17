package parts

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// epoch is the modification time of everything in the small images.
var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// tree writes a small file tree as a tar.
type tree struct{ w *tar.Writer }

func (t tree) dir(name string, mode int64) {
	t.must(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}, nil)
}

func (t tree) link(name, target string) {
	t.must(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

func (t tree) file(name string, mode int64, data []byte) {
	t.must(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}, data)
}

func (t tree) must(h *tar.Header, data []byte) {
	h.ModTime = epoch
	h.Format = tar.FormatPAX
	if err := t.w.WriteHeader(h); err != nil {
		panic(err) // a bytes.Buffer does not fail
	}
	if _, err := t.w.Write(data); err != nil {
		panic(err)
	}
}

// busybox reads Debian's static busybox and lists its applets.
func busybox() (data []byte, applets []string, err error) {
	for _, path := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		if data, err = os.ReadFile(path); err != nil {
			continue
		}
		out, err := exec.Command(path, "--list").Output()
		if err != nil {
			return nil, nil, fmt.Errorf("busybox --list: %w", err)
		}
		return data, strings.Fields(string(out)), nil
	}
	return nil, nil, errors.New("busybox-static: install it (make test-deps does)")
}

// SmallBase is the tar of a small root file system: busybox with its applets,
// users and groups, and the usual directories, all of a fixed time.
func SmallBase(t testing.TB) []byte {
	t.Helper()
	layer, err := newSmallBase()
	Need(t, err)
	return layer
}

func newSmallBase() ([]byte, error) {
	data, applets, err := busybox()
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tree{tar.NewWriter(&buf)}
	for _, d := range []string{"bin", "dev", "etc", "home", "home/app", "lib", "proc", "root", "sys", "usr", "usr/bin", "usr/local", "usr/local/bin", "var"} {
		w.dir(d, 0o755)
	}
	w.dir("tmp", 0o1777)
	w.file("bin/busybox", 0o755, data)
	for _, a := range applets {
		if a != "busybox" {
			w.link("bin/"+a, "busybox")
		}
	}
	w.link("lib64", "lib")
	w.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\napp:x:1000:1001:app:/home/app:/bin/sh\n"))
	w.file("etc/group", 0o644, []byte("root:x:0:\nstaff:x:50:app\nappgroup:x:1001:\nextra:x:2000:app,nobody\nnogroup:x:65534:\n"))
	w.file("etc/motd", 0o644, []byte("small\n"))
	// As real bases have them: a builder mounts onto these.
	w.file("etc/hosts", 0o644, nil)
	w.file("etc/resolv.conf", 0o644, nil)
	err = w.w.Close()
	return buf.Bytes(), err
}

// PushBase pushes a one-layer image made of a root file system's tar.
func PushBase(t testing.TB, ref string, layer []byte, env ...string) {
	t.Helper()
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil }
	Need(t, pushBase(t.Context(), ref, open, env))
}

func pushBase(ctx context.Context, ref string, open tarball.Opener, env []string) error {
	l, err := tarball.LayerFromOpener(open)
	if err != nil {
		return err
	}
	img, err := mutate.Append(empty.Image, mutate.Addendum{Layer: l, History: v1.History{
		Created: v1.Time{Time: epoch}, CreatedBy: "ADD rootfs.tar / # base",
	}})
	if err != nil {
		return err
	}
	conf, err := img.ConfigFile()
	if err != nil {
		return err
	}
	conf = conf.DeepCopy()
	conf.OS, conf.Architecture = "linux", "amd64"
	conf.Created = v1.Time{Time: epoch}
	conf.Config.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
	conf.Config.Cmd = []string{"/bin/sh"}
	if img, err = mutate.ConfigFile(img, conf); err != nil {
		return err
	}
	r, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		return err
	}
	return remote.Write(r, img, remote.WithContext(ctx))
}

// DebianTar is the path of a Debian minbase root file system with the
// machine's certificates, so that apt works in a step.
func DebianTar(t testing.TB) string {
	t.Helper()
	path, err := shared.debian.get(newDebian)
	Need(t, err)
	return path
}

func newDebian() (string, error) {
	if err := errors.Join(needRoot(), needProgram("mmdebstrap")); err != nil {
		return "", err
	}
	dir, err := cache()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "debian.tar")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	args := []string{"--variant=minbase", "bookworm", path + ".tmp.tar"}
	for _, f := range []string{"/etc/ssl/certs/ca-certificates.crt"} {
		if _, err := os.Stat(f); err == nil {
			args = append([]string{"--customize-hook=mkdir -p \"$1" + filepath.Dir(f) + "\"", "--customize-hook=upload " + f + " " + f}, args...)
		}
	}
	if out, err := exec.Command("mmdebstrap", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("mmdebstrap: %w\n%s", err, out)
	}
	return path, os.Rename(path+".tmp.tar", path)
}

// PushDebian pushes the Debian base image.
func PushDebian(t testing.TB, ref string) {
	t.Helper()
	path := DebianTar(t)
	Need(t, pushBase(t.Context(), ref, func() (io.ReadCloser, error) { return os.Open(path) }, nil))
}

// JobImage is the name of an image as CI jobs use it, in the engine: the binary
// at /layerwright/bin/layerwright, a shell in /busybox, certificates. Its entry
// point is the binary; run with --entrypoint /busybox/sh for a shell as PID 1.
func JobImage(t testing.TB, d *Docker) string {
	t.Helper()
	Binary(t)
	image, err := shared.JobImage(t.Context(), d)
	Need(t, err)
	return image
}

// JobImage is the same for the Set's engine.
func (s *Set) JobImage(ctx context.Context, d *Docker) (string, error) {
	return s.jobImage.get(func() (string, error) { return s.newJobImage(ctx, d) })
}

func (s *Set) newJobImage(ctx context.Context, d *Docker) (string, error) {
	const image = "layerwright-job:test"
	path, err := s.Binary()
	if err != nil {
		return "", err
	}
	bin, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	bb, applets, err := busybox()
	if err != nil {
		return "", err
	}
	var buf bytes.Buffer
	w := tree{tar.NewWriter(&buf)}
	for _, dir := range []string{"layerwright", "layerwright/bin", "layerwright/busybox", "layerwright/ssl"} {
		w.dir(dir, 0o755)
	}
	w.file("layerwright/bin/layerwright", 0o755, bin)
	w.file("layerwright/busybox/busybox", 0o755, bb)
	for _, a := range applets {
		if a != "busybox" {
			w.link("layerwright/busybox/"+a, "busybox")
		}
	}
	w.link("busybox", "layerwright/busybox")
	w.dir("tmp", 0o1777)
	if err := w.w.Close(); err != nil {
		return "", err
	}
	cmd := d.Command(ctx, "import", "-c", `ENTRYPOINT ["/layerwright/bin/layerwright"]`,
		"-c", "ENV PATH=/layerwright/bin:/busybox", "-c", "ENV HOME=/root", "-", image)
	cmd.Stdin = &buf
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("docker import: %w\n%s", err, out)
	}
	return image, nil
}

// ProductImage is the name of our own image in the engine, target executor or
// debug of the Dockerfile, as make image builds and loads it. Variables are further
// ones of make; those of a target's first call count.
func ProductImage(t testing.TB, d *Docker, target string, variables ...string) string {
	t.Helper()
	Need(t, needProgram("make"))
	name := "layerwright-product:" + target
	if out, err := d.Command(t.Context(), "image", "inspect", name).CombinedOutput(); err == nil && len(out) > 0 {
		return name
	}
	cmd := exec.CommandContext(t.Context(), "make", append([]string{"image", "IMAGE=" + name, "IMAGE_TARGET=" + target}, variables...)...)
	cmd.Dir = Repo()
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+d.Host)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make image: %v\n%s", err, out)
	}
	return name
}
