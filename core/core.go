// Package core is the engine: Build carries out one request and is the only
// place where the engine's parts are wired together. It knows no CI, reads no
// environment variable and prints nothing: progress leaves as events.
package core

import (
	"io"

	"github.com/layerwright/layerwright/core/internal/credentials"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// Request is everything that a build needs to know. The zero value of each
// field is its default unless its comment says otherwise.
type Request struct {
	// Context is the build context: a directory (also dir://DIR), "-" or
	// "tar://stdin" for a tar from Stdin, which may instead be a Dockerfile,
	// "tar://FILE", a git repository as docker build takes it, or an http
	// or https URL of an archive or a Dockerfile.
	Context string
	// ContextSubPath is a directory in Context that is the context instead,
	// relative and slash-separated (Kaniko's --context-sub-path).
	ContextSubPath string
	// Stdin is read for a Context that is a stream.
	Stdin io.Reader
	// Dockerfile is a path, relative to the working directory or, where no
	// such file exists, to Context; with any Context but a directory a
	// relative path is in the context. It may be an http or https URL.
	// Empty is the file Dockerfile in the context.
	Dockerfile string
	// DockerfileData is the text itself, when it was read from standard
	// input; Dockerfile is then only a name for messages.
	DockerfileData []byte
	// Target is the stage to build; the last one when empty.
	Target string
	// Platforms are "os/arch[/variant]"; the machine's own when empty.
	Platforms []string
	BuildArgs map[string]string
	Labels    map[string]string
	// NamedContexts are --build-context: name to "docker-image://ref",
	// "oci-layout://path[:tag][@digest]", "target:stage", a git repository,
	// an http or https URL, or a directory.
	NamedContexts map[string]string
	// NoCache is --no-cache; NoCacheFilter names stages.
	NoCache       bool
	NoCacheFilter []string
	// Secrets are handed to RUN --mount=type=secret by their id.
	Secrets []Secret
	// SSH are the agents for RUN --mount=type=ssh and git over ssh.
	SSH []SSH
	// ExtraHosts are "name:ip"; Ulimits "nofile=1024:2048"; ShmSize is in
	// bytes; Network is "", "default", "host" or "none"; Hostname is set in
	// steps where the isolation can.
	ExtraHosts []string
	Ulimits    []string
	ShmSize    int64
	Network    string
	Hostname   string
	// CgroupParent has no effect but a notice: steps stay in the control
	// group that the job runs in.
	CgroupParent string

	// IgnorePaths are absolute paths of the image that no layer has, with what is
	// below them: Kaniko's --ignore-path. Later steps see them.
	IgnorePaths []string

	Outputs  Outputs
	Cache    Cache
	Registry Registry

	// Engines build instead of this machine, where there are some. What has no
	// meaning then is refused: Isolation, Snapshots and what else is about trees
	// and caches here.
	Engines []Engine

	// Isolation is "auto" (default), "namespaces", "inplace" or "chroot";
	// Snapshots is "auto" (default), "overlay" or "flat".
	Isolation, Snapshots string
	// Store is the directory for trees and blobs; chosen when empty.
	Store string
	// MinFree is how many bytes must be free there before anything runs: 128 MiB
	// when 0, not looked at when negative.
	MinFree int64
	// Force allows inplace outside of a container that looks disposable.
	Force bool
	// DryRun finds out what would run, and runs, writes and pushes nothing:
	// Result.Plan.
	DryRun bool
	// Inside says that this process is the one that Enter has started.
	// Chosen is the isolation that Enter has found for Isolation in this
	// process; without either, Build tries by itself.
	Inside bool
	Chosen string

	// Progress takes the build's events; nil drops them.
	Progress Sink
}

// Secret is a build secret; exactly one of File and Value is used.
type Secret struct {
	ID   string
	File string
	// Value is the secret itself, when it came from a variable; used when
	// File is empty.
	Value []byte
}

// SSH is an ssh agent that the build may use to list keys and to sign.
type SSH struct {
	// ID is "default" when empty.
	ID string
	// Paths are one socket of an agent, or files with private keys; Key is the
	// text of one instead.
	Paths []string
	Key   []byte
}

// Outputs are where the image goes; any number at once.
type Outputs struct {
	// Destinations are image references to push to, tags last.
	Destinations []string
	// PushByDigest pushes without tags; Destinations then have none.
	// AnyDestination makes a destination that fails a warning, where another one
	// gets the image.
	PushByDigest, AnyDestination bool
	// NoPush makes Destinations mere names, for the layout and the tar.
	NoPush bool
	// OCILayout is a directory; OCITar a tar of one; DockerTar a file that
	// docker load reads. RootDir is a directory that gets the root file
	// system, RootTar a tar of it. The tars may be "-", one of them: Stdout.
	OCILayout, OCITar, DockerTar, RootDir, RootTar string
	Stdout                                         io.Writer
	// DigestFile gets the digest of what was built (also by PUT, where it is an
	// http or https URL, as the two below), ImageIDFile that of its
	// configuration, MetadataFile JSON with both; written atomically.
	DigestFile, ImageIDFile, MetadataFile string
	// NameDigestFile gets a line "repository@digest" for each destination,
	// NameTagDigestFile "repository:tag@digest", in Kaniko's format.
	NameDigestFile, NameTagDigestFile string
	// SingleSnapshot makes one layer of all that is added to the base image.
	SingleSnapshot bool
	// ImageFormat is "oci" (default) or "docker".
	ImageFormat string
	// Compression is "gzip" (default), "zstd" or "none"; CompressionLevel is
	// 0 to 9 for gzip, 1 to 22 for zstd, the default where it is nil.
	Compression      string
	CompressionLevel *int
	// Annotations are those of manifests and of the index.
	Annotations []Annotation
	// Repository is what is to hold of the destinations' repositories, and
	// Create of the cache's, in registries that do not make them by themselves.
	Repository Repository
	// RewriteTimestamp makes SOURCE_DATE_EPOCH, a build argument, hold for the
	// files of new layers too, which otherwise it does for the configuration
	// only. Reproducible is the same, with time 0 where there is no epoch.
	RewriteTimestamp, Reproducible bool
}

// Annotation is one annotation of an image.
type Annotation struct {
	// Index puts it on the index instead of on manifests, Descriptor on what
	// points at it: the index's entry, or that of an OCI layout's index.json.
	Index, Descriptor bool
	// Platform, "os/arch", is that of the manifest; all of them when empty.
	Platform   string
	Key, Value string
}

// Registry is how registries are reached.
type Registry struct {
	// Insecure allows plain HTTP for what is pushed and for the cache's
	// repositories, InsecurePull for what is pulled, InsecureRegistries for
	// the named hosts; loopback addresses are always tried by HTTP too.
	// SkipTLSVerify and its like accept any certificate, in the same way.
	Insecure, InsecurePull           bool
	InsecureRegistries               []string
	SkipTLSVerify, SkipTLSVerifyPull bool
	SkipTLSVerifyRegistries          []string
	// Certificates are files in PEM that are trusted, besides the system's
	// certificates, by host; ClientCertificates what a host gets to see.
	Certificates       map[string][]string
	ClientCertificates map[string]ClientCertificate
	// Mirrors are asked first for images of Docker Hub, Maps for those of a
	// registry, by its host; after them the registry itself, unless
	// NoFallback. Each is "host[:port][/prefix]".
	Mirrors    []string
	Maps       map[string][]string
	NoFallback bool
	// Environment has the job's variables, as far as registries are
	// concerned: DOCKER_CONFIG and the others that name or hold logins, HOME
	// and PATH, proxies, and those of clouds. docs/credentials.md has them.
	Environment map[string]string
	// Credentials come before all other sources of logins, then
	// CredentialFiles, in the format of Docker's config.json.
	Credentials     []Credential
	CredentialFiles []string
	// Clouds are keys for clouds as settings. They come after Credentials and
	// before everything else, for the registries of their cloud.
	Clouds Clouds
	// CredentialHelpers are the built-in helpers that are on (see
	// CredentialHelpers); all when nil, none when empty.
	CredentialHelpers []string
	// SkipPushCheck leaves out the check, before anything runs, that pushing
	// is allowed.
	SkipPushCheck bool
	// IgnoreImmutableTags makes a tag that is there and must not change no
	// error of a push.
	IgnoreImmutableTags bool
	// PullRetries and PushRetries count further attempts after the first.
	PullRetries, PushRetries int
}

// ClientCertificate names the files of a certificate and its key, in PEM.
type ClientCertificate struct{ Cert, Key string }

// Credential is a login as a setting.
type Credential struct {
	// Host is a registry, or a repository or group at one.
	Host               string
	Username, Password string
	// Token is sent as it is (bearer token); IdentityToken is exchanged for
	// one.
	Token, IdentityToken string
}

// Clouds are keys for clouds, or what is exchanged for some.
type (
	Clouds = credentials.Clouds
	AWS    = credentials.AWS
	Google = credentials.Google
	Azure  = credentials.Azure
	// Repository is one in a registry that does not make them at a first push.
	Repository = credentials.Repository
)

// CloudOf is the cloud that a registry belongs to, by its host: "aws", "google",
// "azure", or nothing.
func CloudOf(host string) string { return credentials.CloudOf(host) }

// NeedsRepositories says whether repositories have to be made before a push to a
// registry, by its host.
func NeedsRepositories(host string) bool { return credentials.NeedsRepositories(host) }

// Result is what a build has made.
type Result struct {
	// Digest is that of the manifest or index, ImageID that of the config
	// (of the first platform). Empty where nothing was asked for but a build.
	Digest, ImageID string
	// Destinations are the references that were pushed, with tag.
	Destinations []string
	// MediaType and Size are the manifest's.
	MediaType string
	Size      int64
	// Cache has an entry for each step that the cache could have known, in
	// the order of the graph; nil without a cache.
	Cache []CachedStep
	// Layers are what the steps of the image have added to its base, in their
	// order; of several platforms those of one after the other. Nil where layers
	// are not those of steps: one snapshot, a BuildKit elsewhere.
	Layers []StepLayer
	// Plan is what a build would do, in the order of the graph (Request.DryRun).
	Plan []PlannedStep
}

// The engine's events and errors, for whoever shows them.
type (
	// Sink takes events.
	Sink = progress.Sink
	// Event is one of the types below.
	Event = progress.Event
	// Step, Plan, Started, Log, Done, Transfer, Notice, Work: see package progress.
	Step     = progress.Step
	Plan     = progress.Plan
	Started  = progress.Started
	Log      = progress.Log
	Done     = progress.Done
	Transfer = progress.Transfer
	Notice   = progress.Notice
	Work     = progress.Work
	// Error is an error that a person can act on: see package fault.
	Error = fault.Error
	// ErrorKind is what the exit code depends on.
	ErrorKind = fault.Kind
	// Location is a place in a Dockerfile.
	Location = fault.Location
)

// Levels of a Notice and kinds of an Error.
const (
	Info    = progress.Info
	Warning = progress.Warning

	KindInternal    = fault.Internal
	KindUser        = fault.User
	KindUsage       = fault.Usage
	KindRegistry    = fault.Registry
	KindStep        = fault.Step
	KindEnvironment = fault.Environment
)
