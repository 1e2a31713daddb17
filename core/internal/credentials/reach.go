package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// reach is what the helpers for clouds share: variables, files, and ways to
// token services and to metadata servers.
type reach struct {
	env     map[string]string
	outside func(func() error) error
	// client tries again; once does not: for libraries that do so themselves.
	client, once *http.Client
	direct       *http.Client
}

// Limits for what token services and metadata servers take.
const (
	tokenTimeout    = 30 * time.Second
	metadataTimeout = 5 * time.Second
	metadataDial    = time.Second
	maxAnswer       = 1 << 20
	attempts        = 4
	maxWait         = 4 * time.Second
)

func newReach(opts Options) reach {
	r := reach{env: opts.Environment, outside: opts.Outside,
		client: &http.Client{Transport: &again{opts.Transport}, Timeout: tokenTimeout, CheckRedirect: noRedirect},
		once:   &http.Client{Transport: opts.Transport, Timeout: tokenTimeout, CheckRedirect: noRedirect},
		direct: &http.Client{Transport: opts.Direct, Timeout: metadataTimeout, CheckRedirect: noRedirect}}
	if opts.Direct == nil {
		// Outside of the cloud nobody answers: the job must not wait long.
		r.direct.Transport = &http.Transport{DialContext: (&net.Dialer{Timeout: metadataDial}).DialContext, ResponseHeaderTimeout: metadataTimeout}
	}
	return r
}

// noRedirect keeps secrets where they were sent to.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// read reads a file of the job. It may be another one each time: tokens that
// Kubernetes mounts are renewed.
func (r reach) read(path string) (data []byte, err error) {
	err = r.outside(func() error { data, err = os.ReadFile(path); return err })
	return data, err
}

// get, form and ask make one request and decode its answer, JSON. Errors name
// the server and its words for what is wrong, never the request.
func (r reach) get(ctx context.Context, c *http.Client, at string, header map[string]string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return errors.New("a URL for metadata cannot be understood")
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	return r.ask(c, req, out)
}

func (r reach) form(ctx context.Context, at string, values url.Values, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at, strings.NewReader(values.Encode()))
	if err != nil {
		return errors.New("the URL of a token service cannot be understood")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	return r.ask(r.client, req, out)
}

func (r reach) ask(c *http.Client, req *http.Request, out any) error {
	resp, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", req.URL.Host, bare(err))
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s: %w", req.URL.Host, bare(err))
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return &refused{req.URL.Host, resp.StatusCode, reason(raw)}
	}
	if s, ok := out.(*string); ok {
		*s = strings.TrimSpace(string(raw))
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("%s: the answer is not the JSON that was expected", req.URL.Host)
	}
	return nil
}

// refused is an answer other than success.
type refused struct {
	host   string
	code   int
	reason string
}

func (e *refused) Error() string {
	return strings.TrimSpace(fmt.Sprintf("%s answered %d %s %s", e.host, e.code, http.StatusText(e.code), e.reason))
}

// bare is an error without the URL, which may hold secrets.
func bare(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// reason is the short code of an error that token services give (RFC 6749
// section 5.2, AWS' __type); never their prose, which may repeat the request.
func reason(raw []byte) string {
	var e struct {
		Error json.RawMessage `json:"error"`
		Type  string          `json:"__type"`
	}
	if json.Unmarshal(raw, &e) != nil {
		return ""
	}
	var code string
	if json.Unmarshal(e.Error, &code) != nil {
		code = e.Type
	}
	_, after, ok := strings.Cut(code, "#")
	if ok {
		code = after
	}
	if !shortCode(code) {
		var nested struct {
			Status string `json:"status"` // Google's APIs: {"error": {"status": "PERMISSION_DENIED"}}
		}
		if json.Unmarshal(e.Error, &nested) != nil || !shortCode(nested.Status) {
			return ""
		}
		code = nested.Status
	}
	return "(" + code + ")"
}

// shortCode says whether a text is a code, and no sentence.
func shortCode(code string) bool {
	for _, c := range code {
		if !(c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			return false
		}
	}
	return len(code) > 0 && len(code) <= 60
}

// failed is the answer of a helper whose cloud did not give a login. It ends
// nothing: public images need none.
func failed(label string, err error) answer {
	return answer{label: label, note: err.Error(), trouble: true}
}
