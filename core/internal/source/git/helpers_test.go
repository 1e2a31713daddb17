package git

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/needs"
)

// repos is a directory of repositories, which servers show.
type repos struct {
	t   *testing.T
	dir string
}

func newRepos(t *testing.T) *repos {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		needs.Missing(t, "git, which is the server")
	}
	return &repos{t, t.TempDir()}
}

// git runs git in a repository and gives what it prints.
func (r *repos) git(name string, args ...string) string {
	r.t.Helper()
	return r.gitWith("", name, args...)
}

func (r *repos) gitWith(stdin, name string, args ...string) string {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), "git", append([]string{"-c", "protocol.file.allow=always", "-C", filepath.Join(r.dir, name)}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@x.test",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@x.test", "GIT_AUTHOR_DATE=2020-01-02T03:04:05Z", "GIT_COMMITTER_DATE=2020-01-02T03:04:05Z"}
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(r.t, err, "git %v: %s", args, stderr.String())
	return strings.TrimSpace(string(out))
}

// make makes a repository, not bare.
func (r *repos) make(name string) {
	r.t.Helper()
	require.NoError(r.t, os.Mkdir(filepath.Join(r.dir, name), 0o755))
	r.git(name, "init", "-q", "-b", "main")
}

// commit writes files and commits them; a value "->X" is a link, "+x" in front an
// executable.
func (r *repos) commit(name string, files map[string]string) string {
	r.t.Helper()
	for n, text := range files {
		p := filepath.Join(r.dir, name, n)
		require.NoError(r.t, os.MkdirAll(filepath.Dir(p), 0o755))
		mode := fs.FileMode(0o644)
		if to, ok := strings.CutPrefix(text, "->"); ok {
			require.NoError(r.t, os.Symlink(to, p))
			continue
		}
		if t, ok := strings.CutPrefix(text, "+x"); ok {
			text, mode = t, 0o755
		}
		require.NoError(r.t, os.WriteFile(p, []byte(text), mode))
	}
	r.git(name, "add", "-A", "-f")
	r.git(name, "commit", "-q", "--allow-empty", "-m", "change")
	return r.git(name, "rev-parse", "HEAD")
}

// server is a git server by HTTP.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string
}

func (s *server) count(part string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if strings.Contains(r, part) {
			n++
		}
	}
	return n
}

// old makes a server speak version 0 only.
const old = "old"

// serve shows the repositories by HTTP; auth, if not empty, is the header
// Authorization that it wants.
func (r *repos) serve(auth string, options ...string) *server {
	r.t.Helper()
	backend := filepath.Join(strings.TrimSpace(r.execPath()), "git-http-backend")
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, q.Method+" "+q.URL.String())
		s.mu.Unlock()
		if auth != "" && q.Header.Get("Authorization") != auth {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		env := []string{"GIT_PROJECT_ROOT=" + r.dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=/nonexistent",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}
		if len(options) > 0 {
			q.Header.Del("Git-Protocol")
		}
		(&cgi.Handler{Path: backend, Env: env}).ServeHTTP(w, q)
	}))
	r.t.Cleanup(s.Close)
	return s
}

func (r *repos) execPath() string {
	out, err := exec.CommandContext(r.t.Context(), "git", "--exec-path").Output()
	require.NoError(r.t, err)
	return string(out)
}

// sshServer shows the repositories by ssh to whoever has the agent's key.
type sshServer struct {
	address string
	host    ssh.PublicKey
	keys    agent.Agent
}

func (r *repos) serveSSH(options ...string) *sshServer {
	r.t.Helper()
	_, hostKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(r.t, err)
	signer, err := ssh.NewSignerFromKey(hostKey)
	require.NoError(r.t, err)
	_, userKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(r.t, err)
	keys := agent.NewKeyring()
	require.NoError(r.t, keys.Add(agent.AddedKey{PrivateKey: userKey}))
	user, err := ssh.NewPublicKey(userKey.Public())
	require.NoError(r.t, err)
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if bytes.Equal(k.Marshal(), user.Marshal()) {
			return nil, nil
		}
		return nil, fmt.Errorf("unknown key")
	}}
	config.AddHostKey(signer)
	l, err := (&net.ListenConfig{}).Listen(r.t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(r.t, err)
	r.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go r.sshConn(conn, config, len(options) > 0)
		}
	}()
	return &sshServer{l.Addr().String(), signer.PublicKey(), keys}
}

func (r *repos) sshConn(conn net.Conn, config *ssh.ServerConfig, noEnv bool) {
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		ch, in, err := c.Accept()
		if err != nil {
			return
		}
		go r.sshSession(ch, in, noEnv)
	}
}

func (r *repos) sshSession(ch ssh.Channel, in <-chan *ssh.Request, noEnv bool) {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}
	for q := range in {
		switch q.Type {
		case "env":
			var kv struct{ K, V string }
			_ = ssh.Unmarshal(q.Payload, &kv)
			if !noEnv {
				env = append(env, kv.K+"="+kv.V)
			}
			_ = q.Reply(!noEnv, nil)
		case "exec":
			var c struct{ Command string }
			_ = ssh.Unmarshal(q.Payload, &c)
			_ = q.Reply(true, nil)
			cmd := exec.Command("sh", "-c", c.Command)
			cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = env, r.dir, ch, ch.Stderr()
			stdin, _ := cmd.StdinPipe()
			go func() { _, _ = io.Copy(stdin, ch); _ = stdin.Close() }()
			code := uint32(0)
			if cmd.Run() != nil {
				code = 128
			}
			_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ N uint32 }{code}))
			_ = ch.Close()
		default:
			_ = q.Reply(false, nil)
		}
	}
}

// open is a Source's Agent.
func (s *sshServer) open(context.Context, string) (net.Conn, error) {
	a, b := net.Pipe()
	go func() { _ = agent.ServeAgent(s.keys, a) }()
	return b, nil
}

// source is what the Dockerfile frontend makes of a URL.
func source(t *testing.T, url string, opts ...llb.GitOption) (identifier string, attrs map[string]string) {
	t.Helper()
	place, fragment, _ := strings.Cut(url, "#")
	def, err := llb.Git(place, fragment, opts...).Marshal(t.Context())
	require.NoError(t, err)
	var op pb.Op
	require.NoError(t, op.Unmarshal(def.Def[0]))
	return op.GetSource().Identifier, op.GetSource().Attrs
}

// checkOut lays out a source in a new directory.
func checkOut(t *testing.T, s *Source, url string, opts ...llb.GitOption) (string, error) {
	t.Helper()
	to := t.TempDir()
	id, attrs := source(t, url, opts...)
	return to, s.Checkout(t.Context(), id, attrs, to)
}

// files lists a directory but for .git: "MODE CONTENT", "-> TARGET" or "dir".
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, p)
		switch {
		case err != nil || rel == ".":
			return err
		case rel == ".git":
			return fs.SkipDir
		case d.IsDir():
			fi, err := d.Info()
			out[rel] = fmt.Sprintf("dir %o", fi.Mode().Perm())
			return err
		case d.Type() == fs.ModeSymlink:
			to, err := os.Readlink(p)
			out[rel] = "-> " + to
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(p)
		out[rel] = fmt.Sprintf("%o %s", fi.Mode().Perm(), data)
		return err
	}))
	return out
}

func newSource(t *testing.T) *Source {
	t.Helper()
	// What git and BuildKit give must not depend on the umask.
	before := unix.Umask(0o077)
	t.Cleanup(func() { unix.Umask(before) })
	return &Source{Dir: t.TempDir()}
}

// daemon shows the repositories by git's own protocol.
func (r *repos) daemon() string {
	r.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(r.t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(r.t, err)
	address := l.Addr().(*net.TCPAddr)
	require.NoError(r.t, l.Close())
	cmd := exec.CommandContext(r.t.Context(), "git", "daemon", "--listen=127.0.0.1", fmt.Sprintf("--port=%d", address.Port), "--base-path="+r.dir, "--export-all", "--informative-errors", "--reuseaddr")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	require.NoError(r.t, cmd.Start())
	r.t.Cleanup(func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL); _ = cmd.Wait() })
	require.Eventually(r.t, func() bool {
		c, err := net.Dial("tcp", address.String())
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, 5*time.Second, 20*time.Millisecond)
	return address.String()
}
