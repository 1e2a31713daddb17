package tags

import (
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // tz= must work in an image without zone files
)

// expand replaces {{expressions}}: those of values and the global ones. What is
// unknown is an error, not nothing, since a tag would silently be another.
func (m *maker) expand(text string, values map[string]string) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "{{")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		inside, after, closed := strings.Cut(rest, "}}")
		if !closed {
			return "", fmt.Errorf("%q: }} is missing", text)
		}
		value, err := m.expression(inside, values)
		if err != nil {
			return "", fmt.Errorf("{{%s}}: %w", inside, err)
		}
		out.WriteString(value)
		text = after
	}
}

func (m *maker) expression(inside string, values map[string]string) (string, error) {
	name, args, err := words(inside)
	if err != nil {
		return "", err
	}
	if name == "date" || name == "commit_date" {
		at := m.event.Now
		if name == "commit_date" {
			at = m.event.CommitTime
		}
		return date(at, args)
	}
	if len(args) > 0 {
		return "", errors.New("takes no arguments")
	}
	if v, ok := values[name]; ok {
		return v, nil
	}
	e := m.event
	switch name {
	case "branch":
		return e.Branch(), nil
	case "tag":
		return e.Tag(), nil
	case "sha":
		return m.short(), nil
	case "base_ref":
		if e.Tag() != "" || strings.HasPrefix(e.Ref, "refs/pull/") {
			return e.BaseRef, nil
		}
		return "", nil
	case "is_default_branch":
		return fmt.Sprint(e.onDefaultBranch()), nil
	case "is_not_default_branch":
		return fmt.Sprint(e.Ref != "" && !e.onDefaultBranch()), nil
	}
	return "", errors.New("unknown expression: there are branch, tag, sha, base_ref, is_default_branch, is_not_default_branch, date and commit_date, and in patterns of versions raw, version, major, minor and patch")
}

// onDefaultBranch is also true for events that GitHub always runs for the last
// commit of the default branch.
func (e Event) onDefaultBranch() bool {
	branch := strings.TrimPrefix(e.Ref, "refs/heads/")
	if branch == "" {
		return false
	}
	for _, name := range []string{"create", "discussion", "issues", "schedule"} {
		if strings.Contains(e.Name, name) {
			return true
		}
	}
	return branch == e.DefaultBranch
}

// words splits an expression into its name and arguments; key='value' has its
// key in front.
func words(s string) (name string, args [][2]string, err error) {
	s = strings.TrimSpace(s)
	name, rest, _ := strings.Cut(s, " ")
	for rest = strings.TrimSpace(rest); rest != ""; rest = strings.TrimSpace(rest) {
		var key string
		if at := strings.IndexAny(rest, `='"`); at > 0 && rest[at] == '=' {
			key, rest = strings.TrimSpace(rest[:at]), strings.TrimSpace(rest[at+1:])
		}
		if rest == "" || rest[0] != '\'' && rest[0] != '"' {
			return "", nil, errors.New("arguments stand in quotes")
		}
		value, after, closed := strings.Cut(rest[1:], rest[:1])
		if !closed {
			return "", nil, errors.New("a quote is missing")
		}
		args, rest = append(args, [2]string{key, value}), after
	}
	return name, args, nil
}

// date renders a time by a format of moment.js, in UTC or in tz=.
func date(at time.Time, args [][2]string) (string, error) {
	format, zone := "", "UTC"
	for _, a := range args {
		switch a[0] {
		case "":
			format = a[1]
		case "tz":
			zone = a[1]
		default:
			return "", fmt.Errorf("unknown attribute %s: there is tz", a[0])
		}
	}
	if format == "" {
		return "", errors.New("needs a format in quotes, such as 'YYYYMMDD'")
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return "", fmt.Errorf("unknown time zone %q", zone)
	}
	return moment(at.In(loc), format)
}
