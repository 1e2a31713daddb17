package github

import (
	"bytes"
	"path"
	"sync"

	"github.com/sethvargo/go-githubactions"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin"
)

// CI is GitHub Actions, and what behaves like it (act, Gitea, Forgejo).
func CI() plugin.CI {
	return plugin.CI{
		Name:   "github",
		Detect: func(env map[string]string) bool { return env["GITHUB_ACTIONS"] == "true" },
		New:    func(j plugin.Job) plugin.Adapter { return newAdapter(j) },
	}
}

type adapter struct {
	job     plugin.Job
	action  *githubactions.Action
	context string
	file    string
	// token says that the job's own token is a login.
	token bool
	// notices are said at the end: after masks, and by the process that builds.
	notices []string
	// problems are mistakes that Read has found, by input.
	problems map[string]error

	mu       sync.Mutex
	steps    []step
	warnings []core.Notice
}

func newAdapter(j plugin.Job) *adapter {
	return &adapter{job: j, action: githubactions.New(
		githubactions.WithWriter(j.Stdout), githubactions.WithGetenv(func(k string) string { return j.Env[k] }))}
}

// Read implements plugin.Adapter.
func (a *adapter) Read() (plugin.Values, plugin.Facts, plugin.Host) {
	var values plugin.Values
	values, a.notices = a.values()
	a.contexts(values)
	a.context, a.file = first(values["context"].Values), first(values["file"].Values)
	facts := a.facts(values)
	a.token = len(facts.Logins) > 0
	host := plugin.Host{
		Spell: func(s string) string { return "input " + s }, Env: a.job.Env, ReadFile: a.job.ReadFile, Glob: a.job.Glob,
	}
	if a.job.Env["ACTIONS_ID_TOKEN_REQUEST_URL"] != "" { // only with the permission id-token: write
		host.Token = a.action.GetIDToken
	} else {
		host.NoToken = "the job gets a token with permissions: id-token: write, which stands in the workflow beside contents: read and what else it needs"
	}
	return values, facts, host
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// Hide implements plugin.Adapter. GitHub masks by lines.
func (a *adapter) Hide(secrets [][]byte) {
	seen := map[string]bool{}
	for _, s := range secrets {
		for _, line := range bytes.Split(s, []byte("\n")) {
			if text := string(bytes.TrimSpace(line)); len(text) > 3 && !seen[text] {
				seen[text] = true
				a.action.AddMask(text)
			}
		}
	}
}

// Emit implements core.Sink: it remembers steps for the summary and warnings for
// annotations.
func (a *adapter) Emit(e core.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch e := e.(type) {
	case core.Done:
		a.steps = append(a.steps, step{Done: e})
	case core.Notice:
		if e.Level == core.Warning {
			a.warnings = append(a.warnings, e)
		}
	}
}

// dockerfile is the Dockerfile's path in the repository, which annotations need:
// the engine knows it by its name in the context.
func (a *adapter) dockerfile(l *core.Location) string {
	file := a.file
	if file == "" {
		file = "Dockerfile"
	}
	if path.Base(file) != path.Base(l.File) {
		return l.File
	}
	if !a.job.Exists(file) && !core.IsRemote(a.context) {
		file = path.Join(a.context, file)
	}
	return path.Clean(file)
}
