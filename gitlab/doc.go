// Package gitlab is the adapter for GitLab CI: the job's predefined variables and
// LAYERWRIGHT_* become plugin.Values and plugin.Facts, the build's end becomes a
// dotenv file and a Code Quality report. It decides nothing about the build, and
// reads only what plugin.Job hands it.
package gitlab

import (
	"path"
	"strings"
	"sync"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin"
)

// CI is GitLab, and gitlab-ci-local, which sets GITLAB_CI=false.
func CI() plugin.CI {
	return plugin.CI{
		Name:   "gitlab",
		Detect: func(env map[string]string) bool { return env["GITLAB_CI"] != "" && env["CI_PROJECT_DIR"] != "" },
		New:    func(j plugin.Job) plugin.Adapter { return &adapter{job: j} },
		// Its docker executor keeps the image's entry point.
		StartsShell: true,
	}
}

type adapter struct {
	job plugin.Job
	// problems are what Read has found, by setting; notices are what it says besides.
	problems map[string]error
	notices  []string

	mu       sync.Mutex
	warnings []core.Notice
}

// prefix begins the variables that are settings.
const prefix = "LAYERWRIGHT_"

// variable is a setting's variable: LAYERWRIGHT_BUILD_ARGS.
func variable(setting string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
}

// Hide implements plugin.Adapter. GitLab masks only variables that are declared
// so; the log of the build has no secrets by itself.
func (a *adapter) Hide([][]byte) {}

// Emit implements core.Sink: it remembers warnings for the Code Quality report.
func (a *adapter) Emit(e core.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n, ok := e.(core.Notice); ok && n.Rule != "" && n.Location != nil {
		a.warnings = append(a.warnings, n)
	}
}

// path is a file of the project's directory.
func (a *adapter) path(name string) string { return path.Join(a.job.Env["CI_PROJECT_DIR"], name) }
