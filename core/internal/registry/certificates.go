package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// KeyPair names the files of a client certificate and its key (PEM).
type KeyPair struct{ Cert, Key string }

// identity is what TLS needs to know about one host: who is trusted, and as whom
// we come.
type identity struct {
	roots  *x509.CertPool
	client []tls.Certificate
}

// identities reads the certificates of the hosts that have their own.
func (o Options) identities(system *x509.CertPool) (map[string]identity, error) {
	out := map[string]identity{}
	for host, files := range o.Certificates {
		id := identity{roots: x509.NewCertPool()}
		if system != nil {
			id.roots = system.Clone()
		}
		for _, file := range files {
			pem, err := os.ReadFile(file)
			if err != nil {
				return nil, certificateError("certificate", "--registry-certificate", host, file, bareError(err))
			}
			if !id.roots.AppendCertsFromPEM(pem) {
				return nil, certificateError("certificate", "--registry-certificate", host, file, errors.New("it holds no certificate in PEM"))
			}
		}
		out[certificateHost(host)] = id
	}
	for host, pair := range o.ClientCertificates {
		id, ok := out[certificateHost(host)]
		if !ok {
			id.roots = system
		}
		c, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
		if err != nil {
			return nil, certificateError("client certificate", "--registry-client-cert", host, pair.Cert+","+pair.Key, bareError(err))
		}
		id.client = []tls.Certificate{c}
		out[certificateHost(host)] = id
	}
	return out, nil
}

func certificateError(what, flag, host, file string, err error) error {
	return fault.New(fault.Usage, "%s for %s: read %s: %w", what, host, file, err).
		With("Correct " + flag + ": the files must be readable, in PEM, and belong together.")
}

func bareError(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// certificateHost is a host as requests have it.
func certificateHost(host string) string {
	host = strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(host, "https://"), "http://"))
	host, _, _ = strings.Cut(host, "/")
	if host == "docker.io" {
		return name.DefaultRegistry
	}
	return host
}

// identityOf is the name under which the identity for "host:port" is kept; empty
// for the ordinary one.
func identityOf[T any](m map[string]T, hostport string) string {
	hostport = strings.ToLower(hostport)
	if _, ok := m[hostport]; ok {
		return hostport
	}
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		if _, ok := m[host]; ok {
			return host
		}
	}
	return ""
}
