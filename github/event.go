package github

import (
	"encoding/json"
	"path"
	"strings"
	"time"

	"github.com/layerwright/layerwright/plugin"
	"github.com/layerwright/layerwright/plugin/tags"
)

// payload is what is used of the event's file (docs.github.com, "Webhook events
// and payloads").
type payload struct {
	BaseRef    string `json:"base_ref"`
	HeadCommit struct {
		Timestamp time.Time `json:"timestamp"`
	} `json:"head_commit"`
	PullRequest struct {
		Base struct {
			Ref string `json:"ref"`
		} `json:"base"`
	} `json:"pull_request"`
	Repository struct {
		Name          string `json:"name"`
		Description   string `json:"description"`
		HTMLURL       string `json:"html_url"`
		DefaultBranch string `json:"default_branch"`
		License       struct {
			SPDX string `json:"spdx_id"`
		} `json:"license"`
	} `json:"repository"`
}

// facts are what is known of the event. A payload that cannot be read leaves
// things open; the variables say what matters.
func (a *adapter) facts() plugin.Facts {
	env := a.job.Env
	var p payload
	if data, err := a.job.ReadFile(env["GITHUB_EVENT_PATH"]); err == nil {
		_ = json.Unmarshal(data, &p)
	}
	base := p.PullRequest.Base.Ref
	if base == "" {
		base = strings.TrimPrefix(p.BaseRef, "refs/heads/")
	}
	if base == "" {
		base = env["GITHUB_BASE_REF"]
	}
	url := p.Repository.HTMLURL
	if url == "" && env["GITHUB_REPOSITORY"] != "" {
		url = env["GITHUB_SERVER_URL"] + "/" + env["GITHUB_REPOSITORY"]
	}
	name := p.Repository.Name
	if name == "" {
		name = env["GITHUB_REPOSITORY"][strings.LastIndex(env["GITHUB_REPOSITORY"], "/")+1:]
	}
	license := p.Repository.License.SPDX
	if license == "NOASSERTION" {
		license = ""
	}
	return plugin.Facts{
		Event: tags.Event{
			Name: env["GITHUB_EVENT_NAME"], Ref: env["GITHUB_REF"], SHA: env["GITHUB_SHA"],
			DefaultBranch: p.Repository.DefaultBranch, BaseRef: base, Now: a.job.Now(), CommitTime: p.HeadCommit.Timestamp,
		},
		Project: tags.Project{Title: name, Description: p.Repository.Description, URL: url, Source: url, Licenses: license},
	}
}

// repositoryContext is the repository at the commit, as build-push-action has it.
func (a *adapter) repositoryContext() string {
	env := a.job.Env
	return env["GITHUB_SERVER_URL"] + "/" + env["GITHUB_REPOSITORY"] + ".git#" + env["GITHUB_SHA"]
}

// defaultContext is how docker's actions let users name it.
const defaultContext = "{{defaultContext}}"

// contexts fills in what an empty context and {{defaultContext}} stand for.
func (a *adapter) contexts(values plugin.Values) {
	if len(values["context"].Values) == 0 {
		if a.job.Exists(".") {
			values["context"] = plugin.Given{Values: []string{"."}, Source: "the workspace"}
		} else if a.job.Env["GITHUB_REPOSITORY"] != "" {
			values["context"] = plugin.Given{Values: []string{a.repositoryContext()}, Source: "the repository, since nothing is checked out"}
		}
	}
	for _, name := range []string{"context", "build-contexts"} {
		for i, v := range values[name].Values {
			values[name].Values[i] = strings.ReplaceAll(v, defaultContext, a.repositoryContext())
		}
	}
}

// containerRegistry is GitHub's own.
const containerRegistry = "ghcr.io"

// loggedIn says whether there is a config.json at DOCKER_CONFIG, as login-action
// writes it. The variable alone says nothing: our image sets it.
func (a *adapter) loggedIn() bool {
	dir := a.job.Env["DOCKER_CONFIG"]
	return dir != "" && a.job.Exists(path.Join(dir, "config.json"))
}

// logIn makes the job's token the password of GitHub's registry where an image
// goes there and nothing else was given.
func (a *adapter) logIn(values plugin.Values) {
	token := values["github-token"]
	if len(token.Values) == 0 || len(values["password"].Values) > 0 || len(values["username"].Values) > 0 || a.loggedIn() || len(values["docker-config"].Values) > 0 {
		return
	}
	if r := values["registry"].Values; len(r) > 0 && r[0] != containerRegistry {
		return
	}
	for _, name := range []string{"images", "tags"} {
		if strings.Contains(strings.ToLower(strings.Join(values[name].Values, "\n")), containerRegistry+"/") {
			values["registry"] = plugin.Given{Values: []string{containerRegistry}, Source: "an image goes there"}
			values["username"] = plugin.Given{Values: []string{a.job.Env["GITHUB_ACTOR"]}, Source: "GITHUB_ACTOR"}
			values["password"] = plugin.Given{Values: token.Values, Source: token.Source}
			return
		}
	}
}
