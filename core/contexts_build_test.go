package core

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/needs"
)

// buildFiles builds and gives the files of the image: name to content, or to
// where a link leads.
func buildFiles(t *testing.T, req Request) (map[string]string, error) {
	t.Helper()
	needs.Root(t)
	out := filepath.Join(t.TempDir(), "out")
	req.Chosen, req.Snapshots, req.Store, req.Outputs.OCILayout = "chroot", "flat", t.TempDir(), out
	res, err := Build(t.Context(), req)
	if err != nil {
		return nil, err
	}
	idx, err := layout.ImageIndexFromPath(out)
	require.NoError(t, err)
	manifest, err := idx.IndexManifest()
	require.NoError(t, err)
	require.Equal(t, res.Digest, manifest.Manifests[0].Digest.String())
	img, err := idx.Image(manifest.Manifests[0].Digest)
	require.NoError(t, err)
	files := map[string]string{}
	r := mutate.Extract(img)
	defer r.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		require.NoError(t, err)
		data, err := io.ReadAll(tr)
		require.NoError(t, err)
		switch h.Typeflag {
		case tar.TypeReg:
			files[h.Name] = string(data)
		case tar.TypeSymlink:
			files[h.Name] = "-> " + h.Linkname
		}
	}
}

type entry struct{ name, data, link string }

func archive(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.data)), Typeflag: tar.TypeReg}
		if e.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		}
		require.NoError(t, w.WriteHeader(h))
		_, err := w.Write([]byte(e.data))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(data)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.Bytes()
}

func zstandard(t *testing.T, data []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return z.EncodeAll(data, nil)
}

// packedBy is what a program makes of data.
func packedBy(t *testing.T, program string, data []byte) []byte {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		needs.Missing(t, err.Error())
	}
	c := exec.CommandContext(t.Context(), program, "-c")
	c.Stdin = bytes.NewReader(data)
	out, err := c.Output()
	require.NoError(t, err)
	return out
}

// served answers for paths, and counts.
type served struct {
	url   string
	mu    sync.Mutex
	asked map[string]int
}

func serveFiles(t *testing.T, files map[string][]byte) *served {
	t.Helper()
	s := &served{asked: map[string]int{}}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked[r.URL.Path]++
		s.mu.Unlock()
		data, ok := files[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write(data)
	}))
	t.Cleanup(h.Close)
	s.url = h.URL
	return s
}

func TestAContextFromEverywhereIsTheSame(t *testing.T) {
	plain := archive(t, entry{name: "Dockerfile", data: "FROM scratch\nCOPY . /\n"}, entry{name: "a/f", data: "1"}, entry{name: "l", link: "/a/f"}, entry{name: ".dockerignore", data: "a\n"})
	want := map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n", "a/f": "1", "l": "-> /a/f", ".dockerignore": "a\n"}
	dir := t.TempDir()
	for name, data := range map[string][]byte{"plain": plain, "gzip": gzipped(t, plain), "zstd": zstandard(t, plain), "xz": packedBy(t, "xz", plain), "bzip2": packedBy(t, "bzip2", plain)} {
		t.Run(name, func(t *testing.T) {
			s := serveFiles(t, map[string][]byte{"/c": data})
			file := filepath.Join(dir, name)
			require.NoError(t, os.WriteFile(file, data, 0o600))
			for _, req := range []Request{
				{Context: "-", Stdin: bytes.NewReader(data)},
				{Context: "tar://stdin", Stdin: bytes.NewReader(data)},
				{Context: "tar://" + file},
				{Context: s.url + "/c"},
			} {
				got, err := buildFiles(t, req)
				require.NoError(t, err, req.Context)
				require.Equal(t, want, got, req.Context)
			}
			require.Equal(t, 1, s.asked["/c"], "downloaded once")
		})
	}
}

func TestTheDockerfileFromElsewhere(t *testing.T) {
	s := serveFiles(t, map[string][]byte{
		"/c":    archive(t, entry{name: "f", data: "1"}, entry{name: "Dockerfile", data: "FROM no.test/where\n"}, entry{name: "sub/D", data: "FROM scratch\nCOPY f /sub\n"}),
		"/D":    []byte("FROM scratch\nCOPY f /url\n"),
		"/solo": []byte("FROM scratch\nCOPY context /solo\n"),
		"/page": []byte("<!doctype html>\n"),
	})
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte("here"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "D"), []byte("FROM scratch\nCOPY f /file\n"), 0o644))
	for _, c := range []struct {
		req  Request
		want string
	}{
		{Request{Context: s.url + "/c", Dockerfile: s.url + "/D"}, "url"},
		{Request{Context: dir, Dockerfile: s.url + "/D"}, "url"},
		{Request{Context: s.url + "/c", Dockerfile: "sub/D"}, "sub"},
		{Request{Context: s.url + "/c", Dockerfile: filepath.Join(dir, "D")}, "file"},
		{Request{Context: s.url + "/c", DockerfileData: []byte("FROM scratch\nCOPY f /data\n")}, "data"},
		{Request{Context: s.url + "/solo"}, "solo"},
	} {
		got, err := buildFiles(t, c.req)
		require.NoError(t, err, c.want)
		require.Len(t, got, 1)
		require.Contains(t, got, c.want)
	}
	got, err := buildFiles(t, Request{Context: "-", Stdin: strings.NewReader("FROM scratch\nCOPY . /\n")})
	require.NoError(t, err)
	require.Empty(t, got, "a Dockerfile from standard input has an empty context")
	_, err = buildFiles(t, Request{Context: dir, Dockerfile: s.url + "/page"})
	require.ErrorContains(t, err, "HTML page")
}

func TestNamedContextsFromElsewhere(t *testing.T) {
	data := archive(t, entry{name: "f", data: "1"})
	s := serveFiles(t, map[string][]byte{"/c": data})
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY --from=files . /\n"), 0o644))
	got, err := buildFiles(t, Request{Context: dir, NamedContexts: map[string]string{"files": s.url + "/c"}})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"context": string(data)}, got, "as it is, as in BuildKit")

	// What one build has written is another one's base.
	made := filepath.Join(t.TempDir(), "layout")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Base"), []byte("FROM scratch\nCOPY Base /base\nENV A=1\n"), 0o644))
	_, err = Build(t.Context(), Request{Context: dir, Dockerfile: filepath.Join(dir, "Base"), Chosen: "chroot", Snapshots: "flat", Store: t.TempDir(),
		Outputs: Outputs{OCILayout: made, Destinations: []string{"x.test/base:v1"}, NoPush: true}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM base\nCOPY --from=base /base /copy$A\n"), 0o644))
	for _, name := range []string{"", ":v1"} {
		got, err = buildFiles(t, Request{Context: dir, NamedContexts: map[string]string{"base": "oci-layout://" + made + name}})
		require.NoError(t, err, name)
		require.Equal(t, []string{"FROM scratch\nCOPY Base /base\nENV A=1\n"}, []string{got["base"]})
		require.Equal(t, got["base"], got["copy1"])
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch AS dep\nCOPY Base /dep\nFROM base\nCOPY --from=base /dep /two\n"), 0o644))
	got, err = buildFiles(t, Request{Context: dir, NamedContexts: map[string]string{"base": "target:dep"}})
	require.NoError(t, err)
	require.Equal(t, got["dep"], got["two"])
	require.NotEmpty(t, got["two"])
}

func TestContextsThatCannotBeBuilt(t *testing.T) {
	s := serveFiles(t, map[string][]byte{"/page": []byte("<html>"), "/cut": archive(t, entry{name: "f", data: strings.Repeat("1", 2000)})[:1500]})
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY --from=x . /\n"), 0o644))
	named := func(value string) Request {
		return Request{Context: dir, NamedContexts: map[string]string{"x": value}}
	}
	object := func(where string) Request {
		return Request{Context: where, Registry: Registry{Environment: map[string]string{"S3_ENDPOINT": s.url, "S3_FORCE_PATH_STYLE": "true", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "planted-key"}}}
	}
	for what, c := range map[string]struct {
		req  Request
		kind fault.Kind
		text string
	}{
		"empty stream":        {Request{Context: "-", Stdin: strings.NewReader("")}, fault.User, "that is empty"},
		"no stream":           {Request{Context: "-"}, fault.Usage, "no standard input"},
		"stream of no tar":    {Request{Context: "tar://stdin", Stdin: strings.NewReader("FROM scratch\n")}, fault.User, "not a tar archive"},
		"two Dockerfiles":     {Request{Context: "-", Dockerfile: "D", Stdin: strings.NewReader("FROM scratch\n")}, fault.User, "another one was named"},
		"file of no tar":      {Request{Context: "tar://" + dir + "/Dockerfile"}, fault.User, "not a tar archive"},
		"missing file":        {Request{Context: "tar://" + dir + "/none"}, fault.User, "no such file"},
		"directory as tar":    {Request{Context: "tar://" + dir}, fault.User, "is a directory"},
		"unknown scheme":      {Request{Context: "ftp://x.test/f"}, fault.Usage, "unknown scheme"},
		"a bucket alone":      {Request{Context: "s3://bucket"}, fault.Usage, "s3://BUCKET/ARCHIVE"},
		"no such object":      {object("s3://bucket/none"), fault.Registry, "no such bucket or object"},
		"404":                 {Request{Context: s.url + "/none"}, fault.Registry, "404"},
		"a page":              {Request{Context: s.url + "/page"}, fault.User, "HTML page"},
		"a cut archive":       {Request{Context: s.url + "/cut"}, fault.User, "unexpected EOF"},
		"no server":           {Request{Context: "http://127.0.0.1:1/f", Registry: Registry{PullRetries: -1}}, fault.Registry, "refused"},
		"Dockerfile 404":      {Request{Context: dir, Dockerfile: s.url + "/none"}, fault.Registry, "404"},
		"no Dockerfile in it": {Request{Context: "-", Stdin: bytes.NewReader(archive(t, entry{name: "f"}))}, fault.User, "Dockerfile"},
		"climbing names":      {Request{Context: "-", Stdin: bytes.NewReader(archive(t, entry{name: "../up", data: "x"}))}, fault.User, "leave its root"},
		"missing layout":      {named("oci-layout:///none/here"), fault.User, "no such file"},
		"no layout":           {named("oci-layout://" + dir), fault.User, "no index.json"},
		"a bad digest":        {named("oci-layout://" + dir + "@sha256:00"), fault.Usage, "sha256:00"},
		"named stream":        {named("-"), fault.Usage, "cannot be a named context"},
		"named scheme":        {named("gs://x/y"), fault.Usage, "only be the main context"},
		"missing directory":   {named(dir + "/none"), fault.User, "no such file"},
		"unknown stage":       {named("target:none"), fault.User, `stage "none"`},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := buildFiles(t, c.req)
			require.ErrorContains(t, err, c.text)
			e, ok := fault.As(err)
			require.True(t, ok)
			require.Equal(t, c.kind, e.Kind)
			require.NotEmpty(t, e.Remedy)
		})
	}
}

func TestLinksOutOfAnArchiveReadNothing(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(outside, []byte("planted"), 0o644))
	for _, link := range []string{outside, "../../../../../../../../../../.." + outside} {
		_, err := buildFiles(t, Request{Context: "-", Stdin: bytes.NewReader(archive(t, entry{name: "Dockerfile", data: "FROM scratch\nCOPY l /x\n"}, entry{name: "l", link: link}))})
		e, ok := fault.As(err)
		require.True(t, ok)
		require.Equal(t, 2, e.Location.Start)
		require.NotContains(t, err.Error(), "planted")
	}
}

func TestWaitingForAStreamCanBeCancelled(t *testing.T) {
	needs.Root(t)
	r, w := io.Pipe()
	defer w.Close()
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	go cancel(stop)
	_, err := Build(ctx, Request{Context: "-", Stdin: r, Chosen: "chroot", Snapshots: "flat", Store: t.TempDir()})
	require.ErrorIs(t, err, stop)
}

func TestAnADDThatFailsNamesItsLine(t *testing.T) {
	s := serveFiles(t, map[string][]byte{"/page": []byte("<html>")})
	for line, text := range map[string]string{
		"ADD " + s.url + "/none /x":                                                    "404",
		"ADD --unpack=true " + s.url + "/page /x/":                                     "HTML page",
		"ADD --checksum=sha256:" + strings.Repeat("0", 64) + " " + s.url + "/page /x/": "digest mismatch",
	} {
		_, err := buildFiles(t, Request{Context: "-", Stdin: strings.NewReader("FROM scratch\nLABEL a=b\n" + line + "\n")})
		require.ErrorContains(t, err, text)
		e, ok := fault.As(err)
		require.True(t, ok)
		require.NotNil(t, e.Location, text)
		require.Equal(t, 3, e.Location.Start)
		require.NotEmpty(t, e.Remedy)
	}
}

// TestContextsInObjectStores: the server is S3's, asked with a signature for just
// this object.
func TestContextsInObjectStores(t *testing.T) {
	data := gzipped(t, archive(t, entry{name: "sub/Dockerfile", data: "FROM scratch\nCOPY f /f\n"}, entry{name: "sub/f", data: "from a bucket"}))
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/bucket/dir/context.tar.gz" || !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=id/") {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = w.Write(data)
	}))
	defer h.Close()
	env := map[string]string{"S3_ENDPOINT": h.URL, "S3_FORCE_PATH_STYLE": "true", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "planted-key"}
	files, err := buildFiles(t, Request{Context: "s3://bucket/dir/context.tar.gz", ContextSubPath: "sub", Registry: Registry{Environment: env}})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"f": "from a bucket"}, files)
	_, err = buildFiles(t, Request{Context: "s3://bucket/other", Registry: Registry{Environment: env}})
	require.ErrorContains(t, err, "these keys may not read it")
	require.NotContains(t, err.Error(), "planted-key")
}

// TestAPartOfTheContext is --context-sub-path, for each kind of context.
func TestAPartOfTheContext(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o755))
	tarred := archive(t, entry{name: "a/b/Dockerfile", data: "FROM scratch\nCOPY . /\n"}, entry{name: "a/b/f", data: "below"}, entry{name: "above", data: "x"})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a/b/Dockerfile"), []byte("FROM scratch\nCOPY . /\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a/b/f"), []byte("below"), 0o600))
	file := filepath.Join(t.TempDir(), "context.tar")
	require.NoError(t, os.WriteFile(file, tarred, 0o600))
	s := serveFiles(t, map[string][]byte{"/c.tgz": gzipped(t, tarred)})
	want := map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n", "f": "below"}
	for what, req := range map[string]Request{
		"directory": {Context: dir}, "tar": {Context: "tar://" + file}, "stream": {Context: "-", Stdin: bytes.NewReader(tarred)}, "URL": {Context: s.url + "/c.tgz"},
	} {
		t.Run(what, func(t *testing.T) {
			req.ContextSubPath = "a/b"
			files, err := buildFiles(t, req)
			require.NoError(t, err)
			require.Equal(t, want, files)
			req.ContextSubPath = "../b"
			_, err = buildFiles(t, req)
			require.ErrorContains(t, err, "is not in the context")
		})
	}
	_, err := buildFiles(t, Request{Context: "-", ContextSubPath: "a", Stdin: strings.NewReader("FROM scratch\n")})
	require.ErrorContains(t, err, "it has no directory a")
}

// TestADigestIsPutToAURL, as Kaniko does it.
func TestADigestIsPutToAURL(t *testing.T) {
	got := map[string]string{}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		got[r.Method+" "+r.URL.Path] = string(data)
		if r.URL.Path == "/refused" {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer h.Close()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nLABEL a=b\n"), 0o600))
	out := Outputs{DigestFile: h.URL + "/digest", NameDigestFile: h.URL + "/name", NoPush: true, Destinations: []string{"r.example/app:1"}}
	_, err := buildFiles(t, Request{Context: dir, Outputs: out})
	require.NoError(t, err)
	require.Regexp(t, "^sha256:[0-9a-f]{64}$", got["PUT /digest"])
	require.Equal(t, "r.example/app@"+got["PUT /digest"]+"\n", got["PUT /name"])
	out.DigestFile = h.URL + "/refused?sig=planted"
	_, err = buildFiles(t, Request{Context: dir, Outputs: out})
	require.ErrorContains(t, err, "403 Forbidden")
	require.NotContains(t, err.Error(), "planted")
}

// TestStepsOnAnOCILayoutAreKnown to the cache.
func TestStepsOnAnOCILayoutAreKnown(t *testing.T) {
	needs.Root(t)
	dir, base := t.TempDir(), filepath.Join(t.TempDir(), "base")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte("f"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Base"), []byte("FROM scratch\nCOPY f /base\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM base\nCOPY f /f\n"), 0o644))
	req := Request{Context: dir, Dockerfile: filepath.Join(dir, "Base"), Chosen: "chroot", Snapshots: "flat", Store: t.TempDir(), Outputs: Outputs{OCILayout: base}}
	_, err := Build(t.Context(), req)
	require.NoError(t, err)
	req.Dockerfile, req.Outputs = filepath.Join(dir, "Dockerfile"), Outputs{}
	req.NamedContexts, req.Cache = map[string]string{"base": "oci-layout://" + base}, Cache{Repo: "oci:" + t.TempDir(), TTL: time.Hour}
	for _, known := range []bool{false, true} {
		res, err := Build(t.Context(), req)
		require.NoError(t, err)
		require.Len(t, res.Cache, 1)
		require.Equal(t, known, res.Cache[0].Hit, res.Cache[0].Why)
	}
}

// TestAnArchiveMayLinkToFilesOfItsBase: what it links to is read, also where nothing
// else of the base is.
func TestAnArchiveMayLinkToFilesOfItsBase(t *testing.T) {
	needs.Root(t)
	dir, base := t.TempDir(), filepath.Join(t.TempDir(), "base")
	big := strings.Repeat("x", 1<<20)
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: "linked", Linkname: "big"}))
	require.NoError(t, w.Close())
	for name, text := range map[string]string{"big": big, "a.tar": archive.String(), "Base": "FROM scratch\nCOPY big /big\n", "Dockerfile": "FROM base\nADD a.tar /\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	req := Request{Context: dir, Dockerfile: filepath.Join(dir, "Base"), Chosen: "chroot", Snapshots: "flat", Store: t.TempDir(), Outputs: Outputs{OCILayout: base}}
	_, err := Build(t.Context(), req)
	require.NoError(t, err)
	layers := filepath.Join(t.TempDir(), "image")
	req.Dockerfile, req.NamedContexts, req.Outputs = filepath.Join(dir, "Dockerfile"), map[string]string{"base": "oci-layout://" + base}, Outputs{OCILayout: layers}
	_, err = Build(t.Context(), req)
	require.NoError(t, err)
	root := t.TempDir()
	req.NamedContexts["base"], req.Outputs = "oci-layout://"+layers, Outputs{RootDir: root}
	require.NoError(t, os.WriteFile(req.Dockerfile, []byte("FROM base\n"), 0o644))
	_, err = Build(t.Context(), req)
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(root, "linked"))
	require.NoError(t, err)
	require.Equal(t, big, string(got))
}
