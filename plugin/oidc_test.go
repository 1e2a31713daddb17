package plugin

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
)

// federated is what comes of settings on a host that gives out tokens.
func federated(t *testing.T, env map[string]string, failure error, kv ...string) (p *Plan, asked, hidden []string, err error) {
	t.Helper()
	h := host(env)
	h.Token = func(_ context.Context, audience string) (string, error) {
		asked = append(asked, audience)
		return "geheim-token", failure
	}
	p, err = Prepare(of(append([]string{"images", "r.example/o/app"}, kv...)...), facts(), h)
	require.NoError(t, err)
	err = p.federate(t.Context(), h, func(list [][]byte) {
		for _, b := range list {
			hidden = append(hidden, string(b))
		}
	})
	return p, asked, hidden, err
}

func TestACloudGetsTheTokenOfTheJob(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		kv   []string
		asks string
	}{
		{kv: []string{"aws-role", "arn"}, asks: "sts.amazonaws.com"},
		{kv: []string{"aws-role", "arn"}, env: map[string]string{"AWS_ACCESS_KEY_ID": "K"}},
		{kv: []string{"aws-role", "arn"}, env: map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": "/f"}},
		{kv: []string{"aws-role", "arn", "aws-access-key-id", "K", "aws-secret-access-key", "S"}},
		{kv: []string{"aws-role", "arn", "oidc-token", "own"}},
		{kv: []string{"google-project-number", "7", "google-pool-id", "p", "google-provider-id", "v"},
			asks: "https://iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/p/providers/v"},
		{kv: []string{"azure-client-id", "c", "azure-tenant-id", "t"}, asks: "api://AzureADTokenExchange"},
		{kv: []string{"azure-client-id", "c", "azure-tenant-id", "t", "azure-client-secret", "s"}},
		{},
	} {
		p, asked, hidden, err := federated(t, c.env, nil, c.kv...)
		require.NoError(t, err)
		if c.asks == "" {
			require.Empty(t, asked)
			require.NotEqual(t, "geheim-token", p.Request.Registry.Clouds.OIDCToken)
			continue
		}
		require.Equal(t, []string{c.asks}, asked)
		require.Equal(t, "geheim-token", p.Request.Registry.Clouds.OIDCToken)
		require.Equal(t, []string{"geheim-token"}, hidden)
		require.Contains(t, p.Secrets, []byte("geheim-token"))
	}
}

func TestATokenThatIsRefusedIsAnErrorOfTheNetwork(t *testing.T) {
	_, _, hidden, err := federated(t, nil, errors.New("no"), "aws-role", "arn")
	require.ErrorContains(t, err, "PLUGIN_AWS-ROLE: the CI gives no token for sts.amazonaws.com: no")
	var e *core.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, core.KindRegistry, e.Kind)
	require.Empty(t, hidden)

	h := host(nil)
	h.Token = func(context.Context, string) (string, error) { return "", nil }
	_, err = Prepare(of("images", "r.example/o/app", "aws-role", "arn", "azure-client-id", "c", "azure-tenant-id", "t"), facts(), h)
	require.ErrorContains(t, err, "PLUGIN_AZURE-CLIENT-ID: a token of the CI is for one cloud, and PLUGIN_AWS-ROLE wants one, too")
}

// TestARoleWithoutATokenSaysWhatGivesOne: whether there are other keys is found out
// late, by the engine.
func TestARoleWithoutATokenSaysWhatGivesOne(t *testing.T) {
	h := host(nil)
	h.NoToken = "permit it"
	p, err := Prepare(of("images", "r.example/o/app", "aws-role", "arn"), facts(), h)
	require.NoError(t, err)
	require.Equal(t, "permit it", p.Request.Registry.Clouds.NoToken)
	p, err = Prepare(of("images", "r.example/o/app"), facts(), h)
	require.NoError(t, err)
	require.Equal(t, core.Clouds{}, p.Request.Registry.Clouds)
}

// order is an adapter that notes in which order it is used.
type order struct {
	values Values
	host   Host
	did    []string
}

func (o *order) Emit(core.Event)                {}
func (o *order) Read() (Values, Facts, Host)    { return o.values, facts(), o.host }
func (o *order) Hide(secrets [][]byte)          { o.did = append(o.did, "hide") }
func (o *order) Report(r Report) (report error) { o.did = append(o.did, "report"); return nil }

// TestTheProcessThatBuildsAsksForTheToken, not also the one that only starts it.
func TestTheProcessThatBuildsAsksForTheToken(t *testing.T) {
	for _, done := range []bool{true, false} {
		o := &order{values: of("images", "r.example/o/app", "aws-role", "arn"), host: host(nil)}
		o.host.Token = func(context.Context, string) (string, error) {
			o.did = append(o.did, "token")
			return "", errors.New("no")
		}
		shown, err := Execute(t.Context(), o, Process{}, func(context.Context, core.Request) (string, bool, error) {
			o.did = append(o.did, "enter")
			return "", done, nil
		})
		require.Equal(t, done, shown)
		require.Equal(t, !done, err != nil)
		require.Equal(t, map[bool][]string{true: {"hide", "enter"}, false: {"hide", "enter", "token", "report"}}[done], o.did)
	}
}

// TestNoticesComeWithMistakes: one may be the reason for the other.
func TestNoticesComeWithMistakes(t *testing.T) {
	var log bytes.Buffer
	o := &order{values: of("load", "true", "images", "o/a", "cache-from", "type=gha"), host: host(nil)}
	_, err := Execute(t.Context(), o, Process{Stderr: &log}, nil)
	require.ErrorContains(t, err, "PLUGIN_TAR-PATH")
	require.Equal(t, "NOTE: PLUGIN_CACHE-FROM type=gha has no effect: results of steps are kept in a registry\n", log.String())
}
