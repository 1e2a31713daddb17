package plugin

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strings"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/syntax"
)

// split also takes lists apart that were written with commas.
func split(list []string) (out []string) {
	for _, s := range list {
		for _, part := range strings.Split(s, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}

func (c *checker) spell(setting string) string {
	if c.host.Spell == nil {
		return setting
	}
	return c.host.Spell(setting)
}

// choice is a value, or the first of the possible ones.
func (c *checker) choice(setting, value string, possible ...string) string {
	if value == "" {
		return possible[0]
	}
	if !slices.Contains(possible, value) {
		c.add(setting, "%q is unknown: use %s", value, strings.Join(possible, ", "))
		return possible[0]
	}
	return value
}

func (c *checker) context(dir string) string {
	if dir == "" {
		return "."
	}
	if core.IsStream(dir) {
		c.add("context", "%s: there is no standard input to read it from", dir)
	} else if err := core.CheckContext(dir, false); err != nil {
		c.add("context", "%w", err)
	}
	return dir
}

func (c *checker) platforms(list []string) []string {
	return each(c, "platforms", split(list), syntax.Platform)
}

// each reads a list, one value after the other.
func each[T any](c *checker, setting string, list []string, read func(string) (T, error)) (out []T) {
	for _, text := range list {
		v, err := read(text)
		if err != nil {
			c.add(setting, "%s: %w", text, err)
			continue
		}
		out = append(out, v)
	}
	return out
}

// buildArgs: the values may be secret in spite of everything, so that errors
// have none.
func (c *checker) buildArgs(list []string) map[string]string {
	args := map[string]string{}
	for i, kv := range list {
		k, v, ok := strings.Cut(kv, "=")
		if k = strings.TrimSpace(k); k == "" || strings.ContainsAny(k, " \t\n") {
			c.add("build-args", "number %d: write KEY=VALUE", i+1)
			continue
		}
		if !ok {
			if v, ok = c.host.Env[k]; !ok {
				continue // as with docker
			}
		}
		args[k] = v
	}
	return args
}

func (c *checker) pairs(setting string, list []string) map[string]string {
	m := map[string]string{}
	for _, kv := range list {
		k, v, ok := strings.Cut(kv, "=")
		if k = strings.TrimSpace(k); k == "" || !ok {
			c.add(setting, "%s: write KEY=VALUE", kv)
			continue
		}
		m[k] = v
	}
	return m
}

func (c *checker) namedContexts(list []string) map[string]string {
	m := c.pairs("build-contexts", list)
	for name, value := range m {
		if err := core.CheckContext(value, true); err != nil {
			c.add("build-contexts", "%s: %w", name, err)
		}
	}
	return m
}

func (c *checker) hosts(list []string) []string { return each(c, "add-hosts", list, syntax.Host) }

// paths are those of an image.
func (c *checker) paths(setting string, list []string) []string {
	for _, p := range list {
		if !strings.HasPrefix(p, "/") {
			c.add(setting, "%s: write a path of the image, which begins with /", p)
		}
	}
	return list
}

func (c *checker) ulimits(list []string) []string { return each(c, "ulimit", list, syntax.Ulimit) }

func (c *checker) size(setting, text string) int64 {
	if text == "" {
		return 0
	}
	n, err := syntax.Size(text)
	if err != nil {
		c.add(setting, "%s: %w", text, err)
	}
	return n
}

// ssh reads ID[=PATH,…]; without a path it is the agent of the environment.
func (c *checker) ssh(list []string) (out []core.SSH) {
	for _, text := range list {
		id, paths, _ := strings.Cut(strings.TrimSpace(text), "=")
		agent := core.SSH{ID: id, Paths: split([]string{paths})}
		if len(agent.Paths) == 0 {
			socket := c.host.Env["SSH_AUTH_SOCK"]
			if socket == "" {
				c.add("ssh", "%s: there is no agent (SSH_AUTH_SOCK is not set): name a socket or key, as in %s=PATH", id, id)
				continue
			}
			agent.Paths = []string{socket}
		}
		out = append(out, agent)
	}
	return out
}

// maxSecret is BuildKit's limit for a secret.
const maxSecret = 500 << 10

// secrets reads the three lists and the git token. Values are never in errors.
func (c *checker) secrets(s Settings) (out []core.Secret) {
	seen := map[string]bool{}
	add := func(setting string, list []string, value func(string) ([]byte, error)) {
		for i, text := range list {
			id, v, ok := strings.Cut(text, "=")
			if id = strings.TrimSpace(id); id == "" || !ok {
				c.add(setting, "number %d: write ID=…", i+1)
				continue
			}
			if seen[id] {
				c.add(setting, "two secrets have the id %s", id)
			}
			seen[id] = true
			data, err := value(v)
			if err == nil && len(data) > maxSecret {
				err = fmt.Errorf("it is larger than 500 KiB")
			}
			if err != nil {
				c.add(setting, "secret %s: %w", id, err)
				continue
			}
			out = append(out, core.Secret{ID: id, Value: data})
		}
	}
	add("secrets", s.Secrets, func(v string) ([]byte, error) { return []byte(v), nil })
	add("secret-envs", s.SecretEnvs, func(v string) ([]byte, error) {
		value, ok := c.host.Env[strings.TrimSpace(v)]
		if !ok {
			return nil, fmt.Errorf("the variable %s is not set", v)
		}
		return []byte(value), nil
	})
	add("secret-files", s.SecretFiles, func(v string) ([]byte, error) { return c.host.ReadFile(strings.TrimSpace(v)) })
	if s.GitToken != "" && !seen["GIT_AUTH_TOKEN"] && core.IsRemote(s.Context) {
		out = append(out, core.Secret{ID: "GIT_AUTH_TOKEN", Value: []byte(s.GitToken)})
	}
	return out
}

// keyValues reads type=TYPE,KEY=VALUE; a field may stand in double quotes.
func keyValues(text string) (map[string]string, error) {
	r := csv.NewReader(strings.NewReader(text))
	r.LazyQuotes, r.TrimLeadingSpace = true, true
	record, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("not a line of comma separated fields: %w", err)
	}
	f := map[string]string{}
	for _, field := range record {
		k, v, ok := strings.Cut(field, "=")
		if k = strings.ToLower(strings.TrimSpace(k)); !ok {
			if k != "push" { // docker's short form
				return nil, fmt.Errorf("%q is not KEY=VALUE", field)
			}
			v = "true"
		}
		f[k] = strings.TrimSpace(v)
	}
	return f, nil
}

// annotations reads [KIND[PLATFORM],…:]KEY=VALUE, as docker does.
func (c *checker) annotations(list []string) []core.Annotation {
	return slices.Concat(each(c, "annotations", list, syntax.Annotations)...)
}
