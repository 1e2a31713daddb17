package gitlab_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

const plain = "FROM BASE\nRUN echo plain > /word\nCMD [\"cat\", \"/word\"]\n"

// copied runs no step, so that nothing of the other platform has to run here.
const copied = "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY f /f\n"

// TestExamples runs every file of examples/gitlab as it is, but for the name of a
// second registry, and looks for what it promises.
func TestExamples(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		set   map[string]string
		check func(t *testing.T, p *project, log string)
	}{
		"simple": {
			files: map[string]string{"Dockerfile": "FROM BASE AS Mixed\nRUN echo plain > /word\nCMD [\"cat\", \"/word\"]\n"},
			check: func(t *testing.T, p *project, log string) {
				conf, digest, says := p.pushed(t, p.image+":main")
				require.Equal(t, "plain\n", says)
				require.Equal(t, "https://gitlab.example/team/app", conf.Config.Labels["org.opencontainers.image.source"])
				_, latest, _ := p.pushed(t, p.image+":latest")
				require.Equal(t, digest, latest)
				env := p.artifact(t, "build.env")
				require.Contains(t, env, "\nIMAGE="+p.image+":main\nIMAGE_WITH_DIGEST="+p.image+"@"+digest+"\nIMAGE_TAGS="+p.image+":main "+p.image+":latest\n")
				require.True(t, strings.HasPrefix(env, "IMAGE_DIGEST="+digest+"\nIMAGE_ID=sha256:"), env)
				var found []struct {
					Check    string `json:"check_name"`
					Location struct {
						Path  string
						Lines struct{ Begin int }
					}
				}
				require.NoError(t, json.Unmarshal([]byte(p.artifact(t, "gl-code-quality-report.json")), &found))
				require.Len(t, found, 1)
				require.Equal(t, "StageNameCasing", found[0].Check)
				require.Equal(t, "Dockerfile", found[0].Location.Path)
				require.Equal(t, 1, found[0].Location.Lines.Begin)
				require.Contains(t, log, "layerwright_image took", "the runner knows the section")
			},
		},
		"tags": {
			files: map[string]string{"Dockerfile": plain}, set: map[string]string{"CI_COMMIT_TAG": "v1.2.3"},
			check: func(t *testing.T, p *project, _ string) {
				require.ElementsMatch(t, []string{"1.2.3", "1", "v1.2.3", "latest"}, p.tags(t, p.image))
				conf, _, _ := p.pushed(t, p.image+":1.2.3")
				require.Equal(t, "1.2.3", conf.Config.Labels["org.opencontainers.image.version"])
			},
		},
		"cache": {
			files: map[string]string{"Dockerfile": plain},
			check: func(t *testing.T, p *project, log string) {
				require.NotContains(t, log, "CACHED")
				require.NotEmpty(t, p.tags(t, p.image+"/cache"))
				again, err := p.run(t, example(t, "cache"))
				require.NoError(t, err, again)
				require.Contains(t, again, "CACHED")
			},
		},
		"secrets": {
			files: map[string]string{"Dockerfile": "FROM BASE\nRUN --mount=type=secret,id=npm grep -q " + secret[:12] + " /run/secrets/npm && echo plain > /word\nCMD [\"cat\", \"/word\"]\n"},
			set:   map[string]string{"NPM_TOKEN": secret},
			check: func(t *testing.T, p *project, _ string) {
				conf, _, says := p.pushed(t, p.image+":main")
				require.Equal(t, "plain\n", says)
				text, err := json.Marshal(conf)
				require.NoError(t, err)
				require.NotContains(t, string(text), secret)
			},
		},
		"registries": {
			files: map[string]string{"Dockerfile": plain}, set: map[string]string{"OTHER_USER": parts.LockedUser, "OTHER_PASSWORD": parts.LockedPassword},
			check: func(t *testing.T, p *project, _ string) {
				_, one, _ := p.pushed(t, p.image+":latest")
				_, two, _ := p.pushed(t, p.other.Addr+"/team/app:latest")
				require.Equal(t, one, two)
			},
		},
		"monorepo": {
			files: map[string]string{"services/api/Dockerfile": strings.Replace(plain, "plain", "api", 1), "services/web/Dockerfile": strings.Replace(plain, "plain", "web", 1)},
			check: func(t *testing.T, p *project, _ string) {
				for _, service := range []string{"api", "web"} {
					_, _, says := p.pushed(t, p.image+"/"+service+":latest")
					require.Equal(t, service+"\n", says)
				}
			},
		},
		// A job for each platform, and one that makes one image of theirs.
		"platforms": {
			files: map[string]string{"Dockerfile": copied, "f": "x"},
			check: func(t *testing.T, p *project, _ string) {
				require.Equal(t, []string{"linux/amd64", "linux/arm64"}, p.platforms(t, p.image+":main"))
				require.ElementsMatch(t, []string{"main", "latest"}, p.tags(t, p.image), "the jobs' own images have no tags")
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProject(t, c.files)
			for name, value := range c.set {
				p.variables[name] = value
			}
			text := example(t, name)
			if name == "registries" {
				p.other = parts.LockedRegistry(t)
				text = strings.ReplaceAll(text, "registry.example", p.other.Addr)
			}
			c.check(t, p, p.must(t, text))
		})
	}
}

// TestSeveralPlatformsInOneJob: what is built where the steps need no other processor.
func TestSeveralPlatformsInOneJob(t *testing.T) {
	p := newProject(t, map[string]string{"Dockerfile": copied, "f": "x"})
	p.must(t, `
build:
  image: `+ourImage+`
  script:
    - layerwright gitlab
  variables:
    LAYERWRIGHT_PLATFORMS: linux/amd64,linux/arm64/v8
`)
	require.Equal(t, []string{"linux/amd64", "linux/arm64"}, p.platforms(t, p.image+":main"))
	require.Equal(t, []string{"linux/amd64", "linux/arm64"}, p.platforms(t, p.image+":latest"))
}

// TestTheComponent includes templates/build.yml as a project that has a copy of it
// does, with inputs, and a job that uses what the build hands on.
func TestTheComponent(t *testing.T) {
	template, err := os.ReadFile(filepath.Join(parts.Repo(), "templates", "build.yml"))
	require.NoError(t, err)
	p := newProject(t, map[string]string{
		"templates/build.yml": string(template),
		"app/Containerfile":   "FROM BASE AS one\nARG WORD\nRUN echo $WORD > /word\nCMD [\"cat\", \"/word\"]\nFROM one AS two\nRUN false\n",
	})
	log := p.must(t, `
include:
  - local: templates/build.yml
    inputs:
      job: make
      stage: test
      context: app
      file: app/Containerfile
      target: one
      tags: stable
      build-args: WORD=spoken
use:
  stage: deploy
  needs: [make]
  image: ghcr.io/layerwright/layerwright:v1-debug
  script:
    - echo "deploy $IMAGE_WITH_DIGEST"
`)
	_, digest, says := p.pushed(t, p.image+":stable")
	require.Equal(t, "spoken\n", says)
	require.Contains(t, log, "> deploy "+p.image+"@"+digest)
	require.ElementsMatch(t, []string{"stable", "main", "latest"}, p.tags(t, p.image))
	require.NotEmpty(t, p.tags(t, p.image+"/cache"), "the component keeps a cache unless told otherwise")
}
