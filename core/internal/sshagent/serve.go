package sshagent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Messages of the agent protocol (draft-ietf-sshm-ssh-agent, section 5.1). All
// others are answered with failure: they change, lock or extend an agent.
const (
	failure         = 5
	requestKeys     = 11
	keysAnswer      = 12
	requestSign     = 13
	signAnswer      = 14
	maxMessageBytes = 256 << 10 // OpenSSH's
)

// responder answers one request of those that are allowed.
type responder interface {
	answer(request []byte) ([]byte, error)
}

// converse answers what is asked on conn until one side ends. x/crypto's own
// server is not used, as it writes to the process's log what it refuses.
func converse(conn io.ReadWriter, r responder) error {
	for {
		request, err := readMessage(conn)
		if err != nil {
			return err
		}
		answer := []byte{failure}
		if kind := request[0]; kind == requestKeys || kind == requestSign {
			if answer, err = r.answer(request); err != nil {
				return err
			}
		}
		if err := writeMessage(conn, answer); err != nil {
			return err
		}
	}
}

func readMessage(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxMessageBytes {
		return nil, fmt.Errorf("message of %d bytes", n)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, err
	}
	return data, nil
}

func writeMessage(w io.Writer, data []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...))
	return err
}

// forward asks an agent at the other end of a connection.
type forward struct{ conn io.ReadWriter }

func (f forward) answer(request []byte) ([]byte, error) {
	if err := writeMessage(f.conn, request); err != nil {
		return nil, err
	}
	return readMessage(f.conn)
}

// held answers with keys of our own.
type held struct{ keys agent.ExtendedAgent }

type signRequest struct {
	Key   []byte `sshtype:"13"`
	Data  []byte
	Flags uint32
}

func (h held) answer(request []byte) ([]byte, error) {
	var out []byte
	var err error
	if request[0] == requestKeys {
		out, err = h.list()
	} else {
		out, err = h.sign(request)
	}
	if err != nil {
		return []byte{failure}, nil // a request that cannot be met is answered, and the next one taken
	}
	return out, nil
}

func (h held) list() ([]byte, error) {
	list, err := h.keys.List()
	if err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint32([]byte{keysAnswer}, uint32(len(list)))
	for _, k := range list {
		out = append(out, ssh.Marshal(struct {
			Blob    []byte
			Comment string
		}{k.Blob, k.Comment})...)
	}
	return out, nil
}

func (h held) sign(request []byte) ([]byte, error) {
	var r signRequest
	if err := ssh.Unmarshal(request, &r); err != nil {
		return nil, err
	}
	key, err := ssh.ParsePublicKey(r.Key)
	if err != nil {
		return nil, err
	}
	sig, err := h.keys.SignWithFlags(key, r.Data, agent.SignatureFlags(r.Flags))
	if err != nil {
		return nil, err
	}
	if sig == nil {
		return nil, errors.New("no signature")
	}
	return append([]byte{signAnswer}, ssh.Marshal(struct{ Signature []byte }{ssh.Marshal(sig)})...), nil
}
