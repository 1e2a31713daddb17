package gitlab_test

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"
)

// kanikosJobs are as GitLab's and Kaniko's documentation show them; each is one job.
const kanikosJobs = `
build:
  stage: build
  image:
    name: gcr.io/kaniko-project/executor:v1.23.2-debug
    entrypoint: [""]
  script:
    - /kaniko/executor
      --context "${CI_PROJECT_DIR}"
      --dockerfile "${CI_PROJECT_DIR}/Dockerfile"
      --destination "${CI_REGISTRY_IMAGE}:${CI_COMMIT_TAG}"
  rules:
    - if: $CI_COMMIT_TAG

build-with-config:
  stage: build
  image:
    name: gcr.io/kaniko-project/executor:v1.23.2-debug
    entrypoint: [""]
  before_script:
    - mkdir -p /kaniko/.docker
    - echo "{\"auths\":{\"${CI_REGISTRY}\":{\"auth\":\"$(printf "%s:%s" "${CI_REGISTRY_USER}" "${CI_REGISTRY_PASSWORD}" | base64 | tr -d '\n')\"}}}" > /kaniko/.docker/config.json
  script:
    - >-
      /kaniko/executor
      --context "${CI_PROJECT_DIR}"
      --dockerfile "${CI_PROJECT_DIR}/Dockerfile"
      --destination "${CI_REGISTRY_IMAGE}/config:${CI_COMMIT_SHORT_SHA}"
      --destination "${CI_REGISTRY_IMAGE}/config:latest"

build-with-proxy-and-cache:
  stage: build
  variables:
    http_proxy: http://127.0.0.1:9
    https_proxy: http://127.0.0.1:9
    no_proxy: 127.0.0.1
  image:
    name: gcr.io/kaniko-project/executor:v1.23.2-debug
    entrypoint: [""]
  script:
    - mkdir -p /kaniko/.docker
    - |-
       KANIKOPROXYBUILDARGS=""
       KANIKOCFG="\"auths\":{\"${CI_REGISTRY}\":{\"auth\":\"$(printf "%s:%s" "${CI_REGISTRY_USER}" "${CI_REGISTRY_PASSWORD}" | base64 | tr -d '\n')\"}}"
       if [ "x${http_proxy}" != "x" -o "x${https_proxy}" != "x" ]; then
         KANIKOCFG="${KANIKOCFG}, \"proxies\": { \"default\": { \"httpProxy\": \"${http_proxy}\", \"httpsProxy\": \"${https_proxy}\", \"noProxy\": \"${no_proxy}\"}}"
         KANIKOPROXYBUILDARGS="--build-arg http_proxy=${http_proxy} --build-arg https_proxy=${https_proxy} --build-arg no_proxy=${no_proxy}"
       fi
       KANIKOCFG="{ ${KANIKOCFG} }"
       echo "${KANIKOCFG}" > /kaniko/.docker/config.json
    - >-
      /kaniko/executor
      --context "${CI_PROJECT_DIR}"
      --dockerfile "${CI_PROJECT_DIR}/Dockerfile"
      ${KANIKOPROXYBUILDARGS}
      --cache=true
      --destination "${CI_REGISTRY_IMAGE}/proxy:${CI_COMMIT_TAG}"
`

// TestKanikosJobs changes their image line and nothing else.
func TestKanikosJobs(t *testing.T) {
	p := newProject(t, map[string]string{"Dockerfile": plain})
	p.variables["CI_COMMIT_TAG"] = "v1.2.3"
	log := p.must(t, strings.ReplaceAll(kanikosJobs, "gcr.io/kaniko-project/executor:v1.23.2-debug", ourImage))
	require.Equal(t, 3, strings.Count(log, "isolation inplace"), log)
	require.Equal(t, []string{"v1.2.3"}, p.tags(t, p.image))
	require.Len(t, p.tags(t, p.image+"/config"), 2)
	require.Equal(t, []string{"v1.2.3"}, p.tags(t, p.image+"/proxy"))
	require.NotEmpty(t, p.tags(t, p.image+"/proxy/cache"))
	for _, ref := range []string{":v1.2.3", "/config:latest", "/proxy:v1.2.3"} {
		_, _, says := p.pushed(t, p.image+ref)
		require.Equal(t, "plain\n", says)
	}
}

// TestToBeContinuousAndTheDependencyProxy: names of that template, and a base that
// is only to be had through the group's proxy, with the proxy's login.
func TestToBeContinuousAndTheDependencyProxy(t *testing.T) {
	p := newProject(t, map[string]string{"docker/Dockerfile": "FROM small:1\nARG WORD\nRUN echo $WORD > /word\nCMD [\"cat\", \"/word\"]\n"})
	prefix := p.registry.Addr + "/group/dependency_proxy/containers"
	from, err := name.ParseReference(p.base, name.Insecure)
	require.NoError(t, err)
	base, err := remote.Image(from)
	require.NoError(t, err)
	to, err := name.ParseReference(prefix+"/library/small:1", name.Insecure)
	require.NoError(t, err)
	require.NoError(t, remote.Write(to, base, remote.WithAuth(login)))
	for name, value := range map[string]string{
		"CI_DEPENDENCY_PROXY_SERVER": p.registry.Addr, "CI_DEPENDENCY_PROXY_GROUP_IMAGE_PREFIX": prefix,
		"CI_DEPENDENCY_PROXY_USER": login.Username, "CI_DEPENDENCY_PROXY_PASSWORD": login.Password,
	} {
		p.variables[name] = value
	}
	log := p.must(t, `
docker-build:
  image: `+ourImage+`
  script:
    - layerwright gitlab --print-settings
    - layerwright gitlab
  variables:
    DOCKER_FILE: docker/Dockerfile
    DOCKER_SNAPSHOT_IMAGE: $CI_REGISTRY_IMAGE/snapshot:$CI_COMMIT_REF_SLUG
    DOCKER_RELEASE_IMAGE: $CI_REGISTRY_IMAGE:$CI_COMMIT_REF_NAME
    DOCKER_RELEASE_EXTRA_TAGS_PATTERN: ^m
    DOCKER_RELEASE_EXTRA_TAGS: latest
    DOCKER_PROD_PUBLISH_STRATEGY: auto
    KANIKO_SNAPSHOT_IMAGE_CACHE: $CI_REGISTRY_IMAGE/snapshot/kept
    DOCKER_BUILD_ARGS: --build-arg WORD=$(id)
    LAYERWRIGHT_PASSWORD: `+secret+`
    LAYERWRIGHT_USERNAME: somebody
    LAYERWRIGHT_REGISTRY: elsewhere.example
`)
	for _, line := range []string{
		"file: docker/Dockerfile  (DOCKER_FILE)", "build-args: WORD=***  (DOCKER_BUILD_ARGS)", "password: ***  (LAYERWRIGHT_PASSWORD)",
		"registry-mirrors: " + prefix + "  (CI_DEPENDENCY_PROXY_GROUP_IMAGE_PREFIX)", "isolation: auto  (default)",
	} {
		require.Contains(t, log, line)
	}
	_, _, says := p.pushed(t, p.image+"/snapshot:main")
	require.Equal(t, "$(id)\n", says, "it is no shell that reads it")
	require.NotEmpty(t, p.tags(t, p.image+"/snapshot/kept"))
	require.ElementsMatch(t, []string{"main", "latest"}, p.tags(t, p.image), "the release, on the default branch")
}

// TestAllMistakesAtOnce: in a section, with exit code 2, before anything runs.
func TestAllMistakesAtOnce(t *testing.T) {
	p := newProject(t, map[string]string{"Dockerfile": plain})
	log, err := p.run(t, `
build-image:
  image: `+ourImage+`
  script:
    - layerwright gitlab
  variables:
    LAYERWRIGHT_LOAD: "true"
    LAYERWRIGHT_BUILD_ARGS: =malformed
    LAYERWRIGHT_SECRET_FILES: npm=no/such/file
    LAYERWRIGHT_TAGS: |
      $CI_REGISTRY_IMAGE:ok
      registry.example/UPPER/app:$(touch /pwned)
`)
	require.Error(t, err)
	require.Contains(t, log, "FAIL 2", log)
	require.Contains(t, log, "layerwright_settings took")
	for _, name := range []string{"LAYERWRIGHT_LOAD: ", "LAYERWRIGHT_BUILD_ARGS: ", "LAYERWRIGHT_SECRET_FILES: ", "LAYERWRIGHT_TAGS: "} {
		require.Contains(t, log, name)
	}
	require.NotContains(t, log, "isolation", "nothing has run")
	require.Empty(t, p.tags(t, p.image))
}
