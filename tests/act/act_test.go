// Package act runs the workflows that users copy as GitHub's runner would: by act,
// with a real Docker engine, our own image in place of the published one, and
// servers on loopback addresses in place of ghcr.io and others, under their names.
//
// Actions of others are replaced by stand-ins (testdata/actions), since there is no
// Internet. The workflows themselves are not changed.
package act_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

func TestMain(m *testing.M) { parts.Run(m) }

// What the stand-ins for the Internet's registries take as logins: the job's own
// token at ghcr.io, an account elsewhere.
const (
	actor    = "octocat"
	token    = "ghs_planted-token-1"
	account  = "user"
	password = "planted-secret-7"
)

// published is the image of action.yml.
const published = "ghcr.io/layerwright/layerwright:v1"

// world is what all workflows of this package run in.
type world struct {
	docker *parts.Docker
	// hub stands in for the registries, hosting for github.com, where repositories
	// are below the directory repositories; base is an image that Dockerfiles start
	// from, in a registry that needs no name.
	hub, hosting *parts.Named
	repositories string
	base         string
	act          string
}

var theWorld struct {
	sync.Once
	*world
}

// inWorld starts everything once.
func inWorld(t *testing.T) *world {
	t.Helper()
	d, reg := parts.Engine(t), parts.SharedRegistry(t)
	theWorld.Do(func() {
		w := &world{docker: d, base: reg.Addr + "/small:1", act: filepath.Join(parts.Repo(), "bin", "act")}
		make := exec.CommandContext(t.Context(), "make", "-s", "bin/act")
		make.Dir = parts.Repo()
		out, err := make.CombinedOutput()
		require.NoError(t, err, string(out))
		parts.PushBase(t, w.base, parts.SmallBase(t))
		d.Must(t, "import", parts.DebianTar(t), "runner:test")
		w.hub = parts.NewNamed(t, "ghcr.io", "index.docker.io", "registry.example")
		w.hub.Registry(t, map[string]string{actor: token, "team": token, account: password})
		w.host(t)
		certificates := "IMAGE_CERTIFICATES=" + parts.Trusting(t, w.hub, w.hosting)
		d.Must(t, "tag", parts.ProductImage(t, d, "executor", certificates), published)
		d.Must(t, "tag", parts.ProductImage(t, d, "debug", certificates), published+"-debug")
		theWorld.world = w
	})
	require.NotNil(t, theWorld.world, "the first test could not start everything")
	return theWorld.world
}

// job is one run of a workflow.
type job struct {
	// workflow is the file's name in the checkout of this project.
	workflow string
	// files are those of the user's repository; tag is a tag of its commit, and
	// the event is then the push of the tag.
	files map[string]string
	tag   string
	// event is the event's name (push when empty), payload its JSON.
	event, payload string
	// uses replaces an action by another one: the one change of a switch.
	uses map[string]string
	// login lets the action see what docker/login-action has written, as
	// docs/github.md says.
	login bool
	// args are further ones of act.
	args []string
}

// line is one of act's log.
type line struct {
	Msg, Command, Name, Arg, JobResult, Level string
	Job                                       string
	StepID                                    []string
	Raw                                       bool `json:"raw_output"`
}

// ended is what a run came to.
type ended struct {
	// log is what the steps have written, all is act's own words too.
	log, all string
	ok       bool
	// outputs are those of all steps, in the order in which they were set.
	outputs []line
	dir     string
}

// output is the value of a step's output that was set last.
func (e *ended) output(name string) (value string) {
	for _, o := range e.outputs {
		if o.Name == name {
			value = o.Arg
		}
	}
	return value
}

// repository makes a user's repository with one commit on main.
func repository(t *testing.T, files map[string]string, tag string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		mode := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
	}
	commands := [][]string{{"init", "-q", "-b", "main"}, {"remote", "add", "origin", "https://github.com/team/app.git"}, {"add", "-A"}, {"commit", "-q", "-m", "everything"}}
	if tag != "" {
		commands = append(commands, []string{"tag", tag})
	}
	for _, c := range commands {
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example"}, c...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
	return dir
}

// run runs a workflow with act.
func (w *world) run(t *testing.T, j job) *ended {
	t.Helper()
	e := &ended{dir: repository(t, j.files, j.tag)}
	home, payload := t.TempDir(), j.payload
	require.NoError(t, errors.Join(os.MkdirAll(filepath.Join(w.repositories, "team"), 0o755), os.RemoveAll(filepath.Join(w.repositories, "team/app.git")),
		os.Symlink(filepath.Join(e.dir, ".git"), filepath.Join(w.repositories, "team/app.git"))))
	if payload == "" {
		ref := "refs/heads/main"
		if j.tag != "" {
			ref = "refs/tags/" + j.tag
		}
		payload = fmt.Sprintf(`{"ref":%q,"repository":{"name":"app","full_name":"team/app","default_branch":"main","html_url":"https://github.com/team/app"}}`, ref)
	}
	event := filepath.Join(home, "event.json")
	require.NoError(t, os.WriteFile(event, []byte(payload), 0o644))
	actions := filepath.Join(parts.Repo(), "tests/act/testdata/actions")
	name := j.event
	if name == "" {
		name = "push"
	}
	args := []string{name, "--json", "-W", j.file(t, home), "-C", e.dir, "-e", event, "--actor", actor,
		"-s", "GITHUB_TOKEN=" + token, "-s", "NPM_TOKEN=" + password, "-s", "REGISTRY_PASSWORD=" + password, "--var", "REGISTRY_USER=" + account,
		"--rm", "--pull=false", "--no-cache-server", "--container-daemon-socket", "-",
		"--container-options", "--network host " + strings.Join(w.names(), " "),
		"--local-repository", "layerwright/layerwright@v1=" + parts.Repo()}
	for _, runner := range []string{"ubuntu-latest", "ubuntu-24.04", "ubuntu-24.04-arm"} {
		args = append(args, "-P", runner+"=runner:test")
	}
	for _, standIn := range standIns(t, actions) {
		args = append(args, "--local-repository", standIn)
	}
	if j.login {
		args = append(args, "--env", "DOCKER_CONFIG="+filepath.Join(e.dir, ".docker"))
	}
	cmd := exec.CommandContext(t.Context(), w.act, append(args, j.args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_CACHE_HOME=" + home, "DOCKER_HOST=" + w.docker.Host, "ACT_DISABLE_VERSION_CHECK=1"}
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	e.ok = cmd.Run() == nil
	e.read(&out)
	e.all += stderr.String()
	return e
}

// file is the workflow's file.
func (j job) file(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(parts.Repo(), j.workflow)
	if j.uses == nil {
		return path
	}
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	text := string(data)
	for from, to := range j.uses {
		require.Equal(t, 1, strings.Count(text, "uses: "+from+"\n"))
		text = strings.Replace(text, "uses: "+from+"\n", "uses: "+to+"\n", 1)
	}
	path = filepath.Join(dir, filepath.Base(path))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// names are arguments of docker run with which containers find the stand-ins.
func (w *world) names() []string { return append(w.hub.Docker(), w.hosting.Docker()...) }

// host serves the repositories that runs make as https://github.com/team/app, to
// whoever has the job's token.
func (w *world) host(t *testing.T) {
	t.Helper()
	var err error
	w.repositories, err = os.MkdirTemp("", "repositories-")
	require.NoError(t, err)
	parts.AtEnd(func() { os.RemoveAll(w.repositories) })
	core, err := exec.CommandContext(t.Context(), "git", "--exec-path").Output()
	require.NoError(t, err)
	git := &cgi.Handler{Path: filepath.Join(strings.TrimSpace(string(core)), "git-http-backend"), Root: "/",
		Env: []string{"GIT_PROJECT_ROOT=" + w.repositories, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}}
	w.hosting = parts.NewNamed(t, "github.com")
	l, err := net.Listen("tcp", w.hosting.IP+":443")
	require.NoError(t, err)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if _, got, _ := r.BasicAuth(); got != token {
			rw.Header().Set("WWW-Authenticate", "Basic realm=git")
			http.Error(rw, "no token", http.StatusUnauthorized)
			return
		}
		git.ServeHTTP(rw, r)
	})}
	go func() { _ = server.ServeTLS(l, w.hosting.CertFile, w.hosting.KeyFile) }()
	parts.AtEnd(func() { _ = server.Close() })
}

// read takes act's log apart.
func (e *ended) read(log *bytes.Buffer) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l line
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			e.all += lines.Text() + "\n"
			continue
		}
		e.all += strings.TrimSuffix(l.Msg, "\n") + "\n"
		if l.Raw {
			e.log += strings.TrimSuffix(l.Msg, "\n") + "\n"
		}
		if l.Command == "set-output" {
			e.outputs = append(e.outputs, l)
		}
	}
}

// standIns are the actions below dir, as act wants them: OWNER/NAME@VERSION=DIR.
func standIns(t *testing.T, dir string) (list []string) {
	t.Helper()
	found, err := filepath.Glob(dir + "/*/*@*/action.yml")
	require.NoError(t, err)
	for _, f := range found {
		action := filepath.Dir(f)
		name, err := filepath.Rel(dir, action)
		require.NoError(t, err)
		list = append(list, name+"="+action)
	}
	return list
}

// pushed is an image that a workflow has pushed; of several platforms that of this
// machine.
func (w *world) pushed(t *testing.T, ref string) v1.Image {
	t.Helper()
	at, options := w.remote(t, ref)
	img, err := remote.Image(at, options...)
	require.NoError(t, err, ref)
	return img
}

// platforms are those of an index; nil of an image.
func (w *world) platforms(t *testing.T, ref string) (list []string) {
	t.Helper()
	at, options := w.remote(t, ref)
	d, err := remote.Get(at, options...)
	require.NoError(t, err)
	if !d.MediaType.IsIndex() {
		return nil
	}
	index, err := d.ImageIndex()
	require.NoError(t, err)
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	for _, m := range manifest.Manifests {
		list = append(list, m.Platform.String())
	}
	return list
}

func (w *world) remote(t *testing.T, ref string) (name.Reference, []remote.Option) {
	t.Helper()
	r, err := name.ParseReference(ref)
	require.NoError(t, err)
	return r, []remote.Option{remote.WithTransport(w.hub.Transport(t)), remote.WithAuth(&authn.Basic{Username: account, Password: password}), remote.WithContext(t.Context())}
}

// labels are those of an image.
func labels(t *testing.T, img v1.Image) map[string]string {
	t.Helper()
	conf, err := img.ConfigFile()
	require.NoError(t, err)
	return conf.Config.Labels
}

// file is a file of an image.
func file(t *testing.T, img v1.Image, path string) string {
	t.Helper()
	stream := mutate.Extract(img)
	defer stream.Close()
	for r := tar.NewReader(stream); ; {
		h, err := r.Next()
		require.NoError(t, err, path)
		if h.Name == path {
			data, err := io.ReadAll(r)
			require.NoError(t, err)
			return string(data)
		}
	}
}

// commit is the commit of a run's repository.
func (e *ended) commit(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", "-C", e.dir, "rev-parse", "HEAD").Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}
