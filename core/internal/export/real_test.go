package export

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/layerwright/layerwright/core/internal/needs"
	"github.com/layerwright/layerwright/core/internal/registry"
)

// distribution starts a real registry and returns its host and its log.
func distribution(t *testing.T, auth string) (string, func() string) {
	t.Helper()
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		needs.Missing(t, "docker-registry (Debian package docker-registry) is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	host := l.Addr().String()
	require.NoError(t, l.Close())
	dir := t.TempDir()
	conf := filepath.Join(dir, "config.yml")
	require.NoError(t, os.WriteFile(conf, fmt.Appendf(nil, `version: 0.1
log: {level: info, accesslog: {disabled: false}}
storage: {filesystem: {rootdirectory: %s}}
http: {addr: %q}
%s`, filepath.Join(dir, "data"), host, auth), 0o600))
	logfile, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), bin, "serve", conf) //nolint:gosec // found in PATH
	cmd.Stdout, cmd.Stderr = logfile, logfile
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = logfile.Close()
	})
	require.Eventually(t, func() bool {
		resp, err := http.Get("http://" + host + "/v2/") //nolint:noctx // a test's poll
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return true
	}, 20*time.Second, 50*time.Millisecond)
	return host, func() string {
		b, err := os.ReadFile(logfile.Name())
		require.NoError(t, err)
		return string(b)
	}
}

func uploads(log, repo string) int {
	return strings.Count(log, `"PUT /v2/`+repo+`/blobs/uploads/`)
}

func TestRealRegistryPushMountAndConcurrency(t *testing.T) {
	host, log := distribution(t, "")
	c := newClient(t, "")
	base := image(t)
	_, err := finish(t, c, base, nil, host+"/base:1")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return uploads(log(), "base") == 4 }, 5*time.Second, 20*time.Millisecond, "three layers and the config")

	resolved, err := c.Resolve(t.Context(), host+"/base:1", nil)
	require.NoError(t, err)
	p, err := NewPush(t.Context(), c, []string{host + "/other:1"}, false)
	require.NoError(t, err)
	defer p.Close()
	_, err = p.Finish(t.Context(), mounted{base, resolved.Layers})
	require.NoError(t, err)
	_, err = c.Resolve(t.Context(), host+"/other:1", nil)
	require.NoError(t, err)
	require.LessOrEqual(t, uploads(log(), "other"), 1, "layers are mounted, only a config is sent")

	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			_, err := finish(t, c, image(t), nil, fmt.Sprintf("%s/many:%d", host, i))
			require.NoError(t, err)
		})
	}
	wg.Wait()
	for i := range 8 {
		_, err := c.Resolve(t.Context(), fmt.Sprintf("%s/many:%d", host, i), nil)
		require.NoError(t, err)
	}
	_, err = finish(t, c, index(t), nil, host+"/multi:1")
	require.NoError(t, err)
}

// mounted is an image whose layers come from a registry.
type mounted struct {
	v1.Image
	layers []v1.Layer
}

func (m mounted) Layers() ([]v1.Layer, error) { return m.layers, nil }

func TestRealRegistryAuthentication(t *testing.T) {
	file := filepath.Join(t.TempDir(), "htpasswd")
	hash, err := bcrypt.GenerateFromPassword([]byte("planted-secret"), bcrypt.MinCost)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, append([]byte("u:"), hash...), 0o600))
	host, _ := distribution(t, "auth: {htpasswd: {realm: test, path: "+file+"}}\n")
	login := func(password string) *registry.Client {
		return newClient(t, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("u:"+password))))
	}
	img := image(t)
	_, err = finish(t, newClient(t, ""), img, nil, host+"/app:1")
	require.ErrorIs(t, err, registry.ErrDenied)
	require.ErrorContains(t, err, "no credentials")
	_, err = finish(t, login("wrong-secret"), img, nil, host+"/app:1")
	require.ErrorIs(t, err, registry.ErrDenied)
	require.NotContains(t, err.Error(), "wrong-secret")
	c := login("planted-secret")
	_, err = finish(t, c, img, nil, host+"/app:1")
	require.NoError(t, err)
	got, err := c.Resolve(t.Context(), host+"/app:1", nil)
	require.NoError(t, err)
	rc, err := got.Layers[0].Compressed()
	require.NoError(t, err)
	require.NoError(t, rc.Close())
}
