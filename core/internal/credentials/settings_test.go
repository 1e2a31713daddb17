package credentials

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// by looks for a login with settings for clouds. The job's variables have others,
// which do not count then.
func (c *cloud) by(s Clouds, host string) (Found, error) {
	c.t.Helper()
	env := map[string]string{"AWS_ACCESS_KEY_ID": "VARIABLE", "AWS_SECRET_ACCESS_KEY": "variable", "DOCKER_CONFIG": `{"auths":{"` + host + `":{"username":"file","password":"file"}}}`}
	chain, err := Load(Options{Clouds: s, Environment: env, Transport: c, Direct: c})
	require.NoError(c.t, err)
	return chain.Find(c.t.Context(), Place{Host: host, Path: "team/app"})
}

// stsAnswers has the fake give keys with this id to a request that check likes.
func (c *cloud) stsAnswers(id, action string, check func(r *http.Request, form url.Values) bool) {
	c.on("POST sts.eu-west-1.amazonaws.com/", func(r *http.Request, body string) (int, string) {
		form, _ := url.ParseQuery(body)
		if form.Get("Action") != action || form.Get("RoleArn") != "arn:aws:iam::1:role/ci" || !check(r, form) {
			return 403, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>planted-secret</Message></Error></ErrorResponse>"
		}
		return 200, fmt.Sprintf("<%[1]sResponse><%[1]sResult><Credentials><AccessKeyId>%[2]s</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>session</SessionToken><Expiration>2030-01-01T00:00:00Z</Expiration></Credentials></%[1]sResult></%[1]sResponse>", action, id)
	})
}

func TestAmazonBySettings(t *testing.T) {
	signed := func(id string) func(*http.Request, url.Values) bool {
		return func(r *http.Request, f url.Values) bool {
			return strings.Contains(r.Header.Get("Authorization"), "Credential="+id+"/") && f.Get("ExternalId") == "ours"
		}
	}
	for name, s := range map[string]struct {
		clouds Clouds
		set    func(c *cloud)
		id     string
	}{
		"keys": {Clouds{AWS: AWS{AccessKeyID: "KEY", SecretAccessKey: "secret"}}, func(*cloud) {}, "KEY"},
		"a role with keys": {Clouds{AWS: AWS{AccessKeyID: "KEY", SecretAccessKey: "secret", Role: "arn:aws:iam::1:role/ci", ExternalID: "ours"}},
			func(c *cloud) { c.stsAnswers("ROLE", "AssumeRole", signed("KEY")) }, "ROLE"},
		"a role with the job's keys": {Clouds{AWS: AWS{Role: "arn:aws:iam::1:role/ci", ExternalID: "ours"}},
			func(c *cloud) { c.stsAnswers("ROLE", "AssumeRole", signed("VARIABLE")) }, "ROLE"},
		"a role with an OIDC token": {Clouds{AWS: AWS{Role: "arn:aws:iam::1:role/ci"}, OIDCToken: "job-jwt"}, func(c *cloud) {
			c.stsAnswers("OIDC", "AssumeRoleWithWebIdentity", func(r *http.Request, f url.Values) bool {
				return f.Get("WebIdentityToken") == "job-jwt" && r.Header.Get("Authorization") == ""
			})
		}, "OIDC"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t)
			c.ecrAnswers(s.id)
			s.set(c)
			f, err := c.by(s.clouds, ecrTest)
			require.NoError(t, err)
			require.Equal(t, Login{Username: "AWS", Password: "token-for-" + s.id}, f.Login)
			f, err = c.by(s.clouds, "registry.example")
			require.NoError(t, err)
			require.Equal(t, "file", f.Username, "another registry is not Amazon's")
		})
	}
}

func TestSettingsThatACloudRefusesAreAnError(t *testing.T) {
	c := newCloud(t)
	c.ecrAnswers("GOOD")
	c.stsAnswers("X", "AssumeRole", func(*http.Request, url.Values) bool { return false })
	c.stsAnswers("X", "AssumeRoleWithWebIdentity", func(*http.Request, url.Values) bool { return false })
	c.entra()
	c.on("POST login.microsoftonline.com/tenant/oauth2/v2.0/token", func(*http.Request, string) (int, string) {
		return 401, `{"error":"invalid_client","error_description":"planted-secret"}`
	})
	c.on("POST sts.googleapis.com/v1/token", func(*http.Request, string) (int, string) {
		return 400, `{"error":"invalid_target","error_description":"planted-secret"}`
	})
	for says, s := range map[string]struct {
		clouds Clouds
		host   string
	}{
		"answered 400 Bad Request (UnrecognizedClientException)":               {Clouds{AWS: AWS{AccessKeyID: "BAD", SecretAccessKey: "planted-secret"}}, ecrTest},
		"sts.eu-west-1.amazonaws.com answered 403 Forbidden (AccessDenied)":    {Clouds{AWS: AWS{Role: "arn:x"}, OIDCToken: "planted-secret"}, ecrTest},
		"one half of the key is missing":                                       {Clouds{AWS: AWS{AccessKeyID: "BAD"}}, ecrTest},
		"a key or a role is needed":                                            {Clouds{AWS: AWS{ExternalID: "x"}}, ecrTest},
		"login.microsoftonline.com answered 401 Unauthorized (invalid_client)": {Clouds{Azure: Azure{ClientID: "client", Tenant: "tenant", ClientSecret: "planted-secret"}}, "team.azurecr.io"},
		"not PEM with a certificate and its key":                               {Clouds{Azure: Azure{ClientID: "client", Tenant: "tenant", Certificate: "planted-secret"}}, "team.azurecr.io"},
		"a client secret, a certificate or an OIDC token is needed":            {Clouds{Azure: Azure{ClientID: "client", Tenant: "tenant"}}, "team.azurecr.io"},
		"client and tenant are needed":                                         {Clouds{Azure: Azure{ClientSecret: "planted-secret"}}, "team.azurecr.io"},
		"the authority host is no https URL":                                   {Clouds{Azure: Azure{ClientID: "client", Tenant: "tenant", ClientSecret: "planted-secret", AuthorityHost: "http://x"}}, "team.azurecr.io"},
		"sts.googleapis.com answered 400 Bad Request (invalid_target)":         {Clouds{Google: Google{ProjectNumber: "1", Pool: "p", Provider: "o"}, OIDCToken: "planted-secret"}, "gcr.io"},
		"a project number, pool, provider and OIDC token are needed":           {Clouds{Google: Google{Pool: "p"}}, "gcr.io"},
		"line 1, column": {Clouds{Google: Google{Key: "planted-secret"}}, "gcr.io"},
	} {
		t.Run(says, func(t *testing.T) {
			_, err := c.by(s.clouds, s.host)
			require.ErrorContains(t, err, says)
			require.NotContains(t, err.Error(), "planted-secret")
			e, ok := fault.As(err)
			require.True(t, ok)
			require.Equal(t, fault.Registry, e.Kind)
			require.Contains(t, e.Remedy, "docs/credentials.md")
		})
	}
}

// TestARoleWithoutKeysSaysWhatGivesAToken where the adapter knows it.
func TestARoleWithoutKeysSaysWhatGivesAToken(t *testing.T) {
	c := newCloud(t)
	for hint, want := range map[string]string{"": "there are no keys to take the role with", "the job gets one so": "there are no keys to take the role with, and no token: the job gets one so"} {
		chain, err := Load(Options{Clouds: Clouds{AWS: AWS{Role: "arn:x"}, NoToken: hint}, Environment: map[string]string{}, Transport: c, Direct: c})
		require.NoError(t, err)
		_, err = chain.Find(t.Context(), Place{Host: ecrTest, Path: "team/app"})
		require.ErrorContains(t, err, want)
		require.Equal(t, hint != "", strings.Contains(err.Error(), "no token"))
	}
}

func TestGoogleBySettings(t *testing.T) {
	key := serviceAccount(t)
	want := Login{Username: "oauth2accesstoken", Password: "google-token"}
	c := newCloud(t)
	c.says("POST oauth2.googleapis.com/token", `{"access_token":"google-token","expires_in":3600,"token_type":"Bearer"}`)
	c.on("POST sts.googleapis.com/v1/token", func(_ *http.Request, body string) (int, string) {
		f, _ := url.ParseQuery(body)
		if f.Get("subject_token") != "job-jwt" || f.Get("audience") != "//iam.googleapis.com/projects/42/locations/global/workloadIdentityPools/pool/providers/provider" ||
			f.Get("subject_token_type") != "urn:ietf:params:oauth:token-type:id_token" || f.Get("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange" {
			return 400, `{"error":"invalid_request"}`
		}
		return 200, `{"access_token":"federated","expires_in":3600,"token_type":"Bearer","issued_token_type":"urn:ietf:params:oauth:token-type:access_token"}`
	})
	c.on("POST iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/ci@p.example:generateAccessToken", func(r *http.Request, _ string) (int, string) {
		if r.Header.Get("Authorization") != "Bearer federated" {
			return 403, `{"error":{"status":"PERMISSION_DENIED","message":"planted-secret"}}`
		}
		return 200, `{"accessToken":"google-token","expireTime":"2030-01-01T00:00:00Z"}`
	})
	for name, s := range map[string]Clouds{
		"a key":           {Google: Google{Key: key}},
		"a key in base64": {Google: Google{Key: base64.StdEncoding.EncodeToString([]byte(key))}},
		"an access token": {Google: Google{AccessToken: "google-token"}},
		"workload identity federation": {Google: Google{ProjectNumber: "42", Pool: "pool", Provider: "provider", ServiceAccount: "ci@p.example"},
			OIDCToken: "job-jwt"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := c.by(s, "europe-docker.pkg.dev")
			require.NoError(t, err)
			require.Equal(t, want, f.Login)
		})
	}
	_, err := c.by(Clouds{Google: Google{ProjectNumber: "42", Pool: "pool", Provider: "provider", ServiceAccount: "other@p.example"}, OIDCToken: "job-jwt"}, "gcr.io")
	require.ErrorContains(t, err, "iamcredentials.googleapis.com answered 404")
	f, err := c.by(Clouds{Google: Google{ProjectNumber: "42", Pool: "pool", Provider: "provider"}, OIDCToken: "job-jwt"}, "gcr.io")
	require.NoError(t, err)
	require.Equal(t, "federated", f.Password, "without a service account the federated identity itself")
}

// certificate is a client certificate with its key.
func certificate(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	cert, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ci"}, NotAfter: time.Now().Add(time.Hour)},
		&x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})) + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestAzureBySettings(t *testing.T) {
	const host = "team.azurecr.io"
	cert := certificate(t)
	for name, s := range map[string]struct {
		azure Azure
		oidc  string
		check func(f url.Values) bool
	}{
		"a secret": {Azure{ClientSecret: "s3cret"}, "", func(f url.Values) bool { return f.Get("client_secret") == "s3cret" }},
		"a certificate": {Azure{Certificate: base64.StdEncoding.EncodeToString([]byte(cert))}, "", func(f url.Values) bool {
			claims, _ := base64.RawURLEncoding.DecodeString(strings.Split(f.Get("client_assertion")+"..", ".")[1])
			var c struct{ Iss, Aud string }
			return json.Unmarshal(claims, &c) == nil && c.Iss == "client" && c.Aud == "https://login.microsoftonline.com/tenant/oauth2/v2.0/token"
		}},
		"an OIDC token": {Azure{}, "job-jwt", func(f url.Values) bool {
			return f.Get("client_assertion") == "job-jwt" && f.Get("client_assertion_type") == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t)
			c.entra()
			c.on("POST login.microsoftonline.com/tenant/oauth2/v2.0/token", func(_ *http.Request, body string) (int, string) {
				f, _ := url.ParseQuery(body)
				if f.Get("client_id") != "client" || f.Get("grant_type") != "client_credentials" || !s.check(f) {
					return 401, `{"error":"invalid_client"}`
				}
				return 200, `{"access_token":"entra-token","expires_in":3600,"token_type":"Bearer"}`
			})
			c.on("POST "+host+"/oauth2/exchange", func(_ *http.Request, body string) (int, string) {
				f, _ := url.ParseQuery(body)
				if f.Get("access_token") != "entra-token" || f.Get("service") != host || f.Get("tenant") != "tenant" {
					return 401, "{}"
				}
				return 200, `{"refresh_token":"acr-token"}`
			})
			s.azure.ClientID, s.azure.Tenant = "client", "tenant"
			f, err := c.by(Clouds{Azure: s.azure, OIDCToken: s.oidc}, host)
			require.NoError(t, err)
			require.Equal(t, Login{Username: acrUser, Password: "acr-token"}, f.Login)
		})
	}
}

func TestBusyTokenServicesAreAskedAgain(t *testing.T) {
	c := newCloud(t)
	busy := map[string]int{}
	stumble := func(key string, then func(*http.Request, string) (int, string)) {
		c.on(key, func(r *http.Request, body string) (int, string) {
			if busy[key]++; busy[key] == 1 {
				return 503, ""
			}
			return then(r, body)
		})
	}
	c.ecrAnswers("KEY")
	stumble("POST api.ecr.eu-west-1.amazonaws.com/", c.reply["POST api.ecr.eu-west-1.amazonaws.com/"])
	_, err := c.by(Clouds{AWS: AWS{AccessKeyID: "KEY", SecretAccessKey: "s"}}, ecrTest)
	require.NoError(t, err)
	stumble("POST sts.googleapis.com/v1/token", func(_ *http.Request, body string) (int, string) {
		require.Contains(t, body, "job-jwt", "the whole request is made again")
		return 200, `{"access_token":"federated","expires_in":3600,"token_type":"Bearer","issued_token_type":"urn:ietf:params:oauth:token-type:access_token"}`
	})
	_, err = c.by(Clouds{Google: Google{ProjectNumber: "42", Pool: "pool", Provider: "provider"}, OIDCToken: "job-jwt"}, "gcr.io")
	require.NoError(t, err)
	c.entra()
	stumble("POST login.microsoftonline.com/tenant/oauth2/v2.0/token", func(*http.Request, string) (int, string) {
		return 200, `{"access_token":"entra-token","expires_in":3600,"token_type":"Bearer"}`
	})
	stumble("POST team.azurecr.io/oauth2/exchange", func(*http.Request, string) (int, string) { return 200, `{"refresh_token":"acr-token"}` })
	_, err = c.by(Clouds{Azure: Azure{ClientID: "client", Tenant: "tenant", ClientSecret: "s"}}, "team.azurecr.io")
	require.NoError(t, err)
	require.Len(t, busy, 4)
	for key, n := range busy {
		require.Equal(t, 2, n, key)
	}
}

func TestRepositoriesOfAmazonAreMade(t *testing.T) {
	c := newCloud(t)
	var asked []string
	exists := false
	c.on("POST api.ecr.eu-west-1.amazonaws.com/", func(r *http.Request, body string) (int, string) {
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=KEY/") {
			return 400, `{"__type":"UnrecognizedClientException"}`
		}
		_, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		asked = append(asked, action+" "+body)
		switch {
		case action == "CreateRepository" && exists:
			return 400, `{"__type":"RepositoryAlreadyExistsException"}`
		case action == "PutLifecyclePolicy" && strings.Contains(body, "forbidden"):
			return 400, `{"__type":"AccessDeniedException","message":"planted-secret"}`
		}
		return 200, "{}"
	})
	at := Place{Host: ecrTest, Path: "team/app"}
	opts := Options{Clouds: Clouds{AWS: AWS{AccessKeyID: "KEY", SecretAccessKey: "planted-secret"}}, Environment: map[string]string{}, Transport: c, Direct: c}
	done, err := Prepare(t.Context(), opts, at, Repository{Create: true, ScanOnPush: true, Policy: `{"p":1}`, Lifecycle: `{"l":1}`})
	require.NoError(t, err)
	require.Equal(t, []string{"was made", "has images scanned when they are pushed", "has its policy", "has its lifecycle policy"}, done)
	require.Len(t, asked, 4)
	for i, want := range []string{`CreateRepository {"imageScanningConfiguration":{"scanOnPush":true},"registryId":"123456789012","repositoryName":"team/app"}`,
		`PutImageScanningConfiguration {"imageScanningConfiguration":{"scanOnPush":true},"registryId":"123456789012","repositoryName":"team/app"}`,
		`SetRepositoryPolicy {"policyText":"{\"p\":1}","registryId":"123456789012","repositoryName":"team/app"}`,
		`PutLifecyclePolicy {"lifecyclePolicyText":"{\"l\":1}","registryId":"123456789012","repositoryName":"team/app"}`} {
		action, body, _ := strings.Cut(asked[i], " ")
		wantAction, wantBody, _ := strings.Cut(want, " ")
		require.Equal(t, wantAction, action)
		require.JSONEq(t, wantBody, body)
	}
	exists = true
	done, err = Prepare(t.Context(), opts, at, Repository{Create: true})
	require.NoError(t, err)
	require.Empty(t, done, "one that is there stays as it is")
	_, err = Prepare(t.Context(), opts, at, Repository{Lifecycle: `{"forbidden":1}`})
	require.ErrorContains(t, err, "prepare the repository "+ecrTest+"/team/app: PutLifecyclePolicy: api.ecr.eu-west-1.amazonaws.com answered 400 Bad Request (AccessDeniedException)")
	require.NotContains(t, err.Error(), "planted-secret")
	e, _ := fault.As(err)
	require.Contains(t, e.Remedy, "ecr:PutLifecyclePolicy")
	opts.Clouds = Clouds{}
	_, err = Prepare(t.Context(), opts, at, Repository{Create: true})
	require.ErrorContains(t, err, "there are no AWS credentials")
	require.True(t, NeedsRepositories(ecrTest))
	require.False(t, NeedsRepositories("public.ecr.aws"))
	require.False(t, NeedsRepositories("ghcr.io"))
}
