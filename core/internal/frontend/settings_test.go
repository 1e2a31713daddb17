package frontend

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// images is a Resolver from memory: every name exists but those with "missing"
// in them.
type images struct {
	mu    sync.Mutex
	asked []string
}

var errNoImage = errors.New("manifest unknown")

func (r *images) ResolveImage(_ context.Context, ref string, p ocispecs.Platform) (string, []byte, error) {
	r.mu.Lock()
	r.asked = append(r.asked, ref+" "+p.OS+"/"+p.Architecture)
	r.mu.Unlock()
	if strings.Contains(ref, "missing") {
		return "", nil, fault.New(fault.Registry, "pull %s: %w", ref, errNoImage)
	}
	config := fmt.Sprintf(`{"architecture":%q,"os":%q,"config":{"Env":["PATH=/usr/bin:/bin","BASE=1"],"WorkingDir":"/home"},`+
		`"rootfs":{"type":"layers","diff_ids":["sha256:%064d"]},"history":[{"created":"2020-01-01T00:00:00Z","created_by":"base"}]}`,
		p.Architecture, p.OS, 7)
	return digest.FromString(ref + p.Architecture).String(), []byte(config), nil
}

// sink collects notices.
type sink struct {
	mu   sync.Mutex
	list []progress.Notice
}

func (s *sink) Emit(e progress.Event) {
	if n, ok := e.(progress.Notice); ok {
		s.mu.Lock()
		s.list = append(s.list, n)
		s.mu.Unlock()
	}
}

// request is a context directory with the given files and a Dockerfile.
func request(t *testing.T, dockerfile string, files map[string]string) Request {
	t.Helper()
	dir := t.TempDir()
	if dockerfile != "" || files == nil {
		files = merged(files, "Dockerfile", dockerfile)
	}
	for name, text := range files {
		at := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o755))
		require.NoError(t, os.WriteFile(at, []byte(text), 0o644))
	}
	return Request{Locals: map[string]string{Context: dir, Dockerfile: dir}, Filename: "Dockerfile",
		Platforms: []ocispecs.Platform{{OS: "linux", Architecture: "amd64"}}, Progress: &sink{}}
}

func merged(m map[string]string, k, v string) map[string]string {
	out := map[string]string{k: v}
	for k, v := range m {
		out[k] = v
	}
	return out
}

func TestExtraHostsReachTheStep(t *testing.T) {
	req := request(t, "FROM base\nRUN true\n", nil)
	req.ExtraHosts = []string{"db:10.0.0.1", "six:::1"}
	res, err := Run(t.Context(), req, &images{})
	require.NoError(t, err)
	hosts := res.Images[0].Root.Vertex.Op.GetExec().Meta.ExtraHosts
	require.Len(t, hosts, 2)
	require.Equal(t, "db 10.0.0.1", hosts[0].Host+" "+hosts[0].IP)
	require.Equal(t, "six ::1", hosts[1].Host+" "+hosts[1].IP)
}

func TestNamedContextNamesAreNormalised(t *testing.T) {
	req := request(t, "FROM alpine\n", nil)
	req.NamedContexts = map[string]string{"docker.io/library/alpine:latest": "docker-image://registry.test/mine:1"}
	r := &images{}
	_, err := Run(t.Context(), req, r)
	require.NoError(t, err)
	require.Equal(t, []string{"registry.test/mine:1 linux/amd64"}, r.asked)
}

func TestOCILayoutContextIsRefused(t *testing.T) {
	for _, v := range []string{"oci-layout:///some/dir", "oci-layout:///some/dir:tag", "oci-layout://store@sha256:" + strings.Repeat("a", 64)} {
		req := request(t, "FROM other\n", nil)
		req.NamedContexts = map[string]string{"other": v}
		r := &images{}
		_, err := Run(t.Context(), req, r)
		require.ErrorContains(t, err, "not supported", v)
		e, ok := fault.As(err)
		require.True(t, ok)
		require.NotEmpty(t, e.Remedy)
		require.Empty(t, r.asked, "no registry is asked for a local layout")
	}
}

func TestCancelledAndLateAreNotTheUsersFault(t *testing.T) {
	req := request(t, "FROM base\n", nil)
	cause := errors.New("the job was ended")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err := Run(ctx, req, waits{})
	require.Error(t, err)
	_, ok := fault.As(err)
	require.False(t, ok, "%v", err)
}

type waits struct{}

func (waits) ResolveImage(ctx context.Context, _ string, _ ocispecs.Platform) (string, []byte, error) {
	<-ctx.Done()
	return "", nil, context.Cause(ctx)
}

func TestDockerfileLinkOutOfItsDirectoryIsNotFollowed(t *testing.T) {
	req := request(t, "", map[string]string{"x": ""})
	outside := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(outside, []byte("hidden\n"), 0o600))
	require.NoError(t, os.Symlink(outside, filepath.Join(req.Locals[Dockerfile], "Dockerfile")))
	_, err := Run(t.Context(), req, &images{})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "hidden")
}

func TestDockerfileFromBytesReadsNothing(t *testing.T) {
	req := request(t, "", map[string]string{"a": "x"})
	req.Filename, req.Data = "-", []byte("FROM base\nCOPY a /a\nRUM x\n")
	delete(req.Locals, Dockerfile)
	_, err := Run(t.Context(), req, &images{})
	require.ErrorContains(t, err, "-:3: ")
	req.Data = []byte("FROM base\nCOPY a /a\n")
	res, err := Run(t.Context(), req, &images{})
	require.NoError(t, err)
	require.NotNil(t, res.Images[0].Root.Vertex)
}

func TestSyntaxDirective(t *testing.T) {
	for ref, ok := range map[string]bool{
		"docker/dockerfile:1": true, "docker/dockerfile": true, "docker.io/docker/dockerfile:1.7-labs": true,
		"docker/dockerfile-upstream:master": true, "docker/dockerfile:1@sha256:" + strings.Repeat("a", 64): true,
		"docker/dockerfile-other:1": false, "example.test/docker/dockerfile:1": false, "foo/bar": false,
	} {
		req := request(t, "# syntax="+ref+"\nFROM base\nRUN true\n", nil)
		res, err := Run(t.Context(), req, &images{})
		if ok {
			require.NoError(t, err, ref)
			require.Len(t, res.Images, 1)
			n := req.Progress.(*sink).list
			require.Len(t, n, 1)
			require.Equal(t, progress.Info, n[0].Level)
			continue
		}
		e, classified := fault.As(err)
		require.True(t, classified, ref)
		require.Equal(t, fault.User, e.Kind)
		require.Equal(t, 1, e.Location.Start)
		require.NotEmpty(t, e.Remedy)
	}
	req := request(t, "FROM base\n", nil)
	req.BuildArgs = map[string]string{"BUILDKIT_SYNTAX": "foo/bar"}
	_, err := Run(t.Context(), req, &images{})
	require.ErrorContains(t, err, "not supported")
	req.BuildArgs = map[string]string{"BUILDKIT_SYNTAX": "docker/dockerfile:1"}
	_, err = Run(t.Context(), req, &images{})
	require.NoError(t, err)
}

func TestLintWarningsAreNotices(t *testing.T) {
	req := request(t, "FROM base as x\nMAINTAINER me\nCMD true\n", nil)
	_, err := Run(t.Context(), req, &images{})
	require.NoError(t, err)
	got := map[string]int{}
	for _, n := range req.Progress.(*sink).list {
		require.Equal(t, progress.Warning, n.Level)
		require.NotContains(t, n.Text, "(line")
		require.NotEmpty(t, n.URL)
		got[n.Rule] = n.Location.Start
	}
	require.Equal(t, map[string]int{"FromAsCasing": 1, "MaintainerDeprecated": 2, "JSONArgsRecommended": 3}, got)
}
