package netrc_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/netrc"
)

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want netrc.Logins
	}{
		"one line":                 {"machine a login u password p", netrc.Logins{"a": {User: "u", Password: "p"}}},
		"several lines":            {"machine A.Example\n\tlogin u\n\tpassword p # mine\n", netrc.Logins{"a.example": {User: "u", Password: "p"}}},
		"quotes":                   {`machine a login "u v" password "p\"#q"`, netrc.Logins{"a": {User: "u v", Password: `p"#q`}}},
		"a password with a number": {"machine a password p#1", netrc.Logins{"a": {Password: "p#1"}}},
		"the first entry counts":   {"machine a login u\nmachine a login v", netrc.Logins{"a": {User: "u"}}},
		"default is nobody's":      {"default login u password p", netrc.Logins{}},
		"macros are left out":      {"macdef init\nmachine x login y\n\nmachine a login u", netrc.Logins{"a": {User: "u"}}},
		"cut off":                  {"machine a login", netrc.Logins{}},
		"account":                  {"machine a account z login u", netrc.Logins{"a": {User: "u"}}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, netrc.Parse(c.text)) })
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	none, err := netrc.Load(map[string]string{"HOME": dir})
	require.NoError(t, err)
	require.Empty(t, none)
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".netrc"), []byte("machine home login u"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "other"), []byte("machine other login u"), 0o600))
	home, err := netrc.Load(map[string]string{"HOME": dir})
	require.NoError(t, err)
	require.Contains(t, home, "home")
	other, err := netrc.Load(map[string]string{"HOME": dir, "NETRC": filepath.Join(dir, "other")})
	require.NoError(t, err)
	require.Contains(t, other, "other")
	_, err = netrc.Load(map[string]string{"NETRC": dir})
	require.ErrorContains(t, err, dir)
}

func TestALoginGoesToItsHostOnlyAndYieldsToAnother(t *testing.T) {
	var got []string
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = append(got, r.Header.Get("Authorization")) }))
	defer s.Close()
	other := strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	c := &http.Client{Transport: netrc.Logins{"127.0.0.1": {User: "u", Password: "p"}}.Transport(http.DefaultTransport)}
	for _, set := range []struct{ url, header string }{{s.URL, ""}, {other, ""}, {s.URL, "Bearer x"}} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, set.url, nil)
		require.NoError(t, err)
		if set.header != "" {
			req.Header.Set("Authorization", set.header)
		}
		resp, err := c.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
	require.Equal(t, []string{"Basic dTpw", "", "Bearer x"}, got)
}

func FuzzParse(f *testing.F) {
	f.Add("machine a login \"u password p\nmacdef x\n\ndefault")
	f.Fuzz(func(t *testing.T, text string) {
		for host := range netrc.Parse(text) {
			require.NotEmpty(t, host)
		}
	})
}
