package e2e_test

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

// exported lists the files of a container that is not running: names, types,
// modes, owners, sizes and link targets.
func exported(t *testing.T, d *parts.Docker, box string) map[string]string {
	t.Helper()
	cmd := d.Command(t.Context(), "export", box)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	files := map[string]string{}
	r := tar.NewReader(out)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		name := strings.Trim(h.Name, "/")
		if strings.HasPrefix(name, "layerwright/store") {
			continue
		}
		files[name] = fmt.Sprintf("%c %o %d:%d %d %s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, h.Linkname)
	}
	require.NoError(t, cmd.Wait())
	return files
}

// TestFilesWithTheBuilderAsFirstProcess: the container's own files are all there
// after a build, a failing step and a cancelled one, also when the builder was
// PID 1.
func TestFilesWithTheBuilderAsFirstProcess(t *testing.T) {
	base := smallBase(t)
	d := parts.Engine(t)
	for what, c := range map[string]struct {
		run  string
		code int
	}{
		"success":   {"rm -r /home && mv /root /root2", 0},
		"failing":   {"rm -r /home; exit 3", 1},
		"cancelled": {"rm -r /home; echo step-is-running; sleep 300", 143},
	} {
		t.Run(what, func(t *testing.T) {
			dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nRUN " + c.run + "\n"})
			box := "first-" + what
			d.Must(t, "create", "--name", box, "--network", "host", "-v", dir+":/workspace", parts.JobImage(t, d),
				"build", "--log-format", "plain", "--isolation", "inplace", "-c", "/workspace", "--no-push")
			t.Cleanup(func() { _ = d.Command(context.Background(), "rm", "-f", box).Run() })
			before := exported(t, d, box)
			d.Must(t, "start", box)
			if c.code == 143 {
				eventually(t, "the step", func() bool {
					out, _ := d.Command(t.Context(), "logs", box).CombinedOutput()
					return strings.Contains(string(out), " step-is-running")
				})
				d.Must(t, "kill", "-s", "TERM", box)
			}
			require.Equal(t, fmt.Sprintf("%d\n", c.code), d.Must(t, "wait", box), d.Must(t, "logs", box))
			after := exported(t, d, box)
			for name, was := range before {
				require.Equal(t, was, after[name], name)
			}
			for name := range after {
				// What the engine itself makes for mounts and at the start.
				if _, ok := before[name]; !ok && name != "workspace" && !strings.HasPrefix(name, "layerwright") {
					require.Contains(t, []string{"dev", "proc", "sys", "etc", ".dockerenv"}, strings.Split(name, "/")[0], "new: %s", name)
				}
			}
		})
	}
}
