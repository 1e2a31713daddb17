package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/layerwright/layerwright/plugin/syntax"
)

// flags are a build's flags as they were written; settings.go makes a request
// of them.
type flags struct {
	contextDir, dockerfile, target       string
	platforms                            []string
	buildArgs, labels, contexts, secrets []string
	noCache                              bool
	noCacheFilter                        []string
	addHosts, ulimits                    []string
	shmSize, hostname, cgroupParent      string
	ssh                                  []string
	network                              choice
	isolation, snapshots                 choice
	engines                              []string
	out                                  outputFlags
	cache                                cacheFlags
	call                                 callFlags
	registry                             registryFlags
	store, verbosity, profile            string
	force                                bool
	logFormat                            choice
	helpAll                              bool

	ignorePaths  []string
	minFree      string
	subPath      string
	git, bucket  string
	dryRun       bool
	timeout      time.Duration
	exitFromStep bool

	set map[string]bool // flags that were given
	// notices are what the settings come to, where that may surprise.
	notices []string
}

// aliases are other names of flags: Docker's where Kaniko's differ, and the
// other way round.
var aliases = map[string]string{
	"file": "dockerfile", "custom-platform": "platform", "customPlatform": "platform",
	"tarPath": "tar-path", "snapshotMode": "snapshot-mode", "whitelist-var-run": "ignore-var-run", "dry-run": "dryrun",
}

// onlyTarget is --target, which Kaniko's fork takes several times: the others would be
// built and thrown away.
type onlyTarget struct{ value *string }

func (o onlyTarget) String() string { return "" }
func (o onlyTarget) Type() string   { return "string" }

func (o onlyTarget) Set(s string) error {
	if *o.value != "" && *o.value != s {
		return fmt.Errorf("it was %s before: one stage is built; build the others by further calls", *o.value)
	}
	*o.value = s
	return nil
}

// choice is a flag with few possible values; the first is the default.
type choice struct {
	value  string
	values []string
	// aliases are other names of values.
	aliases map[string]string
}

func oneOf(values ...string) choice { return choice{value: values[0], values: values} }

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return strings.Join(c.values, "|") }

func (c *choice) Set(s string) error {
	if to, ok := c.aliases[s]; ok {
		s = to
	}
	if !slices.Contains(c.values, s) {
		hint := ""
		if near := syntax.Nearest(s, c.values); near != "" {
			hint = fmt.Sprintf(" (did you mean %s?)", near)
		}
		return fmt.Errorf("it must be %s%s", strings.Join(c.values, ", "), hint)
	}
	c.value = s
	return nil
}

// flagGroup is a paragraph of the help: what most people need, and the rest, which
// only --help-all explains.
type flagGroup struct {
	title       string
	names, more []string
	// quiet is a paragraph that only --help-all has.
	quiet bool
}

var flagGroups = []flagGroup{
	{title: "What to build",
		names: []string{"context", "dockerfile", "target", "platform", "build-arg", "build-context", "secret", "ssh"},
		more:  []string{"context-sub-path", "git", "bucket", "label", "no-cache", "no-cache-filter"}},
	{title: "Where the image goes",
		names: []string{"destination", "no-push", "output", "tar-path", "digest-file"},
		more: []string{"destination-policy", "push-by-digest", "image-name-with-digest-file", "image-name-tag-with-digest-file", "oci-layout-path", "rootfs-dir", "rootfs-tar", "iidfile", "metadata-file", "image-format", "compression", "compression-level",
			"annotation", "rewrite-timestamp", "reproducible", "single-snapshot"}},
	{title: "The cache between builds",
		names: []string{"cache", "cache-repo", "no-push-cache", "explain-cache"},
		more:  []string{"cache-from", "cache-ttl", "cache-run-layers", "cache-copy-layers", "cache-mounts", "cache-mount-max-size", "cache-scope", "cache-dir"}},
	registryGroup,
	{title: "How steps run", names: []string{"isolation", "engine"},
		more: []string{"add-host", "cgroup-parent", "hostname", "network", "shm-size", "ulimit", "ignore-path", "snapshots", "store", "min-free", "timeout", "force"}},
	{title: "Instead of a build", more: []string{"check", "call", "dryrun"}},
	{title: "Output", more: []string{"log-format", "verbosity", "exit-code-from-step", "profile"}},
	kanikoGroup(),
}

const buildHelp = `layerwright build [flags] [CONTEXT]

  layerwright build -t registry.example/app:1 .
  layerwright build -f docker/Dockerfile --target test --no-push .
  layerwright build --secret id=token,env=TOKEN --build-arg VERSION -d a/b:1 -d a/b:2

Where credentials come from: layerwright doctor --registry HOST.
`

// register adds every flag to fs. A usage is what follows the name, a tab, and
// what it does.
func (f *flags) register(fs *pflag.FlagSet) {
	f.network = oneOf("default", "host", "none")
	f.isolation, f.snapshots = oneOf("auto", "namespaces", "inplace", "chroot"), oneOf("auto", "overlay", "flat")
	f.logFormat = oneOf("auto", "plain", "tty", "json")
	f.logFormat.aliases = map[string]string{"color": "auto", "text": "plain"} // Kaniko's

	fs.StringVarP(&f.contextDir, "context", "c", "", "WHERE\tdirectory, - (a tar), tar://FILE, git or http; here by default")
	fs.StringVar(&f.subPath, "context-sub-path", "", "DIR\tin the context, to be the context instead")
	fs.StringVar(&f.git, "git", "", "KEY=VALUE,…\tof a git context: branch, recurse-submodules")
	fs.StringVarP(&f.bucket, "bucket", "b", "", "NAME\tin Google's storage, as --context gs://…")
	fs.StringVarP(&f.dockerfile, "dockerfile", "f", "Dockerfile", "FILE\talso looked for in the context; - is standard input (--file)")
	fs.Var(onlyTarget{&f.target}, "target", "STAGE\tthe stage to build instead of the last one")
	fs.StringArrayVar(&f.platforms, "platform", nil, "OS/ARCH\tmore with commas (--custom-platform)")
	fs.StringArrayVar(&f.buildArgs, "build-arg", nil, "KEY=VALUE\tor KEY, with its value in the environment")
	fs.StringArrayVar(&f.labels, "label", nil, "KEY=VALUE\tset a label of the image")
	fs.StringArrayVar(&f.contexts, "build-context", nil, "NAME=WHERE\tdirectory, docker-image://, oci-layout://, git, http, target:")
	fs.StringArrayVar(&f.secrets, "secret", nil, "id=NAME,src=FILE\tor id=NAME,env=VARIABLE, for RUN (a path alone: --credentials)")
	fs.StringArrayVar(&f.ssh, "ssh", nil, "ID[=SOCKET|KEY,…]\tssh agent, default $SSH_AUTH_SOCK, or keys, for steps and git")
	fs.BoolVar(&f.noCache, "no-cache", false, "\trun every step")
	fs.StringArrayVar(&f.noCacheFilter, "no-cache-filter", nil, "STAGE\trun every step of a stage")

	fs.StringArrayVar(&f.addHosts, "add-host", nil, "NAME:IP\ta line of /etc/hosts")
	fs.StringVar(&f.cgroupParent, "cgroup-parent", "", "GROUP\tignored: steps stay in the job's own control group")
	fs.StringVar(&f.hostname, "hostname", "", "NAME\tname of the host")
	fs.Var(&f.network, "network", "MODE\tdefault, host or none")
	fs.StringVar(&f.shmSize, "shm-size", "", "SIZE\tof /dev/shm, such as 64m")
	fs.StringArrayVar(&f.ulimits, "ulimit", nil, "NAME=SOFT[:HARD]\ta limit, such as nofile=1024:2048")

	fs.StringArrayVar(&f.ignorePaths, "ignore-path", nil, "PATH\tof the image, in no layer; later steps see it")

	f.out.register(fs)
	f.cache.register(fs)
	f.call.register(fs)
	registerKaniko(fs)

	f.registry.register(fs)
	f.registry.registerPush(fs)

	fs.Var(&f.isolation, "isolation", "MODE\tauto, namespaces, inplace or chroot (layerwright doctor)")
	fs.StringArrayVar(&f.engines, "engine", nil, "buildkit=ADDRESS,…\tbuild by a BuildKit there: platforms=, ca=, cert=, key=")
	fs.Var(&f.snapshots, "snapshots", "DRIVER\tauto, overlay or flat")
	fs.StringVar(&f.store, "store", "", "DIR\tfor file trees and layers")
	fs.BoolVar(&f.dryRun, "dryrun", false, "\tonly say which steps would run (--dry-run)")
	fs.StringVar(&f.minFree, "min-free", "", "SIZE\tmust be free in the store at the start; 128m, 0 asks nothing")
	fs.DurationVar(&f.timeout, "timeout", 0, "DURATION\tend the build after it, such as 30m, with exit code 124")
	fs.BoolVar(&f.force, "force", false, "\tallow inplace even where / looks worth keeping")
	fs.Var(&f.logFormat, "log-format", "FORMAT\tauto, plain, tty or json, on standard error")
	fs.StringVarP(&f.verbosity, "verbosity", "v", "info", "LEVEL\terror, warn, info or debug")
	fs.BoolVar(&f.exitFromStep, "exit-code-from-step", false, "\tend with the code of the command that failed")
	fs.StringVar(&f.profile, "profile", "", "DIR\twhere time and memory went: cpu.pprof, heap.pprof, trace.json")
	fs.BoolVar(&f.helpAll, "help-all", false, "\texplain every flag")
	fs.SortFlags = false
	fs.SetNormalizeFunc(normalizeFlag)
}

// normalizeFlag reads aliases.
func normalizeFlag(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if to, ok := aliases[name]; ok {
		name = to
	}
	return pflag.NormalizedName(name)
}

// stringList is a repeatable flag that two names share.
type stringList struct{ list *[]string }

func (l *stringList) String() string     { return strings.Join(*l.list, ",") }
func (l *stringList) Type() string       { return "string" }
func (l *stringList) Set(s string) error { *l.list = append(*l.list, s); return nil }

// writeHelp prints the flags by groups, one a line; without all those that few
// need are only named.
func writeHelp(c *cobra.Command, all bool) {
	var b strings.Builder
	b.WriteString(buildHelp)
	for _, g := range flagGroups {
		if g.quiet && !all {
			continue
		}
		fmt.Fprintf(&b, "\n%s:\n", g.title)
		for _, name := range g.names {
			b.WriteString(flagLine(c.Flags().Lookup(name)))
		}
		if all {
			for _, name := range g.more {
				b.WriteString(flagLine(c.Flags().Lookup(name)))
			}
		} else {
			b.WriteString(nameLines(g.more))
		}
	}
	if !all {
		b.WriteString("\nlayerwright build --help-all explains every flag.\n")
	}
	fmt.Fprint(c.OutOrStdout(), b.String())
}

// nameLines names flags, as many as fit on a line.
func nameLines(names []string) string {
	var b strings.Builder
	line := "     "
	for _, n := range names {
		if len(line)+len(n) > 92 {
			b.WriteString(line + "\n")
			line = "     "
		}
		line += " --" + n
	}
	return b.String() + line + "\n"
}

func flagLine(f *pflag.Flag) string {
	short := "    "
	if f.Shorthand != "" {
		short = "-" + f.Shorthand + ", "
	}
	arg, text, _ := strings.Cut(f.Usage, "\t")
	return fmt.Sprintf("  %s%-28s %s\n", short, strings.TrimSpace("--"+f.Name+" "+arg), text)
}
