package web

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// check holds the digest that the Dockerfile promises; the zero value accepts
// everything.
type check struct {
	want, algorithm string
	hash            func() hash.Hash
}

func newCheck(digest string) (check, error) {
	algorithm, want, ok := strings.Cut(digest, ":")
	c := check{want: want, algorithm: algorithm}
	switch {
	case digest == "":
		return check{}, nil
	case ok && algorithm == "sha256":
		c.hash = sha256.New
	case ok && algorithm == "sha384":
		c.hash = sha512.New384
	case ok && algorithm == "sha512":
		c.hash = sha512.New
	default:
		return c, fault.New(fault.User, "checksum %q: unknown form", digest).With("Write it as sha256:HEX.")
	}
	return c, nil
}

// verify compares the file at path, whose sha256 is known.
func (c check) verify(u *url.URL, sum, path string) error {
	if c.hash == nil {
		return nil
	}
	if c.algorithm != "sha256" {
		var err error
		if sum, err = c.read(path); err != nil {
			return err
		}
	}
	if sum == c.want {
		return nil
	}
	return fault.New(fault.User, "digest mismatch for %s: got %s:%s, expected %s:%s", redact(u.String()), c.algorithm, sum, c.algorithm, c.want).
		With("The file has changed, or is not the one that was meant. Do not use it before you know which; then correct --checksum.")
}

func (c check) read(path string) (sum string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("verify file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := c.hash()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("verify file: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
