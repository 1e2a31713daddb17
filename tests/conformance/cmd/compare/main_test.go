package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

func TestMain(m *testing.M) { parts.Run(m) }

func TestCompareOneDockerfile(t *testing.T) {
	reg := parts.SharedRegistry(t)
	base := reg.Addr + "/base:1"
	parts.PushBase(t, base, parts.SmallBase(t))
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("hush"), 0o600))
	named := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(named, "f"), []byte("named\n"), 0o644))

	for name, c := range map[string]struct {
		dockerfile string
		args       []string
		code       int
		says       []string
	}{
		"the same image": {
			"ARG BASE\nFROM $BASE\nCOPY f /f\nRUN cat /f > /g\n", nil, same,
			[]string{"SAME: config, history, layers and files agree.", "Layerwright  built it", "   3 | COPY f /f", "isolation "},
		},
		"a random value": {
			"ARG BASE\nFROM $BASE\nRUN head -c 8 /dev/urandom | od > /r\n", nil, different,
			[]string{"DIFFERENT: 2 differences", "layer 1: /r: content: got"},
		},
		"in a default container": {
			"ARG BASE\nFROM $BASE\nCOPY --from=named f /n\nRUN --mount=type=secret,id=s wc -c /run/secrets/s > /g\n",
			[]string{"--isolation", "inplace", "--build-context", "named=" + named, "--secret", "id=s,src=" + secret}, same,
			[]string{"SAME:", "inplace, snapshots flat", "secret       s"},
		},
		"both refuse": {
			"FROM scratch\nCOPY nope /\n", nil, same,
			[]string{"SAME: both refuse.", "what Layerwright said", "what BuildKit said", `"/nope": not found`},
		},
		"only one builds it": {
			"FROM scratch\nCOPY f /\n", []string{"--isolation", "nonsense"}, different,
			[]string{"DIFFERENT: only one of them builds it."},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte("x\n"), 0o644))
			file := filepath.Join(t.TempDir(), "Some.Dockerfile")
			require.NoError(t, os.WriteFile(file, []byte(c.dockerfile), 0o644))
			var out, problems strings.Builder
			code := run(t.Context(), append(c.args, "-f", file, "--build-arg", "BASE="+base, dir), &out, &problems)
			require.Equal(t, c.code, code, "%s%s", &out, &problems)
			for _, s := range c.says {
				require.Contains(t, out.String(), s)
			}
			require.NotContains(t, out.String(), "hush")
		})
	}
}

func TestWhatCannotBeCompared(t *testing.T) {
	for name, args := range map[string][]string{
		"no context":     {},
		"two contexts":   {"a", "b"},
		"unknown flag":   {"--nope", "a"},
		"a bad pair":     {"--build-arg", "x", "a"},
		"no Dockerfile":  {t.TempDir()},
		"missing secret": {"--secret", "id=x,src=/nothing", "a"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, problems strings.Builder
			require.Equal(t, notComparable, run(t.Context(), args, &out, &problems))
			require.Contains(t, problems.String(), "compare:")
			require.Empty(t, out.String())
		})
	}
}
