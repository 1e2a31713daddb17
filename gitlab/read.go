package gitlab

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/layerwright/layerwright/plugin"
	"github.com/layerwright/layerwright/plugin/syntax"
	"github.com/layerwright/layerwright/plugin/tags"
)

// defaults are those that the job's own variables give, by setting: the values
// and where they are from.
func defaults(env map[string]string) plugin.Values {
	values := plugin.Values{"auto-tag": {Values: []string{string(tags.GitLab)}, Source: "default"}}
	from := func(setting, name string) {
		if v := env[name]; v != "" {
			values[setting] = plugin.Given{Values: []string{v}, Source: name}
		}
	}
	from("context", "CI_PROJECT_DIR")
	from("images", "CI_REGISTRY_IMAGE")
	if host, file := env["CI_REGISTRY"], env["CI_SERVER_TLS_CA_FILE"]; host != "" && file != "" {
		values["registry-certificates"] = plugin.Given{Values: []string{host + "=" + file}, Source: "CI_SERVER_TLS_CA_FILE"}
	}
	// The proxy wants a login; without one the prefix is of no use.
	if env["CI_DEPENDENCY_PROXY_PASSWORD"] != "" {
		from("registry-mirrors", "CI_DEPENDENCY_PROXY_GROUP_IMAGE_PREFIX")
	}
	return values
}

// Read implements plugin.Adapter.
func (a *adapter) Read() (plugin.Values, plugin.Facts, plugin.Host) {
	env := a.job.Env
	values := defaults(env)
	for _, f := range plugin.Fields() {
		for _, name := range append([]string{variable(f.Name)}, aliases()[f.Name]...) {
			text := env[name]
			if strings.TrimSpace(text) == "" {
				continue
			}
			list := []string{text}
			if f.List() {
				list = strings.Split(text, "\n")
			}
			values[f.Name] = plugin.Given{Values: list, Source: name}
			break
		}
	}
	a.problems = map[string]error{}
	a.unknown()
	commandLines(env, values, a.problems)
	continuous(env, values, a.problems)
	// Whole references take the place of the project's image.
	if t, i := values["tags"], values["images"]; i.Source == "CI_REGISTRY_IMAGE" && strings.ContainsAny(strings.Join(t.Values, ""), "/") && t.Source != "" {
		delete(values, "images")
		delete(values, "auto-tag")
	}
	return values, a.facts(), plugin.Host{Spell: variable, Env: env, ReadFile: a.job.ReadFile, Glob: a.job.Glob,
		NoToken: "the job gets a token in a variable with id_tokens:, and " + variable("oidc-token") + " takes it"}
}

// unknown says which variables look like settings and are none.
func (a *adapter) unknown() {
	a.notices = nil
	known := []string{"LAYERWRIGHT_HOST", "LAYERWRIGHT_STORE"} // the program's own
	for _, f := range plugin.Fields() {
		known = append(known, variable(f.Name))
	}
	for _, name := range slices.Sorted(maps.Keys(a.job.Env)) {
		if !strings.HasPrefix(name, prefix) || slices.Contains(known, name) {
			continue
		}
		text := "variable " + name + " is unknown and has no effect"
		if near := syntax.Nearest(name, known); near != "" {
			text += ": did you mean " + near + "?"
		}
		a.notices = append(a.notices, text)
	}
}

// facts are the event, the project and the job's own credentials.
func (a *adapter) facts() plugin.Facts {
	env := a.job.Env
	e := tags.Event{
		Name: "push", SHA: env["CI_COMMIT_SHA"], DefaultBranch: env["CI_DEFAULT_BRANCH"], Now: a.job.Now(),
	}
	switch {
	case env["CI_COMMIT_TAG"] != "":
		e.Ref = "refs/tags/" + env["CI_COMMIT_TAG"]
	case env["CI_MERGE_REQUEST_IID"] != "":
		e.Name, e.Ref = "pull_request", "refs/pull/"+env["CI_MERGE_REQUEST_IID"]+"/merge"
		e.Head, e.BaseRef = env["CI_MERGE_REQUEST_SOURCE_BRANCH_NAME"], env["CI_MERGE_REQUEST_TARGET_BRANCH_NAME"]
		if e.Head == "" {
			e.Head = env["CI_COMMIT_REF_NAME"]
		}
	case env["CI_COMMIT_REF_NAME"] != "":
		e.Ref = "refs/heads/" + env["CI_COMMIT_REF_NAME"]
	}
	if env["CI_PIPELINE_SOURCE"] == "schedule" {
		e.Name = "schedule"
	}
	if at, err := time.Parse(time.RFC3339, env["CI_COMMIT_TIMESTAMP"]); err == nil {
		e.CommitTime = at
	}
	f := plugin.Facts{
		Event:   e,
		Project: tags.Project{Title: env["CI_PROJECT_TITLE"], Description: env["CI_PROJECT_DESCRIPTION"], URL: env["CI_PROJECT_URL"], Source: env["CI_PROJECT_URL"]},
	}
	f.Problems, f.Notices = a.problems, a.notices
	f.Logins = continuousLogins(env)
	if text := strings.TrimSpace(env["DOCKER_AUTH_CONFIG"]); strings.HasPrefix(text, "{") && !json.Valid([]byte(text)) {
		f.Problems["docker-config"] = errors.New("DOCKER_AUTH_CONFIG is not JSON: write it as docker login does")
	}
	// The engine finds the job's logins in its variables.
	for _, name := range []string{"CI_REGISTRY_PASSWORD", "CI_DEPENDENCY_PROXY_PASSWORD", "CI_JOB_TOKEN"} {
		if env[name] != "" {
			f.Secrets = append(f.Secrets, env[name])
		}
	}
	return f
}
