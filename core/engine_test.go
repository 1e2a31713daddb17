package core

import (
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/buildkit"
)

func TestParseEngines(t *testing.T) {
	for text, want := range map[string][]Engine{
		"buildkit=unix:///run/sock": {{Address: "unix:///run/sock"}},
		"buildkit=tcp://a:1,platforms=linux/amd64,linux/arm64,ca=ca.pem,cert=c,key=k,servername=n": {
			{Address: "tcp://a:1", Platforms: []string{"linux/amd64", "linux/arm64"}, CA: "ca.pem", Cert: "c", Key: "k", ServerName: "n"}},
		"buildkit=tcp://a:1,platforms=linux/amd64,buildkit=kube-pod://p?namespace=ci&container=b,platforms=linux/arm64": {
			{Address: "tcp://a:1", Platforms: []string{"linux/amd64"}}, {Address: "kube-pod://p?namespace=ci&container=b", Platforms: []string{"linux/arm64"}}},
	} {
		got, err := ParseEngines([]string{text})
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	got, err := ParseEngines([]string{"buildkit=tcp://a:1", "platforms=linux/amd64", "buildkit=tcp://b:1"}) // a list that was taken apart
	require.NoError(t, err)
	require.Equal(t, []Engine{{Address: "tcp://a:1", Platforms: []string{"linux/amd64"}}, {Address: "tcp://b:1"}}, got)
	for text, says := range map[string]string{
		"tcp://a:1": "write buildkit=ADDRESS", "buildkit=": "write buildkit=ADDRESS", "buildkit=tcp://a:1,platforms=what/is/this/thing": "platform what",
		"buildkit=tcp://a:1,ca": "is not KEY=VALUE", "buildkit=tcp://a:1,colour=red": `unknown key "colour"`,
	} {
		_, err := ParseEngines([]string{text})
		require.ErrorContains(t, err, says, text)
	}
}

func TestPlatformsGoToEnginesThatAreForThem(t *testing.T) {
	amd, arm, s390 := ocispecs.Platform{OS: "linux", Architecture: "amd64"}, ocispecs.Platform{OS: "linux", Architecture: "arm64"}, ocispecs.Platform{OS: "linux", Architecture: "s390x"}
	made := func(native []ocispecs.Platform, only ...ocispecs.Platform) *engine {
		return &engine{Engine: &buildkit.Engine{Platforms: native}, only: only}
	}
	a, b, named := made([]ocispecs.Platform{amd}), made([]ocispecs.Platform{amd}), made([]ocispecs.Platform{amd}, arm)
	for name, c := range map[string]struct {
		engines []*engine
		want    []ocispecs.Platform
		get     map[*engine][]ocispecs.Platform
	}{
		"none asked for: the first":                      {[]*engine{a, b}, nil, map[*engine][]ocispecs.Platform{a: nil}},
		"one that names it comes before all others":      {[]*engine{a, named}, []ocispecs.Platform{arm, amd}, map[*engine][]ocispecs.Platform{a: {amd}, named: {arm}}},
		"what nobody runs goes to one that says nothing": {[]*engine{a, named}, []ocispecs.Platform{s390}, map[*engine][]ocispecs.Platform{a: {s390}}},
		"work is shared":                                 {[]*engine{a, b}, []ocispecs.Platform{arm, s390}, map[*engine][]ocispecs.Platform{a: {arm}, b: {s390}}},
	} {
		shares, err := assign(c.engines, c.want)
		require.NoError(t, err, name)
		got := map[*engine][]ocispecs.Platform{}
		for _, s := range shares {
			got[s.engine] = s.platforms
		}
		require.Equal(t, c.get, got, name)
	}
	_, err := assign([]*engine{named}, []ocispecs.Platform{amd})
	require.ErrorContains(t, err, "no engine is for linux/amd64")
	a.gone = true
	shares, err := assign([]*engine{a, b}, []ocispecs.Platform{amd})
	require.NoError(t, err)
	require.Equal(t, b, shares[0].engine)
}
