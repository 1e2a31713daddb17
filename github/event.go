package github

import (
	"encoding/json"
	"path"
	"strconv"
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
		Head struct {
			SHA string `json:"sha"`
		} `json:"head"`
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
func (a *adapter) facts(values plugin.Values) plugin.Facts {
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
	sha := env["GITHUB_SHA"]
	if head, _ := strconv.ParseBool(env["DOCKER_METADATA_PR_HEAD_SHA"]); head && p.PullRequest.Head.SHA != "" {
		sha = p.PullRequest.Head.SHA // instead of the merge that GitHub has made
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
		Logins: a.ownLogin(values), Problems: a.problems,
		Event: tags.Event{
			Name: env["GITHUB_EVENT_NAME"], Ref: env["GITHUB_REF"], SHA: sha,
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

// checkedOut says whether there is something to build in the workspace. That it is
// not empty does not say that: a login or an artifact may be there.
func (a *adapter) checkedOut(values plugin.Values) bool {
	file := first(values["file"].Values)
	return a.job.Exists(".git") || file != "" && a.job.Exists(file)
}

// contexts fills in what an empty context and {{defaultContext}} stand for.
func (a *adapter) contexts(values plugin.Values) {
	if len(values["context"].Values) == 0 {
		if a.checkedOut(values) {
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

// ownLogin is the job's token as a login for GitHub's registry, where an image or
// the cache is there and nothing else was given for it. Another server's token
// (Gitea's, GitHub Enterprise's) is none of that registry's business.
func (a *adapter) ownLogin(values plugin.Values) (list []plugin.Login) {
	token, server := first(values["github-token"].Values), a.job.Env["GITHUB_SERVER_URL"]
	if token == "" || server != "" && server != "https://github.com" || a.loggedIn(values) {
		return nil
	}
	if len(values["password"].Values) > 0 && first(values["registry"].Values) == containerRegistry {
		return nil
	}
	for _, name := range []string{"images", "tags", "outputs", "cache-repo", "cache-from", "cache-to"} {
		if strings.Contains(strings.ToLower(strings.Join(values[name].Values, "\n")), containerRegistry+"/") {
			return []plugin.Login{{Registry: containerRegistry, Username: a.job.Env["GITHUB_ACTOR"], Password: token}}
		}
	}
	return nil
}

// loggedIn says whether a config.json, as docker/login-action writes it, knows
// GitHub's registry. That DOCKER_CONFIG is set says nothing: our image does it.
func (a *adapter) loggedIn(values plugin.Values) bool {
	env := a.job.Env
	for _, place := range []string{first(values["docker-config"].Values), env["DOCKER_CONFIG"], path.Join(env["HOME"], ".docker")} {
		data, err := a.job.ReadFile(path.Join(place, "config.json"))
		if err != nil || place == "" {
			data, err = a.job.ReadFile(place)
		}
		var conf struct {
			Auths       map[string]any    `json:"auths"`
			CredHelpers map[string]string `json:"credHelpers"`
		}
		if err != nil || json.Unmarshal(data, &conf) != nil {
			continue
		}
		if conf.Auths[containerRegistry] != nil || conf.CredHelpers[containerRegistry] != "" {
			return true
		}
	}
	return false
}
