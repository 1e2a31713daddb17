package sshagent

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// maxKey is the largest key file that is read, in bytes (BuildKit's).
const maxKey = 100 << 10

// addKey reads a private key. No part of the file is in an error.
func addKey(keys agent.Agent, path string) (err error) {
	data, err := readKey(path)
	if err != nil {
		return fault.New(fault.User, "read ssh key: %w", err).With("Name a file with a private key that this user can read.")
	}
	defer clear(data)
	return addKeyText(keys, data, path)
}

// addKeyText adds a key; path is what messages call it.
func addKeyText(keys agent.Agent, data []byte, path string) error {
	key, err := ssh.ParseRawPrivateKey(data)
	var locked *ssh.PassphraseMissingError
	switch block, _ := pem.Decode(data); {
	case errors.As(err, &locked), err != nil && block != nil && block.Type == "ENCRYPTED PRIVATE KEY":
		return fault.New(fault.User, "ssh key %s is protected by a passphrase", path).
			With("Add it to an ssh agent (ssh-add), and give the agent: --ssh default.")
	case err != nil && block == nil:
		return fault.New(fault.User, "ssh key %s: there is no private key in it", path).
			With(notAKey(data))
	case err != nil:
		return fault.New(fault.User, "ssh key %s cannot be read as a private key: %w", path, err).
			With("Give a private key in OpenSSH or PEM format.")
	}
	if err := keys.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		return fault.New(fault.User, "ssh key %s: %w", path, err).With("Give an Ed25519, ECDSA or RSA key.")
	}
	return nil
}

func notAKey(data []byte) string {
	if _, _, _, _, err := ssh.ParseAuthorizedKey(data); err == nil {
		return "This is the public key: give the file with the private one."
	}
	return "Give a private key in OpenSSH or PEM format, with its BEGIN and END lines."
}

func readKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// One buffer, so that nothing is left of it elsewhere when it is cleared.
	buf := make([]byte, maxKey+1)
	n, err := io.ReadFull(f, buf)
	switch {
	case err == nil:
		clear(buf)
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxKey)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
	default:
		return nil, err
	}
	return bytes.TrimSpace(buf[:n]), nil
}
