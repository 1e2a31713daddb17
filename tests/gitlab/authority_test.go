package gitlab_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

// certificate writes a key, and a certificate for 127.0.0.1 that is its own authority.
func certificate(t *testing.T) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	private, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600))
	pool = x509.NewCertPool()
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool.AddCert(parsed)
	return certFile, keyFile, pool
}

// TestTheRegistrysAuthority is that of CI_SERVER_TLS_CA_FILE, which a runner sets to
// a file of the job; without it nothing is pushed.
func TestTheRegistrysAuthority(t *testing.T) {
	certFile, keyFile, pool := certificate(t)
	secure := parts.NewRegistry(t, fmt.Sprintf("  tls: {certificate: %s, key: %s}\n", certFile, keyFile))
	ca, err := os.ReadFile(certFile)
	require.NoError(t, err)
	p := newProject(t, map[string]string{"Dockerfile": plain, "ca.pem": string(ca)})
	p.image = secure.Addr + "/team/app"
	p.variables = map[string]string{"CI_REGISTRY": secure.Addr, "CI_REGISTRY_IMAGE": p.image}
	pipeline := "build-image:\n  image: " + ourImage + "\n  script:\n    - %s layerwright gitlab\n"
	log, err := p.run(t, fmt.Sprintf(pipeline, ""))
	require.Error(t, err)
	require.Contains(t, log, "FAIL 3")
	require.Contains(t, log, "certificate")
	log, err = p.run(t, fmt.Sprintf(pipeline, `CI_SERVER_TLS_CA_FILE="$CI_PROJECT_DIR/ca.pem"`))
	require.NoError(t, err, log)
	ref, err := name.ParseReference(p.image + ":main")
	require.NoError(t, err)
	_, err = remote.Head(ref, remote.WithTransport(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}))
	require.NoError(t, err)
}
