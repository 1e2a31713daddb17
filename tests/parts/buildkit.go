package parts

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// BuildKit is a running buildkitd.
type BuildKit struct {
	// Addr is for buildctl --addr.
	Addr string
	// Buildctl is the client's path.
	Buildctl string

	process *os.Process
}

// Oracle is the test binary's buildkitd, which may push to SharedRegistry.
func Oracle(t testing.TB) *BuildKit {
	t.Helper()
	reg := SharedRegistry(t)
	b, err := shared.BuildKit(reg.Addr)
	Need(t, err)
	return b
}

// NewBuildKit starts another buildkitd, with a state of its own. With an authority it
// listens on tcp, and takes only clients with a certificate of that authority.
func NewBuildKit(t testing.TB, name string, a *Authority) *BuildKit {
	t.Helper()
	b, err := shared.newBuildKit(strings.ReplaceAll(t.Name(), "/", "_")+"-"+name, []string{SharedRegistry(t).Addr}, a)
	Need(t, err)
	return b
}

// Kill ends the daemon as a machine that goes away does.
func (b *BuildKit) Kill(t testing.TB) {
	t.Helper()
	if err := b.process.Kill(); err != nil {
		t.Fatal(err)
	}
}

// BuildKit is the Set's buildkitd, which speaks plain HTTP with the registries.
// Those of the first call count.
func (s *Set) BuildKit(registries ...string) (*BuildKit, error) {
	return s.buildkit.get(func() (*BuildKit, error) { return s.newBuildKit("buildkit", registries, nil) })
}

// AnotherBuildKit starts one more, with a state of its own.
func (s *Set) AnotherBuildKit(name string, registries ...string) (*BuildKit, error) {
	return s.newBuildKit(name, registries, nil)
}

func (s *Set) newBuildKit(name string, registries []string, a *Authority) (*BuildKit, error) {
	if err := errors.Join(needRoot(), needProgram("runc")); err != nil {
		return nil, err
	}
	bin := filepath.Join(Repo(), "bin")
	cmd := exec.Command("make", "-s", "buildkit")
	cmd.Dir = Repo()
	if b, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build buildkitd: %w\n%s", err, b)
	}
	dir := filepath.Join(s.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "buildkitd.toml")
	var text strings.Builder
	for _, r := range registries {
		fmt.Fprintf(&text, "[registry.%q]\n  http = true\n", r)
	}
	// Its garbage collection, a minute after a build, holds every cache mount while
	// it asks for its size: a step that wants the mount then gets a new, empty one.
	text.WriteString("[worker.oci]\n  enabled = true\n  gc = false\n  snapshotter = \"overlayfs\"\n[worker.containerd]\n  enabled = false\n")
	if err := os.WriteFile(conf, []byte(text.String()), 0o600); err != nil {
		return nil, err
	}
	b := &BuildKit{Addr: "unix://" + filepath.Join(dir, "sock"), Buildctl: filepath.Join(bin, "buildctl")}
	args := []string{filepath.Join(bin, "buildkitd"), "--config", conf, "--root", filepath.Join(dir, "root"), "--addr", b.Addr}
	local, tcp := b.Addr, ""
	ready := func() error {
		if tcp != "" {
			if c, err := net.Dial("tcp", tcp); err != nil {
				return err
			} else if err := c.Close(); err != nil {
				return err
			}
		}
		return exec.Command(b.Buildctl, "--addr", local, "debug", "workers").Run() // needs no certificate
	}
	if a != nil {
		var err error
		if tcp, err = freePort(); err != nil {
			return nil, err
		}
		cert, key, err := a.issue(dir, "server", "127.0.0.1")
		if err != nil {
			return nil, err
		}
		args = append(args, "--addr", "tcp://"+tcp, "--tlscacert", a.CA, "--tlscert", cert, "--tlskey", key)
		b.Addr = "tcp://" + tcp
	}
	var err error
	b.process, err = s.start(name, ready, args...)
	return b, err
}
