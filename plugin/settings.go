package plugin

import (
	"context"
	"time"

	"github.com/layerwright/layerwright/plugin/tags"
)

// Settings are what a user asked for, in neutral words. Texts are as they were
// written; Prepare checks them. The zero value of a field is its default unless
// the table of Fields says otherwise.
type Settings struct {
	// Context is the build context: a directory, a git repository or a URL.
	Context string
	// File is the Dockerfile; Target the stage.
	File, Target string
	// ContextSubPath is a directory in Context that is the context instead.
	ContextSubPath string
	// IgnorePaths are absolute paths that no layer has.
	IgnorePaths []string
	// BuildContexts are NAME=WHERE.
	BuildContexts []string
	// BuildArgs are KEY=VALUE, or KEY with its value in the environment.
	BuildArgs []string
	// Platforms are os/arch, also with commas.
	Platforms []string
	// Secrets are ID=VALUE, SecretEnvs ID=VARIABLE, SecretFiles ID=PATH.
	Secrets, SecretEnvs, SecretFiles []string
	// GitToken opens a build context that is a git repository.
	GitToken string
	// SSH are ID[=SOCKET|KEY,…]; SSHKey is the text of a private key.
	SSH    []string
	SSHKey string
	// NoCache runs every step, NoCacheFilters those of some stages.
	NoCache        bool
	NoCacheFilters []string
	// AddHosts, Ulimits, ShmSize, Network, Hostname and CgroupParent are for steps.
	AddHosts, Ulimits                        []string
	ShmSize, Network, Hostname, CgroupParent string

	// Images are names without tags, Tags rules, tags or whole references,
	// Flavor what holds for all tags: see package tags.
	Images, Tags, Flavor []string
	// AutoTag is a preset of package tags, AutoTagSuffix Drone's suffix.
	AutoTag, AutoTagSuffix string
	// ExpandTags adds the shorter forms of tags that are versions.
	ExpandTags bool
	// ShortSHALength is a number: of letters of a commit in tags.
	ShortSHALength string
	// Labels and Annotations are [KIND:]KEY=VALUE. DefaultLabels adds those of
	// OCI to both.
	Labels, Annotations []string
	DefaultLabels       bool

	// Push pushes the tags; without it they only name the image.
	Push bool
	// PushByDigest pushes without tags, for a later Merge; Merge builds nothing
	// and makes an index of Digests: digests, references in the repository, and
	// patterns of files with digests.
	PushByDigest, Merge bool
	Digests             []string
	// DestinationPolicy is all or any: of the destinations that must get the image.
	DestinationPolicy string
	// SkipIfTagExists builds nothing where one of the tags is there already.
	SkipIfTagExists bool
	// Outputs are type=TYPE,dest=PATH as docker has them.
	Outputs []string
	// OCILayout and Tar are paths of a layout and of what docker load reads.
	OCILayout, Tar string
	// PushFrom is a tar or a layout that is pushed instead of a build.
	PushFrom string
	// DigestFile, ImageIDFile and MetadataFile are paths; NameDigestFile and
	// NameTagDigestFile those of Kaniko's files with names and digests.
	DigestFile, ImageIDFile, MetadataFile, NameDigestFile, NameTagDigestFile string
	// SingleSnapshot makes one layer of all that is added to the base image.
	SingleSnapshot bool
	// ImageFormat is oci or docker; Compression gzip, zstd or none, with
	// CompressionLevel where it is not empty.
	ImageFormat, Compression, CompressionLevel string
	// Reproducible sets all times to SOURCE_DATE_EPOCH, or 0; RewriteTimestamp only
	// where there is one.
	Reproducible, RewriteTimestamp bool

	// Registry, Username and Password log in to one registry.
	Registry, Username, Password string
	// DockerConfig is the directory of config.json, or the file; CredentialHelpers are
	// the built-in ones that are on, all where there are none.
	DockerConfig      string
	CredentialHelpers []string
	// Insecure and SkipTLSVerify hold for all registries, the lists for some,
	// and what ends with Pull for pulling only.
	Insecure, SkipTLSVerify                     bool
	InsecurePull, SkipTLSVerifyPull             bool
	InsecureRegistries, SkipTLSVerifyRegistries []string
	// Certificates are HOST=FILE: authorities trusted besides the system's.
	Certificates []string
	// ClientCertificates are HOST=CERT,KEY: files that a registry gets to see.
	ClientCertificates []string
	// Mirrors are asked first for images of Docker Hub, RegistryMaps (HOST=OTHER) for
	// those of a registry; with NoFallback nobody is asked after them.
	Mirrors, RegistryMaps []string
	NoFallback            bool
	// The settings for clouds are as core.Clouds has them.
	AWSAccessKeyID, AWSSecretAccessKey, AWSSessionToken, AWSRole, AWSExternalID, AWSRegion               string
	GoogleKey, GoogleAccessToken, GoogleProjectNumber, GooglePool, GoogleProvider, GoogleAccount         string
	AzureClientID, AzureTenant, AzureClientSecret, AzureClientCertificate, AzureAuthorityHost, OIDCToken string
	// CreateRepository and ScanOnPush are for registries that do not make
	// repositories by themselves, RepositoryPolicy and LifecyclePolicy files
	// with JSON for these.
	CreateRepository, ScanOnPush      bool
	RepositoryPolicy, LifecyclePolicy string
	// SkipPushCheck leaves out the check, before anything runs, that pushing
	// is allowed.
	SkipPushCheck bool
	// IgnoreImmutableTags makes a tag that is there and must not change no error.
	IgnoreImmutableTags bool
	// PushRetry and PullRetry are numbers of further attempts.
	PushRetry, PullRetry string

	// Cache keeps results of steps beside the first destination, CacheRepo
	// where it says. CacheFrom and CacheTo are docker's lists.
	Cache              bool
	CacheRepo          string
	CacheFrom, CacheTo []string
	// CacheTTL is the age from which a result is not used.
	CacheTTL time.Duration
	// NoPushCache, a truth value, only reads the cache; when empty, jobs for
	// pull requests do.
	NoPushCache string
	// CacheRunLayers and CacheCopyLayers say which results are kept; ExplainCache says
	// more at the end.
	CacheRunLayers, CacheCopyLayers, ExplainCache bool
	// CacheMounts is auto, on or off; CacheMountMaxSize a size, CacheScope
	// what separates cache mounts, and CacheDir has base images.
	CacheMounts, CacheMountMaxSize, CacheScope, CacheDir string

	// Engine are BuildKits elsewhere, as core.ParseEngines reads them.
	Engine []string
	// Isolation, Store, Snapshots and MinFree are the engine's; Verbosity and
	// LogFormat say how progress looks.
	Isolation, Store, Snapshots, MinFree, Verbosity, LogFormat string

	// Load, Provenance, SBOM and Attests are refused, with the reason.
	Load                      bool
	Provenance, SBOM, Attests string
}

// Facts are what the host knows of the job, not what the user asked for.
type Facts struct {
	Event   tags.Event
	Project tags.Project
	// Logins are further ones that the user has set, where the host has a
	// setting for several; AuthConfig is the text of a config.json that is a
	// setting, may be nil. What the host itself gives jobs is in their
	// variables, which the engine reads (docs/credentials.md).
	Logins     []Login
	AuthConfig []byte
	// Secrets are the job's own passwords and tokens: to be hidden.
	Secrets []string
	// Notices say what the host's settings come to, or that they have no
	// effect; Problems are mistakes that only the adapter can see, such as
	// JSON that is none, by the setting.
	Notices  []string
	Problems map[string]error
}

// Given is one value and where it is from.
type Given struct {
	// Values are the lines of a list, or one text.
	Values []string
	// Source is for --print-settings: "input build-args", "default".
	Source string
}

// Values are settings by their neutral names (Field.Name). An empty text is as
// good as none: hosts set what was left out to nothing.
type Values map[string]Given

// Host is how a CI differs where settings are checked.
type Host struct {
	// Spell is a setting as users of this host write it: "input build-args".
	Spell func(setting string) string
	// Env is the job's environment, for values that are taken from there.
	Env map[string]string
	// ReadFile reads a file that a setting names.
	ReadFile func(path string) ([]byte, error)
	// Glob is filepath.Glob.
	Glob func(pattern string) ([]string, error)
	// Token asks the host for a token that says which job this is, made out for an
	// audience (OpenID Connect); nil where this job can have none.
	Token func(ctx context.Context, audience string) (string, error)
	// NoToken says what gives this job one, where Token is nil; may be empty.
	NoToken string
}
