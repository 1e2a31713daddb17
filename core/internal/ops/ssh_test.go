package ops

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/layerwright/layerwright/core/internal/sandbox"
	"github.com/layerwright/layerwright/core/internal/sshagent"
)

func sshMount(id, target string, optional bool) *pb.Mount {
	return &pb.Mount{Dest: target, Input: -1, Output: -1, MountType: pb.MountType_SSH,
		SSHOpt: &pb.SSHOpt{ID: id, Uid: 1, Gid: 2, Mode: 0o640, Optional: optional}}
}

func TestAStepGetsASocketForItsTimeOnly(t *testing.T) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(block), 0o600))
	agents, err := sshagent.Open(t.Context(), []sshagent.Source{{Paths: []string{key}}})
	require.NoError(t, err)
	defer agents.Close()

	var seen []sandbox.Mount
	var conn net.Conn
	r := newRig(t, &toySandbox{run: func(_ context.Context, s sandbox.Step) error {
		seen = s.Mounts
		var err error
		if conn, err = net.Dial("unix", s.Mounts[0].Source); err != nil {
			return err
		}
		keys, err := agent.NewClient(conn).List()
		require.Len(t, keys, 1)
		return err
	}})
	r.SSH = agents
	op := &pb.ExecOp{Mounts: []*pb.Mount{rootMount(), sshMount("", "/run/buildkit/ssh_agent.0", false), sshMount("absent", "/run/buildkit/ssh_agent.1", true)}}
	require.NoError(t, r.solve(t, r.exec(op, r.base())))
	require.Len(t, seen, 1, "an agent that is optional and not given is left out")
	require.Equal(t, sandbox.Mount{Kind: sandbox.SSHAgent, Target: "/run/buildkit/ssh_agent.0", Source: seen[0].Source, UID: 1, GID: 2, Mode: 0o640}, seen[0])
	_, err = agent.NewClient(conn).List()
	require.Error(t, err, "the step has ended")
	left, err := os.ReadDir(r.Scratch)
	require.NoError(t, err)
	require.Empty(t, left)
}
