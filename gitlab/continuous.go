package gitlab

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"

	"github.com/layerwright/layerwright/plugin"
)

// The variables of to-be-continuous' Docker template (to-be-continuous.gitlab.io/doc/ref/docker).

// aliases are those that are simply a setting by another name.
func aliases() map[string][]string {
	return map[string][]string{
		"file": {"DOCKER_FILE"}, "context": {"DOCKER_CONTEXT_PATH"}, "registry-mirrors": {"DOCKER_REGISTRY_MIRROR"},
		"cache-repo": {"DOCKER_BUILD_CACHE_LOCATION", "KANIKO_SNAPSHOT_IMAGE_CACHE"}, // the latter before 7.1
		"no-cache":   {"DOCKER_BUILD_CACHE_DISABLED"},
	}
}

// further are the other ones, by the setting that they make.
func further() map[string][]string {
	return map[string][]string{
		"tags": {"DOCKER_SNAPSHOT_IMAGE", "DOCKER_RELEASE_IMAGE", "DOCKER_RELEASE_EXTRA_TAGS"}, "build-args": {"DOCKER_BUILD_ARGS"}, "labels": {"DOCKER_METADATA"},
	}
}

// versions is the template's own DOCKER_RELEASE_EXTRA_TAGS_PATTERN.
const versions = `^v?(?P<major>[0-9]+)\.(?P<minor>[0-9]+)\.(?P<patch>[0-9]+)(?P<suffix>(?P<prerelease>-[0-9A-Za-z-\.]+)?(?P<build>\+[0-9A-Za-z-\.]+)?)$`

// continuous takes the template's images: the snapshot always, the release beside it
// where the template publishes one, which is for git tags and, with
// DOCKER_PROD_PUBLISH_STRATEGY=auto, for the default branch.
func continuous(env map[string]string, values plugin.Values, problems map[string]error) {
	var list, from []string
	if s := strings.TrimSpace(env["DOCKER_SNAPSHOT_IMAGE"]); s != "" {
		list, from = append(list, normal(s)), append(from, "DOCKER_SNAPSHOT_IMAGE")
	}
	branch := env["DOCKER_PROD_PUBLISH_STRATEGY"] == "auto" && env["CI_COMMIT_BRANCH"] != "" && env["CI_COMMIT_BRANCH"] == env["CI_DEFAULT_BRANCH"]
	if s := strings.TrimSpace(env["DOCKER_RELEASE_IMAGE"]); s != "" && (env["CI_COMMIT_TAG"] != "" || branch) {
		release := normal(s)
		more, err := extraTags(release, env["DOCKER_RELEASE_EXTRA_TAGS_PATTERN"], env["DOCKER_RELEASE_EXTRA_TAGS"])
		if err != nil {
			problems["tags"] = err
		}
		list, from = append(append(list, release), more...), append(from, "DOCKER_RELEASE_IMAGE")
	}
	if len(list) > 0 && values["tags"].Source == "" {
		values["tags"] = plugin.Given{Values: list, Source: strings.Join(from, ", ")}
	}
}

var (
	notInTag = regexp.MustCompile(`[^\w.-]+`)
	// group is a reference in DOCKER_RELEASE_EXTRA_TAGS, as Python has it.
	group = regexp.MustCompile(`\\(?:g<(\w+)>|(\d))`)
)

// normal is an image with a "-" for what a tag cannot have, as the template makes of
// CI_COMMIT_REF_NAME.
func normal(image string) string {
	host, rest, ok := strings.Cut(image, "/")
	if !ok {
		host, rest = "", image
	} else {
		host += "/"
	}
	name, tag, ok := strings.Cut(rest, ":")
	if !ok {
		return image
	}
	return host + name + ":" + notInTag.ReplaceAllString(tag, "-")
}

// extraTags are further ones of a release whose tag matches the pattern.
func extraTags(release, pattern, extra string) (list []string, err error) {
	if strings.TrimSpace(pattern) == "" {
		pattern = versions
	}
	at := strings.LastIndex(release, ":")
	if extra = strings.TrimSpace(extra); extra == "" || at < strings.LastIndex(release, "/") {
		return nil, nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("DOCKER_RELEASE_EXTRA_TAGS_PATTERN: %w", err)
	}
	tag := release[at+1:]
	match := re.FindStringSubmatchIndex(tag)
	if match == nil {
		return nil, nil
	}
	for _, word := range strings.Fields(extra) {
		template := group.ReplaceAllString(strings.ReplaceAll(word, "$", "$$"), "$${$1$2}")
		if extended := notInTag.ReplaceAllString(string(re.ExpandString(nil, template, tag, match)), "-"); extended != "" {
			list = append(list, release[:at+1]+extended)
		}
	}
	return list, nil
}

// continuousLogins are those at the registries of the template's images.
func continuousLogins(env map[string]string) (list []plugin.Login) {
	for _, kind := range []string{"SNAPSHOT", "RELEASE"} {
		user, password := env["DOCKER_REGISTRY_"+kind+"_USER"], env["DOCKER_REGISTRY_"+kind+"_PASSWORD"]
		if user == "" {
			user, password = env["DOCKER_REGISTRY_USER"], env["DOCKER_REGISTRY_PASSWORD"]
		}
		named, err := reference.ParseNormalizedNamed(normal(strings.TrimSpace(env["DOCKER_"+kind+"_IMAGE"])))
		if err == nil && user != "" && password != "" {
			list = append(list, plugin.Login{Registry: reference.Domain(named), Username: user, Password: password})
		}
	}
	return list
}

// commandLines reads the variables that are a piece of Kaniko's command line: build
// arguments and labels. Nothing is evaluated; what is anything else is an error, by
// setting.
func commandLines(env map[string]string, values plugin.Values, problems map[string]error) {
	for _, c := range []struct{ name, flag, setting string }{
		{"DOCKER_BUILD_ARGS", "--build-arg", "build-args"}, {"DOCKER_METADATA", "--label", "labels"},
	} {
		words := strings.Fields(env[c.name])
		if len(words) == 0 || env[variable(c.setting)] != "" {
			continue
		}
		var list []string
		for i := 0; i < len(words); i++ {
			word, ok := strings.CutPrefix(words[i], c.flag+"=")
			if !ok && words[i] == c.flag && i+1 < len(words) {
				i++
				word, ok = words[i], true
			}
			if !ok || strings.ContainsAny(word, "\"'\\") {
				problems[c.setting] = fmt.Errorf("of %s only %s NAME=VALUE is read, without quotes: set this variable instead, a line for each", c.name, c.flag)
				list = nil
				break
			}
			list = append(list, word)
		}
		if list != nil {
			values[c.setting] = plugin.Given{Values: list, Source: c.name}
		}
	}
}
