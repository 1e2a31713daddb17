package core

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/layerwright/layerwright/core/internal/cache"
	"github.com/layerwright/layerwright/core/internal/credentials"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/netrc"
	"github.com/layerwright/layerwright/core/internal/registry"
)

// CredentialHelpers are the names of the built-in credential helpers, in the
// order in which they are asked.
func CredentialHelpers() []string { return credentials.Helpers() }

// options are what package registry makes a client of.
func (r Registry) options() registry.Options {
	o := registry.Options{
		Insecure: r.Insecure, InsecurePull: r.InsecurePull, InsecureRegistries: r.InsecureRegistries,
		SkipTLSVerify: r.SkipTLSVerify, SkipTLSVerifyPull: r.SkipTLSVerifyPull, SkipTLSVerifyRegistries: r.SkipTLSVerifyRegistries,
		Certificates: r.Certificates, Mirrors: r.Mirrors, Maps: r.Maps, NoFallback: r.NoFallback,
		IgnoreImmutableTags: r.IgnoreImmutableTags, Environment: r.Environment,
		CredentialFiles: r.CredentialFiles, CredentialHelpers: r.CredentialHelpers,
		PullRetries: r.PullRetries, PushRetries: r.PushRetries, Clouds: r.Clouds,
	}
	for _, c := range r.Credentials {
		o.Logins = append(o.Logins, credentials.Explicit{For: c.Host,
			Login: credentials.Login{Username: c.Username, Password: c.Password, RegistryToken: c.Token, IdentityToken: c.IdentityToken}})
	}
	if len(r.ClientCertificates) > 0 {
		o.ClientCertificates = map[string]registry.KeyPair{}
		for host, c := range r.ClientCertificates {
			o.ClientCertificates[host] = registry.KeyPair(c)
		}
	}
	return o
}

func (b *build) registryOptions() registry.Options {
	o := b.req.Registry.options()
	o.Outside, o.Progress = b.machine.outside, b.sink
	// What holds for pushing holds for the cache's repositories, which are
	// read, too.
	var cached []string
	for _, repo := range append([]string{b.req.Cache.Repo}, b.req.Cache.From...) {
		if host, err := registry.Domain(repo); err == nil && repo != "" && !strings.HasPrefix(repo, "oci:") {
			cached = append(cached, host)
		}
	}
	if o.Insecure {
		o.InsecureRegistries = append(slices.Clone(o.InsecureRegistries), cached...)
	}
	if o.SkipTLSVerify {
		o.SkipTLSVerifyRegistries = append(slices.Clone(o.SkipTLSVerifyRegistries), cached...)
	}
	return o
}

// checkPush finds out, before anything runs, whether pushing is allowed to the
// destinations and to the cache repository that is written. A cache never fails
// a build: where it may not be written it is only read, which is said at once.
func (b *build) checkPush(ctx context.Context) error {
	if b.req.Registry.SkipPushCheck {
		return nil
	}
	var cached error
	var both sync.WaitGroup
	if c := b.req.Cache; c.Repo != "" && !c.NoPush && !strings.HasPrefix(c.Repo, "oci:") {
		if p, err := b.client.Pusher(c.Repo); err == nil { // else openCache says it
			both.Go(func() {
				ctx, cancel := context.WithTimeoutCause(ctx, cache.Patience, cache.ErrSlow)
				defer cancel()
				cached = p.Check(ctx)
			})
		}
	}
	var err error
	if b.push != nil {
		err = b.settle(b.push.Check(ctx))
	}
	both.Wait()
	if err == nil && (errors.Is(cached, registry.ErrDenied) || errors.Is(cached, cache.ErrSlow)) {
		b.req.Cache.NoPush = true
		b.warn(fmt.Sprintf("the cache in %s is only read: %v", b.req.Cache.Repo, cached))
	}
	return err
}

// settle is what is left of an error at some destinations, where others are good:
// nothing but a warning with Outputs.AnyDestination.
func (b *build) settle(good int, err error) error {
	if err == nil || good == 0 || !b.req.Outputs.AnyDestination {
		return err
	}
	b.warn(fmt.Sprintf("not all destinations (--destination-policy any): %v", err))
	return nil
}

// proxyArguments adds the build arguments for proxies that config.json has, as
// docker build does, to those that were given.
func (b *build) proxyArguments() {
	args, from := b.client.Proxies()
	given := b.req.BuildArgs
	maps.DeleteFunc(args, func(k, _ string) bool { _, ok := given[k]; return ok })
	if len(args) == 0 {
		return
	}
	maps.Copy(args, given)
	b.req.BuildArgs = args
	b.notice("steps get the proxies of " + from + " (proxies.default), as with docker build")
}

// openTransport prepares what reaches files and git repositories by URL: with
// the proxies of the job's variables and the logins of its .netrc. It reads
// files of the job.
func (b *build) openTransport() error {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return errors.New("http.DefaultTransport is not what it was")
	}
	t = t.Clone()
	t.Proxy = registry.Proxy(b.req.Registry.Environment)
	logins, err := netrc.Load(b.req.Registry.Environment)
	if err != nil {
		return fault.New(fault.Usage, "%w", err).With("Make the file readable for this user, or point NETRC to another one.")
	}
	b.web = logins.Transport(t)
	return nil
}

// openObject turns a context in a cloud's store into a URL whose requests are signed.
func (b *build) openObject(ctx context.Context) error {
	raw := b.remote.url
	if !credentials.IsObject(raw) {
		return nil
	}
	o, err := credentials.NewObject(ctx, raw, credentials.Options{Environment: b.req.Registry.Environment, Outside: b.machine.outside, Transport: b.web})
	if err != nil {
		return fault.New(fault.Usage, "build context %s: %w", withoutSecrets(raw), err).With("Correct the URL, or the variables with keys: docs/credentials.md.")
	}
	b.remote.url, b.remote.signed, b.web = o.URL, true, o.Transport(b.web)
	return nil
}

// Look is one source that was asked for a login.
type Look struct {
	Source, Answer string
	Used, Exists   bool
}

// RegistryReport says how a registry would be logged in at.
type RegistryReport struct {
	// Name is what was asked for, Host the registry that it means.
	Name, Host string
	// Looked are the sources in order, up to the one that had a login; Source
	// is that one, empty where there is none.
	Looked []Look
	Source string
	// Err is why there is no login, or what the registry says to it.
	Err error
}

// DoctorRegistry says which source of logins would be used for a name, "host" or
// "host/path", and tries it. No part of it has a secret.
func DoctorRegistry(ctx context.Context, text string, r Registry) (RegistryReport, error) {
	out := RegistryReport{Name: text}
	client, err := registry.New(r.options())
	if err != nil {
		return out, err
	}
	if out.Host, err = registry.Registry(text); err != nil {
		return out, err
	}
	found, _ := client.Search(ctx, text) // Login meets the same error
	for _, l := range found.Looked {
		out.Looked = append(out.Looked, Look{Source: l.Source, Answer: l.Answer, Used: l.Used, Exists: l.Exists || l.Trouble})
	}
	out.Source = found.Source
	out.Err = client.Login(ctx, text)
	return out, nil
}

// Everywhere has what is allowed for pushing or for pulling be allowed for both:
// for commands to which the difference means nothing.
func (r Registry) Everywhere() Registry {
	r.Insecure = r.Insecure || r.InsecurePull
	r.SkipTLSVerify = r.SkipTLSVerify || r.SkipTLSVerifyPull
	r.InsecurePull, r.SkipTLSVerifyPull = r.Insecure, r.SkipTLSVerify
	return r
}
