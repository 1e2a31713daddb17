package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/layerwright/layerwright/core"
)

// flags are a build's flags as they were written; settings.go makes a request
// of them.
type flags struct {
	contextDir, dockerfile, target                 string
	platforms, destinations                        []string
	buildArgs, labels, contexts, secrets           []string
	noCache                                        bool
	noCacheFilter                                  []string
	addHosts, ulimits                              []string
	shmSize, hostname                              string
	network                                        choice
	noPush                                         bool
	tarPath, layoutPath, digestFile                string
	imageFormat, compression, isolation, snapshots choice
	registry                                       core.Registry
	pushRetry, pullRetry                           int
	store, verbosity                               string
	force                                          bool
	logFormat                                      choice

	set map[string]bool // flags that were given
}

// aliases are other names of flags: Docker's where Kaniko's differ, and the
// other way round.
var aliases = map[string]string{
	"file": "dockerfile", "custom-platform": "platform", "customPlatform": "platform",
	"tarPath": "tar-path",
}

// choice is a flag with few possible values; the first is the default.
type choice struct {
	value  string
	values []string
}

func oneOf(values ...string) choice { return choice{value: values[0], values: values} }

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return strings.Join(c.values, "|") }

func (c *choice) Set(s string) error {
	if !slices.Contains(c.values, s) {
		hint := ""
		if near := nearest(s, c.values); near != "" {
			hint = fmt.Sprintf(" (did you mean %s?)", near)
		}
		return fmt.Errorf("it must be %s%s", strings.Join(c.values, ", "), hint)
	}
	c.value = s
	return nil
}

// flagGroup is a paragraph of the help.
type flagGroup struct {
	title string
	names []string
}

var flagGroups = []flagGroup{
	{"What to build", []string{"context", "dockerfile", "target", "platform", "build-arg", "label", "build-context", "secret", "no-cache", "no-cache-filter"}},
	{"How steps run", []string{"add-host", "hostname", "network", "shm-size", "ulimit"}},
	{"Where the image goes", []string{"destination", "no-push", "oci-layout-path", "tar-path", "digest-file", "image-format", "compression"}},
	{"Registries", []string{"registry-mirror", "insecure", "insecure-registry", "skip-tls-verify", "skip-tls-verify-registry", "push-retry", "image-download-retry"}},
	{"This machine", []string{"isolation", "snapshots", "store", "force"}},
	{"Output", []string{"log-format", "verbosity"}},
}

const buildHelp = `layerwright build [flags] [CONTEXT]

  layerwright build -t registry.example/app:1 .
  layerwright build -f docker/Dockerfile --target test --no-push .
  layerwright build --secret id=token,env=TOKEN --build-arg VERSION -d a/b:1 -d a/b:2

Credentials come from config.json in $DOCKER_CONFIG or ~/.docker.
`

// register adds every flag to fs. A usage is what follows the name, a tab, and
// what it does.
func (f *flags) register(fs *pflag.FlagSet) {
	f.network = oneOf("default", "host", "none")
	f.imageFormat, f.compression = oneOf("oci", "docker"), oneOf("gzip", "zstd", "none")
	f.isolation, f.snapshots = oneOf("auto", "namespaces", "inplace", "chroot"), oneOf("auto", "overlay", "flat")
	f.logFormat = oneOf("auto", "plain", "tty", "json")

	fs.StringVarP(&f.contextDir, "context", "c", "", "DIR\tthe build context, here by default; also as argument")
	fs.StringVarP(&f.dockerfile, "dockerfile", "f", "Dockerfile", "FILE\talso looked for in the context; - is standard input (--file)")
	fs.StringVar(&f.target, "target", "", "STAGE\tthe stage to build instead of the last one")
	fs.StringArrayVar(&f.platforms, "platform", nil, "OS/ARCH\tmore with commas (--custom-platform)")
	fs.StringArrayVar(&f.buildArgs, "build-arg", nil, "KEY=VALUE\tor KEY, with its value in the environment")
	fs.StringArrayVar(&f.labels, "label", nil, "KEY=VALUE\tset a label of the image")
	fs.StringArrayVar(&f.contexts, "build-context", nil, "NAME=DIR\tor NAME=docker-image://REFERENCE, for FROM and --from")
	fs.StringArrayVar(&f.secrets, "secret", nil, "id=NAME,src=FILE\tor id=NAME,env=VARIABLE, for RUN --mount=type=secret")
	fs.BoolVar(&f.noCache, "no-cache", false, "\trun every step")
	fs.StringArrayVar(&f.noCacheFilter, "no-cache-filter", nil, "STAGE\trun every step of a stage")

	fs.StringArrayVar(&f.addHosts, "add-host", nil, "NAME:IP\ta line of /etc/hosts")
	fs.StringVar(&f.hostname, "hostname", "", "NAME\tname of the host")
	fs.Var(&f.network, "network", "MODE\tdefault, host or none")
	fs.StringVar(&f.shmSize, "shm-size", "", "SIZE\tof /dev/shm, such as 64m")
	fs.StringArrayVar(&f.ulimits, "ulimit", nil, "NAME=SOFT[:HARD]\ta limit, such as nofile=1024:2048")

	destination := &stringList{&f.destinations}
	fs.VarP(destination, "destination", "d", "IMAGE\twhere to push to; again for more (-t, --tag)")
	fs.VarP(destination, "tag", "t", "")
	fs.BoolVar(&f.noPush, "no-push", false, "\tpush nothing; destinations only name the image in other outputs")
	fs.StringVar(&f.layoutPath, "oci-layout-path", "", "DIR\twrite an OCI image layout")
	fs.StringVar(&f.tarPath, "tar-path", "", "FILE\twrite what docker load reads")
	fs.StringVar(&f.digestFile, "digest-file", "", "FILE\twrite the digest of the image")
	fs.Var(&f.imageFormat, "image-format", "FORMAT\toci or docker")
	fs.Var(&f.compression, "compression", "KIND\tof new layers: gzip, zstd or none")

	r := &f.registry
	fs.StringArrayVar(&r.Mirrors, "registry-mirror", nil, "HOST\task it first for images of Docker Hub")
	fs.BoolVar(&r.Insecure, "insecure", false, "\tplain HTTP with all registries")
	fs.StringArrayVar(&r.InsecureRegistries, "insecure-registry", nil, "HOST\tplain HTTP with this one")
	fs.BoolVar(&r.SkipTLSVerify, "skip-tls-verify", false, "\tcheck no certificates")
	fs.StringArrayVar(&r.SkipTLSVerifyRegistries, "skip-tls-verify-registry", nil, "HOST\tdo not check the certificate of this one")
	fs.IntVar(&f.pushRetry, "push-retry", 3, "N\tfurther attempts at a push, 3 by default")
	fs.IntVar(&f.pullRetry, "image-download-retry", 3, "N\tfurther attempts at a pull, 3 by default")

	fs.Var(&f.isolation, "isolation", "MODE\tauto, namespaces, inplace or chroot (layerwright doctor)")
	fs.Var(&f.snapshots, "snapshots", "DRIVER\tauto, overlay or flat")
	fs.StringVar(&f.store, "store", "", "DIR\tfor file trees and layers")
	fs.BoolVar(&f.force, "force", false, "\tallow inplace even where / looks worth keeping")
	fs.Var(&f.logFormat, "log-format", "FORMAT\tauto, plain, tty or json, on standard error")
	fs.StringVarP(&f.verbosity, "verbosity", "v", "info", "LEVEL\terror, warn, info or debug")
	fs.SortFlags = false
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if to, ok := aliases[name]; ok {
			name = to
		}
		return pflag.NormalizedName(name)
	})
}

// stringList is a repeatable flag that two names share.
type stringList struct{ list *[]string }

func (l *stringList) String() string     { return strings.Join(*l.list, ",") }
func (l *stringList) Type() string       { return "string" }
func (l *stringList) Set(s string) error { *l.list = append(*l.list, s); return nil }

// writeHelp prints the flags by groups, one a line.
func writeHelp(c *cobra.Command) {
	var b strings.Builder
	b.WriteString(buildHelp)
	for _, g := range flagGroups {
		fmt.Fprintf(&b, "\n%s:\n", g.title)
		for _, name := range g.names {
			b.WriteString(flagLine(c.Flags().Lookup(name)))
		}
	}
	fmt.Fprint(c.OutOrStdout(), b.String())
}

func flagLine(f *pflag.Flag) string {
	short := "    "
	if f.Shorthand != "" {
		short = "-" + f.Shorthand + ", "
	}
	arg, text, _ := strings.Cut(f.Usage, "\t")
	return fmt.Sprintf("  %s%-28s %s\n", short, strings.TrimSpace("--"+f.Name+" "+arg), text)
}
