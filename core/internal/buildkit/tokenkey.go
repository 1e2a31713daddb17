package buildkit

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"sync"

	"github.com/moby/buildkit/session/auth"
	"golang.org/x/crypto/nacl/sign"
)

// tokenKey proves to an engine that whoever asks for a token's reuse is the client
// that it was made for: a key of this process, bound to the engine's salt and the
// registry's host.
type tokenKey struct {
	once sync.Once
	seed [32]byte
}

func (k *tokenKey) of(host string, salt []byte) ed25519.PrivateKey {
	k.once.Do(func() { _, _ = rand.Read(k.seed[:]) }) // never fails (crypto/rand)
	mac := hmac.New(sha256.New, salt)
	mac.Write(k.seed[:])
	mac.Write([]byte(host))
	return ed25519.NewKeyFromSeed(mac.Sum(nil))
}

// GetTokenAuthority implements auth.AuthServer.
func (l *logins) GetTokenAuthority(_ context.Context, req *auth.GetTokenAuthorityRequest) (*auth.GetTokenAuthorityResponse, error) {
	return &auth.GetTokenAuthorityResponse{PublicKey: l.key.of(req.Host, req.Salt)[32:]}, nil
}

// VerifyTokenAuthority implements auth.AuthServer.
func (l *logins) VerifyTokenAuthority(_ context.Context, req *auth.VerifyTokenAuthorityRequest) (*auth.VerifyTokenAuthorityResponse, error) {
	private := new([64]byte)
	copy(private[:], l.key.of(req.Host, req.Salt))
	return &auth.VerifyTokenAuthorityResponse{Signed: sign.Sign(nil, req.Payload, private)}, nil
}
