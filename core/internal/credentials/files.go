package credentials

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// file is one configuration in the format of Docker's config.json: a file, or
// the text of a variable.
//
// configfile.GetAuthConfig is not used: it prefers DOCKER_AUTH_CONFIG from the
// process environment, and it and the helpers that it starts write to standard
// error.
type file struct {
	label string
	// absent is why there is nothing to look at; empty if there is.
	absent     string
	unreadable bool
	entries    map[string]Login
	// programs are helpers by registry, store the one for all.
	programs map[string]string
	store    string
	proxies  map[string]configfile.ProxyConfig
}

func (f *file) name() string { return f.label }

func (f *file) hasPrograms() bool { return f.store != "" || len(f.programs) > 0 }

func (f *file) find(_ context.Context, at Place) (answer, error) {
	if f.absent != "" {
		return answer{note: f.absent, trouble: f.unreadable}, nil
	}
	a := lookup(f.entries, at)
	a.there = true
	return a, nil
}

// maxFile is far more than any such file has.
const maxFile = 16 << 20

// readFiles reads the configurations in the order in which they count.
func readFiles(opts Options) ([]*file, error) {
	var out []*file
	add := func(f *file, err error) error {
		if err == nil && f != nil && !slices.ContainsFunc(out, func(o *file) bool { return o.label == f.label }) {
			out = append(out, f)
		}
		return err
	}
	for _, path := range opts.Files {
		if err := add(readFile(path, demanded)); err != nil {
			return nil, err
		}
	}
	env := opts.Environment
	if err := add(dockerConfig(env["DOCKER_CONFIG"])); err != nil {
		return nil, err
	}
	if text := env["DOCKER_AUTH_CONFIG"]; strings.TrimSpace(text) != "" {
		if err := add(parse("the variable DOCKER_AUTH_CONFIG", []byte(text))); err != nil {
			return nil, err
		}
	}
	home := Home(env)
	for _, c := range []struct {
		path string
		need need
	}{
		{"/kaniko/.docker/config.json", usual},
		{under(home, ".docker", config.ConfigFileName), usual},
		{env["REGISTRY_AUTH_FILE"], named},
		{under(env["XDG_RUNTIME_DIR"], "containers", "auth.json"), usual},
		{under(configHome(env, home), "containers", "auth.json"), usual},
	} {
		if c.path == "" {
			continue
		}
		if err := add(readFile(c.path, c.need)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Home is the user's directory as the variables have it.
func Home(env map[string]string) string {
	if env["HOME"] == "" && os.Geteuid() == 0 {
		return "/root" // as in a container that sets no HOME
	}
	return env["HOME"]
}

func configHome(env map[string]string, home string) string {
	if dir := env["XDG_CONFIG_HOME"]; dir != "" {
		return dir
	}
	return under(home, ".config")
}

// under joins a path, empty where there is no directory to begin with.
func under(dir string, parts ...string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(append([]string{dir}, parts...)...)
}

// dockerConfig reads what DOCKER_CONFIG is or names: a directory, a file, or the
// text itself.
func dockerConfig(value string) (*file, error) {
	if value == "" {
		return nil, nil
	}
	if InlineConfig(value) {
		return parse("the variable DOCKER_CONFIG", []byte(value))
	}
	path, err := ConfigPath(value)
	if err != nil {
		return nil, err
	}
	return readFile(path, named)
}

// InlineConfig says that a value of DOCKER_CONFIG is the configuration's text
// and not its place.
func InlineConfig(value string) bool { return strings.HasPrefix(strings.TrimSpace(value), "{") }

// ConfigPath is the file that a value of DOCKER_CONFIG means: itself, or
// config.json in that directory.
func ConfigPath(value string) (string, error) {
	fi, err := os.Stat(value)
	switch {
	case err == nil && !fi.IsDir():
		return value, nil
	case err != nil && len(value) > 255 && !strings.Contains(value, "/"):
		// It cannot be a path, and may well be a secret that was meant to be
		// JSON: it is not repeated.
		return "", fault.New(fault.Usage, "the variable DOCKER_CONFIG is neither a directory, nor a file, nor JSON that begins with {").
			With("Give it a directory with config.json, that file, or its text.")
	}
	return filepath.Join(value, config.ConfigFileName), nil
}

// need says how bad it is when a file cannot be read.
type need int

const (
	usual    need = iota // one of the places where such files are
	named                // by a variable, which may be the image's own
	demanded             // by a flag
)

func readFile(path string, n need) (*file, error) {
	f, err := os.Open(path)
	if err == nil {
		defer func() { _ = f.Close() }()
		var data []byte
		if data, err = io.ReadAll(io.LimitReader(f, maxFile)); err == nil {
			return parse(path, data)
		}
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	missing := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
	switch {
	case n == demanded:
		return nil, fault.New(fault.Usage, "read credentials %s: %w", path, err).
			With("Name an existing file that is readable, in the format of Docker's config.json.")
	case missing:
		return &file{label: path, absent: "no such file"}, nil
	case n == named:
		return nil, fault.New(fault.Registry, "read credentials %s: %w", path, err).
			With("Make the file readable for this user, or let the variable that names it point elsewhere.")
	}
	return &file{label: path, absent: fmt.Sprintf("it cannot be read: %v", err), unreadable: true}, nil
}

// example is the format, for remedies.
const example = `It must be JSON as docker login writes it: {"auths": {"registry.example": {"auth": "base64 of user:password"}}}.`

// parse reads a configuration. Its errors name line and column and repeat
// nothing of the content, where secrets are.
func parse(label string, data []byte) (*file, error) {
	if at, what := syntax(data, &configfile.ConfigFile{}); what != "" {
		line, column := position(data, at)
		return nil, fault.New(fault.Registry, "read credentials %s: line %d, column %d: %s", label, line, column, what).With(example)
	}
	if key, what := badEntry(data); what != "" {
		line, column := position(data, int64(bytes.Index(data, []byte(`"`+key+`"`))))
		return nil, fault.New(fault.Registry, "read credentials %s: line %d, column %d: the entry for %q: %s", label, line, column, key, what).With(example)
	}
	conf, err := config.LoadFromReader(bytes.NewReader(data))
	if err != nil { // what the checks above did not think of
		return nil, fault.New(fault.Registry, "read credentials %s: it cannot be understood", label).With(example)
	}
	f := &file{label: label, entries: map[string]Login{}, programs: map[string]string{}, store: conf.CredentialsStore, proxies: conf.Proxies}
	keys := make([]string, 0, len(conf.AuthConfigs))
	for k := range conf.AuthConfigs {
		keys = append(keys, k)
	}
	// Of several spellings of one name the plain one counts, then the first.
	slices.SortFunc(keys, func(a, b string) int {
		if pa, pb := a == Normal(a), b == Normal(b); pa != pb {
			return map[bool]int{true: -1, false: 1}[pa]
		}
		return strings.Compare(a, b)
	})
	for _, k := range keys {
		a := conf.AuthConfigs[k]
		l := Login{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
		if l.Username == tokenUser { // as helpers write it
			l = Login{IdentityToken: l.Password}
		}
		if old, ok := f.entries[Normal(k)]; !ok || old.Empty() {
			f.entries[Normal(k)] = l
		}
	}
	for k, v := range conf.CredentialHelpers {
		f.programs[Normal(k)] = v
	}
	return f, nil
}

// tokenUser is the name that says that a password is an identity token.
const tokenUser = "<token>"

// syntax finds the first place where data is not JSON, or not of into's form; what is empty where all is well. Text behind the object is
// ignored, as by docker.
func syntax(data []byte, into any) (at int64, what string) {
	err := json.NewDecoder(bytes.NewReader(data)).Decode(into)
	var se *json.SyntaxError
	var te *json.UnmarshalTypeError
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return 0, ""
	case errors.As(err, &se):
		// Its words name at most one character.
		return se.Offset - 1, "not JSON: " + se.Error()
	case errors.As(err, &te):
		kind, _, _ := strings.Cut(te.Value, " ") // a number's text would follow
		return te.Offset - 1, fmt.Sprintf("%s is a %s, which it must not be", orThis(te.Field), kind)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return int64(len(data)), "the text ends too early"
	}
	return 0, "not JSON"
}

func orThis(field string) string {
	if field == "" {
		return "this"
	}
	return field
}

// badEntry finds an entry whose auth is not base64 of user:password.
func badEntry(data []byte) (key, what string) {
	var conf struct {
		Auths map[string]struct {
			Auth string `json:"auth"`
		} `json:"auths"`
	}
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&conf); err != nil {
		return "", ""
	}
	keys := make([]string, 0, len(conf.Auths))
	for k := range conf.Auths {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		a := conf.Auths[k].Auth
		if a == "" {
			continue
		}
		text, err := base64.StdEncoding.DecodeString(a)
		if err != nil {
			return k, "auth is not base64"
		}
		if user, _, ok := strings.Cut(string(text), ":"); !ok || user == "" {
			return k, "auth is not user:password in base64"
		}
	}
	return "", ""
}

// position turns an offset into line and column, both from 1, the column in
// bytes.
func position(data []byte, at int64) (line, column int) {
	at = max(0, min(at, int64(len(data))))
	before := data[:at]
	return bytes.Count(before, []byte("\n")) + 1, len(before) - bytes.LastIndexByte(before, '\n')
}
