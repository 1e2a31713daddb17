package parts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority signs certificates for servers and clients.
type Authority struct {
	// CA is its certificate, in PEM; Cert and Key are a client's.
	CA, Cert, Key string

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority and a client's certificate.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	dir := t.TempDir()
	a, err := newAuthority(dir)
	if err == nil {
		a.Cert, a.Key, err = a.issue(dir, "client")
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newAuthority(dir string) (*Authority, error) {
	a := &Authority{CA: filepath.Join(dir, "ca.pem")}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, a.key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	return a, os.WriteFile(a.CA, pemOf("CERTIFICATE", der), 0o644)
}

// issue makes a certificate for names, which may be addresses.
func (a *Authority) issue(dir, file string, names ...string) (cert, key string, err error) {
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: file}, NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, n)
		}
	}
	der, err1 := x509.CreateCertificate(rand.Reader, leaf, a.cert, own.Public(), a.key)
	keyDER, err2 := x509.MarshalECPrivateKey(own)
	cert, key = filepath.Join(dir, file+".pem"), filepath.Join(dir, file+"-key.pem")
	return cert, key, errors.Join(err1, err2,
		os.WriteFile(cert, pemOf("CERTIFICATE", der), 0o600), os.WriteFile(key, pemOf("EC PRIVATE KEY", keyDER), 0o600))
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
