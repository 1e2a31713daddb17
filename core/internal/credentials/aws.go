package credentials

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// aws finds keys for Amazon's API in the order of its own SDKs: variables, web
// identity, profile, container, machine. Only the signature is the SDK's: its
// module config reads the process environment, and the clients for services are
// many times the size of the three requests that are needed.
// Not supported are credential_process, which is an external program, and SSO.
type aws struct {
	reach
	region string
	now    func() time.Time
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

// sign signs a request (Signature Version 4) and gives it its body.
func (a *aws) sign(ctx context.Context, req *http.Request, body []byte, service string, k *awsKeys) error {
	sum := sha256.Sum256(body)
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	now := time.Now
	if a.now != nil {
		now = a.now
	}
	return v4.NewSigner().SignHTTP(ctx, awssdk.Credentials{AccessKeyID: k.id, SecretAccessKey: k.secret, SessionToken: k.session},
		req, hex.EncodeToString(sum[:]), service, a.region, now())
}

func (a *aws) sts(ctx context.Context, values url.Values, by *awsKeys, from string) (*awsKeys, error) {
	values.Set("Version", "2011-06-15")
	if values.Get("RoleSessionName") == "" {
		values.Set("RoleSessionName", "layerwright")
	}
	at := a.env["AWS_ENDPOINT_URL_STS"]
	if at == "" {
		at = a.env["AWS_ENDPOINT_URL"]
	}
	if at == "" {
		at = "https://sts." + a.region + ".amazonaws.com"
		if strings.HasPrefix(a.region, "cn-") {
			at += ".cn"
		}
	}
	body := []byte(values.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(at, "/")+"/", bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("AWS_ENDPOINT_URL is no URL")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if by != nil {
		if err := a.sign(ctx, req, body, "sts", by); err != nil {
			return nil, err
		}
	}
	var text string
	if err := a.ask(a.client, req, &text); err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	var out struct {
		Role struct {
			ID      string `xml:"Credentials>AccessKeyId"`
			Secret  string `xml:"Credentials>SecretAccessKey"`
			Session string `xml:"Credentials>SessionToken"`
		} `xml:",any"`
	}
	if err := xml.Unmarshal([]byte(text), &out); err != nil || out.Role.ID == "" {
		return nil, fmt.Errorf("%s: the answer of %s is not what was expected", from, req.URL.Host)
	}
	return &awsKeys{out.Role.ID, out.Role.Secret, out.Role.Session, from}, nil
}

func (a *aws) webIdentity(ctx context.Context, file, role, session, from string) (*awsKeys, error) {
	token, err := a.read(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return a.sts(ctx, url.Values{"Action": {"AssumeRoleWithWebIdentity"}, "RoleArn": {role}, "RoleSessionName": {session},
		"WebIdentityToken": {strings.TrimSpace(string(token))}}, nil, from)
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
	v := url.Values{"Action": {"AssumeRole"}, "RoleArn": {p["role_arn"]}, "RoleSessionName": {p["role_session_name"]}}
	if p["external_id"] != "" {
		v.Set("ExternalId", p["external_id"])
	}
	return a.sts(ctx, v, by, from)
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
