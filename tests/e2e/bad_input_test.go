package e2e_test

import (
	"archive/tar"
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

func writeFile(path, data string) error { return os.WriteFile(path, []byte(data), 0o644) }

// TestBadInput: one clear error that says what, where and what to do, and the
// right exit code; nothing is pushed.
func TestBadInput(t *testing.T) {
	base := smallBase(t)
	reg := parts.SharedRegistry(t)
	ref := reg.Addr + "/bad:1"
	locked := parts.NewRegistry(t, "auth: {htpasswd: {realm: r, path: "+htpasswd(t)+"}}\n")
	liar := httptest.NewServer(lie(registry.New()))
	t.Cleanup(liar.Close)
	liarRef := strings.TrimPrefix(liar.URL, "http://") + "/base:1"
	parts.PushBase(t, liarRef, parts.SmallBase(t))

	escaping := reg.Addr + "/escaping:1"
	parts.PushBase(t, escaping, escapingLayer(t))

	cases := []struct {
		name       string
		dockerfile string
		args       []string
		code       int
		says       []string
	}{
		{"missing Dockerfile", "", nil, 1, []string{"Dockerfile"}},
		{"empty Dockerfile", "\n", nil, 1, []string{"Dockerfile"}},
		{"unknown instruction", "FROM " + base + "\nRUNN true\n", nil, 1, []string{"Dockerfile:2", "RUNN"}},
		{"missing context", "FROM " + base + "\n", []string{"--context", "/no/such/place"}, 1, []string{"/no/such/place"}},
		{"missing image", "FROM " + reg.Addr + "/nothing:1\n", nil, 3, []string{"Dockerfile:1", reg.Addr + "/nothing"}},
		{"registry that is not there", "FROM 127.0.0.1:1/x\n", nil, 3, []string{"127.0.0.1:1"}},
		{"no credentials to pull", "FROM " + locked.Addr + "/x:1\n", nil, 3, []string{locked.Addr, "credentials"}},
		{"no credentials to push", "FROM " + base + "\nRUN true\n", []string{"--destination", locked.Addr + "/x:1"}, 3, []string{locked.Addr, "credentials"}},
		{"registry that lies about a digest", "FROM " + liarRef + "\nRUN true\n", nil, 3, []string{"sha256:"}},
		{"layer that tries to escape its root", "FROM " + escaping + "\nRUN true\n", nil, 3, []string{"leave its root", "escaped"}},
		{"failing step", "FROM " + base + "\nRUN echo last words && exit 9\n", nil, 1, []string{"Dockerfile:2", "last words", "exit code: 9"}},
		{"unknown flag", "FROM scratch\n", []string{"--destinatoin", "x"}, 2, []string{"--destination"}},
		{"invalid destination", "FROM scratch\n", []string{"--destination", "UPPER/case"}, 2, []string{"UPPER/case"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{"x": "x"}
			if c.dockerfile != "" {
				files["Dockerfile"] = c.dockerfile
			}
			dir := buildContext(t, files)
			args := []string{"build", "--log-format", "plain", "--destination", ref}
			if len(c.args) == 0 || c.args[0] != "--context" {
				args = append(args, "--context", dir)
			}
			got := onHost(t, append(args, c.args...)...)
			require.Equal(t, c.code, got.code, got.output)
			for _, s := range c.says {
				require.Contains(t, got.output, s)
			}
			require.False(t, exists(t, ref))
		})
	}
}

// TestNoNetworkIsRefusedFirst: what the kernel does not allow is said before any
// step runs.
func TestNoNetworkIsRefusedFirst(t *testing.T) {
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + smallBase(t) + "\nRUN echo first-step-ran\nRUN --network=none true\n"})
	got := inJob(t, dir, "build", "--log-format", "plain", "-c", "/workspace", "--no-push")
	require.Equal(t, 4, got.code, got.output)
	require.Contains(t, got.output, "Dockerfile:3")
	require.Contains(t, got.output, "remedy: Leave out --network=none")
	require.NotContains(t, got.output, "#1 ", "no step began")
}

// TestStoreElsewhere: inplace needs its store on the file system of "/".
func TestStoreElsewhere(t *testing.T) {
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + smallBase(t) + "\nRUN true\n"})
	got := run(t, jobCommand(t.Context(), t, []string{"--tmpfs", "/elsewhere"}, dir,
		"build", "--log-format", "plain", "-c", "/workspace", "--no-push", "--isolation", "inplace", "--store", "/elsewhere/store"))
	require.Equal(t, 4, got.code, got.output)
	require.Contains(t, got.output, "/elsewhere")
}

// TestFullDisk: no space left is said so, with the place.
func TestFullDisk(t *testing.T) {
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + smallBase(t) + "\nCOPY big /big\n"})
	require.NoError(t, os.WriteFile(dir+"/big", make([]byte, 64<<20), 0o644))
	for says, more := range map[string][]string{
		"are free in /small/store, and a build should have": nil, // found out before anything runs
		"no space left": {"--min-free", "0"},
	} {
		got := run(t, jobCommand(t.Context(), t, []string{"--tmpfs", "/small:size=20m"}, dir,
			append([]string{"build", "--log-format", "plain", "-c", "/workspace", "--no-push", "--isolation", "chroot", "--store", "/small/store"}, more...)...))
		require.Equal(t, 4, got.code, got.output)
		require.Contains(t, got.output, says)
	}
}

// escapingLayer has an entry that would be outside of its root.
func escapingLayer(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "../../../escaped", Mode: 0o644}))
	require.NoError(t, w.Close())
	return buf.Bytes()
}

// lie changes a byte of every blob that is asked for.
func lie(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/sha256:") {
			next.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		if len(body) > 100_000 { // the layer, not the config
			body[len(body)/2] ^= 1
		}
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(body)
	})
}

// htpasswd is a password file for user "user", password "pass" (bcrypt).
func htpasswd(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/htpasswd"
	require.NoError(t, writeFile(path, "user:$2y$05$CsWsh8F7C.0CLDZ8y64rZuUV7fW5NXDQbIyQoDm9PBd9WIzeR5qNC\n"))
	return path
}
