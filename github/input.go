package github

import (
	"maps"
	"slices"
	"strings"

	"github.com/layerwright/layerwright/plugin"
	"github.com/layerwright/layerwright/plugin/syntax"
)

// Input is one input of action.yml.
type Input struct {
	Name, Help, Default, Example string
	// Setting is the neutral setting that the input sets; empty where it sets
	// several, or has no effect, and Help says why.
	Setting string
	// Alias says that Setting has an input of its own name, which comes first.
	Alias bool
}

// defaults are those that differ from the neutral ones: build-push-action pushes
// only when told, and metadata-action's rules hold when only images are named.
func defaults() map[string]string {
	return map[string]string{
		"push": "false", "auto-tag": "metadata", "context": "", "docker-config": "",
		"github-token": "${{ github.token }}", "registry": "",
	}
}

// helps are those that say more on this host.
func helps() map[string]string {
	return map[string]string{
		"context":       "build context; without it the workspace, and where nothing is checked out the repository at the commit",
		"github-token":  "token for a context that is a git repository, and to log in to ghcr.io when there is no password",
		"registry":      "registry that username and password are for; that of the first image by default",
		"oidc-token":    "token of the CI that a cloud takes instead of a key; a job with the permission id-token: write needs none, and gets one",
		"docker-config": "directory of config.json with further credentials; see the documentation for docker/login-action",
	}
}

// exampleOf is a value that makes a difference. A secret is never written into a
// workflow.
func exampleOf(f plugin.Field) string {
	switch {
	case f.Secret && !f.List():
		return "${{ secrets." + strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(f.Name, "github-"), "-", "_")) + " }}"
	case f.Name == "secrets":
		return "token=${{ secrets.API_TOKEN }}"
	case f.Name == "push":
		return "true"
	case f.Name == "auto-tag":
		return "drone"
	case f.Name == "docker-config":
		return "${{ github.workspace }}/.docker"
	}
	return f.Sample()
}

// kanikoInput is int128/kaniko-action's for flags of Kaniko.
const kanikoInput = "kaniko-args"

// Inputs are all inputs, in the order of the documentation: one for each setting,
// then other names for settings, then those without effect.
func Inputs() []Input {
	var list []Input
	for _, f := range plugin.Fields() {
		in := Input{Name: f.Name, Help: f.Help, Default: f.Default, Example: exampleOf(f), Setting: f.Name}
		if d, ok := defaults()[f.Name]; ok {
			in.Default = d
		}
		if h, ok := helps()[f.Name]; ok {
			in.Help = h
		}
		list = append(list, in)
	}
	for _, a := range [][2]string{ // int128/kaniko-action's and other habits
		{"cache-repository", "cache-repo"}, {"registry-mirror", "registry-mirrors"}, {"dockerfile", "file"}, {"insecure-registry", "insecure-registries"},
	} {
		of := list[slices.IndexFunc(list, func(in Input) bool { return in.Name == a[1] })]
		list = append(list, Input{Name: a[0], Help: "another name of " + a[1], Default: of.Default, Example: of.Example, Setting: a[1], Alias: true})
	}
	list = append(list, Input{Name: kanikoInput, Help: "flags of Kaniko, one a line, for which there is an input", Example: "--single-snapshot"})
	for _, n := range [][2]string{
		{"builder", "there is no builder to choose"},
		{"pull", "base images are always resolved anew"},
		{"allow", "steps have no entitlements to ask for"},
		{"call", "an action always builds"},
		{"executor", "there is no executor image: this action is the builder"},
		{"sep-tags", "outputs are lines"}, {"sep-labels", "outputs are lines"}, {"sep-annotations", "outputs are lines"},
		{"bake-target", "no bake file is written"},
	} {
		list = append(list, Input{Name: n[0], Help: "has no effect: " + n[1]})
	}
	return list
}

// values reads the inputs. Those that have no effect but are set are returned as
// notices.
func (a *adapter) values() (values plugin.Values, notices []string) {
	values, a.problems = plugin.Values{}, map[string]error{}
	lists := map[string]bool{}
	for _, f := range plugin.Fields() {
		lists[f.Name] = f.List()
	}
	for _, in := range Inputs() {
		text := a.action.GetInput(in.Name)
		source := "input " + in.Name
		if text == "" && in.Default != "" && !in.Alias && !strings.HasPrefix(in.Default, "${{") && in.Setting != "" {
			text, source = in.Default, "default"
		}
		switch {
		case text == "":
		case in.Name == kanikoInput:
			more, err := kanikoArgs(lines(text), values)
			if notices = append(notices, more...); err != nil {
				a.problems[in.Name] = err
			}
		case in.Setting == "":
			notices = append(notices, "input "+in.Name+" "+in.Help)
		case in.Alias && values[in.Setting].Source != "" && values[in.Setting].Source != "default":
			notices = append(notices, "input "+in.Name+" has no effect beside "+in.Setting)
		case lists[in.Setting]:
			values[in.Setting] = plugin.Given{Values: lines(text), Source: source}
		default:
			values[in.Setting] = plugin.Given{Values: []string{text}, Source: source}
		}
	}
	notices = append(notices, unknown(a.job.Env)...)
	// docker/metadata-action's variable.
	if text := a.job.Env["DOCKER_METADATA_SHORT_SHA_LENGTH"]; text != "" && values["short-sha-length"].Source == "default" {
		values["short-sha-length"] = plugin.Given{Values: []string{text}, Source: "DOCKER_METADATA_SHORT_SHA_LENGTH"}
	}
	return values, notices
}

// unknown says which inputs there are not. GitHub does so itself, where action.yml is
// read; with uses: docker://… and on other servers nobody does.
func unknown(env map[string]string) (notices []string) {
	known := []string{"args", "entrypoint"} // of uses: docker://
	for _, in := range Inputs() {
		known = append(known, in.Name)
	}
	for _, variable := range slices.Sorted(maps.Keys(env)) {
		name, ok := strings.CutPrefix(variable, "INPUT_")
		if name = strings.ToLower(name); !ok || env[variable] == "" || slices.Contains(known, name) {
			continue
		}
		text := "input " + name + " is unknown and has no effect"
		if near := syntax.Nearest(name, known); near != "" {
			text += ": did you mean " + near + "?"
		}
		notices = append(notices, text)
	}
	return notices
}

// lines splits a list as docker's actions do: one value a line, but for a value
// in double quotes, which ends with its closing quote and has "" for a quote.
func lines(text string) (list []string) {
	for text != "" {
		line, rest, _ := strings.Cut(text, "\n")
		if trimmed := strings.TrimSpace(line); strings.HasPrefix(trimmed, `"`) {
			if value, after, ok := quoted(strings.TrimLeft(text, " \t")); ok {
				list, text = append(list, value), after
				continue
			}
		}
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, line)
		}
		text = rest
	}
	return list
}

// quoted reads a value that starts with a quote; it must end its line.
func quoted(text string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] != '"':
			b.WriteByte(text[i])
		case strings.HasPrefix(text[i:], `""`):
			b.WriteByte('"')
			i++
		default:
			line, rest, _ := strings.Cut(text[i+1:], "\n")
			return b.String(), rest, strings.TrimSpace(line) == ""
		}
	}
	return "", "", false
}
