package credentials

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// acr gives logins at Azure's registries: a token of Entra ID, which the
// registry exchanges for one of its own. The requests are three forms of OAuth2;
// Microsoft's library for them, azidentity, would be larger than all other
// helpers together. Client certificates are not supported.
type acr struct{ reach }

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
		return answer{there: true, note: "finds no service principal (AZURE_CLIENT_ID and AZURE_CLIENT_SECRET), no federated token (AZURE_FEDERATED_TOKEN_FILE), no managed identity"}, nil
	}
	label := z.name() + ", with " + from
	form := url.Values{"grant_type": {"access_token"}, "service": {host}, "access_token": {access}}
	if t := z.env["AZURE_TENANT_ID"]; t != "" {
		form.Set("tenant", t)
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
	client, tenant := z.env["AZURE_CLIENT_ID"], z.env["AZURE_TENANT_ID"]
	form := url.Values{"client_id": {client}, "scope": {acrResource + "/.default"}, "grant_type": {"client_credentials"}}
	switch {
	case client != "" && tenant != "" && z.env["AZURE_CLIENT_SECRET"] != "":
		from = "the variable AZURE_CLIENT_SECRET"
		form.Set("client_secret", z.env["AZURE_CLIENT_SECRET"])
	case client != "" && tenant != "" && z.env["AZURE_FEDERATED_TOKEN_FILE"] != "":
		from = "the variable AZURE_FEDERATED_TOKEN_FILE"
		data, err := z.read(z.env["AZURE_FEDERATED_TOKEN_FILE"])
		if err != nil {
			return "", from, err
		}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", strings.TrimSpace(string(data)))
	default:
		return z.managed(ctx, client)
	}
	authority := strings.TrimSuffix(z.env["AZURE_AUTHORITY_HOST"], "/")
	if authority == "" {
		authority = "https://login.microsoftonline.com"
	}
	var out struct {
		Token string `json:"access_token"`
	}
	if err := z.form(ctx, authority+"/"+url.PathEscape(tenant)+"/oauth2/v2.0/token", form, &out); err != nil {
		return "", from, err
	}
	if out.Token == "" {
		return "", from, fmt.Errorf("%s gave no token", authority)
	}
	return out.Token, from, nil
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
