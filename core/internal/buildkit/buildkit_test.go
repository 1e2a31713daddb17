package buildkit_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	controlapi "github.com/moby/buildkit/api/services/control"
	apitypes "github.com/moby/buildkit/api/types"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/layerwright/layerwright/core/internal/buildkit"
	"github.com/layerwright/layerwright/core/internal/fault"
)

// server is a BuildKit that only says which version it is.
type server struct {
	controlapi.UnimplementedControlServer
	version string
}

func (s server) Info(context.Context, *controlapi.InfoRequest) (*controlapi.InfoResponse, error) {
	return &controlapi.InfoResponse{BuildkitVersion: &apitypes.BuildkitVersion{Version: s.version}}, nil
}

func (server) ListWorkers(context.Context, *controlapi.ListWorkersRequest) (*controlapi.ListWorkersResponse, error) {
	return &controlapi.ListWorkersResponse{Record: []*apitypes.WorkerRecord{{ID: "w"}}}, nil
}

// ancient does not know the question.
type ancient struct {
	controlapi.UnimplementedControlServer
}

func serve(t *testing.T, s controlapi.ControlServer) (address string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	g := grpc.NewServer()
	controlapi.RegisterControlServer(g, s)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return "unix://" + path
}

func TestAnEngineMustNotBeTooOld(t *testing.T) {
	for version, ok := range map[string]bool{"v0.12.5": false, "v0.10.0": false, "v0.13.0": true, "v0.34.2": true, "v1.0.0": true, "v0.0.0+unknown": true, "dev": true, "v0.13.0-rc1": true} {
		e, err := buildkit.Connect(t.Context(), buildkit.Endpoint{Address: serve(t, server{version: version})})
		if ok {
			require.NoError(t, err, version)
			require.Equal(t, version, e.Version)
			require.NoError(t, e.Close())
			continue
		}
		old(t, err)
		require.ErrorContains(t, err, version)
	}
	_, err := buildkit.Connect(t.Context(), buildkit.Endpoint{Address: serve(t, ancient{})})
	old(t, err)
}

func old(t *testing.T, err error) {
	t.Helper()
	f, ok := fault.As(err)
	require.True(t, ok, "%v", err)
	require.Equal(t, fault.Environment, f.Kind)
	require.Contains(t, f.Error(), "0.13 or later is needed")
	require.Contains(t, f.Remedy, "Update the BuildKit")
}

func TestAddressesAreChecked(t *testing.T) {
	for address, says := range map[string]string{
		"tcp://h:1234": "", "unix:///run/buildkit/buildkitd.sock": "", "kube-pod://pod?namespace=ci": "", "docker-container://buildkitd": "", "ssh://user@host": "",
		"tcp://h": "a port is missing", "unix://": "a path is missing", "h:1234": "unknown scheme", "/run/sock": "is no URL", "ftp://h:1": "unknown scheme ftp://", "kube-pod://": "a host is missing",
	} {
		err := buildkit.Endpoint{Address: address}.Check()
		if says == "" {
			require.NoError(t, err, address)
		} else {
			require.ErrorContains(t, err, says, address)
		}
	}
	require.ErrorContains(t, buildkit.Endpoint{Address: "unix:///x", CA: "ca"}.Check(), "only tcp:// has certificates")
}

// TestAnEngineGetsTokensAndNotPasswords: the exchange is made here.
func TestAnEngineGetsTokensAndNotPasswords(t *testing.T) {
	asked := 0
	realm := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		user, password, _ := r.BasicAuth()
		if user != "robot" || password != "planted" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte("planted in an answer"))
			return
		}
		require.Equal(t, "repository:a/b:pull", r.FormValue("scope"))
		_, _ = w.Write([]byte(`{"token":"short","expires_in":99}`))
	}))
	t.Cleanup(realm.Close)
	for name, c := range map[string]struct {
		login buildkit.Login
		token string
	}{
		"password":      {buildkit.Login{Username: "robot", Password: "planted"}, "short"},
		"registryToken": {buildkit.Login{Token: "as it is"}, "as it is"},
		"wrong":         {buildkit.Login{Username: "robot", Password: "wrong"}, ""},
	} {
		got, err := buildkit.TokenFor(t.Context(), func(context.Context, string) (buildkit.Login, error) { return c.login, nil }, realm.Client(), realm.URL, "repository:a/b:pull")
		if c.token == "" {
			require.ErrorContains(t, err, "401", name)
			require.NotContains(t, err.Error(), "planted", name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, c.token, got, name)
	}
	require.Equal(t, 2, asked)
}
