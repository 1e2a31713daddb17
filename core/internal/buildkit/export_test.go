package buildkit

import (
	"context"
	"net/http"

	"github.com/moby/buildkit/session/auth"
)

// TokenFor is what an engine gets that asks for a token.
func TokenFor(ctx context.Context, find Logins, client *http.Client, realm, scope string) (string, error) {
	resp, err := (&logins{find: find, client: client}).FetchToken(ctx, &auth.FetchTokenRequest{Host: "registry.example", Realm: realm, Service: "s", Scopes: []string{scope}})
	return resp.GetToken(), err
}
