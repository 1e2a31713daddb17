package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/syntax"
)

// kanikoGroup is the paragraph of the help about them.
func kanikoGroup() flagGroup {
	g := flagGroup{title: "Kaniko's that have no effect", quiet: true}
	for _, k := range syntax.KanikoFlags() {
		g.more = append(g.more, k.Name)
	}
	return g
}

// registerKaniko adds the flags that have nothing to do.
func registerKaniko(fs *pflag.FlagSet) {
	for _, k := range syntax.KanikoFlags() {
		if k.Value == "" {
			fs.Bool(k.Name, false, "\t"+k.Instead)
			continue
		}
		fs.String(k.Name, "", k.Value+"\t"+k.Instead)
	}
}

// kanikoNotices say of each that was given what happens instead, and once of the
// fork's feature flags.
func kanikoNotices(given map[string]bool, env map[string]string) (notices []string) {
	for _, k := range syntax.KanikoFlags() {
		if given[k.Name] {
			notices = append(notices, fmt.Sprintf("--%s has no effect: %s", k.Name, k.Instead))
		}
	}
	for _, v := range kanikoVariables() {
		if env[v.Name] != "" {
			notices = append(notices, fmt.Sprintf("%s has no effect: %s", v.Name, v.Instead))
		}
	}
	for name := range env {
		if strings.HasPrefix(name, "FF_KANIKO_") {
			return append(notices, "variables FF_KANIKO_… have no effect: they choose between ways of Kaniko's own")
		}
	}
	return notices
}

// kanikoVariables are those of Kaniko that have nothing to do here.
func kanikoVariables() []syntax.KanikoFlag {
	list := []syntax.KanikoFlag{
		{Name: "SNAPSHOT_TIMEOUT_DURATION", Instead: "see --timeout"},
		{Name: "GIT_PULL_METHOD", Instead: "git repositories are fetched by https, or as their URL says"},
		{Name: "KANIKO_IGNORE_ASSERTIONS", Instead: "it is about Kaniko's own code"},
		{Name: "KANIKO_TELEMETRY_ENDPOINT", Instead: "nothing is reported to anybody"},
		{Name: "KANIKO_TELEMETRY_OMIT_DOCKERFILE", Instead: "nothing is reported to anybody"},
	}
	for _, k := range syntax.KanikoFlags() { // some flags have a variable each
		switch k.Name {
		case "kaniko-dir":
			list = append(list, syntax.KanikoFlag{Name: "KANIKO_DIR", Instead: k.Instead})
		case "cleanup", "pre-cleanup", "preserve-context":
			list = append(list, syntax.KanikoFlag{Name: "KANIKO_" + strings.ToUpper(strings.ReplaceAll(k.Name, "-", "_")), Instead: k.Instead})
		}
	}
	return list
}

// fromEnvironment sets switches that Kaniko takes from variables as well.
func (f *flags) fromEnvironment(c *checker, env map[string]string) {
	for name, to := range map[string]*bool{"KANIKO_NO_PUSH": &f.out.noPush, "KANIKO_PRINT_PLAN": &f.dryRun} {
		text := env[name]
		if text == "" {
			continue
		}
		on, err := strconv.ParseBool(text)
		if err != nil {
			c.add("variable %s: %q is neither true nor false", name, text)
		}
		*to = *to || on
	}
}

// gitOptions adds Kaniko's --git to a context that is a git repository.
func (f *flags) gitOptions(c *checker, where string) string {
	if f.git == "" {
		return where
	}
	if !core.IsGit(where) {
		c.add("--git %s: the context %s is no git repository", f.git, where)
		return where
	}
	branch, submodules := "", true
	for _, field := range strings.Split(f.git, ",") {
		key, value, _ := strings.Cut(field, "=")
		on, err := strconv.ParseBool(value)
		switch key {
		case "branch":
			branch, err = value, nil
		case "recurse-submodules":
			submodules = on
		case "single-branch":
			f.notices = append(f.notices, "--git single-branch has no effect: only what is built is fetched")
		case "depth":
			_, err = strconv.ParseUint(value, 10, 31)
			f.notices = append(f.notices, "--git depth has no effect: only the commit that is built is fetched")
		case "insecure-skip-tls":
			if on {
				err = errors.New("certificates of git servers are always checked: add the server's to SSL_CERT_DIR")
			}
		default:
			err = errors.New("the keys are branch, single-branch, depth, recurse-submodules and insecure-skip-tls")
		}
		if err != nil {
			c.add("--git %s: %w", field, err)
		}
	}
	if branch != "" {
		if strings.Contains(where, "#") {
			c.add("--git branch=%s: the context names a reference, too", branch)
			return where
		}
		where += "#refs/heads/" + strings.TrimPrefix(branch, "refs/heads/")
	}
	if !submodules {
		f.notices = append(f.notices, "--git recurse-submodules=false has no effect: submodules are part of a git context")
	}
	return where
}

// writePlan prints what a build would do.
func writePlan(w io.Writer, r *core.Result) {
	if r == nil {
		return
	}
	for _, s := range r.Plan {
		what, line := "run", ""
		switch {
		case s.Cached:
			what = "cached"
		case s.Spared:
			what = "not needed"
		}
		if s.Location != nil {
			line = fmt.Sprintf("  (%s)", s.Location)
		}
		fmt.Fprintf(w, "%-10s  %s%s\n", what, s.Name, line)
	}
}
