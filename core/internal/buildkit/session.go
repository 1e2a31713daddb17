package buildkit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	authutil "github.com/containerd/containerd/v2/core/remotes/docker/auth"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Login is a login at a registry. A Token is sent as it is; an IdentityToken is
// exchanged for one.
type Login struct{ Username, Password, Token, IdentityToken string }

// Logins finds logins by a registry's host; an empty one where there is none.
type Logins func(ctx context.Context, host string) (Login, error)

// Agents are ssh agents by id.
type Agents interface {
	Check(id string) error
	Dial(ctx context.Context, id string) (net.Conn, error)
}

// attachables are what the engine may ask for while it builds; archive is the URL
// under which it asks for the job's archive.
func (j *Job) attachables() (out []session.Attachable, archive string, err error) {
	out = []session.Attachable{&logins{find: j.Logins, client: j.Web}, secretsprovider.FromMap(j.Secrets)}
	if j.SSH != nil {
		out = append(out, &agents{j.SSH})
	}
	if j.Archive != "" {
		f, err := os.Open(j.Archive)
		if err != nil {
			return nil, "", fmt.Errorf("send the build context: %w", err)
		}
		up := uploadprovider.New()
		archive, out = up.Add(f), append(out, up)
	}
	return out, archive, nil
}

// logins answers for registries. Where a registry's token service is reachable from
// here the engine gets a token for what it is about to do, and never the password:
// it is exchanged here. GetTokenAuthority, by which BuildKit keeps tokens of several
// clients apart, needs a key: one a process will do, since a build has one session.
type logins struct {
	find   Logins
	client *http.Client
	key    tokenKey
}

func (l *logins) Register(s *grpc.Server) { auth.RegisterAuthServer(s, l) }

func (l *logins) login(ctx context.Context, host string) (Login, error) {
	if l.find == nil {
		return Login{}, nil
	}
	return l.find(ctx, host)
}

// Credentials is asked where a registry wants a name and a password in each request.
func (l *logins) Credentials(ctx context.Context, req *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	found, err := l.login(ctx, req.Host)
	if err != nil {
		return nil, err
	}
	if found.IdentityToken != "" {
		return &auth.CredentialsResponse{Secret: found.IdentityToken}, nil
	}
	return &auth.CredentialsResponse{Username: found.Username, Secret: found.Password}, nil
}

// FetchToken exchanges the login for a token of the scopes that the engine needs.
func (l *logins) FetchToken(ctx context.Context, req *auth.FetchTokenRequest) (*auth.FetchTokenResponse, error) {
	found, err := l.login(ctx, req.Host)
	if err != nil {
		return nil, err
	}
	if found.Token != "" {
		return &auth.FetchTokenResponse{Token: found.Token, ExpiresIn: int64(tokenLife / time.Second)}, nil
	}
	to := authutil.TokenOptions{Realm: req.Realm, Service: req.Service, Scopes: req.Scopes, Username: found.Username, Secret: found.Password}
	if found.IdentityToken != "" {
		to.Username, to.Secret = "", found.IdentityToken
		resp, err := authutil.FetchTokenWithOAuth(ctx, l.client, nil, "layerwright", to)
		if err != nil {
			return nil, l.refused(req.Host, err)
		}
		return token(resp.AccessToken, resp.IssuedAt, resp.ExpiresInSeconds), nil
	}
	resp, err := authutil.FetchToken(ctx, l.client, nil, to)
	if err != nil {
		return nil, l.refused(req.Host, err)
	}
	return token(resp.Token, resp.IssuedAt, resp.ExpiresInSeconds), nil
}

// tokenLife is how long a token lasts that does not say it (distribution's token
// specification).
const tokenLife = time.Minute

func token(value string, issued time.Time, seconds int) *auth.FetchTokenResponse {
	if seconds == 0 {
		seconds = int(tokenLife / time.Second)
	}
	out := &auth.FetchTokenResponse{Token: value, ExpiresIn: int64(seconds)}
	if !issued.IsZero() {
		out.IssuedAt = issued.Unix()
	}
	return out
}

// refused is an error without the answer's body, which is no word of ours.
func (l *logins) refused(host string, err error) error {
	var unexpected remoteserrors.ErrUnexpectedStatus
	if errors.As(err, &unexpected) {
		return status.Errorf(codes.Unauthenticated, "%s gives no token: it answers %s", host, unexpected.Status)
	}
	return status.Errorf(codes.Unavailable, "%s gives no token: its token service cannot be reached from the job", host)
}

// agents forwards connections to ssh agents.
type agents struct{ of Agents }

func (a *agents) Register(s *grpc.Server) { sshforward.RegisterSSHServer(s, a) }

// CheckAgent implements sshforward.SSHServer.
func (a *agents) CheckAgent(_ context.Context, req *sshforward.CheckAgentRequest) (*sshforward.CheckAgentResponse, error) {
	if err := a.of.Check(req.ID); err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	return &sshforward.CheckAgentResponse{}, nil
}

// ForwardAgent implements sshforward.SSHServer.
func (a *agents) ForwardAgent(stream sshforward.SSH_ForwardAgentServer) error {
	id := sshforward.DefaultID
	opts, _ := metadata.FromIncomingContext(stream.Context())
	if v := opts[sshforward.KeySSHID]; len(v) > 0 && v[0] != "" {
		id = v[0]
	}
	conn, err := a.of.Dial(stream.Context(), id)
	if err != nil {
		return err
	}
	return sshforward.Copy(stream.Context(), conn, stream, nil)
}
