package core

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerwright/layerwright/core/internal/credentials"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/frontend"
	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/hostview"
	"github.com/layerwright/layerwright/core/internal/room"
	"github.com/layerwright/layerwright/core/internal/snapshot"
	"github.com/layerwright/layerwright/core/internal/solve"
	"github.com/layerwright/layerwright/core/internal/source/layout"
	"github.com/layerwright/layerwright/core/internal/source/web"
)

// contextKind is where a build context comes from.
type contextKind int

const (
	contextDir    contextKind = iota // a directory
	contextStream                    // a tar, or a Dockerfile, from a stream
	contextTar                       // a tar in a file
	contextRemote                    // a URL
	contextImage                     // docker-image://, named contexts only
	contextLayout                    // oci-layout://, named contexts only
	contextStage                     // target:, named contexts only
)

// maxDockerfile is BuildKit's limit.
const maxDockerfile = 2 << 20

// IsStream says whether a build context is read from a stream: "-", or Kaniko's
// tar://stdin.
func IsStream(value string) bool {
	kind, _, err := contextOf(value)
	return err == nil && kind == contextStream
}

// IsRemote says whether a build context comes from elsewhere than a directory.
func IsRemote(value string) bool {
	kind, _, err := contextOf(value)
	return err == nil && kind != contextDir
}

// IsGit says whether a build context is a git repository.
func IsGit(value string) bool {
	kind, rest, err := contextOf(value)
	if err != nil || kind != contextRemote {
		return false
	}
	git, _ := frontend.IsGit(rest)
	return git
}

// CheckContext says what is wrong with the form of a build context's name, or of
// a named context's value. It opens nothing.
func CheckContext(value string, named bool) error {
	kind, _, err := contextOf(value)
	switch {
	case err != nil:
		return err
	case named && kind == contextRemote && (strings.HasPrefix(value, "s3://") || strings.HasPrefix(value, "gs://")):
		return errors.New("an object can only be the main context (--context): fetch it before, and name a directory")
	case named && (kind == contextStream || kind == contextTar):
		return errors.New("a stream or tar file cannot be a named context: unpack it and name the directory")
	case !named && kind >= contextImage:
		return errors.New("this can only be a named context: --build-context NAME=" + value)
	}
	return nil
}

// contextOf reads the name of a context: the kind, and a path or URL.
func contextOf(value string) (contextKind, string, error) {
	scheme, rest, ok := strings.Cut(value, "://")
	switch {
	case value == "-", value == "tar://stdin":
		return contextStream, "", nil
	case strings.HasPrefix(value, "target:"):
		return contextStage, value, nil
	case !ok || strings.ContainsAny(scheme, "/ "):
		if git, err := frontend.IsGit(value); git && (!isDir(value) || err != nil) {
			return contextRemote, value, gitError(value, err)
		}
		return contextDir, value, nil
	}
	switch strings.ToLower(scheme) {
	case "dir", "tar", "docker-image", "oci-layout":
		if rest == "" {
			return 0, "", errors.New("nothing is named after " + scheme + "://")
		}
		kind := map[string]contextKind{"dir": contextDir, "tar": contextTar, "docker-image": contextImage, "oci-layout": contextLayout}[strings.ToLower(scheme)]
		return kind, rest, nil
	case "git", "ssh":
		value = kanikoGit(value)
		_, err := frontend.IsGit(value)
		return contextRemote, value, gitError(value, err)
	case "http", "https":
		if u, err := url.Parse(value); err != nil || u.Host == "" {
			return 0, "", errors.New("the URL cannot be parsed")
		}
		_, err := frontend.IsGit(value)
		return contextRemote, value, gitError(value, err)
	case "s3", "gs":
		if !credentials.IsObject(value) || strings.Trim(strings.TrimPrefix(rest, strings.SplitN(rest, "/", 2)[0]), "/") == "" {
			return 0, "", fmt.Errorf("write %s://BUCKET/ARCHIVE", scheme)
		}
		return contextRemote, value, nil
	}
	return 0, "", fmt.Errorf("unknown scheme %s://: use a directory, - (a tar by standard input), tar://FILE, a git repository, an http or https URL, s3:// or gs://", scheme)
}

func gitError(value string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("git repository %s: %w", withoutSecrets(value), err)
}

// withoutSecrets is a URL for messages.
func withoutSecrets(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(a URL that cannot be parsed)"
	}
	u.User = nil
	if u.RawQuery != "" {
		u.RawQuery = "…"
	}
	return u.String()
}

// kanikoGit turns Kaniko's way to write a repository, git://HOST/PATH[#REF
// [#COMMIT]], which means https, into BuildKit's. It is told from git's own
// protocol by the ref's full name, or by a host that does not speak that.
func kanikoGit(value string) string {
	rest, ok := strings.CutPrefix(value, "git://")
	if !ok {
		return value
	}
	place, fragment, _ := strings.Cut(rest, "#")
	host, _, _ := strings.Cut(place, "/")
	if i := strings.LastIndex(host, "@"); i >= 0 {
		host = host[i+1:]
	}
	if !strings.HasPrefix(fragment, "refs/") && !slices.Contains([]string{"github.com", "gitlab.com", "bitbucket.org"}, host) {
		return value
	}
	if place = strings.TrimSuffix(place, "/"); !strings.HasSuffix(place, ".git") {
		place += ".git"
	}
	if _, commit, ok := strings.Cut(fragment, "#"); ok {
		fragment = commit
	}
	if fragment != "" {
		place += "#" + fragment
	}
	return "https://" + place
}

// remote holds what a build needs of contexts that are no directories.
type remote struct {
	kind contextKind
	// url is the main context's; tar a file that is it.
	url string
	tar *os.File
	// archive is a file with the main context, where it is one; signed says that
	// requests for url are signed here.
	archive string
	signed  bool
	// layouts are by the store id that the frontend knows; values are what
	// it is told for a named context.
	layouts map[string]*layout.Layout
	values  map[string]string

	web web.Fetcher

	mu    sync.Mutex
	views []func()
}

// openRemote looks at the main context's name; done says that it is no
// directory, and where its Dockerfile is has been settled.
func (b *build) openRemote() (done bool, err error) {
	kind, value, err := contextOf(b.req.Context)
	if err == nil {
		err = CheckContext(b.req.Context, false)
	}
	if err != nil {
		return false, fault.New(fault.Usage, "build context %s: %w", withoutSecrets(b.req.Context), err).With("Correct --context.")
	}
	sub := b.req.ContextSubPath
	if sub != "" && !filepath.IsLocal(sub) {
		return false, fault.New(fault.Usage, "--context-sub-path %s is not in the context", sub).With("Write a relative path without dots.")
	}
	b.remote.kind = kind
	switch kind {
	case contextDir:
		b.req.Context = filepath.Join(value, sub)
		return false, nil
	case contextRemote:
		b.remote.url = value
	case contextTar:
		if b.remote.tar, err = os.Open(value); err != nil {
			return false, fault.New(fault.User, "build context tar://%s: %w", value, cause(err)).With("Name a tar archive of the context.")
		}
		b.atEnd(b.remote.tar.Close)
	case contextStream:
		if b.req.Stdin == nil {
			return false, fault.New(fault.Usage, "build context %s: there is no standard input", b.req.Context).With("Pipe a tar archive into the build.")
		}
	}
	return true, b.remoteDockerfile()
}

// remoteDockerfile finds where the Dockerfile of a remote context is: an absolute
// path is a file here, any other one is in the context.
func (b *build) remoteDockerfile() error {
	name := b.req.Dockerfile
	switch {
	case b.req.DockerfileData != nil:
		b.file, b.data = "Dockerfile", b.req.DockerfileData
		if name != "" {
			b.file = filepath.Base(name)
		}
	case isURL(name):
		b.file = name // fetched later
	case filepath.IsAbs(name):
		if !isFile(name) {
			return fault.New(fault.User, "no Dockerfile at %s", name).With("Name it with --dockerfile FILE; a relative path is looked for in the context.")
		}
		b.file = name
	case name == "":
		b.file = "Dockerfile"
	default:
		b.file = filepath.ToSlash(filepath.Clean(name))
	}
	if sub := b.req.ContextSubPath; sub != "" && b.data == nil && !isURL(name) && !filepath.IsAbs(name) {
		b.file = path.Join(filepath.ToSlash(sub), b.file)
	}
	return nil
}

func isURL(name string) bool {
	return strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://")
}

// cause is an error without the path that was opened.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// loadContext reads what comes from elsewhere: a Dockerfile by URL, and a stream,
// which is there only once. What it is, an archive or a Dockerfile, is told by
// its beginning, as docker does.
func (b *build) loadContext(ctx context.Context) error {
	dir, err := b.work.sub("fetched")
	if err != nil {
		return err
	}
	b.remote.web = web.Fetcher{Client: &http.Client{Transport: b.web}, Cache: web.NewCache(dir), Secrets: b.secrets, Progress: b.sink, UserAgent: "layerwright", Retries: b.req.Registry.PullRetries}
	if isURL(b.file) {
		if err := b.fetchDockerfile(ctx); err != nil {
			return err
		}
	}
	switch b.remote.kind {
	case contextStream:
		return b.loadStream(ctx, dir)
	case contextTar:
		return b.loadTar(ctx, dir)
	case contextRemote:
		b.notice("load the build context from " + withoutSecrets(b.remote.url))
	}
	return nil
}

func (b *build) fetchDockerfile(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp(b.work.dir, "dockerfile")
	if err != nil {
		return fmt.Errorf("fetch Dockerfile: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := b.remote.web.Fetch(ctx, b.file, map[string]string{pb.AttrHTTPFilename: "Dockerfile"}, dir); err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(dir, "Dockerfile"))
	if err != nil {
		return fmt.Errorf("fetch Dockerfile: %w", err)
	}
	defer f.Close()
	name := withoutSecrets(b.file)
	if b.data, err = readDockerfile(f, name); err == nil {
		err = frontend.CheckDockerfile(name, b.data)
	}
	b.file = "Dockerfile"
	return err
}

func readDockerfile(r io.Reader, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxDockerfile+1))
	if err != nil {
		return nil, fault.New(fault.User, "read Dockerfile from %s: %w", name, err).With("Try again.")
	}
	if len(data) > maxDockerfile {
		return nil, fault.New(fault.User, "Dockerfile from %s: larger than 2 MiB", name).With("Is it the Dockerfile?")
	}
	return append(make([]byte, 0, len(data)+1), data...), nil // never nil
}

// loadStream spools a tar, or reads a Dockerfile that is built with an empty
// context.
func (b *build) loadStream(ctx context.Context, dir string) error {
	in := bufio.NewReaderSize(b.req.Stdin, 64<<10)
	head, err := peek(ctx, in)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && !errors.Is(err, io.EOF):
		return fault.New(fault.User, "read the build context from standard input: %w", err).With("Pipe a tar archive or a Dockerfile into the build.")
	case len(head) == 0:
		return fault.New(fault.User, "the build context was to come from standard input, and that is empty").
			With("Pipe a tar archive or a Dockerfile into the build, or name a directory instead of -.")
	case frontend.IsArchive(head):
		path := filepath.Join(dir, "context")
		sum, err := spool(ctx, in, path, "the build context from standard input")
		if err != nil {
			return err
		}
		b.useArchive(path, sum)
		return nil
	case b.req.ContextSubPath != "":
		return fault.New(fault.User, "standard input is not an archive, so it has no directory %s", b.req.ContextSubPath).
			With("Leave --context-sub-path out, or pipe in a tar archive.")
	case b.data != nil || b.req.Dockerfile != "":
		return fault.New(fault.User, "standard input is not an archive, so it can only be a Dockerfile, and another one was named").
			With("Leave --dockerfile out, or pipe in a tar archive (plain, or compressed by gzip, bzip2, xz or zstd).")
	case b.req.Context != "-":
		return fault.New(fault.User, "build context %s: standard input is not a tar archive", b.req.Context).
			With("Pipe in a tar archive, plain or compressed by gzip, bzip2, xz or zstd.")
	}
	if b.data, err = readDockerfile(in, "standard input"); err != nil {
		return err
	}
	b.file, b.remote.kind = "Dockerfile", contextDir
	empty, err := b.work.sub("empty")
	if err != nil {
		return err
	}
	b.locals[frontend.Context] = empty
	return nil
}

// peek waits for the beginning of a stream, which may never come.
func peek(ctx context.Context, in *bufio.Reader) ([]byte, error) {
	type answer struct {
		head []byte
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		head, err := in.Peek(1024)
		done <- answer{head, err}
	}()
	select {
	case a := <-done:
		return a.head, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// spool writes a stream to a file and gives its sha256.
func spool(ctx context.Context, in io.Reader, path, what string) (string, error) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", fmt.Errorf("keep the build context: %w", err)
	}
	limit := room.Of(filepath.Dir(path))
	h := sha256.New()
	done := make(chan error, 1)
	go func() { // a read of standard input cannot be ended
		n, err := io.Copy(io.MultiWriter(out, h), io.LimitReader(in, limit.Bytes+1))
		if err == nil && n > limit.Bytes {
			err = limit.Exceeded(what)
		}
		done <- errors.Join(err, out.Close())
	}()
	select {
	case err := <-done:
		if err != nil {
			return "", fault.Wrap(fault.User, err, "read "+what)
		}
		return hex.EncodeToString(h.Sum(nil)), nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// loadTar takes a tar file as it is, or spools what can be read only once.
func (b *build) loadTar(ctx context.Context, dir string) error {
	f, what := b.remote.tar, "build context "+b.req.Context
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	path := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	var sum string
	if fi.IsDir() {
		return fault.New(fault.User, "%s: it is a directory", what).With("Name the directory without tar://.")
	}
	if fi.Mode().IsRegular() {
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return fault.New(fault.User, "%s: %w", what, cause(err)).With("Name a tar archive of the context.")
		}
		sum = hex.EncodeToString(h.Sum(nil))
	} else {
		path = filepath.Join(dir, "context")
		if sum, err = spool(ctx, f, path, what); err != nil {
			return err
		}
	}
	head := make([]byte, 1024)
	at, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer at.Close()
	n, _ := io.ReadFull(at, head)
	if !frontend.IsArchive(head[:n]) {
		return fault.New(fault.User, "%s is not a tar archive", what).With("Name a tar archive, plain or compressed by gzip, bzip2, xz or zstd.")
	}
	b.useArchive(path, sum)
	return nil
}

// useArchive makes an archive the build context, under a URL that only its
// content decides.
func (b *build) useArchive(path, sum string) {
	b.remote.url, b.remote.archive = frontend.Stream("sha256-"+sum), path
	b.remote.web.Cache.Put(b.remote.url, path, sum)
}

// openLayouts opens the OCI layouts among the named contexts.
func (b *build) openLayouts() error {
	b.remote.layouts, b.remote.values = map[string]*layout.Layout{}, map[string]string{}
	for i, name := range slices.Sorted(maps.Keys(b.req.NamedContexts)) {
		kind, value, err := contextOf(b.req.NamedContexts[name])
		if err != nil || kind != contextLayout {
			continue // checked before
		}
		path, tag, digest := layoutParts(value)
		d, err := hostview.OpenDir(path)
		if err != nil {
			return fault.New(fault.User, "build context %q: OCI layout %s: %w", name, path, cause(err)).With("Name the directory of an OCI image layout.")
		}
		b.hold(d)
		l := layout.Open(d.Path(), path)
		var h v1.Hash
		if digest != "" {
			if h, err = v1.NewHash(digest); err != nil {
				return fault.New(fault.Usage, "build context %q: digest %s: %w", name, digest, err).With("Write it as sha256:HEX.")
			}
		} else if h, err = l.Find(tag); err != nil {
			return err
		}
		store := "layout" + strconv.Itoa(i)
		b.remote.layouts[store] = l
		b.remote.values[name] = "oci-layout://" + store + "@" + h.String()
	}
	return nil
}

// layoutParts takes PATH[:TAG][@DIGEST] apart.
func layoutParts(value string) (path, tag, digest string) {
	path, digest, _ = strings.Cut(value, "@")
	if i := strings.LastIndex(path, ":"); i > strings.LastIndex(path, "/") {
		path, tag = path[:i], path[i+1:]
	}
	return path, tag, digest
}

// Files implements frontend.Contexts.
func (b *build) Files(ctx context.Context, def *pb.Definition) (string, error) {
	gb := &graph.Builder{}
	root, err := gb.Add(def)
	if err != nil {
		return "", err
	}
	if root.Vertex == nil {
		return b.work.sub("empty")
	}
	g := gb.Graph()
	for _, v := range g.Vertices {
		if v.Op.GetSource() == nil && v.Op.GetFile() == nil {
			return "", fault.New(fault.Internal, "a build context made by %s", v.Name)
		}
	}
	b.remote.mu.Lock()
	defer b.remote.mu.Unlock()
	env, err := b.environment(&frontend.Result{Graph: &graph.Graph{}})
	if err != nil {
		return "", err
	}
	claims, err := solve.Solve(ctx, g, solve.Options{Resolve: env.Resolve})
	if err != nil {
		return "", b.aboutContext(err)
	}
	view, err := claims[0].(snapshot.Claim).View(ctx)
	if err != nil {
		claims[0].Release()
		return "", err
	}
	b.remote.views = append(b.remote.views, func() {
		_ = view.Close()
		claims[0].Release()
	})
	return view.Dir(), nil
}

// aboutContext says that an error is about the context.
func (b *build) aboutContext(err error) error {
	e, ok := fault.As(err)
	if git, _ := frontend.IsGit(b.remote.url); git || !ok || e.Op != "" || e.Kind != fault.User {
		return err // it names the repository
	}
	c := *e
	if c.Op = "build context " + withoutSecrets(b.req.Context); b.remote.kind == contextStream {
		c.Op = "build context from standard input"
	}
	return &c
}

// closeViews lets go what the frontend has looked at.
func (b *build) closeViews() {
	for _, f := range b.remote.views {
		f()
	}
	b.remote.views = nil
}

// ResolveLayout implements frontend.Contexts.
func (b *build) ResolveLayout(ctx context.Context, store, digest string, p *ocispecs.Platform) ([]byte, error) {
	img, err := b.layoutImage(ctx, store, digest, p)
	if err != nil {
		return nil, err
	}
	return img.RawConfig, nil
}

func (b *build) layoutImage(ctx context.Context, store, digest string, p *ocispecs.Platform) (*layout.Image, error) {
	l := b.remote.layouts[store]
	h, err := v1.NewHash(digest)
	if l == nil || err != nil {
		return nil, fault.New(fault.Internal, "OCI layout %q has no %s", store, digest)
	}
	return l.Resolve(ctx, h, p)
}

// layoutLayers gives the layers of an image in an OCI layout.
func (b *build) layoutLayers(ctx context.Context, store, digest string, p ocispecs.Platform) ([]v1.Layer, error) {
	img, err := b.layoutImage(ctx, store, digest, &p)
	if err != nil {
		return nil, err
	}
	return b.source.Layers(img.Layers)
}
