// Package parts starts the real programs that the black-box tests work with: a
// Docker engine, registries, BuildKit, and the images that builds start from.
// Everything lives in a temporary directory, listens on loopback or a Unix
// socket only, and is ended by its process id when the test binary ends. It
// knows nothing of Layerwright but how to build its binary.
//
// A part that cannot be had skips the test with the reason, or fails it when
// LAYERWRIGHT_TEST_NO_SKIP=1 (continuous integration).
package parts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Set is what one program has started. A test binary has one by TestMain:
//
//	func TestMain(m *testing.M) { parts.Run(m) }
//
// and asks the functions of this package for parts; another program makes one by
// New, asks its methods, and ends everything by Close.
type Set struct {
	dir   string
	mu    sync.Mutex
	ended []func()

	docker   once[*Docker]
	registry once[*Registry]
	buildkit once[*BuildKit]
	binary   once[string]
	debian   once[string]
	jobImage once[string]
}

// once is a value that is made by the first who asks, error included.
type once[T any] struct {
	sync.Once
	value T
	err   error
}

func (o *once[T]) get(make func() (T, error)) (T, error) {
	o.Do(func() { o.value, o.err = make() })
	return o.value, o.err
}

var shared *Set

// New makes a Set in which nothing runs yet.
func New() (*Set, error) {
	dir, err := os.MkdirTemp("/tmp", "lw-")
	if err != nil {
		return nil, err
	}
	return &Set{dir: dir}, nil
}

// Run runs a test binary with a Set and exits with its code.
func Run(m *testing.M) {
	var err error
	if shared, err = New(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	shared.Close()
	os.Exit(code)
}

// Dir is the Set's temporary directory; Close removes it.
func (s *Set) Dir() string { return s.dir }

// Close ends what was started, last first, and leaves no file and no mount.
func (s *Set) Close() {
	for i := len(s.ended) - 1; i >= 0; i-- {
		s.ended[i]()
	}
	// Docker leaves a mount of its network namespace behind.
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], s.dir+"/") {
			_ = syscall.Unmount(f[4], syscall.MNT_DETACH)
		}
	}
	if err := os.RemoveAll(s.dir); err != nil {
		fmt.Fprintln(os.Stderr, "left behind:", err)
	}
}

// AtEnd does something when the test binary ends, for what outlives one test.
func AtEnd(f func()) { shared.AtEnd(f) }

// AtEnd does something in Close, after what was asked for later.
func (s *Set) AtEnd(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = append(s.ended, f)
}

// Need skips the test for a reason, or fails it where skips are not allowed.
func Need(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("LAYERWRIGHT_TEST_NO_SKIP") == "1" {
		t.Fatalf("needed for this test: %v", err)
	}
	t.Skipf("needed for this test: %v", err)
}

// Repo is the root of the checkout.
func Repo() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// cache is a directory in the checkout for what is costly to make.
func cache() (string, error) {
	d := filepath.Join(Repo(), ".cache")
	return d, os.MkdirAll(d, 0o755)
}

// Binary builds bin/layerwright and gives its path.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := shared.Binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Binary builds bin/layerwright and gives its path.
func (s *Set) Binary() (string, error) {
	return s.binary.get(func() (string, error) {
		out := filepath.Join(Repo(), "bin", "layerwright")
		cmd := exec.Command("make", "-s", "build")
		cmd.Dir = Repo()
		if b, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build the binary: %w\n%s", err, b)
		}
		return out, nil
	})
}

// start runs a daemon until the test binary ends, its output in a log file.
func (s *Set) start(name string, ready func() error, args ...string) (*os.Process, error) {
	log, err := os.Create(filepath.Join(s.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	// The daemon ends with us, however we end. The kernel counts the thread
	// that started it, so that one stays.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started, exited := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	s.AtEnd(func() { stop(cmd.Process, exited) })
	deadline := time.Now().Add(60 * time.Second)
	for {
		err := ready()
		if err == nil {
			return cmd.Process, nil
		}
		select {
		case <-exited:
			return nil, fmt.Errorf("start %s: it ended: %s", name, tail(log.Name()))
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("start %s: not ready: %w: %s", name, err, tail(log.Name()))
		}
	}
}

func stop(p *os.Process, exited <-chan struct{}) {
	_ = p.Signal(syscall.SIGTERM)
	select {
	case <-exited:
	case <-time.After(15 * time.Second):
		_ = p.Kill()
		<-exited
	}
}

func tail(path string) string {
	b, _ := os.ReadFile(path)
	if len(b) > 2000 {
		b = b[len(b)-2000:]
	}
	return string(b)
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("root: run as root")
	}
	return nil
}

func needProgram(names ...string) error {
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			return fmt.Errorf("%s: install it (make test-deps does)", n)
		}
	}
	return nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Registry is a running distribution registry on loopback.
type Registry struct {
	// Addr is host:port, reached by plain HTTP.
	Addr string
	// Dir is its storage.
	Dir string
}

// SharedRegistry is one registry for the whole test binary.
func SharedRegistry(t testing.TB) *Registry {
	t.Helper()
	r, err := shared.registry.get(func() (*Registry, error) { return shared.newRegistry("registry", "") })
	Need(t, err)
	return r
}

// NewRegistry starts another registry; extra is appended to its configuration
// (YAML), for authentication or certificates.
func NewRegistry(t testing.TB, extra string) *Registry {
	t.Helper()
	r, err := shared.newRegistry(strings.ReplaceAll(t.Name(), "/", "_"), extra)
	Need(t, err)
	return r
}

func (s *Set) newRegistry(name, extra string) (*Registry, error) {
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	return s.newRegistryAt(addr, name, extra)
}

func (s *Set) newRegistryAt(addr, name, extra string) (*Registry, error) {
	if err := needProgram("docker-registry"); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, name)
	conf := filepath.Join(s.dir, name+".yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\nhttp:\n  addr: %q\n%s", dir, addr, extra)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	ready := func() error {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
	if _, err := s.start(name, ready, "docker-registry", "serve", conf); err != nil {
		return nil, err
	}
	return &Registry{Addr: addr, Dir: dir}, nil
}

// Docker is a running Docker engine without iptables and bridge: containers
// use the host's network, with Docker's default capabilities and seccomp.
type Docker struct {
	// Host is the value for DOCKER_HOST.
	Host string
}

// Engine is the test binary's Docker engine.
func Engine(t testing.TB) *Docker {
	t.Helper()
	d, err := shared.Engine()
	Need(t, err)
	return d
}

// Engine is the Set's Docker engine.
func (s *Set) Engine() (*Docker, error) { return s.docker.get(s.newDocker) }

func (s *Set) newDocker() (*Docker, error) {
	if err := errors.Join(needRoot(), needProgram("dockerd", "docker", "runc")); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, "docker")
	sock := filepath.Join(dir, "docker.sock")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ready := func() error {
		c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", sock)
		}}}
		resp, err := c.Get("http://docker/_ping")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	_, err := s.start("dockerd", ready, "dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none",
		"-H", "unix://"+sock, "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "-p", filepath.Join(dir, "pid"))
	return &Docker{Host: "unix://" + sock}, err
}

// Command is a docker command against this engine.
func (d *Docker) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+d.Host)
	return cmd
}

// Must runs a docker command and gives its output; it fails the test.
func (d *Docker) Must(t testing.TB, args ...string) string {
	t.Helper()
	out, err := d.Command(t.Context(), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
