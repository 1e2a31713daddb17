package drone

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/layerwright/layerwright/plugin"
)

// Documentation is docs/drone.md.
func Documentation() string {
	var b strings.Builder
	b.WriteString(documentationHead)
	code := func(s string) string {
		if s == "" {
			return ""
		}
		return "`" + strings.ReplaceAll(s, "|", `\|`) + "`"
	}
	for _, f := range plugin.Fields() {
		def := f.Default
		var others []string
		for _, n := range names()[f.Name] {
			others = append(others, code(strings.ToLower(n)))
		}
		help := strings.ReplaceAll(f.Help, "|", `\|`)
		if len(others) > 0 {
			help += " (also " + strings.Join(others, ", ") + ")"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code(strings.ToLower(variable(f.Name))), help, code(def), code(exampleOf(f)))
	}
	b.WriteString("\n## Further settings of Drone's plugins\n\n| Setting | What it does | Default | Example |\n|---|---|---|---|\n")
	for _, o := range ownSettings() {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code(strings.ToLower(o.name)), strings.ReplaceAll(o.help, "|", `\|`), code(o.def), code(o.example))
	}
	b.WriteString("\n## Variables without PLUGIN_\n\nThose of a cloud count where the image goes to a registry of it.\n\n| Variable | Setting | Cloud |\n|---|---|---|\n")
	for _, v := range bare() {
		for _, name := range strings.Fields(v.variables) {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", code(name), code(strings.ToLower(v.setting)), v.cloud)
		}
	}
	b.WriteString("\n`DOCKER_USERNAME` and `DOCKER_PASSWORD` (`DOCKER_REGISTRY`) are the login to push with where no other\nis set, as in drone-docker; else the one at the registry of base images, as in drone-kaniko.\n")
	b.WriteString("\n## Settings that are refused\n\n| Setting | Why |\n|---|---|\n")
	for _, n := range slices.Sorted(maps.Keys(refused())) {
		fmt.Fprintf(&b, "| %s | %s |\n", code(strings.ToLower(n)), refused()[n])
	}
	b.WriteString("\n## Settings without effect\n\n| Setting | Why |\n|---|---|\n")
	for _, n := range slices.Sorted(maps.Keys(ignored())) {
		fmt.Fprintf(&b, "| %s | %s |\n", code(strings.ToLower(n)), ignored()[n])
	}
	return b.String()
}

// exampleOf is a value that makes a difference. A secret is never written into a
// pipeline.
func exampleOf(f plugin.Field) string {
	switch {
	case f.Secret && !f.List():
		return "{from_secret: " + strings.ToLower(variable(f.Name)) + "}"
	case f.Name == "auto-tag":
		return "true"
	}
	return f.Sample()
}

const documentationHead = `# Drone, Woodpecker and Harness

<!-- Made from the code: go test ./drone -update -->

` + "```yaml" + `
steps:
  - name: image
    image: ghcr.io/layerwright/layerwright:v1
    settings:
      repo: registry.example/org/app
      auto_tag: true
      username:
        from_secret: registry_username
      password:
        from_secret: registry_password
` + "```" + `

This is a whole .drone.yml, but for the line ` + "`kind: pipeline`" + ` and a name; examples/drone and
examples/woodpecker have more to copy: tags, cache, secrets, several registries, a
monorepo.

The settings are those of drone-docker and drone-kaniko, with hyphens or underscores. A
pipeline of theirs (plugins/docker, plugins/ecr, plugins/gcr, plugins/gar, plugins/acr,
plugins/kaniko, plugins/kaniko-ecr and so on) needs another ` + "`image`" + ` and nothing else,
and no ` + "`privileged`" + `: which cloud is meant is seen by the registry.

` + "`auto_tag`" + ` makes drone-docker's tags: 1, 1.2 and 1.2.3 of the git tag v1.2.3 (of 0.1.2
no bare 0, of 1.2.3-rc.1 only itself), latest on the default branch. On other branches
nothing is built unless there are ` + "`tags`" + ` too; a git tag that is no version is an error.
Without tags the file ` + "`.tags`" + ` is read, and without that the tag is latest.

Lists are lists of YAML, or separated by commas, or JSON. Drone joins them with commas
and escapes nothing: a part of build_args or labels without "=" belongs to the value
before it. Maps of YAML arrive as JSON, and are KEY=VALUE. ` + "`secrets`" + ` are ID=VALUE, or docker's
` + "`id=ID,env=VARIABLE`" + ` and ` + "`id=ID,src=FILE`" + `. A proxy in the step's variables (` + "`HTTP_PROXY`" + ` and its
like) is a build argument, too, as in drone-docker.

Settings that are unknown are named in the log, with the nearest known name; known ones
that do nothing here, with the reason. Values are never given to a shell.

## Registries of clouds

Keys are settings; the registry's name says which cloud it is, and is put before
` + "`repo`" + ` and ` + "`cache_repo`" + ` where it is missing there. ` + "`username`" + ` and ` + "`password`" + ` beside such keys are
the login at the registry of base images.

| registry | settings |
|---|---|
| ECR | ` + "`registry: ACCOUNT.dkr.ecr.REGION.amazonaws.com`" + `, ` + "`access_key`" + ` and ` + "`secret_key`" + `, or the runner's own role; ` + "`assume_role`" + ` (` + "`external_id`" + `), also with ` + "`oidc_token_id`" + `; ` + "`create_repository`" + `, ` + "`lifecycle_policy`" + `, ` + "`repository_policy`" + `, ` + "`scan_on_push`" + ` |
| GCR, Artifact Registry | ` + "`registry`" + ` (gcr.io where there is none) or ` + "`location`" + `; ` + "`json_key`" + `, or ` + "`oidc_token_id`" + ` with ` + "`project_number`" + `, ` + "`pool_id`" + `, ` + "`provider_id`" + ` and ` + "`service_account_email`" + `, or the runner's own service account |
| ACR | ` + "`registry: NAME.azurecr.io`" + `; ` + "`client_id`" + ` and ` + "`tenant_id`" + ` with ` + "`client_secret`" + `, ` + "`client_certificate`" + ` or ` + "`oidc_token_id`" + `, also without PLUGIN_; or the runner's managed identity |

## What comes back

A card, where Drone has a place for one (` + "`DRONE_CARD_PATH`" + `): image, tags, digest, time and
cache, or what is wrong: all mistakes in the settings at once. Its form is
[card.json](../drone/card.json).

For later steps of Harness ` + "`DRONE_OUTPUT`" + ` (or ` + "`HARNESS_OUTPUT_FILE`" + `) gets digest, imageid,
image, tags and, with ` + "`tar_path`" + `, IMAGE_TAR_PATH. ` + "`artifact_file`" + ` gets the images that were
pushed, for the tab Artifacts.

Exit codes are those of the command line: 2 for settings, 1 for a failing step, 3 for a
registry.

## Settings

| Setting | What it does | Default | Example |
|---|---|---|---|
`
