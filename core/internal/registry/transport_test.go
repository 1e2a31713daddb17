package registry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// pair makes a certificate that signs itself, as files.
func pair(t *testing.T, name string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	require.NoError(t, err)
	raw, err := x509.MarshalECPrivateKey(k)
	require.NoError(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}), 0o600))
	return cert, key
}

// serverCertificate is the file of a test server's certificate.
func serverCertificate(t *testing.T, s *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "server.pem")
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	return path
}

func TestACertificateIsTrustedForItsHost(t *testing.T) {
	s := httptest.NewTLSServer(raw(map[string][]byte{}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "https://")
	name, _, _ := strings.Cut(host, ":")
	file := serverCertificate(t, s)
	for _, h := range []string{host, name, "https://" + host + "/"} {
		_, err := newClient(t, func(o *Options) { o.Certificates = map[string][]string{h: {file}} }).Resolve(t.Context(), host+"/x:1", nil)
		require.ErrorIs(t, err, ErrNotFound, "TLS works: %s", h)
	}
	_, err := newClient(t, func(o *Options) { o.Certificates = map[string][]string{"other.example": {file}} }).Resolve(t.Context(), host+"/x:1", nil)
	require.ErrorContains(t, err, "not trusted")
	f, _ := fault.As(err)
	require.Contains(t, f.Remedy, "--registry-certificate="+host+"=FILE")

	_, err = New(Options{Certificates: map[string][]string{"r.example": {"/no/such/file"}}})
	require.ErrorContains(t, err, "r.example")
	f, _ = fault.As(err)
	require.Equal(t, fault.Usage, f.Kind)
	_, err = New(Options{Certificates: map[string][]string{"r.example": {filepath.Join(writeConfig(t, "{}"), "config.json")}}})
	require.ErrorContains(t, err, "no certificate in PEM")
}

func TestAClientCertificateIsShownToItsHost(t *testing.T) {
	cert, key := pair(t, "job")
	text, err := os.ReadFile(cert)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(text))
	s := httptest.NewUnstartedServer(raw(map[string][]byte{}))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12}
	s.StartTLS()
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "https://")
	trusted := func(o *Options) { o.Certificates = map[string][]string{host: {serverCertificate(t, s)}} }
	_, err = newClient(t, trusted).Resolve(t.Context(), host+"/x:1", nil)
	require.Error(t, err)
	require.NotErrorIs(t, err, ErrNotFound)
	_, err = newClient(t, trusted, func(o *Options) { o.ClientCertificates = map[string]KeyPair{host: {cert, key}} }).Resolve(t.Context(), host+"/x:1", nil)
	require.ErrorIs(t, err, ErrNotFound)

	_, err = New(Options{ClientCertificates: map[string]KeyPair{"r.example": {cert, cert}}})
	require.ErrorContains(t, err, "client certificate for r.example")
}

// TestPushAndPullHaveTheirOwnExceptions: --insecure is for pushing only,
// --insecure-pull for pulling only, as with Kaniko; so for certificates.
func TestPushAndPullHaveTheirOwnExceptions(t *testing.T) {
	plain := func(o Options, push bool) error {
		p, err := newPools(o)
		require.NoError(t, err)
		for k := range p.byKey {
			p.byKey[k] = roundTrip(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
			})
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://registry.example/v2/", nil)
		require.NoError(t, err)
		_, err = newRouting(o, p, push).RoundTrip(req) //nolint:bodyclose // there is none
		return err
	}
	for _, c := range []struct {
		o          Options
		pull, push bool
	}{
		{Options{}, false, false}, {Options{Insecure: true}, false, true}, {Options{InsecurePull: true}, true, false},
		{Options{InsecureRegistries: []string{"registry.example"}}, true, true}, {Options{InsecureRegistries: []string{"other.example"}}, false, false},
	} {
		require.Equal(t, c.pull, plain(c.o, false) == nil, "%+v", c.o)
		require.Equal(t, c.push, plain(c.o, true) == nil, "%+v", c.o)
	}

	s := httptest.NewTLSServer(raw(map[string][]byte{}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "https://")
	for _, c := range []struct {
		set        func(o *Options)
		pull, push bool
	}{
		{func(o *Options) { o.SkipTLSVerify = true }, false, true},
		{func(o *Options) { o.SkipTLSVerifyPull = true }, true, false},
		{func(o *Options) { o.SkipTLSVerifyRegistries = []string{host} }, true, true},
	} {
		cl := newClient(t, c.set)
		_, err := cl.Resolve(t.Context(), host+"/x:1", nil)
		require.Equal(t, c.pull, errors.Is(err, ErrNotFound), "%v", err)
		p, err := cl.Pusher(host + "/x")
		require.NoError(t, err)
		err = p.Check(t.Context())
		require.ErrorContains(t, err, map[bool]string{true: "404", false: "not trusted"}[c.push])
	}
}

func TestBrokenHTTP2IsLeftForHTTP1(t *testing.T) {
	p, err := newPools(Options{})
	require.NoError(t, err)
	var used []bool
	for k := range p.byKey {
		p.byKey[k] = roundTrip(func(r *http.Request) (*http.Response, error) {
			used = append(used, k.h2)
			body, _ := io.ReadAll(r.Body)
			if k.h2 {
				return nil, errors.New("stream error: stream ID 1; PROTOCOL_ERROR")
			}
			require.Equal(t, "blob", string(body), "it is sent again from its beginning")
			return &http.Response{StatusCode: 201, Body: http.NoBody}, nil
		})
	}
	tr := newRouting(Options{}, p, true)
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "https://registry.example/v2/", strings.NewReader("blob"))
		require.NoError(t, err)
		resp, err := tr.RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
	require.Equal(t, []bool{true, false, false}, used, "the host is remembered")
}

func TestProxyIsChosenByTheVariables(t *testing.T) {
	env := map[string]string{"HTTP_PROXY": "http://plain.proxy:1", "https_proxy": "http://tls.proxy:2", "NO_PROXY": "inner.example,.local"}
	for to, want := range map[string]string{
		"http://r.example/": "http://plain.proxy:1", "https://r.example/": "http://tls.proxy:2", "https://inner.example/": "", "https://x.local/": "",
		"https://127.0.0.1:5000/": "", "http://localhost/": "",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, to, nil)
		require.NoError(t, err)
		got, err := Proxy(env)(req)
		require.NoError(t, err)
		if want == "" {
			require.Nil(t, got, to)
			continue
		}
		require.Equal(t, want, got.String(), to)
	}
}
