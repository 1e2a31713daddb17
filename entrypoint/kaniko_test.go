package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
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
	for _, k := range kanikoFlags() {
		idle[k.name] = true
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
