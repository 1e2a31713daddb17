package tags

import (
	"regexp"
	"strings"
)

// pep440Version is a Python version. It is read here since the one Go library
// for it has had no release since 2021, and reading is all that is needed.
type pep440Version struct {
	// normal is the normal form; release its numbers; final says that it is no
	// pre, post or development release.
	normal  string
	release []string
	final   bool
}

// part is one number of the release, "0" where it is not written.
func (v pep440Version) part(i int) string {
	if i < len(v.release) {
		return v.release[i]
	}
	return "0"
}

// pep440 is the expression of PEP 440, appendix B.
var pep440 = regexp.MustCompile(`(?i)^\s*v?(?:([0-9]+)!)?([0-9]+(?:\.[0-9]+)*)` +
	`([-_.]?(a|b|c|rc|alpha|beta|pre|preview)[-_.]?([0-9]+)?)?` +
	`(-([0-9]+)|[-_.]?(post|rev|r)[-_.]?([0-9]+)?)?` +
	`([-_.]?(dev)[-_.]?([0-9]+)?)?` +
	`(?:\+([a-z0-9]+(?:[-_.][a-z0-9]+)*))?\s*$`)

var pep440Spelling = map[string]string{"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}

func parsePEP440(s string) (pep440Version, bool) {
	f := pep440.FindStringSubmatch(s)
	if f == nil {
		return pep440Version{}, false
	}
	v := pep440Version{final: f[3] == "" && f[6] == "" && f[10] == ""}
	if epoch := digits(f[1]); epoch != "0" {
		v.normal = epoch + "!"
	}
	for _, n := range strings.Split(f[2], ".") {
		v.release = append(v.release, digits(n))
	}
	v.normal += strings.Join(v.release, ".")
	if f[3] != "" {
		kind := strings.ToLower(f[4])
		if short, ok := pep440Spelling[kind]; ok {
			kind = short
		}
		v.normal += kind + digits(f[5])
	}
	if f[6] != "" {
		v.normal += ".post" + digits(f[7]+f[9])
	}
	if f[10] != "" {
		v.normal += ".dev" + digits(f[12])
	}
	if local := strings.ToLower(f[13]); local != "" {
		v.normal += "+" + strings.NewReplacer("-", ".", "_", ".").Replace(local)
	}
	return v, true
}

// digits is a number without leading zeros, "0" for none.
func digits(s string) string {
	if s = strings.TrimLeft(s, "0"); s == "" {
		return "0"
	}
	return s
}
