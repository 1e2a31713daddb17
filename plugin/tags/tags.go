// Package tags decides what an image is called: it makes tags, full references
// and labels of a git event and of the rules that a user wrote. It is pure: no
// environment, no files (but Go's time zone data), no clock, no CI's variable
// names. It pushes nothing and knows no credentials.
//
// The rules are those of docker/metadata-action (its README, sections "tags
// input", "flavor input" and "Global expressions"); the presets are Drone's
// auto_tag as drone-docker defines it and GitLab's habits.
package tags

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
)

// Event is what happened in the git repository. Fields that a CI does not tell
// stay empty.
type Event struct {
	// Name is what started the pipeline, as GitHub calls it: "push",
	// "pull_request", "schedule", "create" and so on.
	Name string
	// Ref is the full git reference: refs/heads/…, refs/tags/… or
	// refs/pull/N/merge.
	Ref string
	// SHA is the full commit.
	SHA string
	// DefaultBranch is the repository's, without refs/heads/.
	DefaultBranch string
	// BaseRef is the branch that a pull request goes to, or that a pushed tag
	// lies on where the CI says so; without refs/heads/.
	BaseRef string
	// Head is the branch that a pull request comes from.
	Head string
	// Now is the time of {{date}} and of the label "created"; CommitTime that
	// of {{commit_date}}, Now when it is zero.
	Now, CommitTime time.Time
}

// PullRequest says whether the event is one of a pull or merge request, of
// whatever kind.
func (e Event) PullRequest() bool {
	return strings.HasPrefix(e.Name, "pull_request") || strings.HasPrefix(e.Ref, "refs/pull/")
}

// Branch is the branch of a branch's event, otherwise empty.
func (e Event) Branch() string { return after(e.Ref, "refs/heads/") }

// Tag is the git tag of a tag's event, otherwise empty.
func (e Event) Tag() string { return after(e.Ref, "refs/tags/") }

func after(s, prefix string) string {
	if rest, ok := strings.CutPrefix(s, prefix); ok {
		return rest
	}
	return ""
}

// Preset is a way to make tags of the event alone.
type Preset string

// The presets.
const (
	// None adds no tags.
	None Preset = ""
	// Metadata are the default rules of docker/metadata-action.
	Metadata Preset = "metadata"
	// Drone is auto_tag of drone-docker.
	Drone Preset = "drone"
	// GitLab is the slug of a branch, with latest on the default branch, and
	// the name of a tag.
	GitLab Preset = "gitlab"
)

// Settings are what the user asked for.
type Settings struct {
	// Images are names without tags that every tag is put on; each is a name
	// or "name=NAME,enable=BOOL". Without one there are no references but
	// those of Explicit.
	Images []string
	// Rules are lines of metadata-action's input tags.
	Rules []string
	// Flavor are lines of metadata-action's input flavor.
	Flavor []string
	// Explicit are tags, or whole references (with a "/" or ":"), that are
	// made whatever happened. They come first.
	Explicit []string
	// Preset is used beside Rules and Explicit; Suffix is Drone's
	// auto_tag_suffix.
	Preset Preset
	Suffix string
	// Expand adds the shorter forms of explicit tags that are versions:
	// drone-kaniko's expand_tag.
	Expand bool
	// ShortSHA is the length of a short commit; 7 when 0.
	ShortSHA int
}

// Result is what an image is called.
type Result struct {
	// Tags are the tags without names, the most important first.
	Tags []string
	// Version is the tag that names this version; empty when there is none.
	Version string
	// Images are the names, lowercased.
	Images []string
	// References are all names with all tags, and the whole references that
	// were given.
	References []string
	// Notices say what was changed or left out, and why.
	Notices []string
	// Skip says why nothing is to be built: Drone's auto_tag on a branch that
	// is not the default one. Empty otherwise.
	Skip string
}

// Problem is one mistake in Settings.
type Problem struct {
	// Setting is the field's neutral name: "tags", "flavor", "images", …
	Setting string
	// Value is what was written.
	Value string
	Err   error
}

// Error is "tags type=foo: unknown type".
func (p *Problem) Error() string { return fmt.Sprintf("%s %s: %v", p.Setting, p.Value, p.Err) }

// Unwrap gives the cause.
func (p *Problem) Unwrap() error { return p.Err }

// maker collects a result.
type maker struct {
	event    Event
	settings Settings
	flavor   flavor
	problems []*Problem
	notices  []string
	// main, partial and latest are as in metadata-action: the first rule that
	// yields a tag decides about the version and about latest.
	main    string
	partial []string
	latest  *bool
}

// Make applies the settings to the event. The problems are all there are, and
// the result is of no use when there is one.
func Make(e Event, s Settings) (Result, []*Problem) {
	if s.ShortSHA == 0 {
		s.ShortSHA = 7
	}
	if e.CommitTime.IsZero() {
		e.CommitTime = e.Now
	}
	m := &maker{event: e, settings: s}
	m.flavor = m.parseFlavor(s.Flavor)
	r := Result{Images: m.images(s.Images)}
	explicit, references := m.explicit(s.Explicit)
	m.applyRules()
	made := m.made()
	preset, skip := m.preset()
	r.Tags = unique(slices.Concat(explicit, made, preset))
	if len(r.Tags)+len(references) == 0 {
		r.Skip = skip
	}
	r.Version = m.version(preset, explicit)
	for _, name := range r.Images {
		for _, tag := range r.Tags {
			r.References = append(r.References, name+":"+tag)
		}
	}
	r.References = unique(append(references, r.References...))
	r.Notices = unique(m.notices)
	return r, m.problems
}

func (m *maker) problem(setting, value, format string, args ...any) {
	m.problems = append(m.problems, &Problem{Setting: setting, Value: value, Err: fmt.Errorf(format, args...)})
}

func (m *maker) notice(format string, args ...any) {
	m.notices = append(m.notices, fmt.Sprintf(format, args...))
}

// applyRules runs the rules by falling priority; equal ones in the order in
// which they are written.
func (m *maker) applyRules() {
	lines := m.settings.Rules
	if m.settings.Preset == Metadata && len(lines) == 0 {
		lines = []string{"type=schedule", "type=ref,event=branch", "type=ref,event=tag", "type=ref,event=pr"}
	}
	var rules []rule
	for _, line := range lines {
		if strings.TrimSpace(line) == "" {
			continue
		}
		r, err := parseRule(line)
		if err != nil {
			m.problem("tags", line, "%w", err)
			continue
		}
		rules = append(rules, r)
	}
	sort.SliceStable(rules, func(i, j int) bool { return rules[i].priority > rules[j].priority })
	for _, r := range rules {
		if err := m.apply(r); err != nil {
			m.problem("tags", r.text, "%w", err)
		}
	}
}

// set takes the tag of one rule. latest is what the rule wants with
// latest=auto.
func (m *maker) set(value string, latest bool) error {
	if value == "" {
		return nil
	}
	tag, err := m.valid(value)
	if err != nil {
		return err
	}
	if m.main == "" {
		m.main = tag
	} else if tag != m.main {
		m.partial = append(m.partial, tag)
	}
	if m.latest == nil {
		if m.flavor.latest != "auto" {
			latest = m.flavor.latest == "true"
		}
		m.latest = &latest
	}
	return nil
}

// made are the tags of the rules.
func (m *maker) made() []string {
	if m.main == "" {
		return nil
	}
	list := append([]string{m.main}, m.partial...)
	if m.latest != nil && *m.latest {
		latest, err := m.around("latest", m.flavor.prefixLatest, m.flavor.suffixLatest)
		if err == nil {
			latest, err = m.valid(latest)
		}
		if err != nil {
			m.problem("flavor", strings.Join(m.settings.Flavor, " "), "%w", err)
			return list
		}
		list = append(list, latest)
	}
	return list
}

// around puts the flavour's prefix and suffix around "latest".
func (m *maker) around(s string, prefix, suffix bool) (string, error) {
	if prefix {
		p, err := m.expand(m.flavor.prefix, nil)
		if err != nil {
			return "", err
		}
		s = p + s
	}
	if suffix {
		p, err := m.expand(m.flavor.suffix, nil)
		if err != nil {
			return "", err
		}
		s += p
	}
	return s, nil
}

// version is the tag that says most: that of the rules, the longest of a
// preset's (1.2.3 and not 1), or the first explicit one but latest.
func (m *maker) version(preset, explicit []string) string {
	if m.main != "" {
		return m.main
	}
	version := ""
	for _, t := range preset {
		if t != "latest" && len(t) > len(version) {
			version = t
		}
	}
	for _, t := range explicit {
		if version == "" && t != "latest" {
			version = t
		}
	}
	return version
}

func unique(list []string) []string {
	var out []string
	seen := make(map[string]bool, len(list))
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}
