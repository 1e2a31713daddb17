// Package web owns files that a Dockerfile fetches by URL (ADD https://…): one
// request, the file with the name, mode and time that BuildKit gives it, and the
// check of its digest. It refuses to unpack anything.
package web

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
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

	"github.com/layerwright/layerwright/core/internal/fault"
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
	retries, wait := f.Retries, f.Backoff
	if retries == 0 {
		retries = 3
	}
	if wait == 0 {
		wait = 500 * time.Millisecond
	}
	for attempt := 0; ; attempt++ {
		err := f.once(ctx, u, attrs, dir)
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

func (f Fetcher) once(ctx context.Context, u *url.URL, attrs map[string]string, dir string) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fault.New(fault.User, "URL %q: it cannot be requested", redact(u.String())).With("Correct the URL.")
	}
	if f.UserAgent != "" {
		req.Header.Set("User-Agent", f.UserAgent)
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
	return save(u, resp, attrs, dir)
}

func network(u *url.URL, err error) error {
	var ue *url.Error // its text has the whole URL
	if errors.As(err, &ue) {
		err = ue.Err
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

// save writes the body under the name that BuildKit chooses.
func save(u *url.URL, resp *http.Response, attrs map[string]string, dir string) (err error) {
	check, err := newCheck(attrs[pb.AttrHTTPChecksum])
	if err != nil {
		return err
	}
	at := filepath.Join(dir, fileName(u, resp, attrs))
	f, err := os.OpenFile(at, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("save file: %w", err)
	}
	n, err := io.Copy(io.MultiWriter(f, check.hash), resp.Body)
	closeErr := f.Close()
	if err != nil {
		return network(u, fmt.Errorf("after %d bytes: %w", n, err))
	}
	if closeErr != nil {
		return fmt.Errorf("save file: %w", closeErr)
	}
	if err := check.verify(u); err != nil {
		return errors.Join(err, os.Remove(at))
	}
	return attributes(at, resp, attrs)
}

func attributes(at string, resp *http.Response, attrs map[string]string) error {
	mode, err := number(attrs[pb.AttrHTTPPerm], 0o600, 0)
	if err != nil {
		return err
	}
	uid, err := number(attrs[pb.AttrHTTPUID], 0, 10)
	if err != nil {
		return err
	}
	gid, err := number(attrs[pb.AttrHTTPGID], 0, 10)
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
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		modified = t
	}
	return os.Chtimes(at, modified, modified)
}

func number(s string, otherwise int64, base int) (int64, error) {
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(s, base, 64)
	if err != nil {
		return 0, fmt.Errorf("attribute of URL source: %w", err)
	}
	return n, nil
}

// fileName is the attribute's, the server's, or the URL's last part.
func fileName(u *url.URL, resp *http.Response, attrs map[string]string) string {
	if n := attrs[pb.AttrHTTPFilename]; n != "" {
		return safe(n)
	}
	if _, params, err := mime.ParseMediaType(resp.Header.Get("Content-Disposition")); err == nil {
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

// check holds the digest that the Dockerfile promises.
type check struct {
	want, algorithm string
	hash            hash.Hash
}

func newCheck(digest string) (check, error) {
	algorithm, want, ok := strings.Cut(digest, ":")
	switch {
	case digest == "":
		return check{hash: sha256.New()}, nil
	case ok && algorithm == "sha256":
		return check{want: want, algorithm: algorithm, hash: sha256.New()}, nil
	case ok && algorithm == "sha384":
		return check{want: want, algorithm: algorithm, hash: sha512.New384()}, nil
	case ok && algorithm == "sha512":
		return check{want: want, algorithm: algorithm, hash: sha512.New()}, nil
	}
	return check{}, fault.New(fault.User, "checksum %q: unknown form", digest).With("Write it as sha256:HEX.")
}

func (c check) verify(u *url.URL) error {
	got := hex.EncodeToString(c.hash.Sum(nil))
	if c.want == "" || c.want == got {
		return nil
	}
	return fault.New(fault.User, "digest mismatch for %s: got %s:%s, expected %s:%s", redact(u.String()), c.algorithm, got, c.algorithm, c.want).
		With("The file has changed, or is not the one that was meant. Do not use it before you know which; then correct --checksum.")
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
