package plugin

import (
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

// list adds what is wrong with the values of a setting, which name themselves.
func (c *checker) list(setting string, errs []error) {
	for _, err := range errs {
		c.add(setting, "%w", err)
	}
}

func (c *checker) buildArgs(list []string) map[string]string {
	args, errs := syntax.BuildArgs(list, c.host.Env)
	c.list("build-args", errs)
	return args
}

func (c *checker) pairs(setting string, list []string) map[string]string {
	m, errs := syntax.Pairs(list)
	c.list(setting, errs)
	return m
}

func (c *checker) namedContexts(list []string) map[string]string {
	m, errs := syntax.Contexts(list)
	c.list("build-contexts", errs)
	return m
}

func (c *checker) hosts(list []string) []string { return each(c, "add-hosts", list, syntax.Host) }

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

// ssh are the agents of the list, and the key as the agent default.
func (c *checker) ssh(s Settings) []core.SSH {
	out, errs := syntax.SSH(s.SSH, c.host.Env)
	c.list("ssh", errs)
	if s.SSHKey == "" {
		return out
	}
	const id = "default"
	if slices.ContainsFunc(out, func(a core.SSH) bool { return a.ID == id }) {
		c.add("ssh-key", "it is the agent default, and %s has one, too", c.spell("ssh"))
	}
	return append(out, core.SSH{ID: id, Key: []byte(s.SSHKey + "\n")}) // a host may have trimmed it
}

// secrets reads the three lists and the git token.
func (c *checker) secrets(s Settings) []core.Secret {
	all := &syntax.Secrets{Env: c.host.Env, ReadFile: c.host.ReadFile}
	c.list("secrets", all.Values(s.Secrets))
	c.list("secret-envs", all.Variables(s.SecretEnvs))
	c.list("secret-files", all.Files(s.SecretFiles))
	const token = "GIT_AUTH_TOKEN"
	if s.GitToken != "" && core.IsRemote(s.Context) && !slices.ContainsFunc(all.List, func(s core.Secret) bool { return s.ID == token }) {
		all.List = append(all.List, core.Secret{ID: token, Value: []byte(s.GitToken)})
	}
	return all.List
}

// annotations reads [KIND[PLATFORM],…:]KEY=VALUE, as docker does.
func (c *checker) annotations(list []string) []core.Annotation {
	return slices.Concat(each(c, "annotations", list, syntax.Annotations)...)
}
