package github

import (
	"fmt"
	"strings"
)

// image is where the action's container comes from.
const image = "docker://ghcr.io/layerwright/layerwright:v1"

// ActionYAML is action.yml. Defaults are in the descriptions and applied by the
// program, so that it can tell what was given from what was not.
func ActionYAML() string {
	var b strings.Builder
	b.WriteString("# Made from github/input.go: go test ./github -update\n")
	b.WriteString("name: Layerwright\ndescription: Build container images from Dockerfiles without a daemon and without privilege\n")
	b.WriteString("branding:\n  icon: layers\n  color: blue\ninputs:\n")
	for _, in := range Inputs() {
		help := in.Help
		if in.Default != "" && !strings.HasPrefix(in.Default, "${{") {
			help += " (default " + in.Default + ")"
		}
		fmt.Fprintf(&b, "  %s:\n    description: %s\n    required: false\n", in.Name, quote(help))
		if strings.HasPrefix(in.Default, "${{") {
			fmt.Fprintf(&b, "    default: %s\n", in.Default)
		}
	}
	b.WriteString("outputs:\n")
	for _, o := range Outputs() {
		fmt.Fprintf(&b, "  %s:\n    description: %s\n", o.Name, quote(o.Help))
	}
	fmt.Fprintf(&b, "runs:\n  using: docker\n  image: %s\n  args:\n    - github\n", image)
	return b.String()
}

// quote makes a YAML string of one line.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// Documentation is docs/github.md.
func Documentation() string {
	var b strings.Builder
	b.WriteString(documentationHead)
	for _, in := range Inputs() {
		def, example := in.Default, in.Example
		if def != "" {
			def = "`" + def + "`"
		}
		if example != "" {
			example = "`" + strings.ReplaceAll(example, "|", `\|`) + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", in.Name, strings.ReplaceAll(strings.ReplaceAll(in.Help, "|", `\|`), "<", "&lt;"), def, example)
	}
	b.WriteString("\n## Outputs\n\n| Output | What it is |\n|---|---|\n")
	for _, o := range Outputs() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", o.Name, o.Help)
	}
	return b.String()
}

const documentationHead = `# GitHub Actions

<!-- Made from the code: go test ./github -update -->

` + "```yaml" + `
jobs:
  image:
    runs-on: ubuntu-latest
    permissions:
      contents: read
      packages: write
    steps:
      - uses: actions/checkout@v4
      - uses: layerwright/layerwright@v1
        with:
          push: true
          images: ghcr.io/${{ github.repository }}
          cache: true
` + "```" + `

The inputs are those of docker/build-push-action and docker/metadata-action, with
the same names and formats, so that one step does the work of both. ` + "`tags`" + ` takes
whole references (` + "`user/app:1`" + `), or, beside ` + "`images`" + `, tags and the rules of
metadata-action (` + "`type=semver,pattern={{version}}`" + `). Lists are lines; a value in
double quotes may have several lines, with ` + "`\"\"`" + ` for a quote. Of metadata-action's variables
` + "`DOCKER_METADATA_PR_HEAD_SHA`" + ` and ` + "`DOCKER_METADATA_SHORT_SHA_LENGTH`" + ` are read.

## Credentials

Images of ` + "`ghcr.io`" + ` are pushed with the job's own token: the permission
` + "`packages: write`" + ` is all that is needed. For other registries set ` + "`registry`" + `,
` + "`username`" + ` and ` + "`password`" + `.

docker/login-action writes to ` + "`~/.docker`" + ` of the runner, which a container action
does not see: its home is another directory, which the runner mounts. One line tells
login-action to write there instead:

` + "```yaml" + `
      - uses: docker/login-action@v3
        env:
          DOCKER_CONFIG: ${{ runner.temp }}/_github_home/.docker
        with:
          username: ${{ vars.DOCKERHUB_USERNAME }}
          password: ${{ secrets.DOCKERHUB_TOKEN }}
` + "```" + `

That directory is the runner's, and not documented by GitHub; act has none. The
workspace is there with both. With it the variable is for the whole job, the login
comes after the checkout, and ` + "`.docker`" + ` belongs into ` + "`.dockerignore`" + `:

` + "```yaml" + `
    env:
      DOCKER_CONFIG: ${{ github.workspace }}/.docker
` + "```" + `

Tests run both in a container as the runner makes it; GitHub itself has not.

Amazon's, Google's and Azure's registries take the job's own token, which it gets with the
permission ` + "`id-token: write`" + `. ` + "`permissions`" + ` in a workflow takes away what it does not name:

` + "```yaml" + `
    permissions:
      contents: read
      id-token: write
    steps:
      - uses: layerwright/layerwright@v1
        with:
          push: true
          images: 123456789012.dkr.ecr.eu-west-1.amazonaws.com/app
          aws-role: arn:aws:iam::123456789012:role/ci
` + "```" + `

## Inputs

| Input | What it does | Default | Example |
|---|---|---|---|
`
