package tags

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// apply makes the tag of one rule, if it is one for this event.
func (m *maker) apply(r rule) error {
	enabled, err := m.expand(r.attrs["enable"], nil)
	if err != nil {
		return err
	}
	switch enabled {
	case "false":
		return nil
	case "true":
	default:
		return fmt.Errorf("enable is %q: use true or false", enabled)
	}
	switch r.kind {
	case "schedule":
		return m.schedule(r)
	case "semver":
		return m.semver(r)
	case "pep440":
		return m.pep440(r)
	case "match":
		return m.match(r)
	case "edge":
		return m.edge(r)
	case "ref":
		return m.ref(r)
	case "sha":
		return m.sha(r)
	}
	value, err := m.expand(r.attrs["value"], nil)
	if err != nil {
		return err
	}
	return m.setWith(r, value, false)
}

// setWith sets a value with the rule's prefix and suffix, or the flavour's where
// the rule has none. A raw value that came out empty stays none.
func (m *maker) setWith(r rule, value string, latest bool) error {
	prefix, suffix := m.flavor.prefix, m.flavor.suffix
	if r.has("prefix") {
		prefix = r.attrs["prefix"]
	}
	if r.has("suffix") {
		suffix = r.attrs["suffix"]
	}
	prefix, err := m.expand(prefix, nil)
	if err != nil {
		return err
	}
	if suffix, err = m.expand(suffix, nil); err != nil {
		return err
	}
	return m.set(prefix+value+suffix, latest)
}

func (m *maker) schedule(r rule) error {
	if !strings.Contains(m.event.Name, "schedule") {
		return nil
	}
	value, err := m.expand(r.attrs["pattern"], nil)
	if err != nil {
		return err
	}
	return m.setWith(r, value, false)
}

// subject is what semver, pep440 and match look at: value=, or the git tag. ok
// is false when there is neither.
func (m *maker) subject(r rule) (value string, ok bool, err error) {
	if given := r.attrs["value"]; given != "" {
		value, err = m.expand(given, nil)
		return value, true, err
	}
	return m.event.Tag(), m.event.Tag() != "", nil
}

// version is subject for version numbers: the part that match= picks.
func (m *maker) versionSubject(r rule) (value string, ok bool, err error) {
	if value, ok, err = m.subject(r); !ok || err != nil {
		return value, ok, err
	}
	if pattern := r.attrs["match"]; pattern != "" {
		re, err := compile(pattern)
		if err != nil {
			return "", false, err
		}
		if found := re.FindStringSubmatch(value); found == nil {
			m.notice("%s: %s does not match %s", r.text, pattern, value)
		} else {
			value = found[min(1, len(found)-1)]
		}
	}
	return strings.ReplaceAll(value, "/", "-"), true, nil
}

func (m *maker) semver(r rule) error {
	value, ok, err := m.versionSubject(r)
	if !ok || err != nil {
		return err
	}
	v, err := semver.StrictNewVersion(strings.TrimPrefix(strings.TrimSpace(value), "v"))
	if err != nil {
		m.notice("%s: %s is not a semantic version (https://semver.org): no tag", r.text, value)
		return nil
	}
	full := fmt.Sprintf("%d.%d.%d", v.Major(), v.Minor(), v.Patch())
	if v.Prerelease() != "" {
		full += "-" + v.Prerelease()
	}
	values := map[string]string{
		"raw": value, "version": full, "prerelease": v.Prerelease(),
		"major": strconv.FormatUint(v.Major(), 10), "minor": strconv.FormatUint(v.Minor(), 10), "patch": strconv.FormatUint(v.Patch(), 10),
	}
	return m.setVersion(r, values, v.Prerelease() == "")
}

func (m *maker) pep440(r rule) error {
	value, ok, err := m.versionSubject(r)
	if !ok || err != nil {
		return err
	}
	v, ok := parsePEP440(value)
	if !ok {
		m.notice("%s: %s is not a version of PEP 440: no tag", r.text, value)
		return nil
	}
	values := map[string]string{"raw": value, "version": v.normal, "major": v.part(0), "minor": v.part(1), "patch": v.part(2)}
	return m.setVersion(r, values, v.final)
}

// setVersion renders the pattern for a release; anything else moves too much for
// short tags, so it has its whole version, or what it was written as.
func (m *maker) setVersion(r rule, values map[string]string, release bool) error {
	pattern := r.attrs["pattern"]
	value, err := m.expand(pattern, values)
	if err != nil {
		return err
	}
	if !release && !rawOnly.MatchString(pattern) {
		value = values["version"]
	}
	return m.setWith(r, value, release)
}

var rawOnly = regexp.MustCompile(`^\{\{\s*raw\s*\}\}$`)

// compile reads a regular expression, also as /expression/flags.
func compile(pattern string) (*regexp.Regexp, error) {
	if slashed := slashedPattern.FindStringSubmatch(pattern); slashed != nil {
		pattern = slashed[1]
		flags := strings.Map(func(c rune) rune {
			if strings.ContainsRune("ims", c) {
				return c
			}
			return -1 // g, u and y change nothing here
		}, slashed[2])
		if flags != "" {
			pattern = "(?" + flags + ")" + pattern
		}
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("%w (the syntax is RE2's, which has no look-around)", err)
	}
	return re, nil
}

var slashedPattern = regexp.MustCompile(`^/(.+)/([a-z]*)$`)

func (m *maker) match(r rule) error {
	re, err := compile(r.attrs["pattern"])
	if err != nil {
		return err
	}
	value, ok, err := m.subject(r)
	if !ok || err != nil {
		return err
	}
	found := re.FindStringSubmatch(value)
	group, _ := strconv.Atoi(r.attrs["group"]) // checked when it was read
	switch {
	case found == nil:
		m.notice("%s: %s does not match: no tag", r.text, value)
		return nil
	case group >= len(found):
		m.notice("%s: the pattern has no group %d: no tag", r.text, group)
		return nil
	}
	return m.setWith(r, found[group], true)
}

func (m *maker) edge(r rule) error {
	branch := r.attrs["branch"]
	if branch == "" {
		branch = m.event.DefaultBranch
	}
	if b := m.event.Branch(); b == "" || b != branch {
		return nil
	}
	return m.setWith(r, "edge", false)
}

func (m *maker) ref(r rule) error {
	switch r.attrs["event"] {
	case "branch":
		if b := m.event.Branch(); b != "" {
			return m.setWith(r, b, false)
		}
	case "tag":
		if t := m.event.Tag(); t != "" {
			return m.setWith(r, t, true)
		}
	case "pr":
		if n := after(m.event.Ref, "refs/pull/"); n != "" {
			return m.setWith(r, strings.TrimSuffix(n, "/merge"), false)
		}
	}
	return nil
}

func (m *maker) sha(r rule) error {
	sha := m.event.SHA
	if sha == "" {
		return nil
	}
	if r.attrs["format"] == "short" {
		sha = m.short()
	}
	return m.setWith(r, sha, false)
}

func (m *maker) short() string {
	return m.event.SHA[:min(m.settings.ShortSHA, len(m.event.SHA))]
}
