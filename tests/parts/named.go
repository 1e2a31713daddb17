package parts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// Named is a stand-in for servers on the Internet: certificates for their names,
// and a loopback address of its own, on which port 443 is free.
type Named struct {
	// Names are those of the servers, IP their common address.
	Names []string
	IP    string
	// CA is the file of the authority that has signed their certificate.
	CA string
	// CertFile and KeyFile are what a server needs.
	CertFile, KeyFile string
}

// NewNamed makes a certificate for names and finds an address.
func NewNamed(t testing.TB, names ...string) *Named {
	t.Helper()
	n := &Named{Names: names}
	var err error
	n.IP, err = freeAddress()
	Need(t, err)
	dir, err := os.MkdirTemp(shared.dir, "named-")
	Need(t, err)
	a, err := newAuthority(dir)
	Need(t, err)
	n.CA = a.CA
	n.CertFile, n.KeyFile, err = a.issue(dir, "server", names...)
	Need(t, err)
	return n
}

// freeAddress is an address of the loopback network where port 443 is free.
func freeAddress() (string, error) {
	var err error
	for range 20 {
		ip := fmt.Sprintf("127.%d.%d.%d", 64+mathrand.IntN(128), mathrand.IntN(256), 1+mathrand.IntN(254))
		var l net.Listener
		if l, err = net.Listen("tcp", ip+":443"); err == nil {
			return ip, l.Close()
		}
	}
	return "", fmt.Errorf("a loopback address with a free port 443: %w", err)
}

// Transport reaches the servers from the test, by their names.
func (n *Named) Transport(t testing.TB) *http.Transport {
	t.Helper()
	pool := x509.NewCertPool()
	data, err := os.ReadFile(n.CA)
	Need(t, err)
	pool.AppendCertsFromPEM(data)
	return &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, n.IP+":443")
		},
	}
}

// Docker are arguments of docker run with which a container on the host's network
// finds the servers.
func (n *Named) Docker() (args []string) {
	for _, name := range n.Names {
		args = append(args, "--add-host", name+":"+n.IP)
	}
	return args
}

// Trusting writes the machine's certificates and the stand-ins' authorities to one
// file, as images have it.
func Trusting(t testing.TB, list ...*Named) string {
	t.Helper()
	all, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	Need(t, err)
	for _, n := range list {
		own, err := os.ReadFile(n.CA)
		Need(t, err)
		all = append(all, own...)
	}
	file := filepath.Join(filepath.Dir(list[0].CA), "all.pem")
	Need(t, os.WriteFile(file, all, 0o644))
	return file
}

// Registry starts a registry at the servers' names that demands one of the logins,
// by user.
func (n *Named) Registry(t testing.TB, logins map[string]string) *Registry {
	t.Helper()
	var text strings.Builder
	for user, password := range logins {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		Need(t, err)
		fmt.Fprintf(&text, "%s:%s\n", user, hash)
	}
	file := filepath.Join(filepath.Dir(n.CA), "htpasswd")
	Need(t, os.WriteFile(file, []byte(text.String()), 0o600))
	extra := fmt.Sprintf("  tls: {certificate: %s, key: %s}\nauth: {htpasswd: {realm: r, path: %s}}\n", n.CertFile, n.KeyFile, file)
	r, err := shared.newRegistryAt(n.IP+":443", strings.ReplaceAll(t.Name(), "/", "_"), extra)
	Need(t, err)
	return r
}
