package frontend_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/frontend"
)

// contexts answers for every definition with one directory.
type contexts struct {
	dir    string
	err    error
	asked  []*pb.Definition
	stores []string
}

func (c *contexts) Files(_ context.Context, def *pb.Definition) (string, error) {
	c.asked = append(c.asked, def)
	return c.dir, c.err
}

func (c *contexts) ResolveLayout(_ context.Context, store, digest string, p *ocispecs.Platform) ([]byte, error) {
	c.stores = append(c.stores, store+" "+digest)
	return []byte(`{"architecture":"` + p.Architecture + `","os":"linux","config":{"Env":["FROM=layout"]},"rootfs":{"type":"layers","diff_ids":["sha256:` + strings.Repeat("b", 64) + `"]},"history":[{"created_by":"base"}]}`), nil
}

func remote(t *testing.T, url string, files map[string]string) (*contexts, func(*frontend.Request)) {
	t.Helper()
	c := &contexts{dir: t.TempDir()}
	for name, text := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(c.dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o644))
	}
	return c, func(r *frontend.Request) { r.ContextURL, r.Contexts, r.Locals = url, c, nil }
}

func tarHeader(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "x", Size: 1}))
	_, err := w.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}

func identifiers(res *frontend.Result) (out []string) {
	for _, v := range res.Graph.Vertices {
		if s := v.Op.GetSource(); s != nil {
			out = append(out, s.Identifier)
		}
	}
	return out
}

func TestAnArchiveIsUnpackedAndTheDockerfileIsInIt(t *testing.T) {
	url := frontend.Stream("sha256-1")
	require.True(t, frontend.IsStream(url))
	c, use := remote(t, url, map[string]string{"context": tarHeader(t), "Dockerfile": "FROM scratch\nCOPY . /a\n"})
	res, _, err := run(t, "", use)
	require.NoError(t, err)
	require.Equal(t, []string{url}, identifiers(res))
	require.Len(t, res.Graph.Vertices, 3, "the file, unpacked, copied")
	require.True(t, res.Graph.Vertices[1].Op.GetFile().Actions[0].GetCopy().AttemptUnpackDockerCompatibility)
	require.Len(t, c.asked, 2, "the file and the tree, each once")
}

func TestAFileThatIsNoArchiveIsTheDockerfile(t *testing.T) {
	_, use := remote(t, "https://x.test/f", map[string]string{"context": "FROM scratch\nCOPY context /d\n"})
	res, _, err := run(t, "", use)
	require.NoError(t, err)
	require.Equal(t, []string{"https://x.test/f"}, identifiers(res))
	_, use = remote(t, "https://x.test/f", map[string]string{"context": "FROM scratch\nRUM x\n"})
	_, _, err = run(t, "", use)
	require.ErrorContains(t, err, "context:2:")
	_, use = remote(t, "https://x.test/f", map[string]string{"context": "\n<!DOCTYPE HTML><html>"})
	_, _, err = run(t, "", use)
	require.ErrorContains(t, err, "HTML page")
}

func TestAGitRepositoryIsTheContext(t *testing.T) {
	_, use := remote(t, "https://x.test/r.git#main:sub", map[string]string{"Dockerfile": "FROM scratch\nCOPY . /a\n"})
	res, _, err := run(t, "", use)
	require.NoError(t, err)
	require.Equal(t, []string{"git://x.test/r.git#main:sub"}, identifiers(res))
}

func TestADockerfileHereForAContextElsewhere(t *testing.T) {
	c, use := remote(t, "https://x.test/r.git", nil)
	_, _, err := run(t, "", use, func(r *frontend.Request) { r.Data = []byte("FROM scratch\nCOPY . /a\n") })
	require.NoError(t, err)
	require.Empty(t, c.asked)
}

func TestADockerfileThatTheContextLacks(t *testing.T) {
	_, use := remote(t, "https://x.test/r.git", nil)
	_, _, err := run(t, "", use)
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.User, e.Kind)
	require.Contains(t, e.Remedy, "in the context")
}

func TestLinksOfARemoteContextStayInside(t *testing.T) {
	c, use := remote(t, "https://x.test/r.git", map[string]string{"sub/real": "FROM scratch\nCOPY . /a\n"})
	require.NoError(t, os.Symlink("/sub/real", filepath.Join(c.dir, "Dockerfile")))
	_, _, err := run(t, "", use)
	require.NoError(t, err, "an absolute link is a place in the context")
	outside := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(outside, []byte("planted"), 0o600))
	for _, link := range []string{outside, "../../../../../../../../../.." + outside} {
		require.NoError(t, os.Remove(filepath.Join(c.dir, "Dockerfile")))
		require.NoError(t, os.Symlink(link, filepath.Join(c.dir, "Dockerfile")))
		_, _, err = run(t, "", use)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "planted")
	}
}

func TestAContextThatCannotBeHadSaysWhyItself(t *testing.T) {
	c, use := remote(t, "https://x.test/f", nil)
	c.err = fault.New(fault.Registry, "the server answered 404").With("Look again.")
	_, _, err := run(t, "", use)
	require.Equal(t, c.err, err)
	c.err = errors.New("plain")
	_, _, err = run(t, "", use)
	require.Equal(t, c.err, err)
}

func TestAnImageOfALayout(t *testing.T) {
	c := &contexts{}
	digest := "sha256:" + strings.Repeat("c", 64)
	res, _, err := run(t, "FROM base\nCOPY --from=base x /x\nRUN a\n", func(r *frontend.Request) {
		r.Contexts, r.NamedContexts = c, map[string]string{"base": "oci-layout://layout0@" + digest}
	})
	require.NoError(t, err)
	require.Contains(t, c.stores, "layout0 "+digest)
	require.Equal(t, []string{"oci-layout://docker.io/library/base@" + digest}, identifiers(res))
	require.Equal(t, "layout0", res.Graph.Vertices[0].Op.GetSource().Attrs[pb.AttrOCILayoutStoreID])
	require.Contains(t, string(res.Images[0].Config), "FROM=layout")
}

func TestANamedContextThatIsAStage(t *testing.T) {
	use := func(value string) func(*frontend.Request) {
		return func(r *frontend.Request) { r.NamedContexts = map[string]string{"mine": value} }
	}
	const dockerfile = "FROM alpine AS dep\nENV A=1\nRUN dep\nFROM mine\nCOPY --from=mine x /x\n"
	res, n, err := run(t, dockerfile, use("target:dep"))
	require.NoError(t, err)
	require.Empty(t, n.list)
	require.Equal(t, []string{"docker-image://docker.io/library/alpine:latest@" + res.Graph.Vertices[0].Op.GetSource().Identifier[len("docker-image://docker.io/library/alpine:latest@"):]}, identifiers(res))
	require.Contains(t, string(res.Images[0].Config), `"A=1"`)
	names := map[string]int{}
	for _, v := range res.Graph.Vertices {
		names[v.Name[strings.Index(v.Name, "]")+1:]]++
	}
	require.Equal(t, 1, names[" RUN dep"], "the stage is built once")

	_, _, err = run(t, "FROM scratch AS dep\nCOPY --from=mine x /x\nFROM mine\n", use("target:dep"))
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Contains(t, err.Error(), "uses this context itself")
	require.NotNil(t, e.Location)
	_, _, err = run(t, dockerfile, use("target:nope"))
	require.ErrorContains(t, err, `mine=target:nope: target stage "nope"`)
}

func TestWhatIsAGitRepository(t *testing.T) {
	for url, want := range map[string]bool{"https://x.test/a.git": true, "https://x.test/a": false, "git@x.test:a": true, "git://x.test/a": true, "dir": false, "./a.git": false, "github.com/a/b": true} {
		ok, err := frontend.IsGit(url)
		require.NoError(t, err)
		require.Equal(t, want, ok, url)
	}
	_, err := frontend.IsGit("https://x.test/a.git?nonsense=1")
	require.Error(t, err)
}
