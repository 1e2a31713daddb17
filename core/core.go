// Package core is the engine: Build carries out one request and is the only
// place where the engine's parts are wired together. It knows no CI, reads no
// environment variable and prints nothing: progress leaves as events.
package core

import (
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// Request is everything that a build needs to know. The zero value of each
// field is its default unless its comment says otherwise.
type Request struct {
	// Context is the directory of the build context.
	Context string
	// Dockerfile is a path, relative to the working directory or, where no
	// such file exists, to Context. Default "Dockerfile".
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
	// "oci-layout://path", "target:stage", a URL, or a directory.
	NamedContexts map[string]string
	// NoCache is --no-cache; NoCacheFilter names stages.
	NoCache       bool
	NoCacheFilter []string
	// Secrets are handed to RUN --mount=type=secret by their id.
	Secrets []Secret
	// ExtraHosts are "name:ip"; Ulimits "nofile=1024:2048"; ShmSize is in
	// bytes; Network is "", "default", "host" or "none"; Hostname is set in
	// steps where the isolation can.
	ExtraHosts []string
	Ulimits    []string
	ShmSize    int64
	Network    string
	Hostname   string

	Outputs  Outputs
	Registry Registry

	// Isolation is "auto" (default), "namespaces", "inplace" or "chroot";
	// Snapshots is "auto" (default), "overlay" or "flat".
	Isolation, Snapshots string
	// Store is the directory for trees and blobs; chosen when empty.
	Store string
	// Force allows inplace outside of a container that looks disposable.
	Force bool
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

// Outputs are where the image goes; any number at once.
type Outputs struct {
	// Destinations are image references to push to, tags last.
	Destinations []string
	// NoPush makes Destinations mere names, for the layout and the tar.
	NoPush bool
	// OCILayout is a directory; DockerTar a file that docker load reads.
	OCILayout string
	DockerTar string
	// DigestFile gets the digest of what was built, written atomically.
	DigestFile string
	// ImageFormat is "oci" (default) or "docker".
	ImageFormat string
	// Compression is "gzip" (default), "zstd" or "none".
	Compression string
}

// Registry is how registries are reached.
type Registry struct {
	// Insecure allows plain HTTP for all registries, InsecureRegistries for
	// the named hosts; loopback addresses are always tried by HTTP too.
	// SkipTLSVerify likewise accepts any certificate.
	Insecure                bool
	InsecureRegistries      []string
	SkipTLSVerify           bool
	SkipTLSVerifyRegistries []string
	// Mirrors are asked first for images of Docker Hub.
	Mirrors []string
	// DockerConfig is the directory of config.json (DOCKER_CONFIG); the
	// user's own ~/.docker when empty.
	DockerConfig string
	// PullRetries and PushRetries count further attempts after the first.
	PullRetries, PushRetries int
}

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
}

// The engine's events and errors, for whoever shows them.
type (
	// Sink takes events.
	Sink = progress.Sink
	// Event is one of the types below.
	Event = progress.Event
	// Step, Plan, Started, Log, Done, Transfer, Notice: see package progress.
	Step     = progress.Step
	Plan     = progress.Plan
	Started  = progress.Started
	Log      = progress.Log
	Done     = progress.Done
	Transfer = progress.Transfer
	Notice   = progress.Notice
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
