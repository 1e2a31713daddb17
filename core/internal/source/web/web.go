// Package web owns files that a build fetches by URL (ADD https://…, a context
// or Dockerfile by URL): one request, the file with the name, mode and time that
// BuildKit gives it, and the check of its digest. It refuses to unpack anything.
package web

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/solver/pb"

	"github.com/layerwright/layerwright/core/internal/credentials"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/filecopy"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/room"
)

// Fetcher fetches files. The zero value is ready for use.
type Fetcher struct {
	// Client is http.DefaultClient when nil.
	Client *http.Client
	// Retries counts attempts after the first one; 0 means 3, less than 0
	// none. Backoff is the first wait, doubled each time; 500 ms when 0.
	Retries int
	Backoff time.Duration
	// UserAgent may be empty.
	UserAgent string
	// Secrets are looked up for credentials, by the names that BuildKit
	// uses: HTTP_AUTH_HEADER_HOST is the value of the header Authorization,
	// HTTP_AUTH_TOKEN_HOST a bearer token. May be nil.
	Secrets map[string][]byte
	// Cache, when not nil, has every file fetched once.
	Cache *Cache
	// Progress takes Transfer events; nil drops them.
	Progress progress.Sink
}

// errTemporary is in the chain of an error that another attempt may not meet.
var errTemporary = errors.New("temporary")

// Fetch puts the file at rawURL into the directory dir, as the attributes of an
// HTTP source say (pb.AttrHTTP…). Credentials in the URL appear in no error.
func (f Fetcher) Fetch(ctx context.Context, rawURL string, attrs map[string]string, dir string) error {
	u, err := url.Parse(rawURL)
	if err != nil {
		return fault.New(fault.User, "URL %q: %w", redact(rawURL), errors.New("it cannot be parsed")).With("Correct the URL.")
	}
	for _, k := range []string{pb.AttrHTTPSignatureVerify, pb.AttrHTTPSignatureVerifyPubKey} {
		if attrs[k] != "" {
			return fault.New(fault.User, "get %s: checking a signature is not supported", redact(rawURL)).With("Give the file's digest instead.")
		}
	}
	check, err := newCheck(attrs[pb.AttrHTTPChecksum])
	if err != nil {
		return err
	}
	k := &kept{path: filepath.Join(dir, ".download")}
	if f.Cache != nil {
		k = f.Cache.entry(rawURL + "\n" + attrs[pb.AttrHTTPAuthHeaderSecret])
		if put := f.Cache.given(rawURL); put != nil {
			k = put
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sum == "" {
		if err := f.attempts(ctx, u, attrs, k); err != nil {
			k.drop()
			return err
		}
	}
	at := filepath.Join(dir, fileName(u, k.header, attrs))
	if f.Cache == nil {
		err = os.Rename(k.path, at)
	} else {
		err = place(k.path, at)
	}
	if err != nil {
		return fmt.Errorf("save file: %w", err)
	}
	if err := check.verify(u, k.sum, at); err != nil {
		return errors.Join(err, os.Remove(at))
	}
	return attributes(at, k.header, attrs)
}

func place(from, at string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	return filecopy.From(in, at)
}

// attempts downloads, more than once if that may help.
func (f Fetcher) attempts(ctx context.Context, u *url.URL, attrs map[string]string, k *kept) error {
	retries, wait := f.Retries, f.Backoff
	if retries == 0 {
		retries = 3
	}
	if wait == 0 {
		wait = 500 * time.Millisecond
	}
	for attempt := 0; ; attempt++ {
		err := f.once(ctx, u, attrs, k)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil || attempt >= retries || !errors.Is(err, errTemporary) {
			return err
		}
		select {
		case <-time.After(wait << attempt):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (f Fetcher) once(ctx context.Context, u *url.URL, attrs map[string]string, k *kept) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fault.New(fault.User, "URL %q: it cannot be requested", redact(u.String())).With("Correct the URL.")
	}
	if f.UserAgent != "" {
		req.Header.Set("User-Agent", f.UserAgent)
	}
	if err := f.authorize(req, attrs[pb.AttrHTTPAuthHeaderSecret]); err != nil {
		return err
	}
	client := f.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return network(u, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return status(u, resp)
	}
	k.header = resp.Header
	k.sum, err = f.save(ctx, u, resp, k.path)
	return err
}

// authorize sets the credentials that the build has for a host. A secret that
// the source names must be there.
func (f Fetcher) authorize(req *http.Request, named string) error {
	if named != "" {
		value, ok := f.Secrets[named]
		if !ok {
			return fault.New(fault.User, "get %s: the secret %q for it was not given", redact(req.URL.String()), named).
				With("Give it with --secret id=" + named + ",env=VARIABLE or src=FILE.")
		}
		req.Header.Set("Authorization", strings.TrimSpace(string(value)))
		return nil
	}
	host := req.URL.Hostname()
	if v, ok := f.Secrets["HTTP_AUTH_HEADER_"+host]; ok {
		req.Header.Set("Authorization", strings.TrimSpace(string(v)))
	}
	if v, ok := f.Secrets["HTTP_AUTH_TOKEN_"+host]; ok {
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(v)))
	}
	return nil
}

func network(u *url.URL, err error) error {
	var ue *url.Error // its text has the whole URL
	if errors.As(err, &ue) {
		err = ue.Err
	}
	var refused *credentials.ObjectError
	if errors.As(err, &refused) {
		return &fault.Error{Kind: fault.Registry, Op: "get " + redact(u.String()), Err: refused,
			Remedy: "Check the name of the bucket and of the archive, and the keys in the job's variables (docs/credentials.md)."}
	}
	return &fault.Error{Kind: fault.Registry, Op: "get " + redact(u.String()), Err: fmt.Errorf("%w (%w)", err, errTemporary),
		Remedy: "Check the address, and the proxy settings of the job (HTTPS_PROXY, NO_PROXY)."}
}

func status(u *url.URL, resp *http.Response) error {
	e := &fault.Error{Kind: fault.Registry, Op: "get " + redact(u.String()), Err: fmt.Errorf("the server answered %s", resp.Status),
		Remedy: "Check the URL, and whether it needs credentials."}
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500 {
		e.Err = fmt.Errorf("%w (%w)", e.Err, errTemporary)
	}
	return e
}

// save writes the body to a file and gives its sha256.
func (f Fetcher) save(ctx context.Context, u *url.URL, resp *http.Response, at string) (sum string, err error) {
	out, err := os.OpenFile(at, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return "", fmt.Errorf("save file: %w", err)
	}
	defer func() {
		if e := out.Close(); e != nil && err == nil {
			err = fmt.Errorf("save file: %w", e)
		}
	}()
	limit := room.Of(filepath.Dir(at))
	if resp.ContentLength > limit.Bytes {
		return "", limit.Exceeded(redact(u.String()))
	}
	h := sha256.New()
	body := &meter{r: io.LimitReader(resp.Body, limit.Bytes+1), sink: f.Progress,
		event: progress.Transfer{ID: "get " + redact(u.String()), Name: "get " + redact(u.String()), Total: max(0, resp.ContentLength)}}
	n, err := io.Copy(io.MultiWriter(out, h), body)
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case body.err != nil:
		return "", network(u, fmt.Errorf("after %d bytes: %w", n, body.err))
	case err != nil:
		return "", fmt.Errorf("save file: %w", err)
	case n > limit.Bytes:
		return "", limit.Exceeded(redact(u.String()))
	}
	body.emit(true)
	return hex.EncodeToString(h.Sum(nil)), nil
}

// meter reports what was read, and keeps the error that reading ended with.
type meter struct {
	r     io.Reader
	sink  progress.Sink
	event progress.Transfer
	err   error
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		m.err = err
	}
	m.event.Current += int64(n)
	if time.Since(m.event.Time) >= 100*time.Millisecond {
		m.emit(false)
	}
	return n, err
}

func (m *meter) emit(finished bool) {
	m.event.Time, m.event.Finished = time.Now(), finished
	if m.sink != nil {
		m.sink.Emit(m.event)
	}
}

func attributes(at string, header http.Header, attrs map[string]string) error {
	mode, err := number(attrs[pb.AttrHTTPPerm], 0o600)
	if err != nil {
		return err
	}
	uid, err := number(attrs[pb.AttrHTTPUID], 0)
	if err != nil {
		return err
	}
	gid, err := number(attrs[pb.AttrHTTPGID], 0)
	if err != nil {
		return err
	}
	if err := os.Chown(at, int(uid), int(gid)); err != nil {
		return fmt.Errorf("save file: %w", err)
	}
	if err := os.Chmod(at, os.FileMode(mode)&os.ModePerm); err != nil {
		return fmt.Errorf("save file: %w", err)
	}
	modified := time.Unix(0, 0)
	if t, err := http.ParseTime(header.Get("Last-Modified")); err == nil {
		modified = t
	}
	return os.Chtimes(at, modified, modified)
}

func number(s string, otherwise int64) (int64, error) {
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("attribute of URL source: %w", err)
	}
	return n, nil
}

// fileName is the attribute's, the server's, or the URL's last part.
func fileName(u *url.URL, header http.Header, attrs map[string]string) string {
	if n := attrs[pb.AttrHTTPFilename]; n != "" {
		return safe(n)
	}
	if _, params, err := mime.ParseMediaType(header.Get("Content-Disposition")); err == nil {
		if n := params["filename"]; n != "" && !strings.HasSuffix(n, "/") {
			return safe(n)
		}
	}
	return safe(u.Path)
}

func safe(name string) string {
	base := path.Base(path.Clean("/" + filepath.ToSlash(name)))
	if base == "" || base == "." || base == "/" {
		return "download"
	}
	return base
}

// redact takes user, password and query out of a URL: any of them may be a
// secret.
func redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(a URL that cannot be parsed)"
	}
	u.User, u.Fragment = nil, ""
	if u.RawQuery != "" {
		u.RawQuery = "…"
	}
	return u.String()
}
