package sshagent

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// newKey makes a private key and the file that ssh-keygen would write.
func newKey(t *testing.T, private crypto.PrivateKey) string {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	return write(t, pem.EncodeToMemory(block))
}

func write(t *testing.T, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(name, data, 0o600))
	return name
}

func ed25519Key(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return private
}

// newAgent runs an agent in this process, and gives its keyring and socket.
func newAgent(t *testing.T, path string) agent.Agent {
	t.Helper()
	ring := agent.NewKeyring()
	require.NoError(t, ring.Add(agent.AddedKey{PrivateKey: ed25519Key(t), Comment: "of the agent"}))
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", path)
	require.NoError(t, err)
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
	return ring
}

func opened(t *testing.T, sources ...Source) *Agents {
	t.Helper()
	a, err := Open(t.Context(), sources)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a
}

func client(t *testing.T, a *Agents, id string) agent.ExtendedAgent {
	t.Helper()
	c, err := a.Dial(t.Context(), id)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return agent.NewClient(c)
}

func TestKeysAreListedAndSign(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	a := opened(t, Source{Paths: []string{newKey(t, ed25519Key(t)), newKey(t, rsaKey)}})
	c := client(t, a, "")
	keys, err := c.List()
	require.NoError(t, err)
	require.Len(t, keys, 2)
	for _, k := range keys {
		sig, err := c.Sign(k, []byte("data"))
		require.NoError(t, err)
		require.NoError(t, k.Verify([]byte("data"), sig))
	}
	sig, err := c.SignWithFlags(keys[1], []byte("data"), agent.SignatureFlagRsaSha512)
	require.NoError(t, err)
	require.Equal(t, ssh.KeyAlgoRSASHA512, sig.Format)
	other, err := ssh.NewPublicKey(ed25519Key(t).Public())
	require.NoError(t, err)
	_, err = c.Sign(other, []byte("data"))
	require.Error(t, err, "a key that the agent does not have")
	_, err = c.List()
	require.NoError(t, err, "a refused request does not end the connection")
}

func TestNobodyInsideChangesAnAgent(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "s")
	ring := newAgent(t, sock)
	a := opened(t, Source{ID: "keys", Paths: []string{newKey(t, ed25519Key(t))}}, Source{ID: "socket", Paths: []string{sock}})
	for _, id := range []string{"keys", "socket"} {
		t.Run(id, func(t *testing.T) {
			c := client(t, a, id)
			keys, err := c.List()
			require.NoError(t, err)
			require.Len(t, keys, 1)
			require.Error(t, c.Add(agent.AddedKey{PrivateKey: ed25519Key(t)}))
			require.Error(t, c.Remove(keys[0]))
			require.Error(t, c.RemoveAll())
			require.Error(t, c.Lock([]byte("x")))
			require.Error(t, c.Unlock([]byte("x")))
			_, err = c.Extension("session-bind@openssh.com", nil)
			require.Error(t, err)
			again, err := c.List()
			require.NoError(t, err)
			require.Equal(t, keys, again)
			sig, err := c.Sign(keys[0], []byte("d"))
			require.NoError(t, err)
			require.NoError(t, keys[0].Verify([]byte("d"), sig))
		})
	}
	left, err := ring.List()
	require.NoError(t, err)
	require.Len(t, left, 1)
}

func TestAnAgentStartedAnewIsFoundAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30)) // longer than a socket's address
	require.NoError(t, os.Mkdir(dir, 0o700))
	t.Chdir(dir)
	newAgent(t, "s")
	a := opened(t, Source{Paths: []string{filepath.Join(dir, "s")}})
	require.NoError(t, a.Check(""))
	require.NoError(t, os.Remove("s"))
	_, err := a.Dial(t.Context(), "")
	require.ErrorContains(t, err, "reach ssh agent default")
	newAgent(t, "s")
	_, err = client(t, a, "").List()
	require.NoError(t, err)
}

func TestADeadAgentIsAnErrorWhenItIsUsed(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	a := opened(t, Source{Paths: []string{sock}})
	requireFault(t, a.Check("default"), fault.User, "does not answer", "Start an agent")
}

func requireFault(t *testing.T, err error, kind fault.Kind, text, remedy string) {
	t.Helper()
	e, ok := fault.As(err)
	require.True(t, ok, "%v", err)
	require.Equal(t, kind, e.Kind)
	require.Contains(t, e.Error(), text)
	require.Contains(t, e.Remedy, remedy)
}

func TestWhatIsNoAgentIsRefusedAtTheStart(t *testing.T) {
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(ed25519Key(t), "", []byte("pass"))
	require.NoError(t, err)
	public, err := ssh.NewPublicKey(ed25519Key(t).Public())
	require.NoError(t, err)
	key := newKey(t, ed25519Key(t))
	sock := filepath.Join(t.TempDir(), "s")
	newAgent(t, sock)
	secret := strings.Repeat("c2VjcmV0", 20)
	for name, c := range map[string]struct {
		sources      []Source
		kind         fault.Kind
		text, remedy string
	}{
		"a path that is not there": {[]Source{{Paths: []string{"/no/such"}}}, fault.User, "/no/such", "Name the socket"},
		"a directory":              {[]Source{{Paths: []string{t.TempDir()}}}, fault.User, "read ssh key", "Name a file"},
		"no path":                  {[]Source{{}}, fault.Usage, "neither", "--ssh default=KEYFILE"},
		"a passphrase":             {[]Source{{Paths: []string{write(t, pem.EncodeToMemory(locked))}}}, fault.User, "passphrase", "ssh-add"},
		"a passphrase, PKCS 8":     {[]Source{{Paths: []string{write(t, pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}))}}}, fault.User, "passphrase", "ssh-add"},
		"a public key":             {[]Source{{Paths: []string{write(t, ssh.MarshalAuthorizedKey(public))}}}, fault.User, "no private key", "public key"},
		"not a key":                {[]Source{{Paths: []string{write(t, []byte(secret))}}}, fault.User, "no private key", "BEGIN"},
		"a broken key":             {[]Source{{Paths: []string{write(t, []byte("-----BEGIN OPENSSH PRIVATE KEY-----\n"+secret+"\n-----END OPENSSH PRIVATE KEY-----\n"))}}}, fault.User, "cannot be read", "OpenSSH or PEM"},
		"too large":                {[]Source{{Paths: []string{write(t, make([]byte, maxKey+1))}}}, fault.User, "larger than", "private key"},
		"a socket and a key":       {[]Source{{Paths: []string{key, sock}}}, fault.Usage, "more than one path", "one socket"},
		"one id twice":             {[]Source{{Paths: []string{key}}, {ID: "default", Paths: []string{key}}}, fault.Usage, "two ssh agents", "own id"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(t.Context(), c.sources)
			requireFault(t, err, c.kind, c.text, c.remedy)
			require.NotContains(t, err.Error(), "c2VjcmV0")
		})
	}
}

func TestAnAgentThatWasNotGiven(t *testing.T) {
	for name, a := range map[string]*Agents{"none": nil, "another": opened(t, Source{ID: "x", Paths: []string{newKey(t, ed25519Key(t))}})} {
		t.Run(name, func(t *testing.T) {
			require.False(t, a.Has("deploy"))
			requireFault(t, a.Check("deploy"), fault.User, "ssh agent deploy", "--ssh deploy=")
			_, err := a.Dial(t.Context(), "deploy")
			require.Error(t, err)
		})
	}
	require.NoError(t, (*Agents)(nil).Close())
}

func TestASocketServesUntilItIsClosed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	require.NoError(t, os.Mkdir(dir, 0o700))
	a := opened(t, Source{Paths: []string{newKey(t, ed25519Key(t))}})
	s, err := a.Listen(t.Context(), "", dir, func(err error) { t.Error(err) })
	require.NoError(t, err)
	t.Chdir(dir)
	require.NoError(t, os.Rename("agent", "moved"))
	conn, err := net.Dial("unix", "moved")
	require.NoError(t, err)
	keys, err := agent.NewClient(conn).List()
	require.NoError(t, err)
	require.Len(t, keys, 1)
	require.NoError(t, s.Close())
	_, err = agent.NewClient(conn).List()
	require.Error(t, err, "the connection of a step that has ended")
	_, err = net.Dial("unix", "moved")
	require.Error(t, err)
}

func TestAStepThatCannotReachTheAgentIsReported(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "s")
	newAgent(t, sock)
	a := opened(t, Source{Paths: []string{sock}})
	require.NoError(t, os.Remove(sock))
	told := make(chan error, 1)
	s, err := a.Listen(t.Context(), "", t.TempDir(), func(err error) { told <- err })
	require.NoError(t, err)
	conn, err := net.Dial("unix", s.Path)
	require.NoError(t, err)
	_, err = agent.NewClient(conn).List()
	require.Error(t, err)
	require.ErrorContains(t, <-told, "reach ssh agent default")
	require.NoError(t, s.Close())
}

func FuzzConverse(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, requestKeys})
	f.Add([]byte{0, 0, 0, 2, requestSign, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	ring := agent.NewKeyring().(agent.ExtendedAgent)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(f, err)
	require.NoError(f, ring.Add(agent.AddedKey{PrivateKey: private}))
	f.Fuzz(func(t *testing.T, data []byte) {
		out := &strings.Builder{}
		require.Error(t, converse(struct {
			*strings.Reader
			*strings.Builder
		}{strings.NewReader(string(data)), out}, held{ring}))
	})
}
