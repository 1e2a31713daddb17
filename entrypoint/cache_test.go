package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
)

func TestCacheFlags(t *testing.T) {
	two := int64(2 << 30)
	for _, c := range []struct {
		args []string
		want core.Cache
	}{
		{nil, core.Cache{}},
		{[]string{"--cache"}, core.Cache{Repo: "r.example/a/cache", TTL: defaultCacheTTL, MaxMountSize: two}},
		{[]string{"--cache", "-d", "alpine:1"}, core.Cache{Repo: "r.example/a/cache", TTL: defaultCacheTTL, MaxMountSize: two}},
		{[]string{"--cache=false", "--cache-repo", "r.example/c"}, core.Cache{}},
		{[]string{"--cache-repo", "r.example/c"}, core.Cache{Repo: "r.example/c", TTL: defaultCacheTTL, Mounts: true, MaxMountSize: two}},
		{[]string{"--cache-repo", "me/c"}, core.Cache{Repo: "docker.io/me/c", TTL: defaultCacheTTL, Mounts: true, MaxMountSize: two}},
		{[]string{"--cache-repo", "oci:dir", "--cache-mounts", "off"}, core.Cache{Repo: "oci:dir", TTL: defaultCacheTTL, MaxMountSize: two}},
		{[]string{"--cache", "--cache-mounts=on", "--cache-mount-max-size", "1k", "--cache-scope", "b", "--cache-ttl", "1h", "--no-push-cache",
			"--cache-run-layers=false", "--cache-copy-layers=false"},
			core.Cache{Repo: "r.example/a/cache", TTL: time.Hour, Mounts: true, MaxMountSize: 1024, Scope: "b", NoPush: true, NoRunLayers: true, NoCopyLayers: true}},
		{[]string{"--cache-from", "r.example/x", "--cache-from", "type=registry,ref=r.example/y"},
			core.Cache{From: []string{"r.example/x", "r.example/y"}, TTL: defaultCacheTTL, MaxMountSize: two}},
	} {
		s, err := parse(t, nil, append([]string{"-d", "r.example/a:1"}, c.args...)...)
		require.NoError(t, err, c.args)
		c.want.Dir = "/cache"
		require.Equal(t, c.want, s.Cache, c.args)
	}
	s, err := parse(t, nil, "-d", "me/a:1", "--cache")
	require.NoError(t, err)
	require.Equal(t, "docker.io/me/a-cache", s.Cache.Repo, "Docker Hub has no nested names")
	for _, c := range []struct{ args, says string }{
		{"--cache-repo=r.example/c:1", "without a tag"},
		{"--cache-repo=UPPER/c", "lowercase"},
		{"--cache-from=r.example/c@sha256:1", "--cache-from"},
		{"--cache-repo=oci:", "oci:DIR"},
		{"--cache-ttl=-1h", "negative"},
		{"--cache-mount-max-size=x", "500m"},
	} {
		_, err := parse(t, nil, "-d", "r.example/a:1", "--cache", c.args)
		require.ErrorContains(t, err, c.says, c.args)
	}
	_, err = parse(t, nil, "--no-push", "--cache")
	require.ErrorContains(t, err, "--cache-repo")
}
