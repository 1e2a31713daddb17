package plugin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// withFiles is a host whose job has these files.
func withFiles(files map[string]string) Host {
	h := host(nil)
	h.Glob = func(pattern string) (out []string, err error) {
		for name := range files {
			if ok, err := filepath.Match(pattern, name); err != nil {
				return nil, err
			} else if ok {
				out = append(out, name)
			}
		}
		return out, nil
	}
	h.ReadFile = func(path string) ([]byte, error) {
		if text, ok := files[path]; ok {
			return []byte(text), nil
		}
		return nil, os.ErrNotExist
	}
	return h
}

func TestMerge(t *testing.T) {
	one, two := "sha256:"+strings.Repeat("1", 64), "sha256:"+strings.Repeat("2", 64)
	h := withFiles(map[string]string{"digests/amd64": one + "\n", "digests/arm64": two, "empty": " "})
	p, err := Prepare(of("merge", "true", "digests", "digests/*\nr.example/o/app:arm-5", "images", "r.example/o/app\nother.example/app", "tags", "1\n2", "platforms", "linux/amd64,linux/arm64",
		"annotations", "index:k=v", "build-args", "A=1"), facts(), h)
	require.NoError(t, err)
	require.Len(t, p.Merge, 2, "one for each repository")
	require.ElementsMatch(t, []string{one, two, "r.example/o/app:arm-5"}, p.Merge[0].Sources)
	require.Equal(t, []string{"r.example/o/app:1", "r.example/o/app:2"}, p.Merge[0].Outputs.Destinations)
	require.Equal(t, []string{"other.example/app:1", "other.example/app:2"}, p.Merge[1].Outputs.Destinations)
	require.Equal(t, []string{"linux/amd64", "linux/arm64"}, p.Merge[0].Platforms)
	require.Equal(t, facts().Event.SHA, p.Merge[0].Revision)
	require.False(t, p.Request.Outputs.NoPush)
	require.Contains(t, strings.Join(p.Notices, "\n"), "PLUGIN_BUILD-ARGS has no effect")
	keys := map[string]string{}
	for _, a := range p.Merge[0].Outputs.Annotations {
		require.True(t, a.Index)
		keys[a.Key] = a.Value
	}
	require.Equal(t, "v", keys["k"])
	require.Equal(t, facts().Event.SHA, keys["org.opencontainers.image.revision"], "default annotations are the index's")
	require.NotContains(t, keys, "org.opencontainers.image.created", "a second attempt gives the same index")
}

func TestMergeRefuses(t *testing.T) {
	h := withFiles(map[string]string{"empty": " ", "d": "sha256:" + strings.Repeat("1", 64)})
	for want, values := range map[string]Values{
		"nothing to merge":      of("merge", "true", "images", "r.example/app"),
		"it has no digests":     of("merge", "true", "images", "r.example/app", "digests", "empty"),
		"there is no such file": of("merge", "true", "images", "r.example/app", "digests", "missing/*"),
		"nowhere to ":           of("merge", "true", "digests", "d", "auto-tag", "none"),
		"leave it out":          of("merge", "true", "images", "r.example/app", "digests", "d", "tar-path", "x"),
		"write index:KEY=VALUE": of("merge", "true", "images", "r.example/app", "digests", "d", "annotations", "a=b"),
		"only merge uses them":  of("images", "r.example/app", "digests", "d"),
		"cannot parse platform": of("merge", "true", "images", "r.example/app", "digests", "d", "platforms", "plan9/9/9/9"),
	} {
		_, err := Prepare(values, facts(), h)
		require.ErrorContains(t, err, want)
	}
	p, err := Prepare(of("merge", "true", "images", "r.example/app", "digests", "d", "push", "false"), facts(), h)
	require.NoError(t, err)
	require.Contains(t, p.Skip(), "is false", "a pull request's job that does not push")
}

func TestPushByDigest(t *testing.T) {
	p := prepare(t, nil, "images", "r.example/o/app", "tags", "1\n2", "push-by-digest", "true")
	require.True(t, p.Request.Outputs.PushByDigest)
	require.False(t, p.Request.Outputs.NoPush)
	require.Equal(t, []string{"r.example/o/app"}, p.Request.Outputs.Destinations)
	p = prepare(t, nil, "images", "r.example/o/app", "push-by-digest", "true", "push", "false")
	require.True(t, p.Request.Outputs.NoPush, "said by the user")
}
