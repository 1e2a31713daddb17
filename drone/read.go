package drone

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/layerwright/layerwright/plugin"
	"github.com/layerwright/layerwright/plugin/tags"
)

// Read implements plugin.Adapter.
func (a *adapter) Read() (plugin.Values, plugin.Facts, plugin.Host) {
	given := settings(a.job.Env)
	values := plugin.Values{}
	used := map[string]bool{}
	for _, f := range plugin.Fields() {
		for _, name := range append([]string{variable(f.Name)}, names()[f.Name]...) {
			used[name] = true
			text, ok := given[name]
			if _, set := values[f.Name]; !ok || set {
				continue
			}
			list := []string{text}
			if f.List() {
				list = split(f.Name, text)
			}
			values[f.Name] = plugin.Given{Values: list, Source: "setting " + strings.ToLower(name)}
		}
	}
	if _, named := values["file"]; !named {
		// Drone's plugins look into the working directory first, whatever the
		// context is: a name does so, none means the context's.
		values["file"] = plugin.Given{Values: []string{"Dockerfile"}, Source: "as in Drone's plugins"}
	}
	facts := a.facts()
	a.special(given, values, &facts)
	for _, name := range slices.Sorted(maps.Keys(given)) {
		why, known := ignored()[name]
		_, isSpecial := special()[name]
		switch {
		case known:
			a.notices = append(a.notices, fmt.Sprintf("setting %s has no effect: %s", strings.ToLower(name), why))
		case used[name] || isSpecial:
		default:
			text := "setting " + strings.ToLower(name) + " is unknown and has no effect"
			if near := nearest(name); near != "" {
				text += ": did you mean " + near + "?"
			}
			a.notices = append(a.notices, text)
		}
	}
	facts.Notices = a.notices
	return values, facts, plugin.Host{Spell: spell, Env: a.job.Env, ReadFile: a.job.ReadFile, Glob: a.job.Glob}
}

// split takes a list apart. Drone joins lists with commas and escapes nothing, so
// that a part of build arguments or labels that is no KEY=VALUE belongs to the
// one before; a rule of tags has commas of its own and stands alone.
func split(setting, text string) (list []string) {
	var fromJSON []string
	if strings.HasPrefix(strings.TrimSpace(text), "[") && json.Unmarshal([]byte(text), &fromJSON) == nil {
		return fromJSON
	}
	for _, line := range strings.Split(text, "\n") {
		switch setting {
		case "tags":
			for i, rule := range strings.Split(","+line, ",type=") {
				if i > 0 {
					list = append(list, "type="+rule)
				} else {
					list = append(list, strings.Split(strings.Trim(rule, ","), ",")...)
				}
			}
		case "secrets", "outputs", "cache-from", "cache-to", "flavor":
			list = append(list, line)
		case "build-args", "labels", "annotations":
			for i, part := range strings.Split(line, ",") {
				if i > 0 && !strings.Contains(part, "=") {
					list[len(list)-1] += "," + part
				} else {
					list = append(list, part)
				}
			}
		default:
			list = append(list, strings.Split(line, ",")...)
		}
	}
	return list
}

// special carries out the settings of that table.
func (a *adapter) special(given map[string]string, values plugin.Values, facts *plugin.Facts) {
	set := func(setting, name string, list ...string) {
		values[setting] = plugin.Given{Values: list, Source: "setting " + strings.ToLower(name)}
	}
	for _, name := range []string{"NO_PUSH", "DRY_RUN"} {
		if off, err := strconv.ParseBool(given[name]); given[name] != "" {
			set("push", name, strconv.FormatBool(!off))
			if err != nil {
				set("push", name, given[name]) // where it is complained about
			}
		}
	}
	if text := given["BUILD_ARGS_NEW"]; text != "" {
		set("build-args", "BUILD_ARGS_NEW", append(values["build-args"].Values, strings.Split(text, ";")...)...)
	}
	if text := given["BUILD_ARGS_FROM_ENV"]; text != "" {
		set("build-args", "BUILD_ARGS_FROM_ENV", append(values["build-args"].Values, strings.Split(text, ",")...)...)
	}
	if text := first(values["cache-ttl"].Values); text != "" {
		if hours, err := strconv.Atoi(text); err == nil { // drone-kaniko's are hours
			set("cache-ttl", "CACHE_TTL", (time.Duration(hours) * time.Hour).String())
		}
	}
	if auto := values["auto-tag"]; len(auto.Values) > 0 {
		switch on, err := strconv.ParseBool(auto.Values[0]); {
		case err == nil && on:
			auto.Values = []string{string(tags.Drone)}
			values["auto-tag"] = auto
		case err == nil:
			delete(values, "auto-tag")
		}
	}
	if registry := first(values["registry"].Values); registry != "" && given["EXPAND_REPO"] == "true" {
		for i, repo := range values["images"].Values {
			if !strings.HasPrefix(repo, registry+"/") {
				values["images"].Values[i] = registry + "/" + repo
			}
		}
	}
	a.tagsFile(given, values, facts)
	for _, name := range []string{"CONFIG", "DOCKER_PLUGIN_CONFIG"} {
		if text := given[name]; text != "" {
			facts.AuthConfig = []byte(text)
		}
	}
	if text := given["LOGINS"]; text != "" {
		var list []plugin.Login
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			facts.Problems["logins"] = errors.New("not a JSON list of objects with registry, username and password")
		}
		facts.Logins = list
	}
}

// tagsFile reads .tags where no tags are set: commas, spaces and lines separate.
func (a *adapter) tagsFile(given map[string]string, values plugin.Values, facts *plugin.Facts) {
	if len(values["tags"].Values) > 0 {
		return
	}
	name := given["TAGS_FILE"]
	if name == "" {
		name = ".tags"
	}
	data, err := a.job.ReadFile(name)
	if err != nil {
		if given["TAGS_FILE"] != "" {
			facts.Problems["tags_file"] = fmt.Errorf("read %s: %w", name, err)
		}
		return
	}
	list := strings.FieldsFunc(string(data), func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
	if len(list) > 0 {
		values["tags"] = plugin.Given{Values: list, Source: "file " + name}
	}
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// facts are Drone's variables, or Woodpecker's where those are missing.
func (a *adapter) facts() plugin.Facts {
	env := a.job.Env
	of := func(names ...string) string {
		for _, n := range names {
			if env[n] != "" {
				return env[n]
			}
		}
		return ""
	}
	link := of("DRONE_REPO_LINK", "CI_REPO_URL")
	repo := of("DRONE_REPO", "CI_REPO")
	return plugin.Facts{
		Problems: map[string]error{},
		Event: tags.Event{
			Name: of("DRONE_BUILD_EVENT", "CI_PIPELINE_EVENT", "DRONE_EVENT"), Ref: of("DRONE_COMMIT_REF", "CI_COMMIT_REF"), SHA: of("DRONE_COMMIT_SHA", "CI_COMMIT_SHA"),
			DefaultBranch: of("DRONE_REPO_BRANCH", "CI_REPO_DEFAULT_BRANCH"), BaseRef: of("DRONE_TARGET_BRANCH", "CI_COMMIT_TARGET_BRANCH"), Now: a.job.Now(),
		},
		Project: tags.Project{Title: repo[strings.LastIndex(repo, "/")+1:], URL: link, Source: link},
	}
}
