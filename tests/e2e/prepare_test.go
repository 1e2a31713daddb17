package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

// jobWithFiles is the job's image with a directory's files in it, at /srv/app.
func jobWithFiles(t *testing.T, d *parts.Docker, dir string) string {
	t.Helper()
	box, name := "with-files", "job-with-files:1"
	d.Must(t, "create", "--name", box, parts.JobImage(t, d))
	t.Cleanup(func() { _ = d.Command(context.Background(), "rm", "-f", box).Run() })
	srv := t.TempDir()
	require.NoError(t, os.Rename(dir, filepath.Join(srv, "app")))
	d.Must(t, "cp", srv+"/.", box+":/srv")
	d.Must(t, "commit", box, name)
	return name
}

// TestRootIsPreparedForStepsOnly: a build whose steps are all known leaves the
// directories of the job's own image as they are; one with a step makes them anew,
// also those that it reads its context from and writes its outputs to.
func TestRootIsPreparedForStepsOnly(t *testing.T) {
	d := parts.Engine(t)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + smallBase(t) + "\nRUN echo one > /one\nCOPY f /f\nRUN cat /f /one > /both\n", "f": "f\n"})
	image, repo := jobWithFiles(t, d, dir), newRepo(t)
	for _, c := range []struct {
		name          string
		cached        int
		same, flagged string
	}{
		{name: "cold", cached: 0, same: "made anew"},
		{name: "dry run", cached: 3, same: "as it was", flagged: " --dryrun"},
		{name: "warm", cached: 3, same: "as it was"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := run(t, d.Command(t.Context(), "run", "--rm", "--network", "host", "--entrypoint", "/busybox/sh", image, "-c",
				`before=$(ls -id /srv /tmp)
layerwright build --log-format plain /srv/app --cache-repo `+repo+` --no-push --digest-file /srv/app/out/digest`+c.flagged+` || exit 80
[ "$before" = "$(ls -id /srv /tmp)" ] && echo as it was || echo made anew; cat /srv/app/out/digest`))
			require.Contains(t, got.output, c.same)
			if c.flagged == "" {
				require.Equal(t, 0, got.code, got.output)
				require.Regexp(t, `sha256:[0-9a-f]{64}$`, got.output)
				_, cached := ran(got.output)
				require.Equal(t, c.cached, cached)
			}
		})
	}
}

// TestHandlesOfAnotherBuildStayValid: a build that needs no step may be reading
// directories of the job's image when another one in the container has its first.
func TestHandlesOfAnotherBuildStayValid(t *testing.T) {
	d := parts.Engine(t)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + smallBase(t) + "\nCOPY f /f\nRUN cat /f\n", "f": "f\n", "big/Dockerfile": "FROM scratch\nCOPY . /\n"})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "big", "data"), make([]byte, 2<<20), 0o644))
	// The first writes to a pipe that nobody reads for three seconds.
	got := run(t, d.Command(t.Context(), "run", "--rm", "--network", "host", "--entrypoint", "/busybox/sh", jobWithFiles(t, d, dir), "-c",
		`PATH=/layerwright/busybox:$PATH; mkdir /layerwright/t; cd /layerwright/t
(layerwright build --log-format plain /srv/app/big --no-push --compression none -o type=tar,dest=- 2> log || touch failed) | (sleep 3; wc -c > size) &
while ! grep -q 'COPY . /' log; do usleep 10000; done
layerwright build --log-format plain /srv/app --no-push || exit 80
wait; cat log >&2; [ ! -e failed ] || exit 81; [ $(cat size) -gt 2000000 ]`))
	require.Equal(t, 0, got.code, got.output)
	require.Contains(t, got.output, "waiting for another build in this container")
}
