package git

import (
	"bytes"
	"io"
	"path"
	"regexp"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// rule is one line of a .gitattributes file (gitattributes(5)).
type rule struct {
	// dir is where the file is; match applies to the path below, or to the
	// last part of it where base is set.
	dir   string
	base  bool
	match *regexp.Regexp
	// set are attribute and value: "true", "false", "" for unspecified, or
	// what is behind "=".
	set [][2]string
}

// attributes are rules, the last one that matches first in rank.
type attributes []rule

// attributesOf adds the rules of a directory's own .gitattributes.
func (t *tree) attributesOf(at *object.Tree, dir string, above attributes) (attributes, error) {
	for _, e := range at.Entries {
		if e.Name != ".gitattributes" || e.Mode == filemode.Dir || e.Mode == filemode.Symlink || e.Mode == filemode.Submodule {
			continue
		}
		data, err := t.store.blob(e.Hash, maxAttributes)
		if err != nil {
			return nil, err
		}
		if t.macros == nil {
			t.macros = map[string][][2]string{"binary": {{"text", "false"}}}
		}
		return append(above[:len(above):len(above)], parseAttributes(data, dir, t.macros)...), nil
	}
	return above, nil
}

// parseAttributes reads one file's lines; macros are defined at the top only.
func parseAttributes(data []byte, dir string, macros map[string][][2]string) attributes {
	var out attributes
	for _, line := range strings.Split(string(data), "\n") {
		line = strings.Trim(line, " \t\r")
		if line == "" || line[0] == '#' {
			continue
		}
		pattern, rest := firstWord(line)
		if name, ok := strings.CutPrefix(pattern, "[attr]"); ok {
			if dir == "" {
				macros[name] = states(rest, macros)
			}
			continue
		}
		if r, ok := newRule(pattern, dir); ok {
			r.set = states(rest, macros)
			out = append(out, r)
		}
	}
	return out
}

// firstWord cuts a pattern, perhaps in quotes, off a line.
func firstWord(line string) (word, rest string) {
	if line[0] == '"' {
		var b strings.Builder
		for i := 1; i < len(line); i++ {
			switch {
			case line[i] == '"':
				return b.String(), line[i+1:]
			case line[i] == '\\' && i+1 < len(line):
				i++
			}
			b.WriteByte(line[i])
		}
	}
	if i := strings.IndexAny(line, " \t"); i >= 0 {
		return line[:i], line[i:]
	}
	return line, ""
}

func states(text string, macros map[string][][2]string) (out [][2]string) {
	for _, f := range strings.Fields(text) {
		name, value, ok := strings.Cut(f, "=")
		switch {
		case ok:
		case strings.HasPrefix(f, "-"):
			name, value = f[1:], "false"
		case strings.HasPrefix(f, "!"):
			name, value = f[1:], ""
		default:
			value = "true"
			out = append(out, macros[name]...)
		}
		out = append(out, [2]string{name, value})
	}
	return out
}

// newRule reads a pattern; those with "!" in front, or for directories only,
// match no file.
func newRule(pattern, dir string) (rule, bool) {
	if pattern == "" || pattern[0] == '!' || strings.HasSuffix(pattern, "/") {
		return rule{}, false
	}
	r := rule{dir: dir, base: !strings.Contains(pattern, "/")}
	re, err := regexp.Compile("(?s)^" + globExpression(strings.TrimPrefix(pattern, "/")) + "$")
	if err != nil {
		return rule{}, false
	}
	r.match = re
	return r, true
}

// globExpression is a pattern of gitignore(5) as a regular expression.
func globExpression(g string) string {
	var b strings.Builder
	for i := 0; i < len(g); i++ {
		switch c := g[i]; {
		case strings.HasPrefix(g[i:], "**/") && (i == 0 || g[i-1] == '/'):
			b.WriteString("(?:.*/)?")
			i += 2
		case g[i:] == "**" && (i == 0 || g[i-1] == '/'):
			b.WriteString(".*")
			i++
		case c == '*':
			b.WriteString("[^/]*")
		case c == '?':
			b.WriteString("[^/]")
		case c == '\\' && i+1 < len(g):
			i++
			b.WriteString(regexp.QuoteMeta(g[i : i+1]))
		case c == '[' && strings.IndexByte(g[min(i+2, len(g)):], ']') >= 0:
			end := i + 2 + strings.IndexByte(g[i+2:], ']')
			class := strings.ReplaceAll(g[i+1:end], `\`, `\\`)
			if class[0] == '!' {
				class = "^" + class[1:]
			}
			b.WriteString("[" + class + "]")
			i = end
		default:
			b.WriteString(regexp.QuoteMeta(g[i : i+1]))
		}
	}
	return b.String()
}

// conversion is what a file's attributes want of its content on Linux.
type conversion struct {
	// crlf turns line ends into CR LF; auto only those of text.
	crlf, auto bool
	// ident puts the blob's hash into $Id$.
	ident bool
}

func (c conversion) any() bool { return c.crlf || c.ident }

// match gives what the rules say of a file.
func (a attributes) match(full string) conversion {
	v := map[string]string{}
	for _, r := range a {
		name := full
		if r.dir != "" {
			below, ok := strings.CutPrefix(full, r.dir+"/")
			if !ok {
				continue
			}
			name = below
		}
		if r.base {
			name = path.Base(name)
		}
		if !r.match.MatchString(name) {
			continue
		}
		for _, s := range r.set {
			v[s[0]] = s[1]
		}
	}
	text := v["text"]
	if text == "" { // the older name
		text = map[string]string{"true": "true", "false": "false", "input": "input"}[v["crlf"]]
	}
	c := conversion{ident: v["ident"] == "true"}
	c.crlf = v["eol"] == "crlf" && text != "false" && text != "input"
	c.auto = text == "auto"
	return c
}

var identMark = regexp.MustCompile(`\$Id(?::[^\n$]*)?\$`)

// apply changes a content as git does on checkout.
func (c conversion) apply(in io.Reader, hash string) (io.Reader, error) {
	data, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	if c.ident {
		data = identMark.ReplaceAllLiteral(data, []byte("$Id: "+hash+" $"))
	}
	if c.crlf && c.convertible(data) {
		data = toCRLF(data)
	}
	return bytes.NewReader(data), nil
}

// convertible is git's rule for which contents get their line ends changed
// (convert.c: will_convert_lf_to_crlf).
func (c conversion) convertible(data []byte) bool {
	return !c.auto || !bytes.Contains(data, []byte("\r")) && !binary(data)
}

// binary is git's guess (convert.c: convert_is_binary).
func binary(data []byte) bool {
	printable, other := 0, 0
	for i, b := range data {
		switch {
		case b == 0:
			return true
		case b == 127, b < 32 && !strings.ContainsRune("\b\t\n\r\x1b\x0c", rune(b)) && !(b == 26 && i == len(data)-1):
			other++
		case b != '\n' && b != '\r':
			printable++
		}
	}
	return printable>>7 < other
}

func toCRLF(data []byte) []byte {
	out := make([]byte, 0, len(data)+bytes.Count(data, []byte("\n")))
	for i, b := range data {
		if b == '\n' && (i == 0 || data[i-1] != '\r') {
			out = append(out, '\r')
		}
		out = append(out, b)
	}
	return out
}
