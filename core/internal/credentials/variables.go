package credentials

import (
	"context"
	"net"
	"strings"
)

// variables are KANIKO_HOST_USER and KANIKO_HOST_PASSWORD, as Kaniko's fork has
// them: HOST in capitals, dots and dashes as "_"; a domain's also serve the hosts
// below it.
type variables struct{ env map[string]string }

func (v *variables) name() string { return "the variables KANIKO_…_USER and _PASSWORD" }

func (v *variables) find(_ context.Context, at Place) (answer, error) {
	for _, host := range variableNames(Normal(at.Host)) {
		user, ok := v.env["KANIKO_"+host+"_USER"]
		if !ok {
			continue
		}
		password, ok := v.env["KANIKO_"+host+"_PASSWORD"]
		if !ok {
			return answer{note: "KANIKO_" + host + "_USER is set, but not KANIKO_" + host + "_PASSWORD", trouble: true}, nil
		}
		a := answer{login: Login{Username: user, Password: password}, found: true,
			label: "the variables KANIKO_" + host + "_USER and _PASSWORD", note: "are set"}
		if a.login.Empty() {
			continue
		}
		return a, nil
	}
	host := Normal(at.Host)
	return answer{note: "not set for " + host + " (KANIKO_" + strings.ToUpper(variableOf.Replace(host)) + "_USER)"}, nil
}

var variableOf = strings.NewReplacer("-", "_", ".", "_", ":", "_", "[", "", "]", "")

// variableNames are what a host may be called in a variable, the whole name
// first; with its port, and without.
func variableNames(host string) []string {
	out := []string{strings.ToUpper(variableOf.Replace(host))}
	if strings.Contains(host, ":") { // as Kaniko spells it
		out = append(out, strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(host)))
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
		out = append(out, strings.ToUpper(variableOf.Replace(host)))
	}
	if net.ParseIP(strings.Trim(host, "[]")) != nil {
		return out
	}
	for {
		_, rest, ok := strings.Cut(host, ".")
		if !ok {
			return out
		}
		host = rest
		out = append(out, strings.ToUpper(variableOf.Replace(host)))
	}
}

// gitlab are the variables that GitLab gives each job: the login at its own
// registry, and at its proxy for other ones.
type gitlab struct{ env map[string]string }

func (g *gitlab) name() string { return "GitLab's variables of a job" }

func (g *gitlab) find(_ context.Context, at Place) (answer, error) {
	host := Normal(at.Host)
	for _, c := range []struct{ host, user, password string }{
		{"CI_REGISTRY", "CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD"},
		{"CI_DEPENDENCY_PROXY_SERVER", "CI_DEPENDENCY_PROXY_USER", "CI_DEPENDENCY_PROXY_PASSWORD"},
	} {
		if v := g.env[c.host]; v == "" || noPort443(Normal(v)) != noPort443(host) {
			continue
		}
		l := Login{Username: g.env[c.user], Password: g.env[c.password]}
		label := "the variables " + c.user + " and " + c.password
		if (l.Username == "" || l.Password == "") && g.env["CI_JOB_TOKEN"] != "" {
			l, label = Login{Username: "gitlab-ci-token", Password: g.env["CI_JOB_TOKEN"]}, "the variable CI_JOB_TOKEN"
		}
		if l.Username == "" || l.Password == "" {
			return answer{note: c.host + " is " + host + ", but " + c.user + " or " + c.password + " is not set", trouble: true}, nil
		}
		return answer{login: l, found: true, label: label, note: c.host + " is " + host}, nil
	}
	if g.env["CI_REGISTRY"] == "" {
		return answer{note: "CI_REGISTRY is not set"}, nil
	}
	return answer{note: "CI_REGISTRY is not " + host}, nil
}

// noPort443 drops the port that is meant anyway: GitLab writes it in one of the
// two variables.
func noPort443(host string) string { return strings.TrimSuffix(host, ":443") }
