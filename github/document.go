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
double quotes may have several lines, with ` + "`\"\"`" + ` for a quote.

## Credentials

Images of ` + "`ghcr.io`" + ` are pushed with the job's own token: the permission
` + "`packages: write`" + ` is all that is needed. For other registries set ` + "`registry`" + `,
` + "`username`" + ` and ` + "`password`" + `.

docker/login-action writes to ` + "`~/.docker`" + ` of the runner, which a container action
does not see. To use it, put its file into the workspace, for the whole job, and
` + "`.docker`" + ` into ` + "`.dockerignore`" + `:

` + "```yaml" + `
    env:
      DOCKER_CONFIG: ${{ github.workspace }}/.docker
` + "```" + `

## Inputs

| Input | What it does | Default | Example |
|---|---|---|---|
`
