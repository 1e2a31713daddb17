package credentials

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google/externalaccount"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// Clouds are keys for clouds that were given as settings. They come before every
// file and variable, for the registries of their cloud; one that is refused ends
// the search with an error, since it was meant.
type Clouds struct {
	AWS    AWS
	Google Google
	Azure  Azure
	// OIDCToken is a token of the CI that a cloud takes in place of a key: with
	// AWS.Role, with Google.Pool and Provider, with Azure.ClientID and Tenant.
	OIDCToken string
	// NoToken says what would give this job a token, where it has none; for the error
	// of a role that there are no keys for. May be empty.
	NoToken string
}

// AWS are keys, or a role. Without keys the role is taken with OIDCToken, or with
// whatever keys the job's variables and files have.
type AWS struct {
	AccessKeyID, SecretAccessKey, SessionToken string
	// Role is an ARN, ExternalID what its owner wants to hear.
	Role, ExternalID string
}

// Google is a key file's text, also in base64: of a service account, a user or a
// federation; or an access token; or the place of a federation (OIDCToken).
type Google struct {
	Key, AccessToken              string
	ProjectNumber, Pool, Provider string
	// ServiceAccount is whom the federated identity speaks for; may be empty.
	ServiceAccount string
}

// Azure is a service principal with a secret, a certificate with its key (PEM, also
// in base64), or OIDCToken.
type Azure struct {
	ClientID, Tenant          string
	ClientSecret, Certificate string
	// AuthorityHost is Entra ID's; that of the public cloud when empty.
	AuthorityHost string
}

// Secrets are the values that no message may contain.
func (c Clouds) Secrets() (out []string) {
	for _, s := range []string{c.AWS.SecretAccessKey, c.AWS.SessionToken, c.Google.Key, c.Google.AccessToken, c.Azure.ClientSecret, c.Azure.Certificate, c.OIDCToken} {
		if len(s) >= minSecret {
			out = append(out, s)
		}
	}
	return out
}

// CloudOf is the cloud that a registry belongs to, by its host: "aws", "google",
// "azure", or nothing.
func CloudOf(host string) string {
	host = Normal(host)
	switch _, amazon := ecrOf(host); {
	case amazon:
		return "aws"
	case isGoogle(host):
		return "google"
	case isACR(host):
		return "azure"
	}
	return ""
}

// settings is the source of logins that Clouds are.
type settings struct {
	clouds Clouds
	reach
}

func (s *settings) name() string { return "the settings for clouds" }

func (s *settings) find(ctx context.Context, at Place) (answer, error) {
	host := Normal(at.Host)
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	switch CloudOf(host) {
	case "aws":
		if s.clouds.AWS == (AWS{}) {
			break
		}
		a, err := (&ecr{reach: s.reach, clouds: &s.clouds}).find(ctx, at)
		return must(a, err)
	case "google":
		if s.clouds.Google == (Google{}) {
			break
		}
		return must((&google{reach: s.reach}).settings(ctx, s.clouds), nil)
	case "azure":
		if s.clouds.Azure == (Azure{}) {
			break
		}
		a, err := (&acr{reach: s.reach, clouds: &s.clouds}).find(ctx, at)
		return must(a, err)
	}
	return answer{note: "have none for " + host}, nil
}

// must makes an error of an answer without a login.
func must(a answer, err error) (answer, error) {
	if err == nil && !a.found {
		err = fault.New(fault.Registry, "%s", a.note).
			With("Correct the settings for this cloud, and the rights of the identity that they name: docs/credentials.md, \"Clouds by settings\".")
	}
	return a, err
}

// settings is the login for what was set of Google.
func (g *google) settings(ctx context.Context, c Clouds) answer {
	s := c.Google
	var t *oauth2.Token
	var err error
	label := "the setting"
	switch {
	case s.AccessToken != "":
		return answer{login: Login{Username: "oauth2accesstoken", Password: s.AccessToken}, found: true, label: label + " for an access token of Google", note: "is set"}
	case s.Key != "":
		label += " for a key of Google"
		t, err = g.ofFile(ctx, decoded(s.Key))
	case s.ProjectNumber != "" && s.Pool != "" && s.Provider != "" && c.OIDCToken != "":
		label += "s for Google's workload identity federation"
		t, err = g.federation(ctx, s, c.OIDCToken)
	default:
		return failed(label+"s for Google", errors.New("a key, or a project number, pool, provider and OIDC token are needed"))
	}
	if err != nil {
		return failed(label, err)
	}
	return googleAnswer(label, t.AccessToken, t.Expiry)
}

// federation exchanges the CI's token for Google's, and where there is a service
// account, that for one of the account.
func (g *google) federation(ctx context.Context, s Google, token string) (*oauth2.Token, error) {
	conf := externalaccount.Config{
		Audience:             fmt.Sprintf("//iam.googleapis.com/projects/%s/locations/global/workloadIdentityPools/%s/providers/%s", s.ProjectNumber, s.Pool, s.Provider),
		SubjectTokenType:     "urn:ietf:params:oauth:token-type:id_token",
		TokenURL:             "https://sts.googleapis.com/v1/token",
		Scopes:               []string{googleScope},
		SubjectTokenSupplier: subject(token),
	}
	if s.ServiceAccount != "" {
		conf.ServiceAccountImpersonationURL = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/" + s.ServiceAccount + ":generateAccessToken"
	}
	client, seen := watch(g.client)
	source, err := externalaccount.NewTokenSource(context.WithValue(ctx, oauth2.HTTPClient, client), conf)
	if err != nil {
		return nil, errors.New("they cannot be used together")
	}
	t, err := source.Token()
	if err != nil {
		return nil, seen.or(errors.New(kindOf(err)))
	}
	return t, nil
}

// subject is the CI's token.
type subject string

// SubjectToken implements externalaccount.SubjectTokenSupplier.
func (s subject) SubjectToken(context.Context, externalaccount.SupplierOptions) (string, error) {
	return string(s), nil
}

// decoded is a text that may be in base64, as secrets of CIs often are.
func decoded(text string) []byte {
	trimmed := strings.TrimSpace(text)
	if data, err := base64.StdEncoding.DecodeString(strings.NewReplacer("\n", "", "\r", "").Replace(trimmed)); err == nil && len(data) > 0 {
		return data
	}
	return []byte(trimmed)
}
