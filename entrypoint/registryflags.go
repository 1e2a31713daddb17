package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/display"
	"github.com/layerwright/layerwright/plugin/syntax"
)

// registryFlags are the flags of every command that speaks to registries, as
// they were written.
type registryFlags struct {
	core.Registry
	certificates, clientCertificates, maps, helpers []string
	pushRetry, pullRetry                            int
}

// registryGroup is the paragraph of the help about them.
var registryGroup = flagGroup{title: "Registries", names: []string{"credentials", "insecure-registry", "registry-mirror"},
	more: []string{"insecure", "insecure-pull", "skip-tls-verify", "skip-tls-verify-pull", "skip-tls-verify-registry", "registry-certificate", "registry-client-cert", "registry-map",
		"skip-default-registry-fallback", "push-retry", "image-download-retry", "push-ignore-immutable-tag-errors", "skip-push-permission-check", "credential-helpers"}}

// register adds the flags that say how registries are reached.
func (r *registryFlags) register(fs *pflag.FlagSet) {
	fs.StringArrayVar(&r.CredentialFiles, "credentials", nil, "FILE\tlogins like Docker's config.json, before all others")
	fs.StringArrayVar(&r.helpers, "credential-helpers", nil, "LIST\tuse of env,google,ecr,acr,gitlab only these")
	fs.BoolVar(&r.Insecure, "insecure", false, "\tplain HTTP for all that is pushed, and the cache")
	fs.BoolVar(&r.InsecurePull, "insecure-pull", false, "\tplain HTTP for all that is pulled")
	fs.StringArrayVar(&r.InsecureRegistries, "insecure-registry", nil, "HOST\tplain HTTP with this one")
	fs.BoolVar(&r.SkipTLSVerify, "skip-tls-verify", false, "\tcheck no certificates for what is pushed, and the cache")
	fs.BoolVar(&r.SkipTLSVerifyPull, "skip-tls-verify-pull", false, "\tcheck no certificates for what is pulled")
	fs.StringArrayVar(&r.SkipTLSVerifyRegistries, "skip-tls-verify-registry", nil, "HOST\tdo not check the certificate of this one")
	fs.StringArrayVar(&r.certificates, "registry-certificate", nil, "HOST=FILE\ttrust these certificates, too, for HOST")
	fs.StringArrayVar(&r.clientCertificates, "registry-client-cert", nil, "HOST=CERT,KEY\tshow HOST this certificate")
	fs.StringArrayVar(&r.maps, "registry-map", nil, "HOST=OTHER[;…]\task OTHER[/PREFIX] first for images of HOST")
	fs.StringArrayVar(&r.Mirrors, "registry-mirror", nil, "HOST\task it first for images of Docker Hub")
	fs.BoolVar(&r.NoFallback, "skip-default-registry-fallback", false, "\task mirrors only, where there are some")
	fs.IntVar(&r.pullRetry, "image-download-retry", 3, "N\tfurther attempts at a pull, 3 by default")
}

// registerPush adds the flags of a command that pushes.
func (r *registryFlags) registerPush(fs *pflag.FlagSet) {
	fs.IntVar(&r.pushRetry, "push-retry", 3, "N\tfurther attempts at a push, 3 by default")
	fs.BoolVar(&r.IgnoreImmutableTags, "push-ignore-immutable-tag-errors", false, "\ta tag that is there and must not change is no error")
	fs.BoolVar(&r.SkipPushCheck, "skip-push-permission-check", false, "\tdo not find out first whether pushing is allowed")
}

// given notes which flags of a command were written.
func (f *flags) given(c *cobra.Command) {
	f.set = map[string]bool{}
	c.Flags().Visit(func(x *pflag.Flag) { f.set[x.Name] = true })
}

// registrySettings are how registries are reached.
func (f *flags) registrySettings(c *checker, env map[string]string) core.Registry {
	r := f.registry.Registry
	r.PushRetries = f.retries(c, "push-retry", f.registry.pushRetry)
	r.PullRetries = f.retries(c, "image-download-retry", f.registry.pullRetry)
	r.Environment = env
	r.Mirrors = append(slices.Clone(r.Mirrors), syntax.Words(env["KANIKO_REGISTRY_MIRROR"], ",")...)
	var errs []error
	r.Maps, errs = syntax.RegistryMaps(append(slices.Clone(f.registry.maps), env["KANIKO_REGISTRY_MAP"]))
	c.list("registry-map", errs)
	r.Certificates, errs = syntax.Certificates(f.registry.certificates)
	c.list("registry-certificate", errs)
	r.ClientCertificates, errs = syntax.ClientCertificates(f.registry.clientCertificates)
	c.list("registry-client-cert", errs)
	if f.registry.helpers != nil {
		r.CredentialHelpers, errs = syntax.CredentialHelpers(f.registry.helpers)
		c.list("credential-helpers", errs)
	}
	return r
}

// splitSecrets tells build secrets (id=…) from files with logins, which Kaniko's
// tutorials give as --secret PATH.
func splitSecrets(given []string) (secrets, files []string) {
	for _, s := range given {
		path := !strings.Contains(s, "=") || strings.HasPrefix(s, "/") || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../")
		if path && s != "" {
			files = append(files, s)
		} else {
			secrets = append(secrets, s)
		}
	}
	return secrets, files
}

// doctorRegistry is "layerwright doctor --registry NAME".
func (p *process) doctorRegistry(c *cobra.Command, f *flags, name string) error {
	check := &checker{}
	r := f.registrySettings(check, p.env).Everywhere()
	if err := check.err(); err != nil {
		return err
	}
	report, err := core.DoctorRegistry(c.Context(), name, r)
	if err == nil {
		writeRegistryReport(p.stdout, report)
		err = report.Err
	}
	if err != nil {
		_, _ = io.WriteString(p.stderr, display.ErrorText(err, p.color()))
	}
	p.code = exitCode(c.Context(), err)
	return nil
}

func writeRegistryReport(out io.Writer, r core.RegistryReport) {
	fmt.Fprintf(out, "Looked for a login at %s, the first that is found is used:\n\n", r.Host)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, l := range r.Looked {
		mark := "-"
		switch {
		case l.Used:
			mark = "used"
		case l.Exists:
			mark = "no"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", mark, l.Source, l.Answer)
	}
	_ = w.Flush()
	switch {
	case r.Source == "" && r.Err == nil:
		fmt.Fprint(out, "\nA build would use no login; the registry answers without one.\n")
	case r.Source == "":
		fmt.Fprint(out, "\nA build would use no login.\n")
	case r.Err == nil:
		fmt.Fprintf(out, "\nA build would use the login from %s. The registry takes it.\n", r.Source)
	default:
		fmt.Fprintf(out, "\nA build would use the login from %s.\n", r.Source)
	}
}
