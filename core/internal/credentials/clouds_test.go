package credentials

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// cloud is a fake of token services and metadata servers: whatever host is asked
// for, it answers by host and path.
type cloud struct {
	t     *testing.T
	url   string
	asked []string
	reply map[string]func(r *http.Request, body string) (int, string)
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	c := &cloud{t: t, reply: map[string]func(*http.Request, string) (int, string){}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Header.Get("X-Test-Host")
		body, _ := io.ReadAll(r.Body)
		key := r.Method + " " + host + r.URL.Path
		c.asked = append(c.asked, key)
		f, ok := c.reply[key]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		code, text := f(r, string(body))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(s.Close)
	c.url = s.URL
	return c
}

// RoundTrip sends every request to the fake.
func (c *cloud) RoundTrip(r *http.Request) (*http.Response, error) {
	to, err := url.Parse(c.url)
	require.NoError(c.t, err)
	sent := r.Clone(r.Context())
	sent.Header.Set("X-Test-Host", r.URL.Host)
	sent.URL.Scheme, sent.URL.Host = to.Scheme, to.Host
	resp, err := http.DefaultTransport.RoundTrip(sent)
	if err == nil {
		resp.Request = r
	}
	return resp, err
}

func (c *cloud) on(key string, f func(r *http.Request, body string) (int, string)) { c.reply[key] = f }

func (c *cloud) says(key, text string) {
	c.on(key, func(*http.Request, string) (int, string) { return 200, text })
}

func (c *cloud) find(env map[string]string, host string) Found {
	c.t.Helper()
	return find(c.t, Options{Environment: env, Transport: c, Direct: c}, host, "team/app")
}

func trouble(f Found) string {
	for _, l := range f.Looked {
		if l.Trouble {
			return l.Source + ": " + l.Answer
		}
	}
	return ""
}

const ecrTest = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"

// ecrAnswers has the fake give a token to who signs with the key id.
func (c *cloud) ecrAnswers(id string) {
	c.on("POST api.ecr.eu-west-1.amazonaws.com/", func(r *http.Request, body string) (int, string) {
		want := "AWS4-HMAC-SHA256 Credential=" + id + "/"
		if !strings.HasPrefix(r.Header.Get("Authorization"), want) || !strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/ecr/aws4_request") || body != "{}" {
			return 400, `{"__type":"com.amazon#UnrecognizedClientException","message":"planted-secret"}`
		}
		require.Equal(c.t, "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken", r.Header.Get("X-Amz-Target"))
		return 200, fmt.Sprintf(`{"authorizationData":[{"authorizationToken":%q,"expiresAt":%d}]}`,
			base64.StdEncoding.EncodeToString([]byte("AWS:token-for-"+id)), time.Now().Add(time.Hour).Unix())
	})
}

func TestECR(t *testing.T) {
	sts := func(id, action string) string {
		return "<" + action + "Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><" + action + "Result><Credentials><AccessKeyId>" + id +
			"</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>session</SessionToken></Credentials></" + action + "Result></" + action + "Response>"
	}
	keys := func(id string) string {
		return fmt.Sprintf(`{"AccessKeyId":%q,"SecretAccessKey":"s","Token":"session"}`, id)
	}
	for name, c := range map[string]struct {
		env    map[string]string
		files  map[string]string
		set    func(c *cloud)
		id, by string
	}{
		"variables": {env: map[string]string{"AWS_ACCESS_KEY_ID": "VAR", "AWS_SECRET_ACCESS_KEY": "s"}, id: "VAR", by: "AWS_ACCESS_KEY_ID"},
		"web identity": {env: map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": "DIR/token", "AWS_ROLE_ARN": "arn:role"}, files: map[string]string{"token": "jwt\n"},
			set: func(c *cloud) {
				c.on("POST sts.eu-west-1.amazonaws.com/", func(_ *http.Request, body string) (int, string) {
					v, _ := url.ParseQuery(body)
					if v.Get("WebIdentityToken") != "jwt" || v.Get("RoleArn") != "arn:role" || v.Get("Action") != "AssumeRoleWithWebIdentity" {
						return 400, ""
					}
					return 200, sts("WEB", "AssumeRoleWithWebIdentity")
				})
			}, id: "WEB", by: "AWS_WEB_IDENTITY_TOKEN_FILE"},
		"a profile": {env: map[string]string{}, files: map[string]string{".aws/credentials": "# x\n[default]\naws_access_key_id = FILE\naws_secret_access_key=s\n"}, id: "FILE", by: "the profile default"},
		"a role of another profile": {env: map[string]string{"AWS_PROFILE": "role"},
			files: map[string]string{".aws/credentials": "[base]\naws_access_key_id=BASE\naws_secret_access_key=s\n",
				".aws/config": "[profile role]\nrole_arn = arn:r\nsource_profile = base\ns3 =\n  max_queue = 1\n"},
			set: func(c *cloud) {
				c.on("POST sts.eu-west-1.amazonaws.com/", func(r *http.Request, body string) (int, string) {
					if !strings.Contains(r.Header.Get("Authorization"), "Credential=BASE/") || !strings.Contains(body, "Action=AssumeRole&") {
						return 403, ""
					}
					return 200, sts("ROLE", "AssumeRole")
				})
			}, id: "ROLE", by: "the profile role"},
		"a container": {env: map[string]string{"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x"},
			set: func(c *cloud) { c.says("GET 169.254.170.2/v2/x", keys("ECS")) }, id: "ECS", by: "the container's role"},
		"a pod": {env: map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "DIR/pod"},
			files: map[string]string{"pod": "pod-token"}, set: func(c *cloud) {
				c.on("GET 169.254.170.23/v1/credentials", func(r *http.Request, _ string) (int, string) {
					if r.Header.Get("Authorization") != "pod-token" {
						return 401, ""
					}
					return 200, keys("POD")
				})
			}, id: "POD", by: "the container's role"},
		"a machine": {set: func(c *cloud) {
			c.says("PUT 169.254.169.254/latest/api/token", "imds")
			c.says("GET 169.254.169.254/latest/meta-data/iam/security-credentials/", "my-role\n")
			c.on("GET 169.254.169.254/latest/meta-data/iam/security-credentials/my-role", func(r *http.Request, _ string) (int, string) {
				if r.Header.Get("X-aws-ec2-metadata-token") != "imds" {
					return 401, ""
				}
				return 200, keys("EC2")
			})
		}, id: "EC2", by: "the machine's role"},
	} {
		t.Run(name, func(t *testing.T) {
			cl, home := newCloud(t), t.TempDir()
			for name, text := range c.files {
				put(t, filepath.Join(home, name), text, 0o600)
			}
			env := map[string]string{"HOME": home}
			for k, v := range c.env {
				env[k] = strings.ReplaceAll(v, "DIR", home)
			}
			cl.ecrAnswers(c.id)
			if c.set != nil {
				c.set(cl)
			}
			f := cl.find(env, ecrTest)
			require.Equal(t, Login{Username: "AWS", Password: "token-for-" + c.id}, f.Login, trouble(f))
			require.Contains(t, f.Source, c.by)
			require.WithinDuration(t, time.Now().Add(time.Hour), f.Expires, 5*time.Minute)
		})
	}
}

func TestECRWithoutKeysOrWithWrongOnes(t *testing.T) {
	c := newCloud(t)
	f := c.find(map[string]string{}, ecrTest)
	require.Empty(t, f.Source)
	require.Empty(t, trouble(f))
	require.Contains(t, fmt.Sprintf("%+v", f.Looked), "Answer:finds no AWS credentials: no AWS_ACCESS_KEY_ID, no web identity, no profile, no metadata server Used:false Exists:true")
	c.ecrAnswers("GOOD")
	f = c.find(map[string]string{"AWS_ACCESS_KEY_ID": "BAD", "AWS_SECRET_ACCESS_KEY": "planted-secret"}, ecrTest)
	require.Empty(t, f.Source)
	require.Contains(t, trouble(f), "answered 400 Bad Request (UnrecognizedClientException)")
	require.NotContains(t, fmt.Sprint(f.Looked), "planted-secret")
	f = c.find(map[string]string{"AWS_PROFILE": "none"}, ecrTest)
	require.Contains(t, trouble(f), "AWS_PROFILE")
	before := len(c.asked)
	c.find(map[string]string{"AWS_ACCESS_KEY_ID": "BAD", "AWS_SECRET_ACCESS_KEY": "x"}, "registry.example")
	require.Len(t, c.asked, before, "nobody is asked for another registry")
}

func TestECRHosts(t *testing.T) {
	for host, endpoint := range map[string]string{
		"123456789012.dkr.ecr.us-east-1.amazonaws.com":              "https://api.ecr.us-east-1.amazonaws.com",
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com":     "https://ecr-fips.us-gov-west-1.amazonaws.com",
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":          "https://api.ecr.cn-north-1.amazonaws.com.cn",
		"123456789012.dkr-ecr.us-west-2.on.aws":                     "https://ecr.us-west-2.api.aws",
		"public.ecr.aws":                                            "https://api.ecr-public.us-east-1.amazonaws.com",
		"12345.dkr.ecr.us-east-1.amazonaws.com":                     "",
		"x.123456789012.dkr.ecr.us.amazonaws.com":                   "",
		"123456789012.dkr.ecr.us-east-1.amazonaws.com.evil.example": "",
	} {
		target, ok := ecrOf(host)
		require.Equal(t, endpoint != "", ok, host)
		require.Equal(t, endpoint, target.endpoint)
	}
	c := newCloud(t)
	c.says("POST api.ecr-public.us-east-1.amazonaws.com/", `{"authorizationData":{"authorizationToken":"QVdTOnB1YmxpYw==","expiresAt":1.9e9}}`)
	f := c.find(map[string]string{"AWS_ACCESS_KEY_ID": "K", "AWS_SECRET_ACCESS_KEY": "s"}, "public.ecr.aws")
	require.Equal(t, Login{Username: "AWS", Password: "public"}, f.Login)
}

// serviceAccount is a key file whose token service is the fake.
func serviceAccount(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	text, err := json.Marshal(map[string]string{"type": "service_account", "client_email": "me@project.example", "private_key_id": "1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": "https://oauth2.googleapis.com/token"})
	require.NoError(t, err)
	return string(text)
}

func TestGoogle(t *testing.T) {
	key := serviceAccount(t)
	want := Login{Username: "oauth2accesstoken", Password: "google-token"}
	t.Run("a service account's key", func(t *testing.T) {
		c := newCloud(t)
		c.on("POST oauth2.googleapis.com/token", func(_ *http.Request, body string) (int, string) {
			v, _ := url.ParseQuery(body)
			claims, _ := base64.RawURLEncoding.DecodeString(strings.Split(v.Get("assertion")+"..", ".")[1])
			if !strings.Contains(string(claims), `"iss":"me@project.example"`) {
				return 400, `{"error":"invalid_grant","error_description":"planted-secret"}`
			}
			return 200, `{"access_token":"google-token","expires_in":3600,"token_type":"Bearer"}`
		})
		path := put(t, filepath.Join(t.TempDir(), "key.json"), key, 0o600)
		for _, host := range []string{"gcr.io", "eu.gcr.io", "europe-docker.pkg.dev"} {
			f := c.find(map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": path}, host)
			require.Equal(t, want, f.Login, trouble(f))
			require.Contains(t, f.Source, path)
		}
		require.Empty(t, c.find(map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": path}, "registry.example").Source)
	})
	t.Run("a user's refresh token", func(t *testing.T) {
		c, home := newCloud(t), t.TempDir()
		c.says("POST oauth2.googleapis.com/token", `{"access_token":"google-token","expires_in":3600}`)
		put(t, filepath.Join(home, ".config/gcloud/application_default_credentials.json"), `{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"r"}`, 0o600)
		f := c.find(map[string]string{"HOME": home}, "gcr.io")
		require.Equal(t, want, f.Login, trouble(f))
	})
	t.Run("workload identity federation", func(t *testing.T) {
		c, dir := newCloud(t), t.TempDir()
		c.on("POST sts.googleapis.com/v1/token", func(_ *http.Request, body string) (int, string) {
			if v, _ := url.ParseQuery(body); v.Get("subject_token") != "job-jwt" {
				return 400, `{"error":"invalid_request"}`
			}
			return 200, `{"access_token":"google-token","expires_in":3600,"token_type":"Bearer","issued_token_type":"urn:ietf:params:oauth:token-type:access_token"}`
		})
		put(t, filepath.Join(dir, "jwt"), "job-jwt", 0o600)
		path := put(t, filepath.Join(dir, "f.json"), `{"type":"external_account","audience":"//iam.googleapis.com/x","subject_token_type":"urn:ietf:params:oauth:token-type:jwt",
			"token_url":"https://sts.googleapis.com/v1/token","credential_source":{"file":"`+filepath.Join(dir, "jwt")+`"}}`, 0o600)
		f := c.find(map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": path}, "gcr.io")
		require.Equal(t, want, f.Login, trouble(f))
	})
	t.Run("the metadata server", func(t *testing.T) {
		c := newCloud(t)
		c.on("GET 169.254.169.254/computeMetadata/v1/instance/service-accounts/default/token", func(r *http.Request, _ string) (int, string) {
			if r.Header.Get("Metadata-Flavor") != "Google" {
				return 403, ""
			}
			return 200, `{"access_token":"google-token","expires_in":3600}`
		})
		f := c.find(map[string]string{}, "europe-docker.pkg.dev")
		require.Equal(t, want, f.Login, trouble(f))
		require.Contains(t, f.Source, "metadata server")
	})
	t.Run("nothing at all", func(t *testing.T) {
		f := newCloud(t).find(map[string]string{}, "gcr.io")
		require.Empty(t, f.Source)
		require.Empty(t, trouble(f), "public images need no login")
	})
	t.Run("what is wrong is said without the key", func(t *testing.T) {
		c := newCloud(t)
		c.on("POST oauth2.googleapis.com/token", func(*http.Request, string) (int, string) {
			return 400, `{"error":"invalid_grant","error_description":"planted-secret"}`
		})
		for text, says := range map[string]string{key: "400 Bad Request (invalid_grant)", `{"type":"service_account","private_key":"planted-secret"}`: "key.json", "{\n,": "line 2, column 1",
			`{"type":"planted-secret"}`: "(type)"} {
			path := put(t, filepath.Join(t.TempDir(), "key.json"), text, 0o600)
			f := c.find(map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": path}, "gcr.io")
			require.Empty(t, f.Source)
			require.Contains(t, trouble(f), says)
			require.NotContains(t, trouble(f), "planted-secret")
			require.NotContains(t, trouble(f), "PRIVATE")
		}
		f := c.find(map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": "/no/such/file"}, "gcr.io")
		require.Contains(t, trouble(f), "/no/such/file")
	})
}

// entra has the fake describe itself, as Microsoft's library asks it to.
func (c *cloud) entra() {
	c.says("GET login.microsoftonline.com/tenant/v2.0/.well-known/openid-configuration", `{"issuer":"https://login.microsoftonline.com/tenant/v2.0",
		"authorization_endpoint":"https://login.microsoftonline.com/tenant/oauth2/v2.0/authorize","token_endpoint":"https://login.microsoftonline.com/tenant/oauth2/v2.0/token"}`)
}

func TestAzure(t *testing.T) {
	const host = "team.azurecr.io"
	exchange := func(c *cloud) {
		c.on("POST "+host+"/oauth2/exchange", func(_ *http.Request, body string) (int, string) {
			v, _ := url.ParseQuery(body)
			if v.Get("access_token") != "entra-token" || v.Get("service") != host || v.Get("grant_type") != "access_token" {
				return 401, `{"errors":[]}`
			}
			return 200, `{"refresh_token":"acr-token"}`
		})
	}
	login := func(field, value string) func(c *cloud) {
		return func(c *cloud) {
			c.entra()
			c.on("POST login.microsoftonline.com/tenant/oauth2/v2.0/token", func(_ *http.Request, body string) (int, string) {
				v, _ := url.ParseQuery(body)
				if v.Get(field) != value || v.Get("client_id") != "client" || !slices.Contains(strings.Fields(v.Get("scope")), "https://containerregistry.azure.net/.default") {
					return 401, `{"error":"invalid_client","error_description":"planted-secret"}`
				}
				return 200, `{"access_token":"entra-token","expires_in":3600,"token_type":"Bearer"}`
			})
		}
	}
	for name, c := range map[string]struct {
		env map[string]string
		set func(c *cloud)
		by  string
	}{
		"a service principal": {map[string]string{"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_SECRET": "s3cret"}, login("client_secret", "s3cret"), "AZURE_CLIENT_SECRET"},
		"a federated token": {map[string]string{"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant", "AZURE_FEDERATED_TOKEN_FILE": put(t, filepath.Join(t.TempDir(), "jwt"), "job-jwt\n", 0o600)},
			login("client_assertion", "job-jwt"), "AZURE_FEDERATED_TOKEN_FILE"},
		"an app service": {map[string]string{"IDENTITY_ENDPOINT": "http://169.254.130.1:8081/msi/token", "IDENTITY_HEADER": "h"}, func(c *cloud) {
			c.on("GET 169.254.130.1:8081/msi/token", func(r *http.Request, _ string) (int, string) {
				if r.Header.Get("X-IDENTITY-HEADER") != "h" {
					return 401, ""
				}
				return 200, `{"access_token":"entra-token"}`
			})
		}, "IDENTITY_ENDPOINT"},
		"a machine": {nil, func(c *cloud) {
			c.on("GET 169.254.169.254/metadata/identity/oauth2/token", func(r *http.Request, _ string) (int, string) {
				if r.Header.Get("Metadata") != "true" || r.URL.Query().Get("resource") != "https://containerregistry.azure.net" {
					return 400, ""
				}
				return 200, `{"access_token":"entra-token"}`
			})
		}, "the machine's identity"},
	} {
		t.Run(name, func(t *testing.T) {
			cl := newCloud(t)
			exchange(cl)
			c.set(cl)
			f := cl.find(c.env, host)
			require.Equal(t, Login{Username: acrUser, Password: "acr-token"}, f.Login, trouble(f))
			require.Contains(t, f.Source, c.by)
		})
	}
	c := newCloud(t)
	login("client_secret", "right")(c)
	f := c.find(map[string]string{"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_SECRET": "planted-secret"}, host)
	require.Contains(t, trouble(f), "(invalid_client)")
	require.NotContains(t, fmt.Sprint(f.Looked), "planted-secret")
	require.Empty(t, newCloud(t).find(nil, host).Source)
	require.Empty(t, newCloud(t).find(nil, "azurecr.io.example").Source)
}
