package plugin

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/layerwright/layerwright/core"
)

// clouds are the settings with keys for clouds, and what is made there.
func (p *Plan) clouds(c *checker) {
	s, r := p.Settings, &p.Request.Registry
	r.Clouds = core.Clouds{
		AWS: core.AWS{AccessKeyID: s.AWSAccessKeyID, SecretAccessKey: s.AWSSecretAccessKey, SessionToken: s.AWSSessionToken, Role: s.AWSRole, ExternalID: s.AWSExternalID},
		Google: core.Google{Key: s.GoogleKey, AccessToken: s.GoogleAccessToken, ProjectNumber: s.GoogleProjectNumber, Pool: s.GooglePool, Provider: s.GoogleProvider,
			ServiceAccount: s.GoogleAccount},
		Azure:     core.Azure{ClientID: s.AzureClientID, Tenant: s.AzureTenant, ClientSecret: s.AzureClientSecret, Certificate: s.AzureClientCertificate},
		OIDCToken: s.OIDCToken,
	}
	if s.AWSRole != "" && c.host.Token == nil {
		r.Clouds.NoToken = c.host.NoToken
	}
	if s.AzureAuthorityHost != "" && r.Clouds.Azure != (core.Azure{}) {
		r.Clouds.Azure.AuthorityHost = s.AzureAuthorityHost
	}
	if s.AWSRegion != "" {
		r.Environment["AWS_REGION"] = s.AWSRegion
	}
	c.together(s)
	c.oneToken(s)
	p.Request.Outputs.Repository = core.Repository{Create: s.CreateRepository, ScanOnPush: s.ScanOnPush,
		Policy: c.policy("repository-policy", s.RepositoryPolicy), Lifecycle: c.policy("lifecycle-policy", s.LifecyclePolicy)}
	for _, secret := range append(r.Clouds.Secrets(), p.inside(s.GoogleKey)...) {
		p.Secrets = append(p.Secrets, []byte(secret))
	}
}

// inside are the secrets in a key file: a log may show them without the file around
// them.
func (p *Plan) inside(key string) (out []string) {
	var file map[string]any
	if json.Unmarshal([]byte(key), &file) != nil {
		return nil
	}
	for _, name := range []string{"private_key", "client_secret", "refresh_token"} {
		text, _ := file[name].(string)
		for _, line := range strings.Split(text, "\n") { // a key is lines in a log
			if len(line) > 20 && !strings.HasPrefix(line, "-----") {
				out = append(out, line)
			}
		}
	}
	return out
}

// together are settings of which one needs another.
func (c *checker) together(s Settings) {
	need := func(ok bool, setting, text string) {
		if !ok {
			c.add(setting, "%w", errors.New(text))
		}
	}
	need(s.AWSAccessKeyID == "" || s.AWSSecretAccessKey != "", "aws-secret-access-key", "it is missing, and there is an access key")
	need(s.AWSSecretAccessKey == "" || s.AWSAccessKeyID != "", "aws-access-key-id", "it is missing, and there is a secret key")
	need(s.AWSSessionToken == "" || s.AWSAccessKeyID != "", "aws-access-key-id", "it is missing, and there is a session token")
	need(s.AWSExternalID == "" || s.AWSRole != "", "aws-role", "it is missing, and there is an external id")
	how := ""
	if c.host.NoToken != "" {
		how = "; " + c.host.NoToken
	}
	federated := s.GoogleProjectNumber != "" || s.GooglePool != "" || s.GoogleProvider != "" || s.GoogleAccount != ""
	if federated && s.GoogleKey == "" && s.GoogleAccessToken == "" {
		for _, f := range []struct{ setting, value string }{{"google-project-number", s.GoogleProjectNumber}, {"google-pool-id", s.GooglePool}, {"google-provider-id", s.GoogleProvider}, {"oidc-token", s.OIDCToken}} {
			need(f.value != "" || f.setting == "oidc-token" && c.host.Token != nil, f.setting, "it is missing: workload identity federation needs project number, pool, provider and OIDC token"+how)
		}
	}
	if azure := s.AzureClientID + s.AzureTenant + s.AzureClientSecret + s.AzureClientCertificate; azure != "" {
		need(s.AzureClientID != "", "azure-client-id", "it is missing, and other settings for Azure are there")
		need(s.AzureTenant != "", "azure-tenant-id", "it is missing, and other settings for Azure are there")
		need(s.AzureClientSecret+s.AzureClientCertificate+s.OIDCToken != "" || c.host.Token != nil, "azure-client-secret", "it is missing: Azure wants a secret, a certificate or an OIDC token"+how)
	}
	need(s.OIDCToken == "" || s.AWSRole != "" || federated || s.AzureClientID != "", "oidc-token",
		"it is of no use alone: a role of AWS, a pool of Google or a client of Azure is needed")
}

// policy reads a file with JSON.
func (c *checker) policy(setting, name string) string {
	if name == "" {
		return ""
	}
	data, err := c.host.ReadFile(name)
	switch {
	case err != nil:
		c.add(setting, "%w", err)
	case !json.Valid(data):
		c.add(setting, "%s is not JSON", name)
	}
	return string(data)
}
