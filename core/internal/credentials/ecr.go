package credentials

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// ecr gives logins at Amazon's registries: one call, GetAuthorizationToken,
// signed with what aws.go finds.
type ecr struct {
	reach
	now func() time.Time
}

func (e *ecr) name() string { return "the built-in helper for Amazon ECR" }

// ecrHost are the names of private registries: account, "fips", region, domain
// (https://docs.aws.amazon.com/general/latest/gr/ecr.html).
var ecrHost = regexp.MustCompile(`^[0-9]{12}\.dkr[.-]ecr(-fips)?\.([a-z0-9-]+)\.(amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|on\.aws|on\.amazonwebservices\.com\.cn|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)

// ecrPublic is the host of public repositories, whose API is in one region only.
const ecrPublic = "public.ecr.aws"

// ecrTarget is where and how tokens for a host are asked for.
type ecrTarget struct{ endpoint, region, service, target string }

func ecrOf(host string) (ecrTarget, bool) {
	if host == ecrPublic {
		return ecrTarget{"https://api.ecr-public.us-east-1.amazonaws.com", "us-east-1", "ecr-public", "SpencerFrontendService.GetAuthorizationToken"}, true
	}
	m := ecrHost.FindStringSubmatch(host)
	if m == nil {
		return ecrTarget{}, false
	}
	fips, region, domain := m[1], m[2], m[3]
	t := ecrTarget{region: region, service: "ecr", target: "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"}
	switch {
	case domain == "on.aws":
		t.endpoint = "https://ecr" + fips + "." + region + ".api.aws"
	case domain == "on.amazonwebservices.com.cn":
		t.endpoint = "https://ecr." + region + ".api.amazonwebservices.com.cn"
	case fips != "":
		t.endpoint = "https://ecr-fips." + region + "." + domain
	default:
		t.endpoint = "https://api.ecr." + region + "." + domain
	}
	return t, true
}

func (e *ecr) find(ctx context.Context, at Place) (answer, error) {
	t, ok := ecrOf(Normal(at.Host))
	if !ok {
		return answer{note: at.Host + " is not Amazon's"}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	if v := e.env["AWS_ENDPOINT_URL_"+strings.ToUpper(strings.ReplaceAll(t.service, "-", "_"))]; v != "" {
		t.endpoint = v
	} else if v := e.env["AWS_ENDPOINT_URL"]; v != "" {
		t.endpoint = v
	}
	a := &aws{reach: e.reach, region: t.region, now: e.now}
	keys, err := a.find(ctx)
	if err != nil {
		return failed(e.name(), err), nil
	}
	if keys == nil {
		return answer{there: true, note: "finds no AWS credentials: no AWS_ACCESS_KEY_ID, no web identity, no profile, no metadata server"}, nil
	}
	label := e.name() + ", with " + keys.from
	token, expires, err := e.token(ctx, a, t, keys)
	if err != nil {
		return failed(label, err), nil
	}
	user, password, ok := strings.Cut(token, ":")
	if !ok {
		return failed(label, errors.New("its token is not user:password")), nil
	}
	return answer{login: Login{Username: user, Password: password}, found: true, label: label, note: "gave a token", expires: expires.Add(-margin)}, nil
}

// token calls GetAuthorizationToken.
func (e *ecr) token(ctx context.Context, a *aws, t ecrTarget, keys *awsKeys) (string, time.Time, error) {
	body := []byte("{}")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(t.endpoint, "/")+"/", nil)
	if err != nil {
		return "", time.Time{}, errors.New("AWS_ENDPOINT_URL is no URL")
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", t.target)
	if err := a.sign(ctx, req, body, t.service, keys); err != nil {
		return "", time.Time{}, err
	}
	type data struct {
		Token   string  `json:"authorizationToken"`
		Expires float64 `json:"expiresAt"`
	}
	var out struct {
		Data json.RawMessage `json:"authorizationData"`
	}
	if err := e.ask(e.client, req, &out); err != nil {
		return "", time.Time{}, err
	}
	var list []data // of the public registry it is one, of private ones a list
	var one data
	if json.Unmarshal(out.Data, &list) == nil && len(list) > 0 {
		one = list[0]
	} else if err := json.Unmarshal(out.Data, &one); err != nil {
		return "", time.Time{}, errors.New("there is no token in the answer")
	}
	raw, err := base64.StdEncoding.DecodeString(one.Token)
	if err != nil || len(raw) == 0 {
		return "", time.Time{}, fmt.Errorf("there is no token in the answer")
	}
	return string(raw), time.Unix(int64(one.Expires), 0), nil
}
