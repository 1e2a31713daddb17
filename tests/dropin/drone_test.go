package dropin_test

import (
	"archive/tar"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/plugin/recorded"
	"github.com/layerwright/layerwright/tests/dronefile"
	"github.com/layerwright/layerwright/tests/parts"
)

// Drone's variables of a tag and of a branch, beyond the recorded ones.
func ofATag(tag string) map[string]string {
	return map[string]string{"DRONE_TAG": tag, "DRONE_BUILD_EVENT": "tag", "DRONE_COMMIT_REF": "refs/tags/" + tag}
}

func ofABranch(branch string) map[string]string {
	return map[string]string{"DRONE_TAG": "", "DRONE_BUILD_EVENT": "push", "DRONE_COMMIT_REF": "refs/heads/" + branch, "DRONE_BRANCH": branch}
}

// switched is a pipeline of testdata/drone, and what its documentation promises.
type switched struct {
	file  string
	event map[string]string
	// user and password open the registry.
	user, password string
	// repository is where the tags are; none where nothing is to be built.
	repository string
	tags       []string
	// word is the content of /word.
	word string
	// says is part of the log.
	says string
}

// TestDronesPipelines changes their image line and nothing else: drone-docker's and
// drone-kaniko's settings build the image with the tags that they did, in registries
// that bear the names of the documentation.
func TestDronesPipelines(t *testing.T) {
	base := parts.SharedRegistry(t).Addr + "/small:1"
	parts.PushBase(t, base, parts.SmallBase(t))
	for name, s := range map[string]switched{
		"drone-docker, a file with tags": {"docker-tags-file", ofATag("v1.2.3"), "kevinbacon", "pa55word", "index.docker.io/foo/bar", []string{"5.2.6", "5.2.4"}, "root\n", ""},
		"drone-docker, automatic tags of a tag": {"docker-auto-tag", ofATag("v1.0.0"), "kevinbacon", "pa55word", "index.docker.io/foo/bar",
			[]string{"1-linux-amd64", "1.0-linux-amd64", "1.0.0-linux-amd64"}, "root\n", ""},
		"drone-docker, automatic tags before a release":        {"docker-auto-tag", ofATag("v1.0.0-rc.1"), "kevinbacon", "pa55word", "index.docker.io/foo/bar", []string{"1.0.0-rc.1-linux-amd64"}, "root\n", ""},
		"drone-docker, automatic tags of the default branch":   {"docker-auto-tag", ofABranch("main"), "kevinbacon", "pa55word", "index.docker.io/foo/bar", []string{"linux-amd64"}, "root\n", ""},
		"drone-docker, automatic tags ignore any other branch": {"docker-auto-tag", ofABranch("topic"), "kevinbacon", "pa55word", "index.docker.io/foo/bar", nil, "", "nothing is built: "},
		"drone-docker, another registry and Dockerfile":        {"docker-registry", ofABranch("topic"), "user", "planted-secret-7", "index.company.com/foo/bar", []string{"latest", "1.0.1", "1.0"}, "path a,b c\n", ""},
		"drone-kaniko, expanded tags":                          {"kaniko-expand-tag", ofATag("v1.2.3"), "foo", "bar", "index.docker.io/foo/bar", []string{"1", "1.2", "1.2.3", "latest"}, "root\n", ""},
		"drone-kaniko, a cache": {"kaniko-cache", ofABranch("main"), "user", "planted-secret-7", "registry.example.com/example-project", []string{"0123456789abcdef"},
			"root 0123456789abcdef noreply@drone\n", "cache   "},
		"drone-kaniko, a step that builds and one that pushes": {"kaniko-modes", ofABranch("main"), "foo", "bar", "index.docker.io/foo/bar", []string{"1.2", "latest"}, "root\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			host, _, _ := strings.Cut(s.repository, "/")
			named := parts.NewNamed(t, host)
			named.Registry(t, map[string]string{s.user: s.password})
			log := s.run(t, base, named)
			require.Contains(t, log, s.says)
			require.NotContains(t, log, "planted-secret-7")
			require.NotContains(t, log, "is unknown")
			at := stored{named.Transport(t), &authn.Basic{Username: s.user, Password: s.password}}
			require.ElementsMatch(t, s.tags, at.tags(t, s.repository))
			if s.file == "kaniko-cache" {
				require.NotEmpty(t, at.tags(t, s.repository+"/cache"))
			}
			var digests []string
			for _, tag := range s.tags {
				img := at.image(t, s.repository+":"+tag)
				require.Equal(t, s.word, word(t, img))
				d, err := img.Digest()
				require.NoError(t, err)
				digests = append(digests, d.String())
			}
			for _, d := range digests {
				require.Equal(t, digests[0], d)
			}
		})
	}
}

// run runs the steps as Drone's Docker runner does: each in a default container, the
// checkout mounted, settings as variables. What has commands runs in a shell of the
// base image, since there is no Internet to get another one from.
func (s switched) run(t *testing.T, base string, named *parts.Named) (log string) {
	t.Helper()
	d := parts.Engine(t)
	text, err := os.ReadFile(filepath.Join("testdata", "drone", s.file+".yml"))
	require.NoError(t, err)
	env := recorded.Environment(t, filepath.Join(parts.Repo(), "drone/testdata/runner.env"))
	maps.DeleteFunc(env, func(name, _ string) bool {
		return strings.HasPrefix(name, "PLUGIN_") || name == "PATH" || name == "HOME" || name == "HOSTNAME"
	})
	maps.Copy(env, map[string]string{"DRONE_REPO_BRANCH": "main", "DRONE_SEMVER": ""})
	maps.Copy(env, s.event)
	steps, err := dronefile.Steps(string(text), env, map[string]string{
		"docker_username": s.user, "docker_password": s.password, "docker-username": s.user, "docker-password": s.password,
	})
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	dockerfile := "FROM " + base + "\nARG WORDS COMMIT_SHA COMMIT_AUTHOR_EMAIL\nRUN echo WHERE $WORDS $COMMIT_SHA $COMMIT_AUTHOR_EMAIL > /word && ! env | grep -e PLUGIN -e DRONE\n"
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "path", "to"), 0o755))
	for name, where := range map[string]string{"Dockerfile": "root", "path/to/Dockerfile": "path"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(strings.Replace(dockerfile, "WHERE", where, 1)), 0o644))
	}
	images := map[string]string{"plugins/docker": parts.ProductImage(t, d, "executor"), "plugins/kaniko": parts.ProductImage(t, d, "executor")}
	plugins := 0
	for _, step := range steps {
		// The authorities of the machine are the one thing that the Internet would
		// not need.
		args := append([]string{"run", "--rm", "--network", "host", "-v", dir + ":/drone/src", "-w", "/drone/src",
			"-v", parts.Trusting(t, named) + ":/kaniko/ssl/certs/ca-certificates.crt:ro"}, named.Docker()...)
		for _, variables := range []map[string]string{env, step.Environment} {
			for name, value := range variables {
				args = append(args, "-e", name+"="+value)
			}
		}
		if len(step.Commands) > 0 {
			args = append(args, base, "sh", "-ec", strings.Join(step.Commands, "\n"))
		} else {
			require.Contains(t, images, step.Image)
			args = append(args, images[step.Image])
			plugins++
		}
		log += d.Must(t, args...)
	}
	require.NotZero(t, plugins)
	return log
}

// stored is a registry, as a test sees it.
type stored struct {
	http.RoundTripper
	login authn.Authenticator
}

// tags are those of a repository; none if there is none.
func (s stored) tags(t *testing.T, repository string) []string {
	t.Helper()
	r, err := name.NewRepository(repository)
	require.NoError(t, err)
	list, err := remote.List(r, remote.WithContext(t.Context()), remote.WithTransport(s), remote.WithAuth(s.login))
	if err != nil {
		var of *transport.Error
		require.ErrorAs(t, err, &of)
		require.Equal(t, http.StatusNotFound, of.StatusCode)
	}
	return list
}

func (s stored) image(t *testing.T, ref string) v1.Image {
	t.Helper()
	r, err := name.ParseReference(ref)
	require.NoError(t, err)
	img, err := remote.Image(r, remote.WithContext(t.Context()), remote.WithTransport(s), remote.WithAuth(s.login))
	require.NoError(t, err)
	return img
}

// word is what a step has written.
func word(t *testing.T, img v1.Image) string {
	t.Helper()
	files := mutate.Extract(img)
	defer files.Close()
	for r := tar.NewReader(files); ; {
		h, err := r.Next()
		require.NoError(t, err, "/word")
		if h.Name == "word" {
			data, err := io.ReadAll(r)
			require.NoError(t, err)
			return string(data)
		}
	}
}
