package tags

import (
	"errors"
	"regexp"
	"strings"

	"github.com/distribution/reference"
)

var notInTag = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// valid makes a tag valid (letters, digits, "_", "." and "-", neither of the
// latter two first, at most 128: distribution's reference grammar), and says so.
func (m *maker) valid(s string) (string, error) {
	tag := strings.TrimLeft(notInTag.ReplaceAllString(s, "-"), ".-")
	if len(tag) > 128 {
		tag = tag[:128]
	}
	if tag == "" {
		return "", errors.New("no tag can be made of " + s)
	}
	if tag != s {
		m.notice("tag %s is not valid, %s is used instead", s, tag)
	}
	return tag, nil
}

// images are the names that are enabled, lowercased.
func (m *maker) images(lines []string) (names []string) {
	for _, line := range lines {
		list, err := fields(line)
		if err != nil {
			m.problem("images", line, "%w", err)
			continue
		}
		var plain []string
		name, enable := "", "true"
		for _, f := range list {
			switch f[0] {
			case "":
				plain = append(plain, f[1])
			case "name":
				name = f[1]
			case "enable":
				enable = f[1]
			default:
				m.problem("images", line, "unknown attribute %q: use name and enable", f[0])
			}
		}
		if enable, err = m.expand(enable, nil); err != nil {
			m.problem("images", line, "%w", err)
			continue
		}
		switch {
		case enable != "true" && enable != "false":
			m.problem("images", line, "enable is %q: use true or false", enable)
		case name == "" && len(plain) == 0 && len(list) > 0:
			m.problem("images", line, "name= is missing")
		case enable == "true":
			if name != "" {
				plain = append(plain, name)
			}
			for _, p := range plain {
				names = append(names, m.image(line, p)...)
			}
		}
	}
	return unique(names)
}

func (m *maker) image(line, name string) []string {
	lower := strings.ToLower(name)
	named, err := reference.ParseNormalizedNamed(lower)
	switch {
	case err != nil:
		m.problem("images", line, "%w", err)
		return nil
	case !reference.IsNameOnly(named):
		m.problem("images", line, "%s has a tag or digest: give the name alone, and the tag among the tags", name)
		return nil
	}
	if lower != name {
		m.notice("image name %s must be lowercase, %s is used instead", name, lower)
	}
	return []string{lower}
}

// explicit sorts what was given as it is into tags and whole references.
func (m *maker) explicit(list []string) (tags, references []string) {
	for _, s := range list {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		if !strings.ContainsAny(s, "/:@") && len(m.settings.Images) > 0 {
			forms := []string{s}
			if m.settings.Expand {
				forms = expand(s)
			}
			for _, form := range forms {
				tag, err := m.valid(form)
				if err != nil {
					m.problem("tags", form, "%w", err)
					continue
				}
				tags = append(tags, tag)
			}
			continue
		}
		if r := m.reference(s); r != "" {
			references = append(references, r)
		}
	}
	return tags, references
}

// reference checks a whole reference, lowercases its name and makes its tag
// valid. Without a tag it is latest.
func (m *maker) reference(s string) string {
	if strings.Contains(s, "@") {
		m.problem("tags", s, "a digest cannot be pushed to: give a tag")
		return ""
	}
	name, tag := s, "latest"
	if at := strings.LastIndex(s, ":"); at > strings.LastIndex(s, "/") {
		name, tag = s[:at], s[at+1:]
	}
	lower := strings.ToLower(name)
	if _, err := reference.ParseNormalizedNamed(lower); err != nil {
		m.problem("tags", s, "%w", err)
		return ""
	}
	if lower != name {
		m.notice("image name %s must be lowercase, %s is used instead", name, lower)
	}
	tag, err := m.valid(tag)
	if err != nil {
		m.problem("tags", s, "%w", err)
		return ""
	}
	return lower + ":" + tag
}
