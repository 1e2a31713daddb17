package act_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestExamples runs each workflow of examples/github as it is, and looks at what it
// has pushed.
func TestExamples(t *testing.T) {
	w := inWorld(t)
	plain := "FROM " + w.base + "\nRUN echo plain > /word\n"
	for _, c := range []struct {
		name string
		job  job
		// pushed are references with the word in each.
		pushed map[string]string
	}{
		{"simple", job{files: map[string]string{"Dockerfile": plain}}, map[string]string{"ghcr.io/team/app:latest": "plain\n"}},
		{"tags", job{files: map[string]string{"Dockerfile": plain}, tag: "v1.2.3"}, map[string]string{"ghcr.io/team/app:1.2.3": "plain\n", "ghcr.io/team/app:1.2": "plain\n", "ghcr.io/team/app:latest": "plain\n"}},
		{"tags", job{files: map[string]string{"Dockerfile": plain}}, map[string]string{"ghcr.io/team/app:main": "plain\n"}},
		{"secrets", job{files: map[string]string{"Dockerfile": "FROM " + w.base + "\nRUN --mount=type=secret,id=npm grep -q " + password + " /run/secrets/npm && echo secret > /word\n"}},
			map[string]string{"ghcr.io/team/app:latest": "secret\n"}},
		{"registries", job{files: map[string]string{"Dockerfile": plain}}, map[string]string{"ghcr.io/team/app:latest": "plain\n", "registry.example/team/app:latest": "plain\n"}},
		{"monorepo", job{files: map[string]string{"services/api/Dockerfile": "FROM " + w.base + "\nRUN echo api > /word\n", "services/web/Dockerfile": "FROM " + w.base + "\nRUN echo web > /word\n"}},
			map[string]string{"ghcr.io/team/api:latest": "api\n", "ghcr.io/team/web:latest": "web\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.job.workflow = "examples/github/" + c.name + ".yml"
			e := w.run(t, c.job)
			require.True(t, e.ok, e.all)
			require.Contains(t, e.log, "isolation inplace")
			for ref, word := range c.pushed {
				img := w.pushed(t, ref)
				require.Equal(t, word, file(t, img, "word"))
				require.Equal(t, e.commit(t), labels(t, img)["org.opencontainers.image.revision"], "pushed by this run")
				require.Equal(t, "https://github.com/team/app", labels(t, img)["org.opencontainers.image.source"])
				if c.name != "monorepo" { // two jobs
					digest, err := img.Digest()
					require.NoError(t, err)
					require.Equal(t, digest.String(), e.output("digest"))
					require.Contains(t, e.output("tags"), ref)
				}
			}
			require.Contains(t, e.all, "### Image built in ")
		})
	}
}

// TestExamplePlatforms: a job for each platform of the matrix, and one that merges what
// they have pushed by digest.
func TestExamplePlatforms(t *testing.T) {
	w := inWorld(t)
	e := w.run(t, job{workflow: "examples/github/platforms.yml", files: map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY f /word\n", "f": "plain\n"}})
	require.True(t, e.ok, e.all)
	const ref = "ghcr.io/team/app:latest"
	require.ElementsMatch(t, []string{"linux/amd64", "linux/arm64"}, w.platforms(t, ref))
	img := w.pushed(t, ref)
	require.Equal(t, "plain\n", file(t, img, "word"))
	require.Equal(t, "amd64", labels(t, img)["arch"])
	require.Equal(t, e.commit(t), labels(t, img)["org.opencontainers.image.revision"])
}

// TestExampleCache: the second job finds what the first has kept; one for a pull
// request reads and does not write.
func TestExampleCache(t *testing.T) {
	w := inWorld(t)
	dockerfile := "FROM " + w.base + "\nRUN echo slow > /word\n"
	c := job{workflow: "examples/github/cache.yml", files: map[string]string{"Dockerfile": dockerfile}}
	e := w.run(t, c)
	require.True(t, e.ok, e.all)
	require.Equal(t, "0", e.output("cache-hits"))
	e = w.run(t, c)
	require.True(t, e.ok, e.all)
	require.Equal(t, "1", e.output("cache-hits"), e.all)

	c.files["Dockerfile"] += "RUN echo request > /word\n"
	c.event, c.payload = "pull_request", `{"number":7,"pull_request":{"head":{"ref":"feature"},"base":{"ref":"main"}},"repository":{"name":"app","full_name":"team/app","default_branch":"main"}}`
	for range 2 {
		e = w.run(t, c)
		require.True(t, e.ok, e.all)
		require.Equal(t, "1", e.output("cache-hits"), "what jobs for pull requests make is not kept")
		require.Contains(t, e.log, "the cache is only read, since this is a pull request")
	}
	require.Equal(t, "slow\n", file(t, w.pushed(t, "ghcr.io/team/app:latest"), "word"), "a pull request pushes nothing")
}
