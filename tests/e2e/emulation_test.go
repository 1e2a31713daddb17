package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/tests/conformance"
	"github.com/layerwright/layerwright/tests/parts"
)

// foreignShell is /bin/sh of a base image: it writes what it runs as to the file that
// it is told, and does nothing that an emulator could not.
const foreignShell = `package main

import ("os"; "runtime")

func main() {
	if err := os.WriteFile(os.Args[len(os.Args)-1], []byte(runtime.GOARCH), 0o644); err != nil { panic(err) }
}
`

// foreignBase pushes a base image of an architecture, whose shell really is a program
// of it.
func foreignBase(t *testing.T, arch string) string {
	t.Helper()
	ref := parts.SharedRegistry(t).Addr + "/foreign/" + arch + ":1"
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY root /\n", "root/etc/hosts": "", "root/etc/resolv.conf": "", "sh.go": foreignShell})
	for _, d := range []string{"bin", "dev", "proc", "sys", "tmp"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "root", d), 0o755))
	}
	compile := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "root/bin/sh"), filepath.Join(dir, "sh.go"))
	compile.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0")
	out, err := compile.CombinedOutput()
	require.NoError(t, err, "%s", out)
	got := onHost(t, "build", "--isolation", "chroot", "--platform", "linux/"+arch, "-d", ref, dir)
	require.Equal(t, 0, got.code, got.output)
	return ref
}

// register makes the kernel run arm64 programs by qemu until the test ends.
func register(t *testing.T) {
	t.Helper()
	const (
		control = "/proc/sys/fs/binfmt_misc"
		name    = "layerwright-test-aarch64"
		program = "/usr/bin/qemu-aarch64-static"
	)
	_, err := os.Stat(program)
	parts.Need(t, err)
	if _, err := os.Stat(control + "/register"); err != nil {
		parts.Need(t, unix.Mount("binfmt_misc", control, "binfmt_misc", 0, ""))
		t.Cleanup(func() { _ = unix.Unmount(control, unix.MNT_DETACH) })
	}
	line := fmt.Sprintf(":%s:M::%s:%s:%s:F", name,
		`\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00`,
		`\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff`, program)
	_ = os.WriteFile(control+"/"+name, []byte("-1"), 0o200) // of a test that was killed
	parts.Need(t, os.WriteFile(control+"/register", []byte(line), 0o200))
	t.Cleanup(func() { require.NoError(t, os.WriteFile(control+"/"+name, []byte("-1"), 0o200)) })
}

// TestForeignSteps: without an emulator a step for another architecture is refused
// before anything runs, with one it runs; what copies, and what is known, needs none.
func TestForeignSteps(t *testing.T) {
	reg := parts.SharedRegistry(t)
	base := foreignBase(t, "arm64")
	text := "FROM --platform=$BUILDPLATFORM " + smallBase(t) + " AS native\nRUN echo ran-before && echo x > /x\nFROM " + base + "\nCOPY --from=native /x /x\nRUN /made\n"
	dir := buildContext(t, map[string]string{"Dockerfile": text, "Copies": "FROM " + base + "\nCOPY Copies /\nCOPY --from=" + base + " /bin/sh /sh\n"})
	cache := reg.Addr + "/foreign/cache"
	job := func(isolation, tag string, more ...string) outcome {
		args := append([]string{"build", "--log-format", "plain", "--platform", "linux/arm64", "-d", reg.Addr + "/foreign/out:" + tag}, more...)
		if isolation == "inplace" {
			return inJob(t, dir, append(args, "--isolation", isolation, "/workspace")...)
		}
		return onHost(t, append(args, "--isolation", isolation, dir)...)
	}
	modes := []string{"inplace", "namespaces", "chroot"}
	for _, isolation := range modes {
		got := job(isolation, "refused")
		require.Equal(t, 4, got.code, got.output)
		for _, want := range []string{"RUN /made", "linux/arm64", "Dockerfile:5", "no emulator is registered", "qemu-user-static", "--push-by-digest"} {
			require.Contains(t, got.output, want)
		}
		require.NotContains(t, got.output, "ran-before\n", "nothing runs")
	}
	require.Equal(t, 0, job("inplace", "copies", "-f", "Copies").code, "COPY needs no emulator")

	t.Run("with an emulator", func(t *testing.T) {
		register(t)
		began := time.Now().Truncate(time.Second) // as layers hold times
		ref := reg.Addr + "/foreign/buildkit:1"
		b := parts.Oracle(t)
		out, err := exec.CommandContext(t.Context(), b.Buildctl, "--addr", b.Addr, "build", "--frontend", "dockerfile.v0", "--opt", "platform=linux/arm64",
			"--local", "context="+dir, "--local", "dockerfile="+dir, "--output", "type=image,push=true,oci-mediatypes=true,name="+ref).CombinedOutput()
		require.NoError(t, err, "%s", out)
		want, err := conformance.LoadAll(t.Context(), ref)
		require.NoError(t, err)
		for _, isolation := range modes {
			got := job(isolation, isolation, "--cache-repo", cache+"-"+isolation)
			require.Equal(t, 0, got.code, got.output)
			images, err := conformance.LoadAll(t.Context(), reg.Addr+"/foreign/out:"+isolation)
			require.NoError(t, err)
			require.Empty(t, conformance.CompareAll(images, want, began), isolation)
		}
	})
	got := job("inplace", "known", "--cache-repo", cache+"-inplace")
	require.Equal(t, 0, got.code, "a step that is known needs no emulator: %s", got.output)
}

// TestManyPlatforms: a stage that all platforms share runs once, those that differ have
// keys of their own, and the index is BuildKit's, variants included.
func TestManyPlatforms(t *testing.T) {
	reg, b := parts.SharedRegistry(t), parts.Oracle(t)
	list := []string{"linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8"}
	text := "FROM --platform=$BUILDPLATFORM " + smallBase(t) + " AS shared\nRUN echo shared-$((40+2)) && echo x > /shared\nFROM shared AS own\nARG TARGETPLATFORM\nRUN echo own-$TARGETPLATFORM- && echo $TARGETPLATFORM > /own\n" +
		"FROM scratch\nCOPY --from=shared /shared /\nCOPY --from=own /own /\n"
	dir := buildContext(t, map[string]string{"Dockerfile": text})
	began := time.Now().Truncate(time.Second) // as layers hold times
	build := func(tag string) outcome {
		return inJob(t, dir, "build", "--log-format", "plain", "--isolation", "inplace", "--platform", strings.Join(list, ","), "--cache-repo", reg.Addr+"/many/cache", "-d", reg.Addr+"/many/app:"+tag, "/workspace")
	}
	cold := build("1")
	require.Equal(t, 0, cold.code, cold.output)
	require.Equal(t, 1, strings.Count(cold.output, "shared-42"), cold.output)
	for _, p := range []string{"linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64"} {
		require.Equal(t, 1, strings.Count(cold.output, "own-"+p+"-\n"), cold.output)
	}
	warm := build("2")
	require.Equal(t, 0, warm.code, warm.output)
	require.NotContains(t, warm.output, "shared-42")
	require.NotContains(t, warm.output, "own-linux/arm/v6-\n")

	ref := reg.Addr + "/many/buildkit:1"
	out, err := exec.CommandContext(t.Context(), b.Buildctl, "--addr", b.Addr, "build", "--frontend", "dockerfile.v0", "--opt", "platform="+strings.Join(list, ","),
		"--local", "context="+dir, "--local", "dockerfile="+dir, "--output", "type=image,push=true,oci-mediatypes=true,name="+ref).CombinedOutput()
	require.NoError(t, err, "%s", out)
	want, err := conformance.LoadAll(t.Context(), ref)
	require.NoError(t, err)
	require.Len(t, want, len(list))
	for _, tag := range []string{"1", "2"} {
		got, err := conformance.LoadAll(t.Context(), reg.Addr+"/many/app:"+tag)
		require.NoError(t, err)
		require.Empty(t, conformance.CompareAll(got, want, began))
		require.Equal(t, manifestOf(t, reg.Addr+"/many/buildkit", "1").Manifests, manifestOf(t, reg.Addr+"/many/app", tag).Manifests, "platforms, in order")
	}
}
