package e2e_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/layerwright/layerwright/tests/parts"
)

// sshFiles are a context with a program that lists keys, and a key file.
func sshFiles(t *testing.T, dockerfile string) (dir, fingerprint string, private ed25519.PrivateKey, text string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	text = string(pem.EncodeToMemory(block))
	key, err := ssh.NewPublicKey(public)
	require.NoError(t, err)
	dir = buildContext(t, map[string]string{"Dockerfile": dockerfile, "key": text, ".dockerignore": "key\nagent\n"})
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "sshlist"), "./tests/e2e/testdata/sshlist")
	build.Dir, build.Env = parts.Repo(), append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dir, ssh.FingerprintSHA256(key), private, text
}

// sshSocket runs an agent with one key in this process.
func sshSocket(t *testing.T, path string, private ed25519.PrivateKey) {
	t.Helper()
	ring := agent.NewKeyring()
	require.NoError(t, ring.Add(agent.AddedKey{PrivateKey: private}))
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(path, 0o666))
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(ring, c); c.Close() }()
		}
	}()
}

// layersOf are an image's layers, by what is in them.
func layersOf(t *testing.T, ref string) []string {
	t.Helper()
	r, err := name.ParseReference(ref, name.Insecure)
	require.NoError(t, err)
	img, err := remote.Image(r)
	require.NoError(t, err)
	conf, err := img.ConfigFile()
	require.NoError(t, err)
	var list []string
	for _, d := range conf.RootFS.DiffIDs {
		list = append(list, d.String())
	}
	return list
}

const sshDockerfile = `FROM BASE
COPY --chown=1:1 sshlist /bin/sshlist
RUN --mount=type=ssh,required /bin/sshlist && stat -c 'socket %F %u:%g %a' $SSH_AUTH_SOCK
RUN --mount=type=ssh,id=keys,uid=1000,gid=1001,mode=0640,target=/srv/a/sock su app -c '/bin/sshlist' && stat -c 'socket %F %u:%g %a' /srv/a/sock
RUN --mount=type=ssh,id=absent test -z "$(ls -A /run 2>/dev/null)"
RUN test ! -e /run/buildkit && test ! -e /srv && test ! -e "$SSH_AUTH_SOCK"
`

// plainDockerfile makes the same image without any agent.
const plainDockerfile = `FROM BASE
COPY --chown=1:1 sshlist /bin/sshlist
RUN true
RUN true
RUN true
RUN true
`

func TestSSHAgent(t *testing.T) {
	base := smallBase(t)
	for _, isolation := range []string{"inplace", "chroot"} {
		t.Run("in a default container with "+isolation, func(t *testing.T) {
			dir, fingerprint, private, text := sshFiles(t, strings.Replace(sshDockerfile, "BASE", base, 1))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "Plain"), []byte(strings.Replace(plainDockerfile, "BASE", base, 1)), 0o644))
			sshSocket(t, filepath.Join(dir, "agent"), private)
			ref := parts.SharedRegistry(t).Addr + "/ssh:" + isolation
			checkSSH(t, ref, fingerprint, text,
				inJob(t, dir, "build", "--context", "/workspace", "-d", ref, "--isolation", isolation, "--ssh", "default=/workspace/agent", "--ssh", "keys=/workspace/key"),
				inJob(t, dir, "build", "--context", "/workspace", "-d", ref+"-plain", "--isolation", isolation, "--dockerfile", "/workspace/Plain"))
		})
	}
	t.Run("on a machine with namespaces", func(t *testing.T) {
		dir, fingerprint, private, text := sshFiles(t, strings.Replace(sshDockerfile, "BASE", base, 1))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "Plain"), []byte(strings.Replace(plainDockerfile, "BASE", base, 1)), 0o644))
		sshSocket(t, filepath.Join(dir, "agent"), private)
		t.Setenv("SSH_AUTH_SOCK", filepath.Join(dir, "agent"))
		ref := parts.SharedRegistry(t).Addr + "/ssh:namespaces"
		checkSSH(t, ref, fingerprint, text,
			onHost(t, "build", "--context", dir, "-d", ref, "--isolation", "namespaces", "--ssh", "default", "--ssh", "keys="+filepath.Join(dir, "key")),
			onHost(t, "build", "--context", dir, "-d", ref+"-plain", "--isolation", "namespaces", "--dockerfile", filepath.Join(dir, "Plain")))
	})
}

// checkSSH looks at a build of sshDockerfile and one of plainDockerfile.
func checkSSH(t *testing.T, ref, fingerprint, text string, got, plain outcome) {
	t.Helper()
	require.Zero(t, got.code, "%s", got.output)
	require.Zero(t, plain.code, "%s", plain.output)
	require.Equal(t, 2, strings.Count(got.output, "key "+fingerprint), "%s", got.output)
	require.Equal(t, 2, strings.Count(got.output, "keys cannot be removed"), "%s", got.output)
	require.Contains(t, got.output, "socket socket 0:0 600")
	require.Contains(t, got.output, "socket socket 1000:1001 640")
	for _, line := range strings.Split(text, "\n")[1:4] {
		require.NotContains(t, got.output, line)
	}
	want, have := layersOf(t, ref+"-plain"), layersOf(t, ref)
	require.Len(t, have, 6)
	// The layer of COPY has the time of its parent directory.
	require.Equal(t, want[2:], have[2:], "an agent leaves nothing in the image")
}

func TestSSHAgentThatIsMissing(t *testing.T) {
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + smallBase(t) + "\nRUN printf 'has-%s' run\nRUN --mount=type=ssh,id=deploy,required true\n"})
	got := onHost(t, "build", "--context", dir, "--no-push")
	require.Equal(t, 1, got.code, "%s", got.output)
	require.Contains(t, got.output, "Dockerfile:3")
	require.Contains(t, got.output, "--ssh deploy=")
	require.NotContains(t, got.output, "has-run")
}
