package drone

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/joho/godotenv"

	"github.com/layerwright/layerwright/plugin"
	"github.com/layerwright/layerwright/plugin/syntax"
	"github.com/layerwright/layerwright/plugin/tags"
)

// reading is what Read collects.
type reading struct {
	given  map[string]string
	values plugin.Values
	facts  plugin.Facts
}

// set gives a setting values; name is the variable that they come from.
func (r *reading) set(setting, name string, list ...string) {
	r.values[setting] = plugin.Given{Values: list, Source: "setting " + strings.ToLower(name)}
}

func (r *reading) first(setting string) string {
	if list := r.values[setting].Values; len(list) > 0 {
		return list[0]
	}
	return ""
}

// Read implements plugin.Adapter.
func (a *adapter) Read() (plugin.Values, plugin.Facts, plugin.Host) {
	problems := map[string]error{}
	a.env = a.job.Env
	a.envFile(problems)
	r := &reading{given: settings(a.env), values: plugin.Values{}}
	a.bare(r.given)
	a.own = parseOwn(r.given, problems)
	r.facts = a.facts()
	r.facts.Problems = problems
	used := r.read()
	if _, named := r.values["file"]; !named {
		// Drone's plugins look into the working directory first, whatever the
		// context is: a name does so, none means the context's.
		r.values["file"] = plugin.Given{Values: []string{"Dockerfile"}, Source: "as in Drone's plugins"}
	}
	a.pushing(r)
	a.arguments(r)
	a.tagging(r)
	a.names(r)
	a.logins(r)
	a.notice(r, used)
	r.facts.Notices = a.notices
	return r.values, r.facts, plugin.Host{Spell: r.spell, Env: a.env, ReadFile: a.job.ReadFile, Glob: a.job.Glob}
}

// envFile adds the variables of that file to those that are not set.
func (a *adapter) envFile(problems map[string]error) {
	name := settings(a.env)["ENV_FILE"]
	if name == "" {
		return
	}
	data, err := a.job.ReadFile(name)
	if err != nil {
		problems["env_file"] = fmt.Errorf("read %s: %w", name, err)
		return
	}
	more, err := godotenv.UnmarshalBytes(data)
	if err != nil {
		problems["env_file"] = fmt.Errorf("%s has a line that is not KEY=VALUE", name) // the library's error has the line
		return
	}
	maps.Copy(more, a.env)
	a.env = more
}

// bare adds variables that count without PLUGIN_.
func (a *adapter) bare(given map[string]string) {
	cloud := a.cloud(given)
	for _, b := range bare() {
		if given[b.setting] != "" || b.cloud != "" && b.cloud != cloud {
			continue
		}
		for _, name := range strings.Fields(b.variables) {
			if v := a.env[name]; v != "" && given[b.setting] == "" {
				given[b.setting] = v
			}
		}
	}
}

// read takes the neutral settings, and says which variables it has used.
func (r *reading) read() map[string]bool {
	used := map[string]bool{}
	for _, f := range plugin.Fields() {
		for _, name := range append([]string{variable(f.Name)}, names()[f.Name]...) {
			used[name] = true
			text, ok := r.given[name]
			if _, set := r.values[f.Name]; !ok || set {
				continue
			}
			if !f.List() {
				r.set(f.Name, name, text)
				continue
			}
			list, err := split(f.Name, text)
			if err != nil {
				r.facts.Problems[strings.ToLower(name)] = err
			}
			r.set(f.Name, name, list...)
		}
	}
	return used
}

// pushing is whether, and what, is pushed.
func (a *adapter) pushing(r *reading) {
	for name, off := range map[string]bool{"NO_PUSH": a.own.NoPush, "DRY_RUN": a.own.DryRun} {
		if r.given[name] != "" && (off || r.first("push") == "") {
			r.set("push", name, strconv.FormatBool(!off))
		}
	}
	switch {
	case a.own.PushOnly && (a.own.NoPush || a.own.DryRun):
		r.facts.Problems["push_only"] = errors.New("it cannot be used together with no_push or dry_run")
	case a.own.PushOnly && r.first("push-from") == "":
		r.facts.Problems["push_only"] = errors.New("source_tar_path is missing: there is nothing to push")
	case !a.own.PushOnly && r.first("push-from") != "" && r.values["push-from"].Source == "setting source_tar_path":
		delete(r.values, "push-from")
		a.notices = append(a.notices, "setting source_tar_path has no effect without push_only")
	}
	for name, why := range refused() {
		if r.given[name] != "" {
			r.facts.Problems[strings.ToLower(name)] = errors.New(why)
		}
	}
	if text := r.first("cache-ttl"); text != "" {
		if hours, err := strconv.Atoi(strings.TrimSpace(text)); err == nil { // drone-kaniko's are hours
			r.set("cache-ttl", "CACHE_TTL", (time.Duration(hours) * time.Hour).String())
		}
	}
	if on, err := strconv.ParseBool(r.first("cache")); err == nil && !on && r.first("cache-repo") != "" {
		delete(r.values, "cache-repo")
		a.notices = append(a.notices, "setting cache_repo has no effect: "+strings.TrimPrefix(r.values["cache"].Source, "setting ")+" is false")
	}
	// A truth value in drone-kaniko, a list of registries here.
	if on, err := strconv.ParseBool(r.first("skip-tls-verify-registries")); err == nil {
		delete(r.values, "skip-tls-verify-registries")
		if on {
			r.set("skip-tls-verify", "SKIP_TLS_VERIFY_REGISTRY", "true")
		}
	}
}

// arguments are build arguments, labels and secrets.
func (a *adapter) arguments(r *reading) {
	if many := a.own.BuildArgsNew; len(many) > 0 {
		switch args := r.values["build-args"].Values; {
		case a.own.MultipleBuildArgs || len(args) == 0:
			r.set("build-args", "BUILD_ARGS_NEW", many...)
		default:
			a.notices = append(a.notices, "setting build_args_new has no effect beside build_args, unless multiple_build_args is true")
		}
	}
	if names := a.own.BuildArgsFromEnv; len(names) > 0 {
		r.set("build-args", "BUILD_ARGS_FROM_ENV", append(slices.Clone(r.values["build-args"].Values), names...)...)
	}
	if labels := a.own.LabelSchema; len(labels) > 0 {
		all := slices.Clone(r.values["labels"].Values)
		for _, l := range labels {
			all = append(all, "org.opencontainers.image."+strings.TrimSpace(l))
		}
		r.set("labels", "LABEL_SCHEMA", all...)
	}
	if link := a.own.RepoLink; link != "" {
		r.facts.Project.URL = link
	}
	a.proxies(r)
	if text := a.own.Secret; text != "" {
		a.secret(r, "SECRET", text)
	}
	if list, ok := dockerForm(r.values["secrets"].Values); ok {
		delete(r.values, "secrets")
		for _, text := range list {
			a.secret(r, "SECRETS", text)
		}
	}
}

// secret adds one in docker's form.
func (a *adapter) secret(r *reading, name, text string) {
	s, err := syntax.DockerSecret(text, a.env)
	setting, value := "secret-files", s.ID+"="+s.File
	if s.Variable != "" {
		setting, value = "secret-envs", s.ID+"="+s.Variable
	}
	if err != nil {
		r.facts.Problems[strings.ToLower(name)] = err
		return
	}
	r.set(setting, name, append(slices.Clone(r.values[setting].Values), value)...)
}

// dockerForm takes a list of secrets apart that are written as Woodpecker's plugin for
// docker has them: id=ID,src=FILE, also with a backslash before the comma.
func dockerForm(lines []string) (list []string, ok bool) {
	for _, line := range lines {
		line = strings.ReplaceAll(strings.TrimSpace(line), `\,`, ",")
		rest, isDocker := strings.CutPrefix(line, "id=")
		if !isDocker {
			return nil, false
		}
		for _, part := range strings.Split(rest, ",id=") {
			list = append(list, "id="+part)
		}
	}
	return list, len(list) > 0
}

// proxies are build arguments too where the step has them in its variables, as in
// drone-docker. Their passwords are hidden.
func (a *adapter) proxies(r *reading) {
	args := slices.Clone(r.values["build-args"].Values)
	before := len(args)
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		for _, n := range []string{name, strings.ToUpper(name)} {
			given := slices.ContainsFunc(args, func(arg string) bool { return arg == n || strings.HasPrefix(arg, n+"=") })
			if a.env[n] == "" || given {
				continue
			}
			args = append(args, n)
			for _, secret := range syntax.URLSecrets(a.env[n]) {
				r.facts.Secrets = append(r.facts.Secrets, string(secret))
			}
		}
	}
	if len(args) > before {
		source := cmp.Or(r.values["build-args"].Source, "the step's proxy")
		r.values["build-args"] = plugin.Given{Values: args, Source: source}
	}
}

// tagging is auto_tag, a truth value here, and the file with tags.
func (a *adapter) tagging(r *reading) {
	if auto := r.values["auto-tag"]; len(auto.Values) > 0 {
		switch on, err := strconv.ParseBool(auto.Values[0]); {
		case err == nil && on:
			auto.Values = []string{string(tags.Drone)}
			r.values["auto-tag"] = auto
			if expand, _ := strconv.ParseBool(r.first("expand-tags")); expand {
				r.facts.Problems["expand_tag"] = errors.New("it cannot be used together with auto_tag: it is for tags that are set")
			}
		case err == nil:
			delete(r.values, "auto-tag")
		}
	}
	if len(r.values["tags"].Values) > 0 {
		return
	}
	name := a.own.TagsFile
	if name == "" {
		name = ".tags"
	}
	data, err := a.job.ReadFile(name)
	if err != nil {
		if a.own.TagsFile != "" {
			r.facts.Problems["tags_file"] = fmt.Errorf("read %s: %w", name, err)
		}
		return
	}
	// Commas, spaces and lines separate.
	list := strings.FieldsFunc(string(data), func(c rune) bool { return strings.ContainsRune(", \t\r\n", c) })
	if len(list) > 0 {
		r.values["tags"] = plugin.Given{Values: list, Source: "file " + name}
	}
}

// notice says which settings have no effect.
func (a *adapter) notice(r *reading, used map[string]bool) {
	for _, s := range ownSettings() {
		used[s.name] = true
	}
	for _, n := range []string{"DOCKER_REGISTRY", "DOCKER_USERNAME", "DOCKER_PASSWORD"} {
		used[n] = true
	}
	for _, name := range slices.Sorted(maps.Keys(r.given)) {
		why, known := ignored()[name]
		_, isRefused := refused()[name]
		switch {
		case known:
			a.notices = append(a.notices, fmt.Sprintf("setting %s has no effect: %s", strings.ToLower(name), why))
		case used[name] || isRefused:
		default:
			text := "setting " + strings.ToLower(name) + " is unknown and has no effect"
			if near := nearest(name); near != "" {
				text += ": did you mean " + near + "?"
			}
			a.notices = append(a.notices, text)
		}
	}
}

// facts are Drone's variables, Woodpecker's where those are missing.
func (a *adapter) facts() plugin.Facts {
	of := func(names ...string) string {
		for _, n := range names {
			if a.env[n] != "" {
				return a.env[n]
			}
		}
		return ""
	}
	link := of("DRONE_REPO_LINK", "CI_REPO_URL")
	repo := of("DRONE_REPO", "CI_REPO")
	return plugin.Facts{
		Event: tags.Event{
			Name: of("DRONE_BUILD_EVENT", "CI_PIPELINE_EVENT", "DRONE_EVENT"), Ref: of("DRONE_COMMIT_REF", "CI_COMMIT_REF"), SHA: of("DRONE_COMMIT_SHA", "CI_COMMIT_SHA"),
			DefaultBranch: of("DRONE_REPO_BRANCH", "CI_REPO_DEFAULT_BRANCH"), BaseRef: of("DRONE_TARGET_BRANCH", "CI_COMMIT_TARGET_BRANCH"), Now: a.job.Now(),
		},
		Project: tags.Project{Title: repo[strings.LastIndex(repo, "/")+1:], URL: link, Source: link},
	}
}
