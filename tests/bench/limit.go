package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/pgzip"
)

// limit names what plain Go code does that builds nothing: what a builder cannot
// do without for big-layer, on the same machine in the same round.
const limit = "limit"

// plain writes as many random bytes as big-layer has, then reads, hashes,
// compresses, hashes again and sends them, all at once.
type plain struct {
	dir, registry string
	scale         float64
}

func (p *plain) forget(context.Context) error { return os.RemoveAll(filepath.Join(p.dir, "big")) }

func (p *plain) build(ctx context.Context, j job) (timing, error) {
	start := time.Now()
	path := filepath.Join(p.dir, "big")
	if err := writeRandom(path, int64(scaled(400, p.scale))*1e6); err != nil {
		return timing{}, err
	}
	wrote := time.Since(start)
	f, err := os.Open(path)
	if err != nil {
		return timing{}, err
	}
	defer f.Close()
	repo, _, _ := strings.Cut(strings.TrimPrefix(j.ref, p.registry+"/"), ":")
	err = send(ctx, p.registry, repo, f)
	return timing{wall: time.Since(start), steps: wrote}, err
}

func (p *plain) version(context.Context) (string, error) { return "", nil }

func writeRandom(path string, size int64) error {
	random, err := os.Open("/dev/urandom")
	if err != nil {
		return err
	}
	defer random.Close()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, io.LimitReader(random, size), make([]byte, 1e6))
	return errors.Join(err, f.Close())
}

// send uploads a file as a compressed blob, as a builder sends a layer.
func send(ctx context.Context, registry, repo string, f io.Reader) error {
	resp, err := do(ctx, http.MethodPost, "http://"+registry+"/v2/"+repo+"/blobs/uploads/", nil)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	plain, packed := sha256.New(), sha256.New()
	go func() {
		z, err := pgzip.NewWriterLevel(w, pgzip.BestSpeed)
		if err == nil {
			_, err = io.Copy(io.MultiWriter(z, plain), f)
			err = errors.Join(err, z.Close())
		}
		w.CloseWithError(err)
	}()
	if resp, err = do(ctx, http.MethodPatch, resp.Header.Get("Location"), io.TeeReader(r, packed)); err != nil {
		_ = r.CloseWithError(err)
		return err
	}
	at, err := url.Parse(resp.Header.Get("Location"))
	if err != nil {
		return err
	}
	q := at.Query()
	q.Set("digest", fmt.Sprintf("sha256:%x", packed.Sum(nil)))
	at.RawQuery = q.Encode()
	_, err = do(ctx, http.MethodPut, at.String(), nil)
	return err
}

func do(ctx context.Context, method, where string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, where, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return nil, fmt.Errorf("%s at the registry: %s", method, resp.Status)
	}
	return resp, nil
}
