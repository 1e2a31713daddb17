package act_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSwitching runs workflows of docker/build-push-action's documentation with its
// name exchanged for ours, and nothing else. Only where a login is needed that
// docker/login-action has made, the job has the variable of docs/github.md that lets
// a container action see it.
func TestSwitching(t *testing.T) {
	w := inWorld(t)
	dockerfile := "FROM " + w.base + "\nCOPY word /word\nRUN test -d /proc/self && ! test -e /github && echo step >> /word\n"
	files := map[string]string{"Dockerfile": dockerfile, "word": "word\n", ".dockerignore": ".docker\n"}
	for _, c := range []struct {
		name      string
		files     map[string]string
		pushed    []string
		word      string
		platforms []string
	}{
		{"git-context", files, []string{"index.docker.io/user/app:latest"}, "word\nstep\n", nil},
		{"path-context", files, []string{"index.docker.io/user/app:latest"}, "word\nstep\n", nil},
		// Nothing here can run steps of the other platform without emulation.
		{"registries", map[string]string{"Dockerfile": "FROM scratch\nCOPY word /word\n", "word": "word\n"},
			[]string{"index.docker.io/user/app:latest", "index.docker.io/user/app:1.0.0", "ghcr.io/user/app:latest", "ghcr.io/user/app:1.0.0"}, "word\n", []string{"linux/amd64", "linux/arm64"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := w.run(t, job{
				workflow: "tests/act/testdata/switching/" + c.name + ".yml", files: c.files, login: true,
				uses: map[string]string{"docker/build-push-action@v6": "layerwright/layerwright@v1"},
				args: []string{"-s", "DOCKERHUB_USERNAME=" + account, "--var", "DOCKERHUB_USERNAME=" + account, "-s", "DOCKERHUB_TOKEN=" + password},
			})
			require.True(t, e.ok, e.all)
			for _, ref := range c.pushed {
				img := w.pushed(t, ref)
				require.Equal(t, c.word, file(t, img, "word"))
				require.Equal(t, e.commit(t), labels(t, img)["org.opencontainers.image.revision"])
				require.Equal(t, c.platforms, w.platforms(t, ref))
			}
			require.Regexp(t, "^sha256:[0-9a-f]{64}$", e.output("digest"))
			require.Contains(t, e.output("metadata"), e.output("digest"))
			require.NotEmpty(t, e.output("imageid"))
		})
	}
}
