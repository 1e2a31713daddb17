package credentials

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// aws finds keys for Amazon's API in the order of its own SDKs: variables, web
// identity, profile, container, machine. The requests are made by the SDK's clients;
// its module config, which knows that order too, reads the process environment.
// Not supported are credential_process, which is an external program, and SSO.
type aws struct {
	reach
	region string
}

// awsKeys are keys for requests; from says where they came from.
type awsKeys struct{ id, secret, session, from string }

// find gives nil where there are none.
func (a *aws) find(ctx context.Context) (*awsKeys, error) {
	if a.env["AWS_ACCESS_KEY_ID"] != "" && a.env["AWS_SECRET_ACCESS_KEY"] != "" {
		return &awsKeys{a.env["AWS_ACCESS_KEY_ID"], a.env["AWS_SECRET_ACCESS_KEY"], a.env["AWS_SESSION_TOKEN"], "the variable AWS_ACCESS_KEY_ID"}, nil
	}
	if f := a.env["AWS_WEB_IDENTITY_TOKEN_FILE"]; f != "" && a.env["AWS_ROLE_ARN"] != "" {
		return a.webIdentity(ctx, f, a.env["AWS_ROLE_ARN"], a.env["AWS_ROLE_SESSION_NAME"], "the variable AWS_WEB_IDENTITY_TOKEN_FILE")
	}
	if keys, err := a.profile(ctx); keys != nil || err != nil {
		return keys, err
	}
	if a.env["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] != "" || a.env["AWS_CONTAINER_CREDENTIALS_FULL_URI"] != "" {
		return a.container(ctx)
	}
	if strings.EqualFold(a.env["AWS_EC2_METADATA_DISABLED"], "true") {
		return nil, nil
	}
	return a.machine(ctx)
}

// sts is a client for roles. Its keys may be nil: a token of the job is enough for
// some.
func (a *aws) sts(by *awsKeys) *sts.Client {
	return sts.New(sts.Options{Region: a.region, HTTPClient: a.once, Credentials: by.provider(), Retryer: a.retryer(), BaseEndpoint: a.endpoint("STS")})
}

// endpoint is where the job's variables say that a service is; nil is the usual
// place.
func (a *aws) endpoint(service string) *string {
	at := firstOf(a.env["AWS_ENDPOINT_URL_"+service], a.env["AWS_ENDPOINT_URL"])
	if at == "" {
		return nil
	}
	return &at
}

// retryer tries again what is worth it: throttling, and servers that stumble.
func (a *aws) retryer() awssdk.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts, o.MaxBackoff = attempts, maxWait
	})
}

// provider hands keys to a client.
func (k *awsKeys) provider() awssdk.CredentialsProvider {
	if k == nil {
		return awssdk.AnonymousCredentials{}
	}
	return awssdk.CredentialsProviderFunc(func(context.Context) (awssdk.Credentials, error) {
		return awssdk.Credentials{AccessKeyID: k.id, SecretAccessKey: k.secret, SessionToken: k.session}, nil
	})
}

// session is how the role's owner sees us where nobody has chosen a name.
const session = "layerwright"

// roleKeys are the keys of an answer of STS.
func roleKeys(c *ststypes.Credentials, err error, from string) (*awsKeys, error) {
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", from, awsError(err))
	case c == nil || c.AccessKeyId == nil || c.SecretAccessKey == nil || c.SessionToken == nil:
		return nil, fmt.Errorf("%s: there are no keys in the answer", from)
	}
	return &awsKeys{*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken, from}, nil
}

// awsError is what a service answered, in its code only: its prose repeats the
// request.
func awsError(err error) error {
	var api smithy.APIError
	var answered *smithyhttp.ResponseError
	switch {
	case errors.As(err, &answered) && answered.Response != nil && answered.Response.Response != nil:
		r := &refused{code: answered.HTTPStatusCode()}
		if req := answered.Response.Request; req != nil {
			r.host = req.URL.Host
		}
		if errors.As(err, &api) && shortCode(api.ErrorCode()) {
			r.reason = "(" + api.ErrorCode() + ")"
		}
		return r
	case errors.As(err, &api) && shortCode(api.ErrorCode()):
		return errors.New(api.ErrorCode())
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		if u, e := url.Parse(ue.URL); e == nil {
			return fmt.Errorf("%s: %w", u.Host, ue.Err)
		}
		return ue.Err
	}
	return errors.New("the request could not be made")
}

func (a *aws) webIdentity(ctx context.Context, file, role, session, from string) (*awsKeys, error) {
	token, err := a.read(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return a.withToken(ctx, string(token), role, session, from)
}

// withToken takes a role with a token of the CI or of Kubernetes.
func (a *aws) withToken(ctx context.Context, token, role, name, from string) (*awsKeys, error) {
	token, name = strings.TrimSpace(token), firstOf(name, session)
	out, err := a.sts(nil).AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{RoleArn: &role, RoleSessionName: &name, WebIdentityToken: &token})
	if err != nil {
		return roleKeys(nil, err, from)
	}
	return roleKeys(out.Credentials, nil, from)
}

// profile reads the files of the command line tool.
func (a *aws) profile(ctx context.Context) (*awsKeys, error) {
	name := a.env["AWS_PROFILE"]
	if name == "" {
		name = a.env["AWS_DEFAULT_PROFILE"]
	}
	named := name != ""
	if !named {
		name = "default"
	}
	sections, err := a.profiles()
	if err != nil {
		return nil, err
	}
	if sections[name] == nil {
		if named {
			return nil, fmt.Errorf("AWS_PROFILE: the profile %s is not in the shared files", name)
		}
		return nil, nil
	}
	return a.ofProfile(ctx, sections, name, 0)
}

// maxProfiles is how many profiles may refer to each other.
const maxProfiles = 5

func (a *aws) ofProfile(ctx context.Context, sections map[string]map[string]string, name string, depth int) (*awsKeys, error) {
	p, from := sections[name], "the profile "+name
	if p == nil || depth > maxProfiles {
		return nil, fmt.Errorf("%s: it does not exist, or refers to itself", from)
	}
	role := p["role_arn"]
	switch {
	case role != "" && p["web_identity_token_file"] != "":
		return a.webIdentity(ctx, p["web_identity_token_file"], role, p["role_session_name"], from)
	case role != "" && p["source_profile"] != "" && (p["source_profile"] != name || p["aws_access_key_id"] == ""):
		by, err := a.ofProfile(ctx, sections, p["source_profile"], depth+1)
		if err != nil || by == nil {
			return nil, errors.Join(err, fmt.Errorf("%s: source_profile has no keys", from))
		}
		return a.assume(ctx, p, by, from)
	case role != "" && p["aws_access_key_id"] != "":
		return a.assume(ctx, p, &awsKeys{p["aws_access_key_id"], p["aws_secret_access_key"], p["aws_session_token"], from}, from)
	case role != "" && p["credential_source"] != "":
		by, err := a.bySource(ctx, p["credential_source"])
		if err != nil || by == nil {
			return nil, errors.Join(err, fmt.Errorf("%s: credential_source has no keys", from))
		}
		return a.assume(ctx, p, by, from)
	case p["aws_access_key_id"] != "":
		return &awsKeys{p["aws_access_key_id"], p["aws_secret_access_key"], p["aws_session_token"], from}, nil
	case p["credential_process"] != "" || p["sso_session"] != "" || p["sso_start_url"] != "":
		return nil, fmt.Errorf("%s: credential_process and SSO are not supported", from)
	}
	return nil, nil
}

func (a *aws) bySource(ctx context.Context, source string) (*awsKeys, error) {
	switch source {
	case "Environment":
		return &awsKeys{a.env["AWS_ACCESS_KEY_ID"], a.env["AWS_SECRET_ACCESS_KEY"], a.env["AWS_SESSION_TOKEN"], ""}, nil
	case "EcsContainer":
		return a.container(ctx)
	}
	return a.machine(ctx)
}

func (a *aws) assume(ctx context.Context, p map[string]string, by *awsKeys, from string) (*awsKeys, error) {
	return a.role(ctx, p["role_arn"], p["external_id"], p["role_session_name"], by, from)
}

// role takes a role with other keys.
func (a *aws) role(ctx context.Context, arn, externalID, name string, by *awsKeys, from string) (*awsKeys, error) {
	name = firstOf(name, session)
	in := &sts.AssumeRoleInput{RoleArn: &arn, RoleSessionName: &name}
	if externalID != "" {
		in.ExternalId = &externalID
	}
	out, err := a.sts(by).AssumeRole(ctx, in)
	if err != nil {
		return roleKeys(nil, err, from)
	}
	return roleKeys(out.Credentials, nil, from)
}

// settings are the keys that settings come to.
func (a *aws) settings(ctx context.Context, c Clouds) (*awsKeys, error) {
	s, from := c.AWS, "the settings for AWS"
	var keys *awsKeys
	switch {
	case s.AccessKeyID != "" && s.SecretAccessKey != "":
		keys = &awsKeys{s.AccessKeyID, s.SecretAccessKey, s.SessionToken, from}
	case s.AccessKeyID != "" || s.SecretAccessKey != "":
		return nil, fmt.Errorf("%s: one half of the key is missing", from)
	case s.Role == "":
		return nil, fmt.Errorf("%s: a key or a role is needed", from)
	case c.OIDCToken != "":
		return a.withToken(ctx, c.OIDCToken, s.Role, "", from+" (role with OIDC token)")
	default:
		var err error
		if keys, err = a.find(ctx); err != nil || keys == nil {
			none := fmt.Errorf("%s: there are no keys to take the role with", from)
			if c.NoToken != "" {
				none = fmt.Errorf("%w, and no token: %s", none, c.NoToken)
			}
			return nil, errors.Join(err, none)
		}
	}
	if s.Role == "" {
		return keys, nil
	}
	return a.role(ctx, s.Role, s.ExternalID, "", keys, from+" (role)")
}

// profiles reads both files; the one with credentials wins.
func (a *aws) profiles() (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	for _, f := range []struct{ variable, name string }{{"AWS_CONFIG_FILE", "config"}, {"AWS_SHARED_CREDENTIALS_FILE", "credentials"}} {
		path := a.env[f.variable]
		if path == "" {
			path = under(Home(a.env), ".aws", f.name)
		}
		if path == "" {
			continue
		}
		data, err := a.read(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		var section map[string]string
		for _, line := range strings.Split(string(data), "\n") {
			line = strings.TrimRight(line, " \t\r")
			if name, ok := strings.CutPrefix(strings.TrimSuffix(line, "]"), "["); ok {
				name = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(name), "profile "))
				if section = out[name]; section == nil {
					section = map[string]string{}
					out[name] = section
				}
				continue
			}
			k, v, ok := strings.Cut(line, "=")
			if k = strings.TrimSpace(k); !ok || section == nil || k == "" || strings.ContainsAny(k[:1], "#;") || strings.ContainsAny(line[:1], " \t") {
				continue // an indented line belongs to a nested setting
			}
			section[strings.ToLower(k)] = strings.TrimSpace(v)
		}
	}
	return out, nil
}

// metadataKeys are keys as metadata servers have them.
type metadataKeys struct {
	ID      string `json:"AccessKeyId"`
	Secret  string `json:"SecretAccessKey"`
	Session string `json:"Token"`
}

func (m metadataKeys) keys(from string) (*awsKeys, error) {
	if m.ID == "" || m.Secret == "" {
		return nil, fmt.Errorf("%s: there are no keys in the answer", from)
	}
	return &awsKeys{m.ID, m.Secret, m.Session, from}, nil
}

// container asks the service of ECS and of EKS' Pod Identity.
func (a *aws) container(ctx context.Context) (*awsKeys, error) {
	at, from := "http://169.254.170.2"+a.env["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"], "the container's role"
	if a.env["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] == "" {
		at = a.env["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
	}
	header := map[string]string{}
	if t := a.env["AWS_CONTAINER_AUTHORIZATION_TOKEN"]; t != "" {
		header["Authorization"] = t
	}
	if f := a.env["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]; f != "" {
		data, err := a.read(f)
		if err != nil {
			return nil, fmt.Errorf("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: %w", err)
		}
		header["Authorization"] = strings.TrimSpace(string(data))
	}
	var m metadataKeys
	if err := a.get(ctx, a.direct, at, header, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return m.keys(from)
}

// machine asks the metadata server of a machine in EC2 (IMDSv2). nil where there
// is none.
func (a *aws) machine(ctx context.Context) (*awsKeys, error) {
	base, from := strings.TrimSuffix(a.env["AWS_EC2_METADATA_SERVICE_ENDPOINT"], "/"), "the machine's role"
	if base == "" {
		base = "http://169.254.169.254"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, base+"/latest/api/token", nil)
	if err != nil {
		return nil, errors.New("AWS_EC2_METADATA_SERVICE_ENDPOINT is no URL")
	}
	req.Header.Set("X-aws-ec2-metadata-token-ttl-seconds", "300")
	var token, role string
	if err := a.ask(a.direct, req, &token); err != nil {
		return nil, nil //nolint:nilerr // not a machine of Amazon's
	}
	header := map[string]string{"X-aws-ec2-metadata-token": token}
	list := base + "/latest/meta-data/iam/security-credentials/"
	if err := a.get(ctx, a.direct, list, header, &role); err != nil {
		var r *refused
		if errors.As(err, &r) && r.code == http.StatusNotFound {
			return nil, nil // a machine without a role
		}
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	role, _, _ = strings.Cut(role, "\n")
	var m metadataKeys
	if err := a.get(ctx, a.direct, list+url.PathEscape(role), header, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return m.keys(from)
}
