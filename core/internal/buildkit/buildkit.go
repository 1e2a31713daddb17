// Package buildkit owns builds that a BuildKit elsewhere carries out: reaching it,
// asking it for one call of the Dockerfile frontend, serving what it asks for
// meanwhile (contexts, secrets, ssh agents, logins), and its progress and errors in
// our words. It alone imports BuildKit's client. It reads no Dockerfile, decides
// nothing about platforms, destinations or caches, and tags nothing: it is told.
package buildkit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	// How BuildKit's client reaches engines by other programs (kubectl, docker, …).
	_ "github.com/moby/buildkit/client/connhelper/dockercontainer"
	_ "github.com/moby/buildkit/client/connhelper/kubepod"
	_ "github.com/moby/buildkit/client/connhelper/podmancontainer"
	_ "github.com/moby/buildkit/client/connhelper/ssh"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// Schemes are the ways to reach an engine.
var Schemes = []string{"tcp", "unix", "kube-pod", "docker-container", "podman-container", "ssh"}

// oldest is the first version that takes several exporters in one call, which a
// build with a push and a root file system is.
var oldest = [2]int{0, 13}

// answerWithin is how long an engine may take to answer a first question.
const answerWithin = 30 * time.Second

// Endpoint says where an engine is and how it is reached.
type Endpoint struct {
	// Address is a URL of one of the Schemes.
	Address string
	// CA, Cert and Key are files in PEM, ServerName is what the engine's
	// certificate must be for; all empty for an engine without TLS.
	CA, Cert, Key, ServerName string
}

// Check says what is wrong with an endpoint as it is written. It opens nothing.
func (e Endpoint) Check() error {
	u, err := url.Parse(e.Address)
	if err != nil || u.Scheme == "" {
		return fmt.Errorf("address %q is no URL: write tcp://HOST:PORT or unix:///PATH", e.Address)
	}
	if !slices.Contains(Schemes, u.Scheme) {
		return fmt.Errorf("address %s: unknown scheme %s://: use one of %s", u.Redacted(), u.Scheme, strings.Join(Schemes, ", "))
	}
	switch {
	case u.Scheme == "unix" && u.Path == "":
		return fmt.Errorf("address %s: a path is missing: write unix:///PATH", e.Address)
	case u.Scheme != "unix" && u.Host == "":
		return fmt.Errorf("address %s: a host is missing", e.Address)
	case u.Scheme == "tcp" && u.Port() == "":
		return fmt.Errorf("address %s: a port is missing: BuildKit's own is 1234", e.Address)
	case (e.Cert == "") != (e.Key == ""):
		return errors.New("cert and key belong together: give both")
	case e.tls() && u.Scheme != "tcp":
		return fmt.Errorf("address %s: only tcp:// has certificates", e.Address)
	}
	return nil
}

func (e Endpoint) tls() bool { return e.CA+e.Cert+e.ServerName != "" }

// Engine is a BuildKit that has answered.
type Engine struct {
	// Name is the address, for people; Version is BuildKit's.
	Name, Version string
	// Platforms are those that its workers run programs of, its own first.
	Platforms []ocispecs.Platform

	client *client.Client
}

// Close lets the engine go.
func (e *Engine) Close() error { return e.client.Close() }

// Connect reaches an engine and finds out what it is. What is wrong with a file
// here is an error of kind Usage, everything else one of kind Environment.
func Connect(ctx context.Context, at Endpoint) (_ *Engine, err error) {
	opts, err := at.credentials()
	if err != nil {
		return nil, err
	}
	name := at.Address
	if u, err := url.Parse(name); err == nil {
		name = u.Redacted()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerWithin, fmt.Errorf("no answer within %s", answerWithin))
	defer cancel()
	c, err := client.New(ctx, at.Address, opts...)
	if err != nil {
		return nil, unreachable(name, at, err)
	}
	e := &Engine{Name: name, client: c}
	defer func() {
		if err != nil {
			_ = c.Close() // it was not reached
		}
	}()
	info, err := c.Info(ctx)
	if status.Code(rootCause(err)) == codes.Unimplemented {
		return nil, tooOld(name, "older than 0.11")
	}
	if err == nil {
		e.Version = info.BuildkitVersion.Version
		if old(e.Version) {
			return nil, tooOld(name, e.Version)
		}
		err = e.workers(ctx)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, unreachable(name, at, err)
	}
	return e, nil
}

func (e *Engine) workers(ctx context.Context) error {
	list, err := e.client.ListWorkers(ctx)
	if err != nil {
		return err
	}
	for _, w := range list {
		for _, p := range w.Platforms {
			e.Platforms = append(e.Platforms, platforms.Normalize(p))
		}
	}
	if len(list) == 0 {
		return errors.New("it has no worker")
	}
	return nil
}

// credentials reads the files before anything is dialled, so that a wrong path is
// not taken for an engine that does not answer.
func (e Endpoint) credentials() ([]client.ClientOpt, error) {
	if !e.tls() {
		return nil, nil
	}
	wrong := func(what, file string, err error) error {
		return fault.New(fault.Usage, "engine %s: %s %s: %w", e.Address, what, file, err).With("Name a file in PEM that can be read: --engine buildkit=ADDRESS,ca=FILE,cert=FILE,key=FILE.")
	}
	var opts []client.ClientOpt
	if e.CA != "" {
		data, err := os.ReadFile(e.CA)
		if err == nil && !x509.NewCertPool().AppendCertsFromPEM(data) {
			err = errors.New("it holds no certificate")
		}
		if err != nil {
			return nil, wrong("ca", e.CA, cause(err))
		}
		opts = append(opts, client.WithServerConfig(e.ServerName, e.CA))
	} else {
		opts = append(opts, client.WithServerConfigSystem(e.ServerName))
	}
	if e.Cert != "" {
		if _, err := tls.LoadX509KeyPair(e.Cert, e.Key); err != nil {
			return nil, wrong("cert and key", e.Cert+", "+e.Key, cause(err))
		}
		opts = append(opts, client.WithCredentials(e.Cert, e.Key))
	}
	return opts, nil
}

// cause is an error without the path, which is said already.
func cause(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// old says whether a version, "v0.12.3", is older than what is needed. What is no
// version, as from a build of one's own, is taken.
func old(version string) bool {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 {
		return false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	if err1 != nil || err2 != nil || major == 0 && minor == 0 { // v0.0.0 is a build without a version
		return false
	}
	return major < oldest[0] || major == oldest[0] && minor < oldest[1]
}

func tooOld(name, version string) error {
	return fault.New(fault.Environment, "engine %s is BuildKit %s, and %d.%d or later is needed", name, version, oldest[0], oldest[1]).
		With("Update the BuildKit that runs there, or name another engine.")
}

// unreachable says why an engine cannot be used, and what to do.
func unreachable(name string, at Endpoint, err error) error {
	text := said(err)
	remedy := "Is buildkitd running there, and may this job reach it? buildctl --addr " + name + " debug workers asks the same."
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(text, p) })
	}
	switch {
	case has("signed by unknown authority"):
		remedy = "Name the authority that has signed the engine's certificate: --engine buildkit=" + at.Address + ",ca=FILE."
	case has("certificate is valid for", "cannot validate certificate", "certificate is not valid for any names"):
		remedy = "Use a name that the engine's certificate is for, or say which one it is: servername=NAME."
	case has("certificate required", "bad certificate", "unknown certificate authority", "unknown certificate"),
		at.tls() && has("connection reset", "broken pipe", "EOF"): // refused, and closed before the reason was read
		remedy = "The engine wants a certificate of an authority that it trusts: --engine buildkit=" + at.Address + ",ca=FILE,cert=FILE,key=FILE."
	case has("frame too large"):
		remedy = "Something else than BuildKit answers there. With docker-container://, podman-container://, kube-pod:// and ssh:// that is what their program prints: run it by hand, and buildctl dial-stdio in it."
	case has("certificate has expired"):
		remedy = "Renew the certificate of the engine or of this job, or correct the clock."
	case has("does not look like a TLS handshake"):
		remedy = "The engine speaks no TLS: leave out ca, cert, key and servername."
	case !at.tls() && strings.HasPrefix(at.Address, "tcp:") && has("error reading server preface"):
		remedy = "It may want TLS: --engine buildkit=" + at.Address + ",ca=FILE,cert=FILE,key=FILE. Else: is it buildkitd that listens there?"
	}
	return fault.New(fault.Environment, "engine %s cannot be used: %s", name, text).With(remedy)
}

// said is an error without the words of gRPC around it.
func said(err error) string {
	text := err.Error()
	if s, ok := status.FromError(rootCause(err)); ok && s.Code() != codes.OK && s.Message() != "" {
		text = s.Message()
	}
	for _, p := range []string{"connection error: desc = ", "rpc error: code = Unavailable desc = "} {
		text = strings.TrimPrefix(text, p)
	}
	if t, err := strconv.Unquote(text); err == nil {
		text = t
	}
	return strings.TrimPrefix(strings.TrimPrefix(text, "transport: "), "Error while ")
}

// rootCause is the innermost error.
func rootCause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
