package tags

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// preset makes the tags of the preset, or says why there is nothing to build.
func (m *maker) preset() (tags []string, skip string) {
	var list []string
	switch m.settings.Preset {
	case None, Metadata: // the latter are rules
	case Drone:
		if list, skip = m.drone(); skip != "" {
			return nil, skip
		}
	case GitLab:
		list = m.gitlab()
	default:
		m.problem("auto-tag", string(m.settings.Preset), "unknown: use %s, %s or %s", Metadata, Drone, GitLab)
	}
	for _, t := range list {
		tag, err := m.valid(t)
		if err != nil {
			m.problem("auto-tag", t, "%w", err)
			continue
		}
		tags = append(tags, tag)
	}
	return tags, ""
}

// drone is auto_tag of drone-docker (tags.go there): the version of a git tag
// in up to three lengths, latest on the default branch and for a tag that is no
// version, nothing on other branches.
func (m *maker) drone() (list []string, skip string) {
	e := m.event
	if e.Tag() == "" && strings.TrimPrefix(e.Ref, "refs/heads/") != e.DefaultBranch {
		return nil, fmt.Sprintf("automatic tags are for tags and the default branch (%s), and this is %s", e.DefaultBranch, e.Ref)
	}
	list = droneVersion(e.Tag())
	for i, tag := range list {
		switch suffix := m.settings.Suffix; {
		case suffix == "":
		case tag == "latest":
			list[i] = suffix
		default:
			list[i] = tag + "-" + suffix
		}
	}
	return list, ""
}

// identifiers are those after "-" and "+" of a version.
var identifiers = regexp.MustCompile(`^[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*$`)

// droneVersion keeps leading zeros (18.06.0), which a strict reader of semantic
// versions refuses.
func droneVersion(tag string) []string {
	v, metadata, hasMetadata := strings.Cut(strings.TrimPrefix(tag, "v"), "+")
	v, pre, hasPre := strings.Cut(v, "-")
	parts := strings.SplitN(v, ".", 3)
	if len(parts) != 3 || hasPre && !identifiers.MatchString(pre) || hasMetadata && !identifiers.MatchString(metadata) {
		return []string{"latest"}
	}
	var numbers [3]string
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 63)
		if err != nil {
			return []string{"latest"}
		}
		numbers[i] = strconv.FormatUint(n, 10)
	}
	if hasPre || hasMetadata {
		full := strings.Join(numbers[:], ".")
		if hasPre {
			full += "-" + pre
		}
		if hasMetadata {
			full += "+" + metadata
		}
		return []string{full}
	}
	list := []string{parts[0] + "." + parts[1], parts[0] + "." + parts[1] + "." + parts[2]}
	if numbers[0] != "0" {
		list = append([]string{parts[0]}, list...)
	}
	return list
}

// gitlab follows GitLab's documentation and its Docker.gitlab-ci.yml: a tag's
// own name, a branch's slug, and latest beside it on the default branch.
func (m *maker) gitlab() []string {
	e := m.event
	if e.Tag() != "" {
		return []string{e.Tag()}
	}
	branch := e.Branch()
	slug := Slug(branch)
	switch {
	case branch == "" && e.Head != "": // never latest, whatever a fork calls it
		return one(Slug(e.Head))
	case slug == "":
		return nil
	case branch == e.DefaultBranch:
		return []string{slug, "latest"}
	}
	return []string{slug}
}

func one(tag string) []string {
	if tag == "" {
		return nil
	}
	return []string{tag}
}

var notInSlug = regexp.MustCompile(`[^a-z0-9]`)

// Slug is GitLab's CI_COMMIT_REF_SLUG: lowercase, every character but letters
// and digits a "-", at most 63 bytes, no "-" at the ends.
func Slug(ref string) string {
	s := notInSlug.ReplaceAllString(strings.ToLower(ref), "-")
	return strings.Trim(s[:min(63, len(s))], "-")
}
