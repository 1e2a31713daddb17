package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// ErrNoDeletion: the registry does not delete.
var ErrNoDeletion = errors.New("the registry does not allow deletion")

// maxTags bounds a list of tags in memory.
const maxTags = 16 << 20

// Tags lists a repository's tags, sorted; none where there is no repository.
func (c *Client) Tags(ctx context.Context, ref string) ([]string, error) {
	_, repo, err := parse(ref)
	if err != nil {
		return nil, err
	}
	s, err := c.session(ctx, repo, false)
	if err != nil {
		return nil, err
	}
	var out []string
	next := s.url("tags", "list") + "?n=1000"
	for next != "" {
		resp, err := s.get(ctx, next, 0)
		if err != nil {
			if err = c.fail(ctx, s, "list tags", err); errors.Is(err, ErrNotFound) {
				return nil, nil
			}
			return nil, err
		}
		raw, err := readAll(resp.Body, maxTags)
		_ = resp.Body.Close()
		var page struct {
			Tags []string `json:"tags"`
		}
		if err == nil {
			err = json.Unmarshal(raw, &page)
		}
		if err != nil {
			return nil, c.fail(ctx, s, "list tags", err)
		}
		out = append(out, page.Tags...)
		if next, err = nextPage(resp); err != nil {
			return nil, c.fail(ctx, s, "list tags", err)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// nextPage reads the Link header (distribution-spec, listing tags).
func nextPage(resp *http.Response) (string, error) {
	link := resp.Header.Get("Link")
	var target string
	if _, err := fmt.Sscanf(link, "<%s", &target); err != nil {
		return "", nil //nolint:nilerr // no further page
	}
	for i := range target {
		if target[i] == '>' {
			target = target[:i]
			break
		}
	}
	u, err := url.Parse(target)
	if err != nil {
		return "", err
	}
	u = resp.Request.URL.ResolveReference(u)
	if u.Host != resp.Request.URL.Host {
		return "", fmt.Errorf("the next page is at another host, %s: refused", u.Host)
	}
	return u.String(), nil
}

// Delete removes a manifest, and with it all of its tags. ErrNoDeletion is in
// the chain of the error where the registry does not do that.
func (c *Client) Delete(ctx context.Context, ref string, digest v1.Hash) error {
	_, repo, err := parse(ref)
	if err != nil {
		return err
	}
	s, err := c.session(ctx, repo, true)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, s.url("manifests", digest.String()), nil)
	if err != nil {
		return err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return c.fail(ctx, s, "delete "+digest.String(), err)
	}
	defer func() { _ = resp.Body.Close() }()
	switch resp.StatusCode {
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return fmt.Errorf("delete %s in %s: %w", short(digest), repo, ErrNoDeletion)
	case http.StatusNotFound:
		return nil // somebody else has done it
	}
	return c.fail(ctx, s, "delete "+digest.String(), transport.CheckError(resp, http.StatusAccepted, http.StatusOK, http.StatusNoContent))
}
