package credentials

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azcloud "github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// acr gives logins at Azure's registries: a token of Entra ID, which the
// registry exchanges for one of its own. Microsoft's library logs service principals
// in; its search for managed identities reads the process environment, so that is
// asked for here.
type acr struct {
	reach
	clouds *Clouds
}

func (z *acr) name() string { return "the built-in helper for Azure" }

func isACR(host string) bool {
	for _, domain := range []string{".azurecr.io", ".azurecr.cn", ".azurecr.us", ".azurecr.de"} {
		if strings.HasSuffix(host, domain) {
			return true
		}
	}
	return false
}

// acrUser is the name that goes with a refresh token of a registry.
const acrUser = "00000000-0000-0000-0000-000000000000"

// acrAge is how long a registry's refresh token is used; it is valid for three
// hours.
const acrAge = 150 * time.Minute

// acrResource is what the token of Entra ID is for.
const acrResource = "https://containerregistry.azure.net"

func (z *acr) find(ctx context.Context, at Place) (answer, error) {
	host := Normal(at.Host)
	if !isACR(host) {
		return answer{note: at.Host + " is not Azure's"}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	access, from, err := z.access(ctx)
	if err != nil {
		return failed(z.name()+", with "+from, err), nil
	}
	if access == "" {
		return answer{there: true, note: "finds no service principal (AZURE_CLIENT_ID and AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH), no federated token (AZURE_FEDERATED_TOKEN_FILE), no managed identity"}, nil
	}
	label := z.name() + ", with " + from
	form := url.Values{"grant_type": {"access_token"}, "service": {host}, "access_token": {access}}
	tenant := z.env["AZURE_TENANT_ID"]
	if z.clouds != nil {
		tenant = z.clouds.Azure.Tenant
	}
	if tenant != "" {
		form.Set("tenant", tenant)
	}
	var out struct {
		Refresh string `json:"refresh_token"`
	}
	if err := z.form(ctx, "https://"+host+"/oauth2/exchange", form, &out); err != nil {
		return failed(label, err), nil
	}
	if out.Refresh == "" {
		return failed(label, errors.New("the registry gave no token")), nil
	}
	return answer{login: Login{Username: acrUser, Password: out.Refresh}, found: true, label: label, note: "gave a token",
		expires: time.Now().Add(acrAge)}, nil
}

// access gets a token of Entra ID; empty where nothing is set up.
func (z *acr) access(ctx context.Context) (token, from string, err error) {
	p := Azure{ClientID: z.env["AZURE_CLIENT_ID"], Tenant: z.env["AZURE_TENANT_ID"], AuthorityHost: z.env["AZURE_AUTHORITY_HOST"]}
	if z.clouds != nil {
		c := *z.clouds
		c.Azure.AuthorityHost = firstOf(c.Azure.AuthorityHost, p.AuthorityHost)
		if c.Azure.ClientID == "" || c.Azure.Tenant == "" {
			return "", "the settings for Azure", errors.New("client and tenant are needed, and a secret, a certificate or an OIDC token")
		}
		token, err = z.principal(ctx, c.Azure, c.OIDCToken)
		return token, "the settings for Azure", err
	}
	var assertion string
	switch {
	case p.ClientID == "" || p.Tenant == "":
		return z.managed(ctx, p.ClientID)
	case z.env["AZURE_CLIENT_SECRET"] != "":
		from, p.ClientSecret = "the variable AZURE_CLIENT_SECRET", z.env["AZURE_CLIENT_SECRET"]
	case z.env["AZURE_CLIENT_CERTIFICATE_PATH"] != "":
		from = "the variable AZURE_CLIENT_CERTIFICATE_PATH"
		data, err := z.read(z.env["AZURE_CLIENT_CERTIFICATE_PATH"])
		if err != nil {
			return "", from, err
		}
		p.Certificate = string(data)
	case z.env["AZURE_FEDERATED_TOKEN_FILE"] != "":
		from = "the variable AZURE_FEDERATED_TOKEN_FILE"
		data, err := z.read(z.env["AZURE_FEDERATED_TOKEN_FILE"])
		if err != nil {
			return "", from, err
		}
		assertion = string(data)
	default:
		return z.managed(ctx, p.ClientID)
	}
	token, err = z.principal(ctx, p, assertion)
	return token, from, err
}

// principal logs a service principal in. The library is told everything that it
// would read from the process environment.
func (z *acr) principal(ctx context.Context, p Azure, assertion string) (string, error) {
	client, seen := watch(z.once)
	opts := policy.ClientOptions{
		Cloud:     azcloud.Configuration{ActiveDirectoryAuthorityHost: firstOf(p.AuthorityHost, "https://login.microsoftonline.com")},
		Transport: client,
		Retry:     policy.RetryOptions{MaxRetries: attempts - 1, RetryDelay: maxWait / 8, MaxRetryDelay: maxWait},
		Telemetry: policy.TelemetryOptions{Disabled: true},
	}
	if !strings.HasPrefix(opts.Cloud.ActiveDirectoryAuthorityHost, "https://") {
		return "", errors.New("the authority host is no https URL")
	}
	var cred azcore.TokenCredential
	var err error
	assertion = strings.TrimSpace(assertion)
	switch {
	case p.ClientSecret != "":
		cred, err = azidentity.NewClientSecretCredential(p.Tenant, p.ClientID, p.ClientSecret, &azidentity.ClientSecretCredentialOptions{ClientOptions: opts, DisableInstanceDiscovery: true})
	case p.Certificate != "":
		certs, key, parseErr := azidentity.ParseCertificates(decoded(p.Certificate), nil)
		if parseErr != nil {
			return "", errors.New("the client certificate is not PEM with a certificate and its key")
		}
		cred, err = azidentity.NewClientCertificateCredential(p.Tenant, p.ClientID, certs, key, &azidentity.ClientCertificateCredentialOptions{ClientOptions: opts, DisableInstanceDiscovery: true})
	case assertion != "":
		cred, err = azidentity.NewClientAssertionCredential(p.Tenant, p.ClientID, func(context.Context) (string, error) { return assertion, nil },
			&azidentity.ClientAssertionCredentialOptions{ClientOptions: opts, DisableInstanceDiscovery: true})
	default:
		return "", errors.New("a client secret, a certificate or an OIDC token is needed")
	}
	if err != nil {
		return "", errors.New("tenant, client or authority host cannot be right")
	}
	t, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{acrResource + "/.default"}})
	if err != nil {
		host, _, _ := strings.Cut(strings.TrimPrefix(opts.Cloud.ActiveDirectoryAuthorityHost, "https://"), "/")
		return "", seen.or(errors.New(host + " gave no token"))
	}
	return t.Token, nil
}

// managed asks for the identity of the app service or of the machine; an empty
// token where there is none.
func (z *acr) managed(ctx context.Context, client string) (token, from string, err error) {
	var out struct {
		Token string `json:"access_token"`
	}
	query := url.Values{"resource": {acrResource}}
	if client != "" {
		query.Set("client_id", client)
	}
	if at := z.env["IDENTITY_ENDPOINT"]; at != "" && z.env["IDENTITY_HEADER"] != "" {
		from = "the variable IDENTITY_ENDPOINT"
		query.Set("api-version", "2019-08-01")
		err = z.get(ctx, z.direct, at+"?"+query.Encode(), map[string]string{"X-IDENTITY-HEADER": z.env["IDENTITY_HEADER"]}, &out)
		return out.Token, from, err
	}
	base := strings.TrimSuffix(z.env["AZURE_POD_IDENTITY_AUTHORITY_HOST"], "/")
	if base == "" {
		base = "http://169.254.169.254"
	}
	query.Set("api-version", "2018-02-01")
	err = z.get(ctx, z.direct, base+"/metadata/identity/oauth2/token?"+query.Encode(), map[string]string{"Metadata": "true"}, &out)
	var r *refused
	if errors.As(err, &r) && client != "" {
		return "", "the machine's identity", err // it is one of Azure's, and does not know this client
	}
	if err != nil {
		return "", "", nil //nolint:nilerr // not a machine of Azure's, or without an identity
	}
	return out.Token, "the machine's identity", nil
}
