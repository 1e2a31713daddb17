package credentials

import (
	"context"
	"encoding/base64"
	"errors"
	"regexp"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	ecrsdk "github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
)

// ecr gives logins at Amazon's registries: one call, GetAuthorizationToken,
// signed with what aws.go finds, or with the settings.
type ecr struct {
	reach
	clouds *Clouds
}

func (e *ecr) name() string { return "the built-in helper for Amazon ECR" }

// ecrHost are the names of private registries: account, "fips", region, domain
// (https://docs.aws.amazon.com/general/latest/gr/ecr.html).
var ecrHost = regexp.MustCompile(`^[0-9]{12}\.dkr[.-]ecr(-fips)?\.([a-z0-9-]+)\.(amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|on\.aws|on\.amazonwebservices\.com\.cn|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)

// ecrPublic is the host of public repositories, whose API is in one region only.
const ecrPublic = "public.ecr.aws"

// ecrTarget is where and how tokens for a host are asked for.
type ecrTarget struct{ endpoint, region, service string }

func ecrOf(host string) (ecrTarget, bool) {
	if host == ecrPublic {
		return ecrTarget{"https://api.ecr-public.us-east-1.amazonaws.com", "us-east-1", "ecr-public"}, true
	}
	m := ecrHost.FindStringSubmatch(host)
	if m == nil {
		return ecrTarget{}, false
	}
	fips, region, domain := m[1], m[2], m[3]
	t := ecrTarget{region: region, service: "ecr"}
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

// keys are those of the settings, or of the job; nil where there are none.
func (e *ecr) keys(ctx context.Context, t ecrTarget) (*aws, *awsKeys, error) {
	a := &aws{reach: e.reach, region: t.region}
	if e.clouds != nil {
		k, err := a.settings(ctx, *e.clouds)
		return a, k, err
	}
	k, err := a.find(ctx)
	return a, k, err
}

func (e *ecr) find(ctx context.Context, at Place) (answer, error) {
	t, ok := ecrOf(Normal(at.Host))
	if !ok {
		return answer{note: at.Host + " is not Amazon's"}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	a, keys, err := e.keys(ctx, t)
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

// ecr is a client of the API of private repositories.
func (a *aws) ecr(t ecrTarget, keys *awsKeys) *ecrsdk.Client {
	return ecrsdk.New(ecrsdk.Options{Region: t.region, HTTPClient: a.once, Credentials: keys.provider(), Retryer: a.retryer(), BaseEndpoint: a.at(t)})
}

// at is where the API of a target is.
func (a *aws) at(t ecrTarget) *string {
	if moved := a.endpoint(strings.ToUpper(strings.ReplaceAll(t.service, "-", "_"))); moved != nil {
		return moved
	}
	return &t.endpoint
}

// token calls GetAuthorizationToken.
func (e *ecr) token(ctx context.Context, a *aws, t ecrTarget, keys *awsKeys) (string, time.Time, error) {
	var token *string
	var expires *time.Time
	if t.service == "ecr-public" {
		out, err := ecrpublic.New(ecrpublic.Options{Region: t.region, HTTPClient: a.once, Credentials: keys.provider(), Retryer: a.retryer(), BaseEndpoint: a.at(t)}).
			GetAuthorizationToken(ctx, &ecrpublic.GetAuthorizationTokenInput{})
		if err != nil {
			return "", time.Time{}, awsError(err)
		}
		if out.AuthorizationData != nil {
			token, expires = out.AuthorizationData.AuthorizationToken, out.AuthorizationData.ExpiresAt
		}
	} else {
		out, err := a.ecr(t, keys).GetAuthorizationToken(ctx, &ecrsdk.GetAuthorizationTokenInput{})
		if err != nil {
			return "", time.Time{}, awsError(err)
		}
		if len(out.AuthorizationData) > 0 {
			token, expires = out.AuthorizationData[0].AuthorizationToken, out.AuthorizationData[0].ExpiresAt
		}
	}
	raw, err := base64.StdEncoding.DecodeString(awssdk.ToString(token))
	if err != nil || len(raw) == 0 {
		return "", time.Time{}, errors.New("there is no token in the answer")
	}
	return string(raw), awssdk.ToTime(expires), nil
}
