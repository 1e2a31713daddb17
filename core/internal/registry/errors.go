package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// Errors that a caller may act on; they are in the chain of the *fault.Error
// that it gets.
var (
	// ErrNotFound: the registry has no such repository, tag or blob.
	ErrNotFound = errors.New("not found")
	// ErrDenied: the registry refused the credentials, or their absence.
	ErrDenied = errors.New("access denied")
	// ErrImmutable: the registry does not let a tag that is there change.
	ErrImmutable = errors.New("the tag is immutable")
	// ErrDigest: content is not what its digest or size promised.
	ErrDigest = errors.New("content does not match its digest")
	// ErrNoPlatform: the image exists, but not for the wanted platform.
	ErrNoPlatform = errors.New("no match for platform")
)

// failure is an error whose words hold no secret and whose chain leads only to
// sentinels: the original error, with its URLs, is not reachable.
type failure struct {
	msg  string
	kind error
}

func (f *failure) Error() string { return f.msg }
func (f *failure) Unwrap() error { return f.kind }

var (
	userinfo = regexp.MustCompile(`://[^/@\s"']+@`)
	query    = regexp.MustCompile(`\?[^\s"']+`)
	bearer   = regexp.MustCompile(`(?i)\b(bearer|basic) [A-Za-z0-9._~+/=-]{8,}`)
)

// scrub removes what may be secret from a text about a URL.
func scrub(s string) string {
	s = userinfo.ReplaceAllString(s, "://***@")
	s = query.ReplaceAllString(s, "?***")
	return bearer.ReplaceAllString(s, "$1 ***")
}

// clean makes a text from outside fit for one line of a message.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 400 {
		s = strings.ToValidUTF8(s[:400], "") + " …"
	}
	return scrub(s)
}

// fail turns what went wrong at a registry into the error that a person sees.
func (c *Client) fail(ctx context.Context, s *session, op string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, ok := fault.As(err); ok {
		return err
	}
	msg, kind, remedy := c.explain(ctx, s, err)
	where := "registry " + s.repo.host
	if s.repo.path != "" {
		where += ", repository " + s.repo.path
	}
	if aboutLogin(err) {
		msg += " (" + s.cred.source() + ")"
	}
	return &fault.Error{
		Kind:   fault.Registry,
		Op:     op,
		Err:    &failure{c.keys.hide(where + ": " + msg), kind},
		Remedy: remedy,
	}
}

// aboutLogin says whether it matters for an error which login was used: an
// answer that the request is wrong has nothing to do with it.
func aboutLogin(err error) bool {
	var status *transport.Error
	if !errors.As(err, &status) || status.StatusCode < 400 || status.StatusCode > 499 {
		return true
	}
	switch status.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired, http.StatusTooManyRequests:
		return true
	}
	return false
}

func (c *Client) explain(ctx context.Context, s *session, err error) (msg string, kind error, remedy string) {
	host := s.repo.host
	var dns *net.DNSError
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	var status *transport.Error
	switch {
	// First, because on loopback an attempt by plain HTTP, with an error of
	// its own, follows one by TLS.
	case errors.As(err, &unknown), errors.As(err, &hostname), errors.As(err, &invalid), errors.As(err, &verify):
		return "its TLS certificate is not trusted: " + clean(err.Error()), nil,
			"Trust the certificate of its authority: --registry-certificate=" + host + "=FILE; or accept any certificate from it: --skip-tls-verify-registry=" + host
	case errors.As(err, &status):
		return c.explainStatus(ctx, s, status)
	case errors.Is(err, ErrDigest):
		return clean(err.Error()), ErrDigest, "The registry, or a proxy on the way, returns wrong content. Try again; if it stays so, tell its operator or use another mirror."
	case errors.As(err, &dns):
		return "the name " + dns.Name + " cannot be resolved: " + dns.Err, nil,
			"Check the registry's name in the image reference and the network of this job."
	case errors.Is(err, http.ErrSchemeMismatch), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"), errors.Is(err, errPlainHTTP):
		return "the registry speaks plain HTTP, which is not allowed for it", nil,
			"If that is meant to be so: --insecure-registry=" + host
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused", syscall.ECONNREFUSED, "Check that the registry runs at " + host + " and that this job's network reaches it."
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time", context.DeadlineExceeded, "Check that this job's network reaches " + host + "."
	}
	return clean(err.Error()), nil, "Check that this job's network reaches " + host + "; further attempts: --image-download-retry, --push-retry."
}

func (c *Client) explainStatus(ctx context.Context, s *session, e *transport.Error) (msg string, kind error, remedy string) {
	repo := s.repo.String()
	msg = fmt.Sprintf("%d %s", e.StatusCode, http.StatusText(e.StatusCode))
	codes := map[transport.ErrorCode]bool{}
	for i, d := range e.Errors {
		codes[d.Code] = true
		if i < 3 {
			msg += "; " + clean(string(d.Code)+": "+d.Message)
		}
	}
	if e.StatusCode >= 400 && e.StatusCode < 500 && immutable.MatchString(msg) {
		return msg, ErrImmutable, "Push another tag, or accept the one that is there with --push-ignore-immutable-tag-errors."
	}
	switch e.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return c.explainDenied(ctx, s, msg)
	case http.StatusNotFound:
		switch {
		case codes[transport.NameUnknownErrorCode]:
			return "the repository does not exist: " + msg, ErrNotFound, "Check the name " + repo + "."
		case codes[transport.ManifestUnknownErrorCode]:
			return "the tag or digest does not exist: " + msg, ErrNotFound, "Check the tag; the repository " + repo + " is there."
		case codes[transport.BlobUnknownErrorCode]:
			return "the blob does not exist: " + msg, ErrNotFound, "The image is incomplete in the registry: push it again."
		}
		return "the image or its tag does not exist: " + msg, ErrNotFound, "Check the name " + repo + " and the tag."
	case http.StatusTooManyRequests:
		return "the registry limits the rate of requests: " + msg, nil, "Log in, wait, or use a mirror: --registry-mirror."
	case http.StatusRequestEntityTooLarge:
		return "the registry, or a proxy before it, refuses blobs of this size: " + msg, nil, "Raise its limit (nginx: client_max_body_size) or split the layer."
	}
	if e.StatusCode >= 500 {
		return "the registry failed: " + msg, nil, "Try again later; further attempts: --image-download-retry, --push-retry."
	}
	return msg, nil, ""
}

// immutable is what registries say of tags that must not change: ECR (TAG_INVALID
// … is immutable), Harbor (configured as immutable), Artifact Registry (enabled
// tag immutability), GitLab, Quay.
var immutable = regexp.MustCompile(`(?i)immutab`)

// explainDenied tells a missing login, a wrong one and one that may not do this
// apart.
func (c *Client) explainDenied(ctx context.Context, s *session, msg string) (string, error, string) {
	host, repo := s.repo.host, s.repo.String()
	if s.cred.anonymous() {
		return msg, ErrDenied, "Log in: layerwright login " + host + " writes the config.json that is read here; layerwright doctor --registry " + repo +
			" says where else a login is looked for. Also check the name: registries say this of repositories that do not exist, too."
	}
	if at := s.cred.expired(); !at.IsZero() {
		return "the token expired on " + at.UTC().Format("2006-01-02 at 15:04 UTC") + ": " + msg, ErrDenied,
			"Get a new token for " + host + "; one that a job is given is valid as long as the job."
	}
	do := "pull from"
	if s.push {
		do = "push to"
	}
	v := badLogin
	if !s.unnamed {
		v = c.judge(ctx, s)
	}
	switch v {
	case badLogin:
		return "the login is refused: " + msg, ErrDenied, "User or password are wrong, or the token has expired: log in anew with layerwright login " + host + ", or correct the source that is named."
	case goodLogin:
		return "the login is accepted, but may not " + do + " " + repo + ": " + msg, ErrDenied,
			"Give it the right to " + do + " " + repo + ", or use another login; check the name, too."
	}
	return msg, ErrDenied, "The credentials are wrong or expired, or do not allow to " + do + " " + repo + "."
}
