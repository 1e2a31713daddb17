package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/plugin/syntax"
)

// kanikosFlags are all of Kaniko 1.24 and of its maintained fork.
const kanikosFlags = `annotation bucket build-arg cache cache-copy-layers cache-dir cache-repo cache-run-layers cache-ttl cleanup
compressed-caching compression compression-level context context-sub-path credential-helpers custom-platform customPlatform destination
digest-file dockerfile dryrun force force-build-metadata git ignore-path ignore-var-run image-download-retry image-format
image-fs-extract-retry image-name-tag-with-digest-file image-name-with-digest-file insecure insecure-pull insecure-registry kaniko-dir label
log-format log-timestamp materialize no-push no-push-cache oci-layout-path pre-cleanup preserve-context push-ignore-immutable-tag-errors
push-retry registry-certificate registry-client-cert registry-map registry-mirror reproducible secret single-snapshot
skip-default-registry-fallback skip-push-permission-check skip-tls-verify skip-tls-verify-pull skip-tls-verify-registry skip-unused-stages
snapshot-mode snapshotMode tar-path tarPath target use-new-run verbosity whitelist-var-run`

// TestTheTableOfKanikosFlags compares docs/kaniko.md with the program, both ways.
func TestTheTableOfKanikosFlags(t *testing.T) {
	data, err := os.ReadFile("../docs/kaniko.md")
	require.NoError(t, err)
	f := &flags{}
	fs := pflag.NewFlagSet("build", pflag.ContinueOnError)
	f.register(fs)
	idle, found := map[string]bool{}, map[string]bool{}
	for _, k := range syntax.KanikoFlags() {
		idle[k.Name] = true
	}
	states := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `--([A-Za-z-]+)` \\| (works|no effect|not yet)").FindAllStringSubmatch(string(data), -1) {
		states[row[1]] = row[2]
	}
	for _, name := range strings.Fields(kanikosFlags) {
		state := states[name]
		delete(states, name)
		switch x := fs.Lookup(name); {
		case x == nil:
			require.Equal(t, "not yet", state, name)
		case idle[x.Name]:
			require.Equal(t, "no effect", state, name)
			found[x.Name] = true
		default:
			require.Equal(t, "works", state, name)
		}
	}
	require.Empty(t, states, "flags that Kaniko does not have")
	require.Len(t, found, len(idle), "flags that Kaniko does not have")
}

// TestFlagsWithoutEffectAreSaid, each once and only when they are given.
func TestFlagsWithoutEffectAreSaid(t *testing.T) {
	code, _, stderr := invoke(t, "", "--no-push", "--snapshotMode=redo", "--use-new-run", "--cleanup", "--kaniko-dir", "/x", "--log-format=text", "-v", "info", "/no/such/context")
	require.NotZero(t, code)
	for _, name := range []string{"snapshot-mode", "use-new-run", "cleanup", "kaniko-dir"} {
		require.Equal(t, 1, strings.Count(stderr, "--"+name+" has no effect: "), stderr)
	}
	require.Equal(t, 4, strings.Count(stderr, "has no effect"))
	require.Equal(t, []string{"variables FF_KANIKO_… have no effect: they choose between ways of Kaniko's own"},
		kanikoNotices(nil, map[string]string{"FF_KANIKO_A": "1", "FF_KANIKO_B": "1", "HOME": "/"}))
}

func TestGitOptions(t *testing.T) {
	s, err := parse(t, nil, "--no-push", "--git", "branch=dev,depth=1,single-branch=true,recurse-submodules=true", "--context", "git://github.com/o/r")
	require.NoError(t, err)
	require.Equal(t, "git://github.com/o/r#refs/heads/dev", s.Context)
	for args, want := range map[string]string{
		"branch=a git://github.com/o/r#refs/heads/b": "names a reference, too",
		"branch=a /tmp":                          "is no git repository",
		"insecure-skip-tls=true https://h/r.git": "always checked",
		"colour=red https://h/r.git":             "the keys are",
		"depth=many https://h/r.git":             "--git depth=many",
	} {
		git, where, _ := strings.Cut(args, " ")
		_, err := parse(t, nil, "--no-push", "--git", git, "--context", where)
		require.ErrorContains(t, err, want)
	}
}

func TestKanikosVariables(t *testing.T) {
	s, err := parse(t, map[string]string{"KANIKO_NO_PUSH": "true", "KANIKO_PRINT_PLAN": "1"}, "-d", "a.example/b")
	require.NoError(t, err)
	require.True(t, s.Outputs.NoPush)
	require.True(t, s.DryRun)
	s, err = parse(t, map[string]string{"KANIKO_NO_PUSH": "false"}, "--no-push")
	require.NoError(t, err)
	require.True(t, s.Outputs.NoPush, "a flag is not taken back")
	_, err = parse(t, map[string]string{"KANIKO_NO_PUSH": "yes please"}, "-d", "a.example/b")
	require.ErrorContains(t, err, "KANIKO_NO_PUSH")
	notices := kanikoNotices(nil, map[string]string{"KANIKO_DIR": "/x", "KANIKO_PRE_CLEANUP": "1", "SNAPSHOT_TIMEOUT_DURATION": "5m"})
	require.Len(t, notices, 3)
}

// TestFlagsAreReadAsKanikoReadsThem: forms of values.
func TestFlagsAreReadAsKanikoReadsThem(t *testing.T) {
	s, err := parse(t, nil, "--destination=a.example/a:1", "--destination", "a.example/b:2", "-d", "a.example/c:3",
		"--build-arg", "LIST=a,b,c", "--build-arg=X=Y=Z", "--label", "k=a,b", "--customPlatform=linux/arm64", "--tarPath", "t.tar",
		"--snapshotMode", "redo", "--compression-level=-1", "--target", "a", "--target=a", "--whitelist-var-run=false", "--verbosity=warn", "--cache=true", "--cache-ttl=6h", "--context", "dir:///workspace/", "--dockerfile=D")
	require.NoError(t, err)
	require.Equal(t, []string{"a.example/a:1", "a.example/b:2", "a.example/c:3"}, s.Outputs.Destinations)
	require.Equal(t, map[string]string{"LIST": "a,b,c", "X": "Y=Z"}, s.BuildArgs)
	require.Equal(t, map[string]string{"k": "a,b"}, s.Labels)
	require.Equal(t, []string{"linux/arm64"}, s.Platforms)
	require.Equal(t, "t.tar", s.Outputs.DockerTar)
	require.Equal(t, "/workspace/", s.Context)
	require.Equal(t, 6*time.Hour, s.Cache.TTL)
	require.Nil(t, s.Outputs.CompressionLevel)
	require.Equal(t, "a", s.Target)
	_, _, stderr := invoke(t, "", "--no-push", "--target", "a", "--target", "b")
	require.Contains(t, stderr, "one stage is built")
}
