package frontend_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/frontend"
	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// images answers for every image, except for those called "missing".
type images struct{}

func (images) ResolveImage(_ context.Context, ref string, p ocispecs.Platform) (string, []byte, error) {
	if strings.Contains(ref, "missing") {
		return "", nil, fault.New(fault.Registry, "%s: not found", ref)
	}
	return digest.FromString(ref).String(), []byte(`{"architecture":"` + p.Architecture + `","os":"linux","config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:` + strings.Repeat("a", 64) + `"]},"history":[{"created_by":"base"}]}`), nil
}

type notices struct {
	mu   sync.Mutex
	list []progress.Notice
}

func (n *notices) Emit(e progress.Event) {
	if x, ok := e.(progress.Notice); ok {
		n.mu.Lock()
		n.list = append(n.list, x)
		n.mu.Unlock()
	}
}

func run(t *testing.T, dockerfile string, change ...func(*frontend.Request)) (*frontend.Result, *notices, error) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644))
	sink := &notices{}
	req := frontend.Request{Locals: map[string]string{frontend.Context: dir, frontend.Dockerfile: dir}, Filename: "Dockerfile", Progress: sink}
	for _, c := range change {
		c(&req)
	}
	res, err := frontend.Run(t.Context(), req, images{})
	return res, sink, err
}

func TestErrorsPointAtTheirLine(t *testing.T) {
	cases := []struct{ name, dockerfile, at, says string }{
		{"unknown instruction", "FROM a\nRUNN x\n", "Dockerfile:2", "unknown instruction: RUNN"},
		{"unknown flag", "FROM a\nCOPY --nope=1 a b\n", "Dockerfile:2", "unknown flag: --nope"},
		{"no FROM", "RUN x\n", "Dockerfile:1", "no build stage in current context"},
		{"empty", "# nothing\n", "", "file with no instructions"},
		{"FROM without an image", "FROM\n", "Dockerfile:1", "FROM requires either one or three arguments"},
		{"bad image name", "FROM a:b:c\n", "Dockerfile:1", "a:b:c"},
		{"COPY with one argument", "FROM a\nCOPY x\n", "Dockerfile:2", "COPY requires at least two arguments"},
		{"ENV without a value", "FROM a\nENV X\n", "Dockerfile:2", "ENV must have two arguments"},
		{"bad port", "FROM a\nEXPOSE x\n", "", "x"},
		{"bad JSON in HEALTHCHECK", "FROM a\nHEALTHCHECK --interval=x CMD y\n", "Dockerfile:2", "x"},
		{"unterminated heredoc", "FROM a\nRUN <<EOF\nx\n", "Dockerfile:2", "unterminated heredoc"},
		{"bad mount type", "FROM a\nRUN --mount=type=nope x\n", "Dockerfile:2", "nope"},
		{"mount without target", "FROM a\nRUN --mount=type=cache x\n", "Dockerfile:2", "invalid mount target"},
		{"bad chmod", "FROM a\nCOPY --chmod=9x a b\n", "Dockerfile:2", "9x"},
		{"bad network", "FROM a\nRUN --network=moon x\n", "Dockerfile:2", "moon"},
		{"missing image", "FROM a\nRUN x\nFROM missing\n", "Dockerfile:3", "missing"},
		{"missing image of COPY --from", "FROM a\nCOPY --from=missing a b\n", "Dockerfile:2", "missing"},
		{"bad platform", "FROM --platform=a/b/c/d x\n", "Dockerfile:1", "a/b/c/d"},
		{"ONBUILD of ONBUILD", "FROM a\nONBUILD ONBUILD RUN x\n", "Dockerfile:2", "ONBUILD"},
		{"bad variable", "FROM a\nENV X=${a\n", "Dockerfile:2", "${a"},
		{"bad stop signal", "FROM a\nSTOPSIGNAL NOPE\n", "Dockerfile:2", "NOPE"},
		{"ARG without a name", "FROM a\nARG\n", "Dockerfile:2", "ARG requires at least one argument"},
		{"USER without a name", "FROM a\nUSER\n", "Dockerfile:2", "USER requires exactly one argument"},
		{"stage name", "FROM a AS 1x\n", "Dockerfile:1", "1x"},
		{"ADD checksum of a file", "FROM a\nADD --checksum=sha256:00 a b\n", "Dockerfile:2", "checksum"},
		{"circular stages", "FROM a AS x\nCOPY --from=x a b\n", "Dockerfile:2", "circular"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := run(t, c.dockerfile)
			require.Error(t, err)
			e, ok := fault.As(err)
			require.True(t, ok, "%v", err)
			require.Contains(t, err.Error(), c.says)
			if c.at != "" {
				require.NotNil(t, e.Location, "%v", err)
				require.Equal(t, c.at, e.Location.String())
				require.Equal(t, c.dockerfile, string(e.Location.Source))
			}
			if !strings.Contains(c.name, "missing") {
				require.Equal(t, fault.User, e.Kind)
			} else {
				require.Equal(t, fault.Registry, e.Kind)
			}
		})
	}
}

func TestAMissingDockerfileHasARemedy(t *testing.T) {
	_, _, err := run(t, "", func(r *frontend.Request) { r.Filename = "other" })
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.User, e.Kind)
	require.Contains(t, e.Remedy, "--dockerfile")
}

func TestTheSameDockerfileGivesTheSameGraph(t *testing.T) {
	text := "FROM a AS b\nARG X=1\nRUN --mount=type=cache,target=/c --mount=type=bind,target=/s x\nCOPY . /y\nFROM a\nCOPY --from=b --link /y /z\n"
	digests := func() (out []string) {
		res, _, err := run(t, text)
		require.NoError(t, err)
		for _, v := range res.Graph.Vertices {
			out = append(out, v.Digest.String())
		}
		return out
	}
	first := digests()
	require.NotEmpty(t, first)
	for range 3 {
		require.Equal(t, first, digests())
	}
}

func TestPlatformsShareWhatTheyHaveInCommon(t *testing.T) {
	res, _, err := run(t, "FROM --platform=$BUILDPLATFORM a AS b\nRUN x\nFROM c\nCOPY --from=b /y /y\n", func(r *frontend.Request) {
		r.Platforms = []ocispecs.Platform{platforms.MustParse("linux/amd64"), platforms.MustParse("linux/arm64")}
	})
	require.NoError(t, err)
	require.Len(t, res.Images, 2)
	runs := 0
	for _, v := range res.Graph.Vertices {
		if v.Op.GetExec() != nil {
			runs++
		}
		for _, in := range v.Inputs {
			require.Less(t, in.Vertex.Index, v.Index)
		}
	}
	require.Equal(t, 1, runs)
	require.NotEqual(t, res.Images[0].Root, res.Images[1].Root)
}

func TestChainIsWhatTheImageIsMadeOf(t *testing.T) {
	res, _, err := run(t, "FROM a AS b\nRUN one\nFROM c\nRUN two\nCOPY --from=b /y /y\nRUN three\n")
	require.NoError(t, err)
	var names []string
	for v := range graph.Chain(res.Images[0].Root) {
		names = append(names, v.Name)
	}
	all := strings.Join(names, "|")
	require.Contains(t, all, "RUN two")
	require.Contains(t, all, "RUN three")
	require.Contains(t, all, "COPY --from=b")
	require.NotContains(t, all, "RUN one")
}

func TestSyntaxLine(t *testing.T) {
	_, sink, err := run(t, "# syntax=docker/dockerfile:1.7-labs\nFROM a\n")
	require.NoError(t, err)
	require.Contains(t, sink.list[0].Text, "built-in")
	_, _, err = run(t, "# syntax=someone/else:1\nFROM a\n")
	e, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.User, e.Kind)
	require.Equal(t, "Dockerfile:1", e.Location.String())
	require.Contains(t, err.Error(), "someone/else:1")
}

func TestLintWarningsHaveRuleAndLine(t *testing.T) {
	_, sink, err := run(t, "FROM a AS B\nMAINTAINER x\n")
	require.NoError(t, err)
	rules := map[string]int{}
	for _, n := range sink.list {
		require.Equal(t, progress.Warning, n.Level)
		require.NotNil(t, n.Location)
		rules[n.Rule] = n.Location.Start
	}
	require.Equal(t, 2, rules["MaintainerDeprecated"])
	require.Equal(t, 1, rules["StageNameCasing"])
}

func TestADockerfileOutsideOfItsDirectoryIsNotRead(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "Dockerfile")
	require.NoError(t, os.WriteFile(secret, []byte("FROM a\n"), 0o600))
	_, _, err := run(t, "FROM a\n", func(r *frontend.Request) {
		dir := r.Locals[frontend.Dockerfile]
		require.NoError(t, os.Remove(filepath.Join(dir, "Dockerfile")))
		require.NoError(t, os.Symlink(secret, filepath.Join(dir, "Dockerfile")))
	})
	require.Error(t, err)
}
