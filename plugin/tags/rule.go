package tags

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// rule is one line of the tags.
type rule struct {
	text     string
	kind     string
	priority int
	attrs    map[string]string
}

// has says whether an attribute was written, or has a default.
func (r rule) has(name string) bool {
	_, ok := r.attrs[name]
	return ok
}

// kinds are the types of rules: metadata-action's default priority of each, and
// the attributes beside those that all have.
var kinds = map[string]struct {
	priority int
	attrs    []string
}{
	"schedule": {1000, []string{"pattern"}},
	"semver":   {900, []string{"pattern", "value", "match"}},
	"pep440":   {900, []string{"pattern", "value", "match"}},
	"match":    {800, []string{"pattern", "value", "group"}},
	"edge":     {700, []string{"branch"}},
	"ref":      {600, []string{"event"}},
	"raw":      {200, []string{"value"}},
	"sha":      {100, []string{"format"}},
}

var common = []string{"enable", "priority", "prefix", "suffix"}

// fields splits a line of comma separated KEY=VALUE, where a field may stand in
// double quotes; a field without "=" has an empty key.
func fields(line string) ([][2]string, error) {
	r := csv.NewReader(strings.NewReader(line))
	r.LazyQuotes, r.FieldsPerRecord, r.TrimLeadingSpace = true, -1, true
	record, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("not a line of comma separated fields: %w", err)
	}
	var out [][2]string
	for _, f := range record {
		k, v, ok := strings.Cut(f, "=")
		switch {
		case strings.TrimSpace(f) == "":
		case !ok || k == "":
			out = append(out, [2]string{"", strings.TrimSpace(f)})
		default:
			out = append(out, [2]string{strings.ToLower(strings.TrimSpace(k)), strings.TrimSpace(v)})
		}
	}
	return out, nil
}

// IsRule says whether a line is a rule of metadata-action and not a name.
func IsRule(line string) bool {
	list, err := fields(line)
	return err == nil && slices.ContainsFunc(list, func(f [2]string) bool { return f[0] == "type" })
}

func parseRule(line string) (rule, error) {
	r := rule{text: line, kind: "raw", attrs: map[string]string{}}
	list, err := fields(line)
	if err != nil {
		return r, err
	}
	for _, f := range list {
		switch f[0] {
		case "type":
			r.kind = f[1]
		case "":
			r.attrs["value"] = f[1]
		default:
			r.attrs[f[0]] = f[1]
		}
	}
	kind, ok := kinds[r.kind]
	if !ok {
		return r, fmt.Errorf("unknown type %q: use schedule, semver, pep440, match, edge, ref, raw or sha", r.kind)
	}
	for name := range r.attrs {
		if !slices.Contains(common, name) && !slices.Contains(kind.attrs, name) {
			return r, fmt.Errorf("type=%s has no attribute %q: use %s", r.kind, name, strings.Join(slices.Concat(kind.attrs, common), ", "))
		}
	}
	r.priority = kind.priority
	if p, ok := r.attrs["priority"]; ok {
		if r.priority, err = strconv.Atoi(p); err != nil {
			return r, fmt.Errorf("priority %q is not a number", p)
		}
	}
	return r, r.defaults()
}

// defaults checks what a type needs and sets what it leaves open.
func (r *rule) defaults() error {
	set := func(name, value string) {
		if !r.has(name) {
			r.attrs[name] = value
		}
	}
	need := func(name string) error {
		if !r.has(name) {
			return fmt.Errorf("type=%s needs %s=", r.kind, name)
		}
		return nil
	}
	set("enable", "true")
	switch r.kind {
	case "schedule":
		set("pattern", "nightly")
	case "semver", "pep440":
		return need("pattern")
	case "match":
		set("group", "0")
		if n, err := strconv.Atoi(r.attrs["group"]); err != nil || n < 0 {
			return fmt.Errorf("group %q is not a number", r.attrs["group"])
		}
		return need("pattern")
	case "ref":
		if err := need("event"); err != nil {
			return err
		}
		switch r.attrs["event"] {
		case "pr":
			set("prefix", "pr-")
		case "branch", "tag":
		default:
			return fmt.Errorf("unknown event %q: use branch, tag or pr", r.attrs["event"])
		}
	case "raw":
		return need("value")
	case "sha":
		set("prefix", "sha-")
		set("format", "short")
		if f := r.attrs["format"]; f != "short" && f != "long" {
			return fmt.Errorf("unknown format %q: use short or long", f)
		}
	}
	return nil
}

// flavor is what holds for all tags.
type flavor struct {
	latest                     string
	prefix, suffix             string
	prefixLatest, suffixLatest bool
}

// parseFlavor reads the lines; onlatest belongs to the prefix or suffix before
// it on its line.
func (m *maker) parseFlavor(lines []string) flavor {
	f := flavor{latest: "auto"}
	for _, line := range lines {
		list, err := fields(line)
		if err != nil {
			m.problem("flavor", line, "%w", err)
			continue
		}
		var last *bool
		for _, kv := range list {
			switch kv[0] {
			case "latest":
				f.latest = kv[1]
				if kv[1] != "auto" && kv[1] != "true" && kv[1] != "false" {
					m.problem("flavor", line, "unknown latest %q: use auto, true or false", kv[1])
				}
			case "prefix":
				f.prefix, last = kv[1], &f.prefixLatest
			case "suffix":
				f.suffix, last = kv[1], &f.suffixLatest
			case "onlatest":
				switch {
				case last == nil:
					m.problem("flavor", line, "onlatest stands after prefix= or suffix= on the same line")
				case kv[1] != "true" && kv[1] != "false":
					m.problem("flavor", line, "unknown onlatest %q: use true or false", kv[1])
				default:
					*last = kv[1] == "true"
				}
			default:
				m.problem("flavor", line, "unknown entry %q: use latest, prefix, suffix and onlatest", kv[0]+kv[1])
			}
		}
	}
	return f
}
