package gitlab

import (
	"fmt"
	"strings"

	"github.com/layerwright/layerwright/plugin"
)

// Documentation is docs/gitlab.md.
func Documentation() string {
	var b strings.Builder
	b.WriteString(documentationHead)
	own := map[string]string{"context": "$CI_PROJECT_DIR", "images": "$CI_REGISTRY_IMAGE", "auto-tag": "gitlab", "registry-mirrors": "$CI_DEPENDENCY_PROXY_GROUP_IMAGE_PREFIX", "registry": "that of the first image", "registry-certificates": "$CI_REGISTRY=$CI_SERVER_TLS_CA_FILE"}
	code := func(s string) string {
		if s == "" {
			return ""
		}
		return "`" + strings.ReplaceAll(s, "|", `\|`) + "`"
	}
	for _, f := range plugin.Fields() {
		def, ok := own[f.Name]
		if !ok {
			def = f.Default
		}
		help := strings.ReplaceAll(f.Help, "|", `\|`)
		if names := append(further()[f.Name], aliases()[f.Name]...); len(names) > 0 {
			help += " (also `" + strings.Join(names, "`, `") + "`)"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", variable(f.Name), help, code(def), code(exampleOf(f)))
	}
	return b.String()
}

// exampleOf is a value that makes a difference. A secret is a variable of the project,
// never written into a pipeline.
func exampleOf(f plugin.Field) string {
	switch {
	case f.Secret && !f.List():
		return "$" + strings.TrimPrefix(variable(f.Name), "LAYERWRIGHT_")
	case f.Name == "secrets":
		return "token=$API_TOKEN"
	case f.Name == "auto-tag":
		return "metadata"
	case f.Name == "docker-config":
		return "$CI_PROJECT_DIR/.docker"
	}
	return f.Sample()
}

const documentationHead = `# GitLab CI

<!-- Made from the code: go test ./gitlab -update -->

` + "```yaml" + `
build:
  image: ghcr.io/layerwright/layerwright:v1-debug
  script:
    - layerwright gitlab
  artifacts:
    when: always
    reports:
      dotenv: build.env
      codequality: gl-code-quality-report.json
` + "```" + `

GitLab's runners start a shell in the image, which v1-debug has; ` + "`entrypoint: [\"\"]`" + ` is
not needed, and does no harm. That builds the project's directory and pushes to the project's registry with the
job's own credentials; there is nothing to log in to and no config.json to write. A
branch's image is tagged with its slug (` + "`CI_COMMIT_REF_SLUG`" + `), on the default branch
also ` + "`latest`" + `; a tag's image with the tag's name; a merge request's with the slug of
its source branch. Where the group has a dependency proxy, images of Docker Hub come
through it. Credentials of ` + "`DOCKER_AUTH_CONFIG`" + ` are used too. For registries of clouds the job's
own token is enough: ` + "`id_tokens:`" + ` makes it, ` + "`LAYERWRIGHT_OIDC_TOKEN`" + ` takes it, beside a role, pool or
client.

` + "`build.env`" + ` has IMAGE, IMAGE_WITH_DIGEST, IMAGE_DIGEST, IMAGE_ID and IMAGE_TAGS
(references, separated by spaces) for later jobs. GitLab has no way to mask a value
while a job runs: mark variables with secrets as masked.

## Variables

Names of to-be-continuous' template work too; of ` + "`DOCKER_BUILD_ARGS`" + ` and
` + "`DOCKER_METADATA`" + `, pieces of a command line there, only ` + "`--build-arg NAME=VALUE`" + ` and
` + "`--label NAME=VALUE`" + ` without quotes; anything else is an error. ` + "`DOCKER_SNAPSHOT_IMAGE`" + ` is
pushed always, ` + "`DOCKER_RELEASE_IMAGE`" + ` with ` + "`DOCKER_RELEASE_EXTRA_TAGS`" + ` beside it for a git
tag, and with ` + "`DOCKER_PROD_PUBLISH_STRATEGY: auto`" + ` for the default branch: one build, where
the template copies the image in a later job. ` + "`DOCKER_REGISTRY_USER`" + ` and
` + "`DOCKER_REGISTRY_PASSWORD`" + `, or those with ` + "`_SNAPSHOT_`" + ` and ` + "`_RELEASE_`" + `, log in to the
registries of these images.

Lists are lines. ` + "`LAYERWRIGHT_TAGS`" + ` with whole references takes the place of the
project's image.

| Variable | What it does | Default | Example |
|---|---|---|---|
`
