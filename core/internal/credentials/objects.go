package credentials

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Object is one object in a cloud's store that can be fetched by GET. Amazon's
// signature and Google's tokens are made by their libraries; the request itself
// goes the way of every other URL, with this job's proxies, retries and progress,
// and keys are looked for as for registries, in the job's variables. The stores'
// clients would bring ways of their own for all of that.
type Object struct {
	// URL is where the object is. It has a secret where the user's URL had one
	// (a shared access signature).
	URL string
	// name is what the user calls it.
	name string
	sign func(ctx context.Context, r *http.Request) error
}

var azureHost = regexp.MustCompile(`^[a-z0-9]{3,24}\.blob\.(core\.windows\.net|core\.usgovcloudapi\.net|core\.chinacloudapi\.cn|core\.cloudapi\.de)$`)

// IsObject says whether a URL names an object in a store: s3://BUCKET/KEY,
// gs://BUCKET/OBJECT, or a blob of Azure.
func IsObject(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && (u.Scheme == "s3" || u.Scheme == "gs" || u.Scheme == "https" && azureHost.MatchString(u.Host))
}

// NewObject finds out where an object is and who may read it. Keys that are
// missing are no error: objects may be public. What cannot be used is.
func NewObject(ctx context.Context, raw string, opts Options) (*Object, error) {
	u, err := url.Parse(raw)
	if err != nil || !IsObject(raw) {
		return nil, errors.New("it is not the URL of an object")
	}
	if u.Scheme != "https" && (u.Host == "" || strings.Trim(u.Path, "/") == "") {
		return nil, fmt.Errorf("write %s://BUCKET/ARCHIVE", u.Scheme)
	}
	r := newReach(opts)
	if r.outside == nil {
		r.outside = func(f func() error) error { return f() }
	}
	switch u.Scheme {
	case "s3":
		return s3Object(ctx, u, r)
	case "gs":
		return googleObject(ctx, u, r)
	}
	return azureObject(u, r)
}

// s3Object takes Kaniko's variables: S3_ENDPOINT, S3_FORCE_PATH_STYLE; and those of
// Amazon's own programs.
func s3Object(ctx context.Context, u *url.URL, r reach) (*Object, error) {
	a := &aws{reach: r, region: firstOf(r.env["AWS_REGION"], r.env["AWS_DEFAULT_REGION"], "us-east-1")}
	keys, err := a.find(ctx)
	if err != nil {
		return nil, err
	}
	at := &url.URL{Scheme: "https", Host: "s3." + a.region + ".amazonaws.com"}
	if strings.HasPrefix(a.region, "cn-") {
		at.Host += ".cn"
	}
	if e := firstOf(r.env["S3_ENDPOINT"], r.env["AWS_ENDPOINT_URL_S3"], r.env["AWS_ENDPOINT_URL"]); e != "" {
		if !strings.Contains(e, "://") {
			e = "https://" + e
		}
		if at, err = url.Parse(e); err != nil || at.Host == "" {
			return nil, errors.New("S3_ENDPOINT is no URL")
		}
	}
	key := strings.TrimPrefix(u.Path, "/")
	if r.env["S3_FORCE_PATH_STYLE"] == "true" || strings.Contains(u.Host, ".") {
		at = at.JoinPath(u.Host, key)
	} else {
		at = at.JoinPath(key)
		at.Host = u.Host + "." + at.Host
	}
	o := &Object{URL: at.String(), name: u.String()}
	if keys == nil {
		return o, nil
	}
	o.sign = func(ctx context.Context, req *http.Request) error {
		const nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // sha256 of no body
		req.Header.Set("X-Amz-Content-Sha256", nothing)
		return v4.NewSigner().SignHTTP(ctx, awssdk.Credentials{AccessKeyID: keys.id, SecretAccessKey: keys.secret, SessionToken: keys.session},
			req, nothing, "s3", a.region, time.Now(), func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	}
	return o, nil
}

// googleObject asks the XML API, with a token as for registries, or the emulator.
func googleObject(ctx context.Context, u *url.URL, r reach) (*Object, error) {
	at := &url.URL{Scheme: "https", Host: "storage.googleapis.com"}
	if e := r.env["STORAGE_EMULATOR_HOST"]; e != "" {
		if !strings.Contains(e, "://") {
			e = "http://" + e
		}
		parsed, err := url.Parse(e)
		if err != nil {
			return nil, errors.New("STORAGE_EMULATOR_HOST is no URL")
		}
		at = parsed
	}
	o := &Object{URL: at.JoinPath(u.Host, strings.TrimPrefix(u.Path, "/")).String(), name: u.String()}
	a := (&google{reach: r}).access(ctx)
	if a.trouble {
		return nil, fmt.Errorf("%s: %s", a.label, a.note)
	}
	if token := a.login.Password; token != "" {
		o.sign = func(_ context.Context, req *http.Request) error {
			req.Header.Set("Authorization", "Bearer "+token)
			return nil
		}
	}
	return o, nil
}

// azureObject signs with the account's key (Authorize with Shared Key), unless the
// URL has a shared access signature.
func azureObject(u *url.URL, r reach) (*Object, error) {
	shown := *u
	shown.RawQuery = ""
	o := &Object{URL: u.String(), name: shown.String()}
	text := r.env["AZURE_STORAGE_ACCESS_KEY"]
	if text == "" || u.Query().Has("sig") {
		return o, nil
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("AZURE_STORAGE_ACCESS_KEY is not base64, as the account's keys are")
	}
	account, _, _ := strings.Cut(u.Host, ".")
	o.sign = func(_ context.Context, req *http.Request) error {
		req.Header.Set("X-Ms-Date", time.Now().UTC().Format(http.TimeFormat))
		req.Header.Set("X-Ms-Version", "2021-08-06")
		mac := hmac.New(sha256.New, key)
		_, _ = mac.Write([]byte(azureText(req, account)))
		req.Header.Set("Authorization", "SharedKey "+account+":"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		return nil
	}
	return o, nil
}

// azureText is what a shared key signs: learn.microsoft.com, "Authorize with Shared
// Key", version 2015-02-21 and later.
func azureText(req *http.Request, account string) string {
	lines := []string{req.Method}
	for _, h := range []string{"Content-Encoding", "Content-Language", "Content-Length", "Content-MD5", "Content-Type", "Date",
		"If-Modified-Since", "If-Match", "If-None-Match", "If-Unmodified-Since", "Range"} {
		lines = append(lines, req.Header.Get(h))
	}
	var own []string
	for h := range req.Header {
		if name := strings.ToLower(h); strings.HasPrefix(name, "x-ms-") {
			own = append(own, name+":"+strings.TrimSpace(req.Header.Get(h)))
		}
	}
	slices.Sort(own)
	lines = append(lines, own...)
	lines = append(lines, "/"+account+req.URL.EscapedPath())
	var query []string
	for k, v := range req.URL.Query() {
		slices.Sort(v)
		query = append(query, strings.ToLower(k)+":"+strings.Join(v, ","))
	}
	slices.Sort(query)
	return strings.Join(append(lines, query...), "\n")
}

func firstOf(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

// Transport signs requests for the object, and says what to do where the store
// refuses. Other requests, and those to which a server redirects, are not signed.
func (o *Object) Transport(next http.RoundTripper) http.RoundTripper { return &objects{o, next} }

type objects struct {
	o    *Object
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *objects) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.String() != t.o.URL {
		return t.next.RoundTrip(req)
	}
	if t.o.sign != nil {
		req = req.Clone(req.Context())
		if err := t.o.sign(req.Context(), req); err != nil { //nolint:contextcheck // the clone has the request's own
			return nil, fmt.Errorf("sign the request for %s: %w", t.o.name, err)
		}
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil || resp.StatusCode < 300 {
		return resp, err
	}
	var why string
	switch region := resp.Header.Get("X-Amz-Bucket-Region"); {
	case region != "" && resp.StatusCode < 500 && resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusForbidden:
		why = "the bucket is in another region: set AWS_REGION=" + region
	case resp.StatusCode == http.StatusNotFound:
		why = "there is no such bucket or object, or these keys may not see it"
	case (resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden) && t.o.sign == nil:
		why = "it is not public, and no keys were found: docs/credentials.md, \"Object stores\""
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		why = "these keys may not read it, or are wrong"
	default:
		return resp, nil
	}
	_ = resp.Body.Close()
	return nil, &ObjectError{Name: t.o.name, Status: resp.StatusCode, Why: why}
}

// ObjectError is a store's answer that no new attempt changes.
type ObjectError struct {
	Name   string
	Status int
	Why    string
}

func (e *ObjectError) Error() string {
	return fmt.Sprintf("%s: %d %s: %s", e.Name, e.Status, http.StatusText(e.Status), e.Why)
}
