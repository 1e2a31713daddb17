package main

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// shell is a static program that can be an image's /bin/sh.
type shell struct {
	data   []byte
	origin string
}

// findShell takes the machine's static busybox, or compiles a shell.
func findShell(ctx context.Context, repo, out string) (shell, error) {
	for _, path := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		if data, err := os.ReadFile(path); err == nil && static(data) {
			return shell{data, path}, nil
		}
	}
	say("0. No static busybox here: compile a shell (mvdan.cc/sh)")
	path := filepath.Join(out, "sh")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "mvdan.cc/sh/v3/cmd/gosh")
	cmd.Dir = filepath.Join(repo, "tools", "shell")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	err := cmd.Run()
	if err == nil {
		var data []byte
		if data, err = os.ReadFile(path); err == nil {
			return shell{data, "mvdan.cc/sh, compiled from its Go module"}, nil
		}
	}
	return shell{}, &exitError{4, fmt.Errorf("make a base image: %w", err), "Install Debian's busybox-static, or let Go reach a module proxy (GOPROXY)."}
}

// static says whether data is a program for this machine that needs no loader.
func static(data []byte) bool {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return false
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

// local is a registry in this process.
type local struct {
	addr   string
	server *http.Server
}

func startRegistry(out string) (*local, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, &exitError{4, fmt.Errorf("listen on loopback: %w", err), "Run where 127.0.0.1 can be used."}
	}
	blobs := filepath.Join(out, "registry")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return nil, err
	}
	handler := registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(blobs)), registry.Logger(discardLogger()))
	s := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.Serve(l) }()
	return &local{l.Addr().String(), s}, nil
}

func (l *local) close() { _ = l.server.Close() }

// pushBase pushes an image of one layer: a shell and what a shell expects.
func pushBase(ctx context.Context, ref string, sh shell) error {
	data, err := baseTar(sh)
	if err != nil {
		return err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	if err != nil {
		return err
	}
	img, err := mutate.Append(empty.Image, mutate.Addendum{Layer: layer, History: v1.History{CreatedBy: "made by make demo"}})
	if err != nil {
		return err
	}
	conf, err := img.ConfigFile()
	if err != nil {
		return err
	}
	conf = conf.DeepCopy()
	conf.OS, conf.Architecture = runtime.GOOS, runtime.GOARCH
	conf.Config.Env = []string{"PATH=/usr/local/bin:/bin"}
	conf.Config.Cmd = []string{"/bin/sh"}
	if img, err = mutate.ConfigFile(img, conf); err != nil {
		return err
	}
	r, err := name.ParseReference(ref)
	if err != nil {
		return err
	}
	return remote.Write(r, img, remote.WithContext(ctx))
}

func baseTar(sh shell) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	put := func(h tar.Header, data []byte) error {
		h.Size, h.ModTime, h.Format = int64(len(data)), time.Unix(0, 0), tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}
	for _, dir := range []string{"bin/", "dev/", "etc/", "proc/", "root/", "sys/", "usr/", "usr/local/", "usr/local/bin/", "usr/local/share/"} {
		if err := put(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil); err != nil {
			return nil, err
		}
	}
	for _, f := range []struct {
		name string
		mode int64
		data []byte
	}{
		{"bin/sh", 0o755, sh.data},
		{"etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n")},
		{"etc/group", 0o644, []byte("root:x:0:\n")},
	} {
		if err := put(tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode}, f.data); err != nil {
			return nil, err
		}
	}
	if err := put(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil); err != nil {
		return nil, err
	}
	err := w.Close()
	return buf.Bytes(), err
}
