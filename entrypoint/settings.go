package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/display"
	"github.com/layerwright/layerwright/plugin/syntax"
)

// settings are checked flags.
type settings struct {
	core.Request
	fromStdin bool // the Dockerfile
	verbosity display.Verbosity
	call      call
}

// checker collects everything that is wrong with a command line, so that it is
// said at once.
type checker struct{ problems []error }

func (c *checker) add(format string, args ...any) {
	c.problems = append(c.problems, fmt.Errorf(format, args...))
}

func (c *checker) err() error {
	switch len(c.problems) {
	case 0:
		return nil
	case 1:
		return asUsage(c.problems[0])
	}
	return asUsage(fmt.Errorf("%d problems with the flags:\n%w", len(c.problems), errors.Join(c.problems...)))
}

// settings checks the flags and makes the request of them. It opens no file.
func (f *flags) settings(args []string, env map[string]string) (settings, error) {
	c := &checker{}
	f.fromEnvironment(c, env)
	s := settings{Request: core.Request{
		Context: f.context(c, args), Dockerfile: f.dockerfile, Target: f.target,
		NoCache: f.noCache, NoCacheFilter: f.noCacheFilter,
		Hostname: f.hostname, CgroupParent: f.cgroupParent, Network: f.network.value,
		Isolation: f.isolation.value, Snapshots: f.snapshots.value, Store: f.store, Force: f.force, ContextSubPath: f.subPath, DryRun: f.dryRun, IgnorePaths: each(c, "ignore-path", f.ignorePaths, syntax.ImagePath),
	}}
	if s.fromStdin = f.dockerfile == "-"; s.fromStdin {
		s.Dockerfile = "Dockerfile"
		if core.IsStream(s.Context) {
			c.add("--dockerfile - and the context %s: standard input can be only one of them", s.Context)
		}
	} else if !f.set["dockerfile"] && (core.IsRemote(s.Context) || len(args) > 0) {
		// In the context: one in a stream is not in doubt, and layerwright build
		// DIR is docker build DIR. Kaniko, which has --context only, looks into
		// the working directory first.
		s.Dockerfile = ""
	}
	f.allowance(c, &s.Request)
	s.Platforms = splitPlatforms(c, f.platforms)
	s.BuildArgs = c.buildArgs(f.buildArgs, env)
	var wrong []error
	s.Labels, wrong = syntax.Pairs(f.labels)
	c.list("label", wrong)
	s.NamedContexts, wrong = syntax.Contexts(f.contexts)
	c.list("build-context", wrong)
	buildSecrets, credentialFiles := splitSecrets(f.secrets)
	secrets := &syntax.Secrets{Env: env}
	c.list("secret", secrets.Docker(buildSecrets))
	s.Secrets = secrets.List
	s.SSH, wrong = syntax.SSH(f.ssh, env)
	c.list("ssh", wrong)
	f.limits(c, &s.Request)
	s.Engines = f.engineSettings(c)
	s.call = f.call.settings(c)
	f.outputs(c, &s.Request)
	s.Cache = f.cache.settings(c, f.set, s.Outputs.Destinations)
	f.notices = append(f.notices, f.cache.notices...)
	s.Registry = f.registrySettings(c, env)
	s.Registry.CredentialFiles = append(s.Registry.CredentialFiles, credentialFiles...)
	var err error
	if s.verbosity, err = display.ParseVerbosity(f.verbosity); err != nil {
		c.add("--verbosity: %w", err)
	}
	return s, c.err()
}

// engineSettings are the engines, and refuses flags that have a default here and no
// meaning there; the engine refuses the others.
func (f *flags) engineSettings(c *checker) (out []core.Engine) {
	for _, text := range f.engines {
		list, err := core.ParseEngines([]string{text})
		if err != nil {
			c.add("--engine %w", err)
		}
		out = append(out, list...)
	}
	for _, name := range []string{"cache-dir", "cache-ttl", "cache-mount-max-size", "min-free", "force"} {
		if len(f.engines) > 0 && f.set[name] {
			c.add("--%s has no meaning with --engine: leave it out", name)
		}
	}
	return out
}

// context is what to build, given as flag or argument.
func (f *flags) context(c *checker, args []string) string {
	dir := f.contextDir
	if f.bucket != "" {
		if dir != "" || len(args) > 0 {
			c.add("--bucket and --context are two contexts: leave --bucket out")
		}
		if dir = f.bucket; !strings.Contains(dir, "://") {
			dir = "gs://" + dir // Kaniko's default
		}
	}
	switch {
	case len(args) > 1:
		c.add("several contexts: %s: give one, and flags by two dashes", strings.Join(args, " "))
	case len(args) == 1 && dir != "" && dir != args[0]:
		c.add("two contexts: --context %s and %s", dir, args[0])
	case len(args) == 1:
		dir = args[0]
	}
	if rest, ok := strings.CutPrefix(dir, "dir://"); ok && rest != "" {
		dir = rest // Kaniko's way to write it
	}
	dir = f.gitOptions(c, dir)
	if err := core.CheckContext(dir, false); err != nil {
		c.add("context: %w", err)
	}
	if dir == "" {
		dir = "."
	}
	return dir
}

func splitPlatforms(c *checker, given []string) (list []string) {
	for _, p := range strings.Split(strings.Join(given, ","), ",") {
		if p != "" {
			list = append(list, p)
		}
	}
	return each(c, "platform", list, syntax.Platform)
}

// each reads the values of a flag, one after the other.
func each[T any](c *checker, flag string, given []string, read func(string) (T, error)) (out []T) {
	for _, text := range given {
		v, err := read(text)
		if err != nil {
			c.add("--%s %s: %w", flag, text, err)
			continue
		}
		out = append(out, v)
	}
	return out
}

// list adds what is wrong with the values of a flag, which name themselves.
func (c *checker) list(flag string, errs []error) {
	for _, err := range errs {
		c.add("--%s: %w", flag, err)
	}
}

func (c *checker) buildArgs(given []string, env map[string]string) map[string]string {
	args, errs := syntax.BuildArgs(given, env)
	c.list("build-arg", errs)
	return args
}

// limits are the settings of steps.
func (f *flags) limits(c *checker, r *core.Request) {
	r.ExtraHosts = each(c, "add-host", f.addHosts, syntax.Host)
	r.Ulimits = each(c, "ulimit", f.ulimits, syntax.Ulimit)
	if f.shmSize != "" {
		n, err := syntax.Size(f.shmSize)
		if err != nil {
			c.add("--shm-size %s: %w", f.shmSize, err)
		}
		r.ShmSize = n
	}
}

// retries is a number as the engine has it: there 0 is the default, and less
// than 0 none.
func (f *flags) retries(c *checker, flag string, n int) int {
	switch {
	case !f.set[flag]:
		return 0
	case n < 0:
		c.add("--%s %d: it must not be negative", flag, n)
	case n == 0:
		return -1
	}
	return n
}

// files are the local outputs that the request asks for.
func (s *settings) files() (list []string) {
	o := s.Outputs
	for _, f := range []string{o.OCILayout, o.OCITar, o.DockerTar, o.RootDir, o.RootTar, o.DigestFile, o.ImageIDFile, o.MetadataFile, o.NameDigestFile, o.NameTagDigestFile} {
		if f != "" && f != "-" {
			list = append(list, f)
		}
	}
	return list
}
