package tags

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/mod/semver"
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
// in up to three lengths, latest on the default branch, nothing on other branches,
// and an error for a tag that is no version.
func (m *maker) drone() (list []string, skip string) {
	e := m.event
	if e.Tag() == "" && strings.TrimPrefix(e.Ref, "refs/heads/") != e.DefaultBranch {
		return nil, fmt.Sprintf("automatic tags are for tags and the default branch (%s), and this is %s", e.DefaultBranch, e.Ref)
	}
	if list = []string{"latest"}; e.Tag() != "" {
		if list = droneVersion(e.Tag()); list == nil {
			if len(m.settings.Explicit)+len(m.settings.Rules) > 0 {
				m.notice("git tag %s is no version such as v1.2.3: there are no automatic tags beside yours", e.Tag())
			} else {
				m.problem("auto-tag", e.Tag(), "this git tag is no version such as v1.2.3, so that there are no automatic tags: set tags, or build on other events")
			}
			return nil, ""
		}
	}
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
// versions refuses; nil for what is no version.
func droneVersion(tag string) []string {
	v, metadata, hasMetadata := strings.Cut(strings.TrimPrefix(tag, "v"), "+")
	v, pre, hasPre := strings.Cut(v, "-")
	parts := strings.SplitN(v, ".", 3)
	if len(parts) != 3 || hasPre && !identifiers.MatchString(pre) || hasMetadata && !identifiers.MatchString(metadata) {
		return nil
	}
	var numbers [3]string
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 63)
		if err != nil {
			return nil
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

// expand is drone-kaniko's expand_tag: a tag that is a semantic version, with or
// without "v" and with "_" for "-", also in its shorter forms; before a release only
// in full, and 0.x as 0, too.
func expand(tag string) []string {
	v := strings.ReplaceAll(tag, "_", "-")
	if !semver.IsValid(v) {
		v = "v" + v
	}
	if !semver.IsValid(v) {
		return []string{tag}
	}
	if semver.Prerelease(v) != "" {
		return []string{v[1:]}
	}
	build := semver.Build(v)
	return []string{semver.Major(v)[1:] + build, semver.MajorMinor(v)[1:] + build, semver.Canonical(v)[1:] + build}
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
