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
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code(strings.ToLower(variable(f.Name))), help, code(def), code(f.Example))
	}
	b.WriteString("\n## Further settings of Drone's plugins\n\n| Setting | What it does |\n|---|---|\n")
	for _, n := range slices.Sorted(maps.Keys(special())) {
		fmt.Fprintf(&b, "| %s | %s |\n", code(strings.ToLower(n)), special()[n])
	}
	b.WriteString("\n## Settings without effect\n\n| Setting | Why |\n|---|---|\n")
	for _, n := range slices.Sorted(maps.Keys(ignored())) {
		fmt.Fprintf(&b, "| %s | %s |\n", code(strings.ToLower(n)), ignored()[n])
	}
	return b.String()
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

The settings are those of drone-docker and drone-kaniko, with hyphens or
underscores. ` + "`auto_tag`" + ` makes drone-docker's tags: 1, 1.2 and 1.2.3 of the git tag
v1.2.3, latest on the default branch, and on other branches nothing is built unless
there are ` + "`tags`" + ` too. Without tags the file ` + "`.tags`" + ` is read, and without that the
tag is latest.

Lists are lists of YAML, or separated by commas. Drone joins them with commas and
escapes nothing: a part of build_args or labels without "=" belongs to the value
before it.

What the build made goes to DRONE_OUTPUT (digest, imageid, image, tags) where there
is one, as in Harness, and to the file that ` + "`artifact_file`" + ` names.

## Settings

| Setting | What it does | Default | Example |
|---|---|---|---|
`
