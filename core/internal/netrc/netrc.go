// Package netrc owns logins for files and git repositories by URL that a .netrc
// has, as curl and git read it. It refuses the entry "default", which would hand
// a login to every host that a Dockerfile happens to name, and macros.
package netrc

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// Login is a user and a password.
type Login struct{ User, Password string }

// Logins are by host, without port. The zero value has none.
type Logins map[string]Login

// maxFile is far more than any such file has.
const maxFile = 1 << 20

// Load reads the file that the variable NETRC names, or .netrc in HOME. That it
// does not exist is no error.
func Load(env map[string]string) (Logins, error) {
	path := env["NETRC"]
	if path == "" {
		if env["HOME"] == "" {
			return nil, nil
		}
		path = filepath.Join(env["HOME"], ".netrc")
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, errors.Unwrap(err))
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, errors.Unwrap(err))
	}
	return Parse(string(data)), nil
}

// Parse reads a file's text; of several entries for a host the first counts.
func Parse(text string) Logins {
	out := Logins{}
	var host string
	var login Login
	end := func() {
		if _, ok := out[host]; !ok && host != "" && login != (Login{}) {
			out[host] = login
		}
		host, login = "", Login{}
	}
	words := words(text)
	for i := 0; i < len(words); i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch words[i] {
		case "machine":
			end()
			host = strings.ToLower(value)
			i++
		case "default":
			end()
		case "login":
			login.User = value
			i++
		case "password":
			login.Password = value
			i++
		case "account":
			i++
		}
	}
	end()
	return out
}

// words splits a text at white space; one may be in double quotes. Comments go to
// the end of their line, macros to the next empty line.
func words(text string) (out []string) {
	macro := false
	for _, line := range strings.Split(text, "\n") {
		if macro = macro && strings.TrimSpace(line) != ""; macro {
			continue
		}
		for rest := strings.TrimLeft(line, " \t\r"); rest != "" && rest[0] != '#'; rest = strings.TrimLeft(rest, " \t\r") {
			var word string
			if rest[0] == '"' {
				word, rest = quoted(rest[1:])
			} else if i := strings.IndexAny(rest, " \t\r"); i >= 0 {
				word, rest = rest[:i], rest[i:]
			} else {
				word, rest = rest, ""
			}
			if word == "macdef" {
				macro = true
				break
			}
			out = append(out, word)
		}
	}
	return out
}

// quoted reads up to the closing quote; a backslash takes the next character as
// it is.
func quoted(s string) (word, rest string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}

// Transport gives requests without credentials those for their host.
func (l Logins) Transport(inner http.RoundTripper) http.RoundTripper {
	if len(l) == 0 {
		return inner
	}
	return &transport{l, inner}
}

type transport struct {
	logins Logins
	inner  http.RoundTripper
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	login, ok := t.logins[strings.ToLower(req.URL.Hostname())]
	if !ok || req.Header.Get("Authorization") != "" || req.URL.User != nil {
		return t.inner.RoundTrip(req)
	}
	req = req.Clone(req.Context())
	req.SetBasicAuth(login.User, login.Password)
	return t.inner.RoundTrip(req)
}
