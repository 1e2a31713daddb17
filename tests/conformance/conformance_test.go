package conformance_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/conformance"
	"github.com/layerwright/layerwright/tests/parts"
)

func TestMain(m *testing.M) { parts.Run(m) }

// began is before every build, in whole seconds as layers hold times. Inputs
// are years older.
var began = time.Now().Truncate(time.Second)

// mode is one way to run Layerwright.
type mode struct {
	name string
	// args come after "build"; container says to run in a default container
	// of a Docker engine instead of on the machine.
	args      []string
	container bool
}

var modes = []mode{
	{name: "inplace", args: []string{"--isolation", "inplace"}, container: true},
	{name: "overlay", args: []string{"--isolation", "namespaces", "--snapshots", "overlay"}},
	{name: "flat", args: []string{"--isolation", "namespaces", "--snapshots", "flat"}},
	{name: "chroot", args: []string{"--isolation", "chroot"}},
}

// TestConformance builds every case by BuildKit and, in every mode, by
// Layerwright, and compares the images. LAYERWRIGHT_CONFORMANCE_ORACLE=1 only
// builds by BuildKit, to check a case while it is written; without
// LAYERWRIGHT_CONFORMANCE=all the modes other than inplace each get every second
// case.
func TestConformance(t *testing.T) {
	cases, err := conformance.Cases("cases")
	require.NoError(t, err)
	require.NotEmpty(t, cases)
	reg := parts.SharedRegistry(t)
	oracle := parts.Oracle(t)
	base := reg.Addr + "/base:1"
	parts.PushBase(t, base, parts.SmallBase(t))
	onlyOracle := os.Getenv("LAYERWRIGHT_CONFORMANCE_ORACLE") == "1"
	if !onlyOracle {
		parts.Binary(t)
	}
	all := os.Getenv("LAYERWRIGHT_CONFORMANCE") == "all"
	for i, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			dir, secrets := t.TempDir(), t.TempDir()
			require.NoError(t, os.Chmod(dir, 0o755))
			require.NoError(t, c.Prepare(t.Context(), dir))
			require.NoError(t, c.WriteSecrets(secrets))
			want, output, failed := byBuildKit(t, c, oracle, dir, secrets, base, reg.Addr)
			if c.Options.Fails != "" {
				require.True(t, failed, "BuildKit built it")
				require.Contains(t, output, c.Options.Fails)
			} else {
				require.False(t, failed, output)
			}
			if onlyOracle {
				return
			}
			for j, m := range modes {
				if !all && !m.container && (i+j)%2 != 0 {
					continue
				}
				if why := c.Options.Skip[m.name]; why != "" {
					t.Logf("not compared in mode %s: %s", m.name, why)
					continue
				}
				t.Run(m.name, func(t *testing.T) {
					compare(t, c, m, want, dir, secrets, base, reg.Addr)
				})
			}
		})
	}
}

func byBuildKit(t *testing.T, c conformance.Case, oracle *parts.BuildKit, dir, secrets, base, registry string) (side conformance.Side, output string, failed bool) {
	// BuildKit's cache takes no heed of times and is shared by all contexts of
	// one name: each case begins without it.
	prune, err := exec.CommandContext(t.Context(), oracle.Buildctl, "--addr", oracle.Addr, "prune", "--all").CombinedOutput()
	require.NoError(t, err, "%s", prune)
	ref := registry + "/buildkit/" + strings.ToLower(c.Name) + ":1"
	side.Began = began
	out, err := exec.CommandContext(t.Context(), oracle.Buildctl,
		append([]string{"--addr", oracle.Addr}, c.BuildctlArgs(dir, secrets, base, ref)...)...).CombinedOutput()
	if err != nil {
		return side, string(out), true
	}
	side.Image, err = conformance.Load(t.Context(), ref)
	require.NoError(t, err)
	return side, string(out), false
}

func compare(t *testing.T, c conformance.Case, m mode, want conformance.Side, dir, secrets, base, registry string) {
	ref := fmt.Sprintf("%s/layerwright/%s:%s", registry, strings.ToLower(c.Name), m.name)
	got := conformance.Side{Began: began}
	cmd := command(t, c, m, dir, secrets, base, ref)
	out, err := cmd.CombinedOutput()
	if c.Options.Fails != "" {
		require.Error(t, err, "Layerwright built it")
		require.Contains(t, string(out), c.Options.Fails)
		return
	}
	require.NoError(t, err, "%s", out)
	got.Image, err = conformance.Load(t.Context(), ref)
	require.NoError(t, err)
	if diff := conformance.Compare(got, want); len(diff) > 0 {
		t.Errorf("%d differences from BuildKit's image:\n%s\n\n%s", len(diff), strings.Join(diff, "\n"), out)
	}
}

func command(t *testing.T, c conformance.Case, m mode, dir, secrets, base, ref string) *exec.Cmd {
	if m.container {
		d := parts.Engine(t)
		args := c.LayerwrightArgs("/workspace", "/secrets", base, ref)
		args = append(args, m.args...)
		return d.Command(t.Context(), append([]string{"run", "--rm", "--network", "host",
			"-v", dir + ":/workspace", "-v", secrets + ":/secrets:ro", parts.JobImage(t, d)}, args...)...)
	}
	args := append(c.LayerwrightArgs(dir, secrets, base, ref), m.args...)
	args = append(args, "--store", filepath.Join(t.TempDir(), "store"))
	return exec.CommandContext(t.Context(), parts.Binary(t), args...)
}
