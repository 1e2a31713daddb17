package core

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerwright/layerwright/core/internal/buildkit"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/frontend"
)

// Engine is a BuildKit elsewhere that carries builds out instead of this machine.
type Engine struct {
	// Address is where it is: tcp://HOST:PORT, unix:///PATH, kube-pod://POD,
	// docker-container://NAME, podman-container://NAME or ssh://HOST.
	Address string
	// Platforms are those that it is to build, "os/arch[/variant]"; all that its
	// workers can when empty.
	Platforms []string
	// CA, Cert and Key are files in PEM, ServerName is what its certificate must be
	// for: TLS, with tcp:// only.
	CA, Cert, Key, ServerName string
}

// ParseEngines reads engines as settings hand them over: one an entry, or several with
// commas between them, "buildkit=A,platforms=P,buildkit=B".
func ParseEngines(list []string) (out []Engine, err error) {
	text := strings.Join(list, ",")
	for text != "" {
		one := text
		if i := strings.Index(text[1:], ",buildkit="); i >= 0 {
			one, text = text[:i+1], text[i+2:]
		} else {
			text = ""
		}
		e, bad := ParseEngine(strings.TrimSpace(one))
		if bad != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", one, bad))
			continue
		}
		out = append(out, e)
	}
	return out, err
}

// ParseEngine reads "buildkit=ADDRESS[,platforms=P,…][,ca=FILE][,cert=FILE,key=FILE]
// [,servername=NAME]". It opens nothing.
func ParseEngine(text string) (Engine, error) {
	fields := strings.Split(text, ",")
	kind, address, ok := strings.Cut(fields[0], "=")
	if !ok || kind != "buildkit" || address == "" {
		return Engine{}, errors.New("write buildkit=ADDRESS, such as buildkit=tcp://builder:1234")
	}
	e := Engine{Address: address}
	key := ""
	for _, field := range fields[1:] {
		k, v, ok := strings.Cut(field, "=")
		if !ok && key == "platforms" { // platforms=linux/amd64,linux/arm64
			k, v = key, field
		}
		key = k
		at := map[string]*string{"ca": &e.CA, "cert": &e.Cert, "key": &e.Key, "servername": &e.ServerName}[k]
		switch {
		case v == "":
			return Engine{}, fmt.Errorf("%q is not KEY=VALUE", field)
		case k == "platforms" || k == "platform":
			if _, err := platforms.Parse(v); err != nil {
				return Engine{}, fmt.Errorf("platform %s: %w", v, err)
			}
			e.Platforms = append(e.Platforms, v)
			key = "platforms"
		case at != nil:
			*at = v
		default:
			return Engine{}, fmt.Errorf("unknown key %q: use platforms, ca, cert, key and servername", k)
		}
	}
	return e, e.endpoint().Check()
}

func (e Engine) endpoint() buildkit.Endpoint {
	return buildkit.Endpoint{Address: e.Address, CA: e.CA, Cert: e.Cert, Key: e.Key, ServerName: e.ServerName}
}

// engine is one that has answered.
type engine struct {
	*buildkit.Engine
	// only are the platforms that it is to build; nil for all that it can.
	only []ocispecs.Platform
	gone bool
}

// share is what one engine builds.
type share struct {
	engine    *engine
	platforms []ocispecs.Platform
	// label tells its steps from those of other shares.
	label string
}

// byEngines is Build with the request's engines: they get the same request of the
// Dockerfile frontend, and push or hand back by digest; tags, index and files are made
// here of what they have made.
func (b *build) byEngines(ctx context.Context) (*Result, error) {
	if err := b.fitsEngines(); err != nil {
		return nil, err
	}
	end := b.timed("open")
	err := b.openWithoutMachine(ctx)
	end()
	if err != nil {
		return nil, err
	}
	b.proxyArguments()
	engines, err := b.connect(ctx)
	if err != nil {
		return nil, err
	}
	shares, err := assign(engines, b.platforms)
	if err != nil {
		return nil, err
	}
	expected := b.platforms
	if len(expected) == 0 {
		expected = shares[0].engine.Platforms[:1]
	}
	images := make([]frontend.Image, len(expected))
	for i, p := range expected {
		images[i].Platform = p
	}
	if err := b.checkAnnotations(&frontend.Result{Images: images}); err != nil {
		return nil, err
	}
	job, err := b.engineJob(ctx)
	if err != nil {
		return nil, err
	}
	seen := &cachedSteps{Sink: b.sink}
	run := &engineRun{b: b, engines: engines, job: job, sink: seen}
	built, err := run.all(ctx, shares)
	if err != nil {
		return nil, err
	}
	if err := run.writeRootTar(ctx); err != nil {
		return nil, err
	}
	if len(built) == 0 { // only a build, or only root file systems
		return &Result{}, nil
	}
	order(built, expected)
	out, err := b.export(ctx, built)
	if out != nil && (b.req.Cache.Repo != "" || len(b.req.Cache.From) > 0) {
		out.Cache = seen.list()
	}
	return out, err
}

// openWithoutMachine is open for a build whose steps run elsewhere.
func (b *build) openWithoutMachine(ctx context.Context) (err error) {
	if b.platforms, err = parsePlatforms(b.req.Platforms); err != nil {
		return err
	}
	if err := b.openContext(); err != nil {
		return err
	}
	if b.secrets, err = readSecrets(b.req.Secrets); err != nil {
		return err
	}
	store, err := makeStore(b.req.Store)
	if err != nil {
		return err
	}
	b.machine = &machine{store: store, outside: func(f func() error) error { return f() }}
	if err := errors.Join(b.openHandles(), b.openAgents(ctx), b.openTransport()); err != nil {
		return err
	}
	if err := b.openObject(ctx); err != nil {
		return err
	}
	if b.work, err = newWorkdir(store); err != nil {
		return err
	}
	b.atEnd(b.work.close)
	if err := b.loadContext(ctx); err != nil {
		return err
	}
	return b.openRegistry(ctx)
}

// fitsEngines refuses settings that mean nothing to an engine, all at once, and says
// which have another meaning.
func (b *build) fitsEngines() error {
	r := b.req
	var bad []string
	for name, given := range map[string]bool{
		"--isolation": r.Isolation != "" && r.Isolation != "auto", "--snapshots": r.Snapshots != "" && r.Snapshots != "auto",
		"--single-snapshot": r.Outputs.SingleSnapshot, "--ignore-path": len(r.IgnorePaths) > 0, "--dryrun": r.DryRun,
		"--cache-run-layers=false": r.Cache.NoRunLayers, "--cache-copy-layers=false": r.Cache.NoCopyLayers,
		"--cache-repo oci:…": strings.HasPrefix(r.Cache.Repo, "oci:") || slices.ContainsFunc(r.Cache.From, func(s string) bool { return strings.HasPrefix(s, "oci:") }),
	} {
		if given {
			bad = append(bad, name)
		}
	}
	for name, value := range r.NamedContexts {
		if kind, _, err := contextOf(value); err == nil && kind == contextStage {
			bad = append(bad, "--build-context "+name+"="+value)
		}
	}
	if len(bad) > 0 {
		slices.Sort(bad)
		return fault.New(fault.Usage, "with --engine there is no %s: steps run, and trees and caches are kept, where the engine is", strings.Join(bad, ", ")).
			With("Leave it out, or build without --engine.")
	}
	reg := r.Registry
	if len(reg.Mirrors)+len(reg.Maps)+len(reg.Certificates)+len(reg.ClientCertificates) > 0 || reg.InsecurePull || reg.SkipTLSVerifyPull {
		b.notice("mirrors, certificates and permissions for pulling are the engine's own (buildkitd.toml): those of this job hold for pushing tags only")
	}
	if r.Cache.Mounts {
		b.notice("cache mounts stay where the engine is: --cache-mounts keeps none of them in the cache repository")
	}
	return nil
}

// connect reaches the engines, at once. As long as one answers, the others are only
// said to be missing.
func (b *build) connect(ctx context.Context) ([]*engine, error) {
	defer patience(b.notice, "waiting for the engine to answer")()
	defer b.timed("connect")()
	list := make([]*engine, len(b.req.Engines))
	errs := make([]error, len(list))
	var all sync.WaitGroup
	for i, e := range b.req.Engines {
		all.Go(func() {
			only, err := parsePlatforms(e.Platforms)
			if err != nil {
				errs[i] = err
				return
			}
			found, err := buildkit.Connect(ctx, e.endpoint())
			if err != nil {
				errs[i] = err
				return
			}
			list[i] = &engine{Engine: found, only: only}
		})
	}
	all.Wait()
	var out []*engine
	for i, e := range list {
		if e != nil {
			b.atEnd(e.Close)
			out = append(out, e)
			b.notice(fmt.Sprintf("engine: BuildKit %s at %s, %s", e.Version, e.Name, describePlatforms(e)))
		} else if f, ok := fault.As(errs[i]); ok && f.Kind == fault.Usage {
			return nil, errs[i]
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if len(out) == 0 {
		return nil, first(errs)
	}
	if err := errors.Join(errs...); err != nil {
		b.warn(fmt.Sprintf("building without an engine that does not answer: %v", err))
	}
	return out, nil
}

// first is the error of several that is shown; the others are in its text.
func first(errs []error) error {
	f, ok := fault.As(errs[0])
	if !ok || len(errs) == 1 {
		return errors.Join(errs...)
	}
	return (&fault.Error{Kind: f.Kind, Err: errors.Join(errs...)}).With(f.Remedy)
}

func describePlatforms(e *engine) string {
	list := e.only
	if list == nil {
		list = e.Platforms
	}
	var names []string
	for _, p := range list {
		if name := platforms.Format(p); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) > 4 {
		names = append(names[:4], "…")
	}
	return strings.Join(names, " ")
}

// assign gives each platform to an engine that is there: to one that names it, else
// one whose workers run it, else, since a platform whose steps only copy needs no
// processor, to one that names none; of several to the one with the least to do.
func assign(engines []*engine, want []ocispecs.Platform) ([]share, error) {
	there := slices.DeleteFunc(slices.Clone(engines), func(e *engine) bool { return e.gone })
	if len(want) == 0 {
		return []share{{engine: there[0]}}, nil
	}
	given := map[*engine][]ocispecs.Platform{}
	for _, p := range want {
		var best *engine
		rank := 0
		for _, e := range there {
			if r := fits(e, p); r > rank || r == rank && r > 0 && len(given[e]) < len(given[best]) {
				best, rank = e, r
			}
		}
		if best == nil {
			return nil, fault.New(fault.Usage, "no engine is for %s", platforms.Format(p)).
				With("Name one with --engine buildkit=ADDRESS,platforms=" + platforms.Format(p) + ", or one without platforms.")
		}
		given[best] = append(given[best], p)
	}
	var out []share
	for _, e := range there {
		if len(given[e]) > 0 {
			out = append(out, share{engine: e, platforms: given[e]})
		}
	}
	if len(out) > 1 {
		for i := range out {
			var names []string
			for _, p := range out[i].platforms {
				names = append(names, platforms.Format(p))
			}
			out[i].label = strings.Join(names, ",")
		}
	}
	return out, nil
}

// fits ranks how well an engine is for a platform; 0 for not at all.
func fits(e *engine, p ocispecs.Platform) int {
	is := platforms.OnlyStrict(p).Match
	switch {
	case slices.ContainsFunc(e.only, is):
		return 3
	case e.only != nil:
		return 0
	case slices.ContainsFunc(e.Platforms, is):
		return 2
	}
	return 1
}

// engineJob is the frontend's call, without what is a share's own.
func (b *build) engineJob(ctx context.Context) (buildkit.Job, error) {
	var j buildkit.Job
	req := b.frontendRequest()
	req.Platforms = nil
	if err := b.fetchObject(ctx); err != nil {
		return j, err
	}
	attrs, err := frontend.Options(req)
	if err != nil {
		return j, err
	}
	if b.req.CgroupParent != "" {
		attrs["cgroup-parent"] = b.req.CgroupParent
	}
	text := b.data
	if dir, ok := b.locals[frontend.Dockerfile]; ok && text == nil {
		// Whatever is wrong with it the engine says.
		text, _ = os.ReadFile(filepath.Join(dir, b.file))
	}
	if ref, builtin := frontend.Syntax(text); builtin {
		attrs["cmdline"] = ref // BuildKit's mark for a frontend that has been chosen
		b.notice(ref + ": the engine's built-in Dockerfile frontend is used in its place")
	}
	j = buildkit.Job{Attrs: attrs, Locals: b.locals, DockerfileName: b.file, Dockerfile: b.data, File: b.file, Text: text, Archive: b.remote.archive,
		Layouts: map[string]string{}, Secrets: b.secrets, Logins: b.engineLogin, HostNetwork: b.req.Network == "host"}
	j.Web = &http.Client{Transport: b.client.Transport()}
	if b.agents != nil {
		j.SSH = b.agents
	}
	for id, l := range b.remote.layouts {
		j.Layouts[id] = l.Dir()
	}
	return j, nil
}

// fetchObject fetches a build context that only this job can reach: an object in a
// cloud's store, whose requests are signed here.
func (b *build) fetchObject(ctx context.Context) error {
	if !b.remote.signed {
		return nil
	}
	dir, err := b.work.sub("object")
	if err != nil {
		return err
	}
	if err := b.remote.web.Fetch(ctx, b.remote.url, map[string]string{"http.filename": "context"}, dir); err != nil {
		return err
	}
	b.remote.archive = filepath.Join(dir, "context")
	return nil
}

// engineLogin is the login that an engine may use at a registry.
func (b *build) engineLogin(ctx context.Context, host string) (buildkit.Login, error) {
	found, err := b.client.Search(ctx, host)
	if err != nil {
		return buildkit.Login{}, err
	}
	return buildkit.Login{Username: found.Username, Password: found.Password, Token: found.RegistryToken, IdentityToken: found.IdentityToken}, nil
}

// order sorts images as their platforms were asked for.
func order(images []solved, want []ocispecs.Platform) {
	at := func(p ocispecs.Platform) int {
		return slices.IndexFunc(want, func(w ocispecs.Platform) bool { return platforms.OnlyStrict(w).Match(p) })
	}
	slices.SortStableFunc(images, func(a, b solved) int { return at(a.platform) - at(b.platform) })
}
