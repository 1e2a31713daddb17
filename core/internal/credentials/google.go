package credentials

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	googleauth "golang.org/x/oauth2/google"
)

// google gives logins at Google's registries: a key or federation file, or the
// metadata server of the machine. golang.org/x/oauth2 knows the kinds of files;
// it is handed their text, since its own search reads the process environment.
type google struct{ reach }

func (g *google) name() string { return "the built-in helper for Google" }

// googleScope is what registries ask for.
const googleScope = "https://www.googleapis.com/auth/cloud-platform"

func isGoogle(host string) bool {
	return host == "gcr.io" || strings.HasSuffix(host, ".gcr.io") || strings.HasSuffix(host, ".pkg.dev")
}

func (g *google) find(ctx context.Context, at Place) (answer, error) {
	if !isGoogle(Normal(at.Host)) {
		return answer{note: at.Host + " is not Google's"}, nil
	}
	return g.access(ctx), nil
}

// access gets an access token, which is the answer's password.
func (g *google) access(ctx context.Context) answer {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	path, data, err := g.keyFile()
	if err != nil {
		return failed(g.name(), err)
	}
	if data != nil {
		label := g.name() + ", with " + path
		t, err := g.ofFile(ctx, data)
		if err != nil {
			return failed(label, err)
		}
		return googleAnswer(label, t.AccessToken, t.Expiry)
	}
	label := g.name() + ", with the metadata server"
	var t struct {
		Token   string `json:"access_token"`
		Expires int    `json:"expires_in"`
	}
	host := g.env["GCE_METADATA_HOST"]
	if host == "" {
		host = "169.254.169.254"
	}
	err = g.get(ctx, g.direct, "http://"+host+"/computeMetadata/v1/instance/service-accounts/default/token?scopes="+googleScope,
		map[string]string{"Metadata-Flavor": "Google"}, &t)
	if err != nil || t.Token == "" {
		return answer{there: true, note: "finds no GOOGLE_APPLICATION_CREDENTIALS, no application_default_credentials.json and no metadata server"} // not in Google's cloud
	}
	return googleAnswer(label, t.Token, time.Now().Add(time.Duration(t.Expires)*time.Second))
}

// googleAnswer is the login that Artifact Registry takes for an access token.
func googleAnswer(label, token string, expires time.Time) answer {
	return answer{login: Login{Username: "oauth2accesstoken", Password: token}, found: true, label: label,
		note: "gave an access token", expires: expires.Add(-margin)}
}

// margin is how long before its end a token is not used any more.
const margin = 2 * time.Minute

// keyFile reads the file that says how to get tokens; data is nil where there
// is none.
func (g *google) keyFile() (path string, data []byte, err error) {
	if path = g.env["GOOGLE_APPLICATION_CREDENTIALS"]; path != "" {
		if data, err = g.read(path); err != nil {
			return path, nil, fmt.Errorf("GOOGLE_APPLICATION_CREDENTIALS: %w", err)
		}
		return path, data, nil
	}
	dir := g.env["CLOUDSDK_CONFIG"]
	if dir == "" {
		dir = under(Home(g.env), ".config", "gcloud")
	}
	if path = under(dir, "application_default_credentials.json"); path == "" {
		return "", nil, nil
	}
	data, err = g.read(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return path, nil, nil
	}
	return path, data, err
}

func (g *google) ofFile(ctx context.Context, data []byte) (*oauth2.Token, error) {
	client, seen := watch(g.client)
	ctx = context.WithValue(ctx, oauth2.HTTPClient, client)
	var kind struct {
		Type googleauth.CredentialsType `json:"type"`
	}
	if at, what := syntax(data, &kind); what != "" {
		line, column := position(data, at)
		return nil, fmt.Errorf("line %d, column %d: %s", line, column, what)
	}
	switch kind.Type {
	case googleauth.ServiceAccount, googleauth.AuthorizedUser, googleauth.ExternalAccount, googleauth.ImpersonatedServiceAccount, googleauth.ExternalAccountAuthorizedUser:
	default:
		return nil, errors.New("it is no service account's key, user's credentials or federation (type)")
	}
	creds, err := googleauth.CredentialsFromJSONWithType(ctx, data, kind.Type, googleScope)
	if err != nil {
		return nil, errors.New("it cannot be used: " + kindOf(err))
	}
	// What a federation file names is read while the job's files are there.
	var t *oauth2.Token
	err = g.outside(func() error { t, err = creds.TokenSource.Token(); return err })
	if err != nil {
		return nil, seen.or(errors.New(kindOf(err)))
	}
	return t, nil
}

// kindOf says what went wrong without the words of the library, which repeat
// answers and files.
func kindOf(err error) string {
	var re *oauth2.RetrieveError
	switch {
	case errors.As(err, &re) && re.Response != nil:
		return (&refused{re.Response.Request.URL.Host, re.Response.StatusCode, reason(re.Body)}).Error()
	case errors.Is(err, fs.ErrNotExist):
		return "a file that it names does not exist"
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err.Error()
	}
	return "its content is not what its type needs"
}
