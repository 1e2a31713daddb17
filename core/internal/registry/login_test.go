package registry

import (
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/credentials"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// locked is a registry that demands a login, by basic or by bearer
// authentication. As an HTTP proxy it answers for every host.
type locked struct {
	*httptest.Server
	host   string
	bearer bool

	mu sync.Mutex
	// users are passwords by name, readers those who may not push.
	users   map[string]string
	readers map[string]bool
	// refresh are identity tokens by user.
	refresh map[string]string
	hosts   map[string]bool
}

func newLocked(t *testing.T, bearer bool) *locked {
	t.Helper()
	l := &locked{bearer: bearer, users: map[string]string{"u": "planted-password"}, readers: map[string]bool{}, refresh: map[string]string{}, hosts: map[string]bool{}}
	inner := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if r.Method == http.MethodConnect {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		l.hosts[r.Host] = true
		if r.URL.Path == "/token" {
			l.token(w, r)
			return
		}
		user, ok := l.user(r)
		switch {
		case !ok:
			challenge := `Basic realm="r"`
			if l.bearer {
				challenge = fmt.Sprintf(`Bearer realm="http://%s/token",service="s"`, r.Host)
			}
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
		case l.readers[user] && r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`)
		default:
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(l.Close)
	l.host = strings.TrimPrefix(l.URL, "http://")
	return l
}

func (l *locked) token(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	if r.Method == http.MethodPost { // OAuth2 with an identity token
		_ = r.ParseForm()
		for u, t := range l.refresh {
			if r.Form.Get("refresh_token") == t {
				user, password = u, l.users[u]
			}
		}
	}
	if user == "" || l.users[user] != password {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_, _ = fmt.Fprintf(w, `{"token":"bearer-%s","access_token":"bearer-%s"}`, user, user)
}

func (l *locked) user(r *http.Request) (string, bool) {
	if l.bearer {
		user, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer bearer-")
		return user, ok
	}
	user, password, ok := r.BasicAuth()
	return user, ok && l.users[user] == password
}

// login is a client with an explicit login.
func login(t *testing.T, host, user, password string, change ...func(*Options)) *Client {
	t.Helper()
	return newClient(t, append([]func(*Options){func(o *Options) {
		o.Logins = []credentials.Explicit{{For: host, Login: credentials.Login{Username: user, Password: password}}}
	}}, change...)...)
}

func both(t *testing.T, f func(t *testing.T, l *locked)) {
	t.Helper()
	for name, bearer := range map[string]bool{"basic": false, "bearer": true} {
		t.Run(name, func(t *testing.T) { f(t, newLocked(t, bearer)) })
	}
}

// TestEverySourceOpensARegistry has each source, alone, push to and pull from a
// registry that demands its login.
func TestEverySourceOpensARegistry(t *testing.T) {
	both(t, func(t *testing.T, l *locked) {
		conf := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, l.host, base64.StdEncoding.EncodeToString([]byte("u:planted-password")))
		dir := t.TempDir()
		file := filepath.Join(dir, "config.json")
		write := func(path, text string) {
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, []byte(text), 0o755))
		}
		write(file, conf)
		write(filepath.Join(dir, "home", ".docker", "config.json"), conf)
		write(filepath.Join(dir, "podman", ".config", "containers", "auth.json"), conf)
		write(filepath.Join(dir, "run", "containers", "auth.json"), conf)
		write(filepath.Join(dir, "bin", "docker-credential-planted"), "#!/bin/sh\necho '{\"Username\":\"u\",\"Secret\":\"planted-password\"}'\n")
		l.refresh["u"] = "planted-identity"
		variable := strings.NewReplacer(".", "_", ":", "_").Replace(l.host)
		sources := map[string]func(o *Options){
			"an explicit login": func(o *Options) {
				o.Logins = []credentials.Explicit{{For: l.host, Login: credentials.Login{Username: "u", Password: "planted-password"}}}
			},
			"--credentials":                func(o *Options) { o.CredentialFiles = []string{file} },
			"DOCKER_CONFIG as a directory": func(o *Options) { o.Environment["DOCKER_CONFIG"] = dir },
			"DOCKER_CONFIG as a file":      func(o *Options) { o.Environment["DOCKER_CONFIG"] = file },
			"DOCKER_CONFIG as text":        func(o *Options) { o.Environment["DOCKER_CONFIG"] = conf },
			"DOCKER_AUTH_CONFIG":           func(o *Options) { o.Environment["DOCKER_AUTH_CONFIG"] = conf },
			"~/.docker/config.json":        func(o *Options) { o.Environment["HOME"] = filepath.Join(dir, "home") },
			"REGISTRY_AUTH_FILE":           func(o *Options) { o.Environment["REGISTRY_AUTH_FILE"] = file },
			"Podman's, of a session":       func(o *Options) { o.Environment["XDG_RUNTIME_DIR"] = filepath.Join(dir, "run") },
			"Podman's":                     func(o *Options) { o.Environment["HOME"] = filepath.Join(dir, "podman") },
			"credHelpers": func(o *Options) {
				o.Environment["DOCKER_CONFIG"], o.Environment["PATH"] = `{"credHelpers":{"`+l.host+`":"planted"}}`, filepath.Join(dir, "bin")
			},
			"credsStore": func(o *Options) {
				o.Environment["DOCKER_CONFIG"], o.Environment["PATH"] = `{"credsStore":"planted"}`, filepath.Join(dir, "bin")
			},
			"KANIKO_…": func(o *Options) {
				o.Environment["KANIKO_"+variable+"_USER"], o.Environment["KANIKO_"+variable+"_PASSWORD"] = "u", "planted-password"
			},
			"GitLab's variables": func(o *Options) {
				o.Environment["CI_REGISTRY"], o.Environment["CI_REGISTRY_USER"], o.Environment["CI_REGISTRY_PASSWORD"] = l.host, "u", "planted-password"
			},
		}
		if l.bearer {
			sources["an identity token"] = func(o *Options) {
				o.Environment["DOCKER_AUTH_CONFIG"] = `{"auths":{"` + l.host + `":{"identitytoken":"planted-identity"}}}`
			}
			sources["a registry token"] = func(o *Options) {
				o.Environment["DOCKER_AUTH_CONFIG"] = `{"auths":{"` + l.host + `":{"registrytoken":"bearer-u"}}}`
			}
		}
		for name, set := range sources {
			t.Run(name, func(t *testing.T) {
				c := newClient(t, set)
				push(t, c, platformImage(t, amd64), l.host+"/team/app:1")
				_, err := c.Resolve(t.Context(), l.host+"/team/app:1", &amd64)
				require.NoError(t, err)
				require.NoError(t, c.Login(t.Context(), l.host))
			})
		}
		_, err := newClient(t).Resolve(t.Context(), l.host+"/team/app:1", &amd64)
		require.ErrorIs(t, err, ErrDenied)
	})
}

// TestACloudsRegistryThroughAProxy has the login of a cloud reach its registry,
// which is behind an HTTP proxy: the variable says where that is.
func TestACloudsRegistryThroughAProxy(t *testing.T) {
	const host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	l := newLocked(t, true)
	l.users["AWS"] = "planted-ecr"
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Authorization"), "Credential=KEY/") {
			_, _ = fmt.Fprintf(w, `{"authorizationData":[{"authorizationToken":%q,"expiresAt":1.9e9}]}`, base64.StdEncoding.EncodeToString([]byte("AWS:planted-ecr")))
		}
	}))
	defer api.Close()
	c := newClient(t, func(o *Options) {
		o.InsecureRegistries = []string{host} // the fake speaks plain HTTP
		for k, v := range map[string]string{"http_proxy": l.URL, "AWS_ENDPOINT_URL_ECR": api.URL, "AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": "planted-secret"} {
			o.Environment[k] = v
		}
	})
	push(t, c, platformImage(t, amd64), host+"/team/app:1")
	l.mu.Lock()
	require.True(t, l.hosts[host])
	l.mu.Unlock()
	f, err := c.Search(t.Context(), host)
	require.NoError(t, err)
	require.Contains(t, f.Source, "Amazon ECR")
}

func TestOneLoginForEachPath(t *testing.T) {
	both(t, func(t *testing.T, l *locked) {
		l.users["a"], l.users["b"] = "password-a", "password-b"
		l.readers["a"] = true
		c := newClient(t, func(o *Options) {
			o.Logins = []credentials.Explicit{{For: l.host + "/a", Login: credentials.Login{Username: "a", Password: "password-a"}}, {For: l.host, Login: credentials.Login{Username: "b", Password: "password-b"}}}
		})
		push(t, c, platformImage(t, amd64), l.host+"/other/x:1")
		p, err := c.Pusher(l.host + "/a/x")
		require.NoError(t, err)
		require.ErrorIs(t, p.Check(t.Context()), ErrDenied, "a may only read")
	})
}

// TestDeniedSaysWhy tells the ways apart in which a login can be wrong, and says
// for each what to do, with registry, repository and source.
func TestDeniedSaysWhy(t *testing.T) {
	both(t, func(t *testing.T, l *locked) {
		l.users["reader"], l.readers["reader"] = "planted-password", true
		expired := "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"exp":1700000000}`)) + ".planted"
		for name, c := range map[string]struct {
			c            *Client
			says, remedy string
		}{
			"no login":                   {newClient(t), "(no credentials: ", "layerwright login " + l.host},
			"a wrong password":           {login(t, l.host, "u", "planted-wrong"), "the login is refused", "User or password are wrong"},
			"a login that only reads":    {login(t, l.host, "reader", "planted-password"), "the login is accepted, but may not push to " + l.host + "/team/app", "Give it the right to push"},
			"a token that has expired":   {login(t, l.host, "u", expired), "the token expired on 2023-11-14 at 22:13 UTC", "Get a new token"},
			"a helper that is not there": {newClient(t, config(t, `{"credsStore":"missing"}`)), "docker-credential-missing, which", "layerwright doctor --registry " + l.host + "/team/app"},
			"a login for another one":    {newClient(t, config(t, `{"auths":{"other.example":{"auth":"dTpw"}}}`)), "config.json has none for " + l.host + "/team/app", "layerwright login"},
			"half of the variables":      {newClient(t, func(o *Options) { o.Environment["KANIKO_127_0_0_1_USER"] = "u" }), "not KANIKO_127_0_0_1_PASSWORD", "layerwright login"},
		} {
			t.Run(name, func(t *testing.T) {
				p, err := c.c.Pusher(l.host + "/team/app")
				require.NoError(t, err)
				err = p.Check(t.Context())
				require.ErrorIs(t, err, ErrDenied)
				require.ErrorContains(t, err, "registry "+l.host+", repository team/app")
				require.ErrorContains(t, err, c.says)
				f, ok := fault.As(err)
				require.True(t, ok)
				require.Equal(t, fault.Registry, f.Kind)
				require.Contains(t, f.Remedy, c.remedy)
				require.NotContains(t, err.Error()+f.Remedy, "planted")
			})
		}
	})
}

func TestAnAnswerThatIsNotAboutTheLoginDoesNotNameIt(t *testing.T) {
	s := newServer(t)
	for code, named := range map[int]bool{400: false, 404: false, 409: false, 413: false, 418: false, 401: true, 403: true, 429: true, 503: true} {
		s.on(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/v2/" {
				return false
			}
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(code)
			return true
		})
		_, err := newClient(t, func(o *Options) { o.PullRetries = -1 }).Resolve(t.Context(), s.host+"/x:1", nil)
		require.Error(t, err)
		require.Equal(t, named, strings.Contains(err.Error(), "credentials"), "%d: %v", code, err)
	}
}

// TestPlantedSecretsAreNowhere has every source hold a secret and everything go
// wrong that can: no error, notice or list of sources repeats one.
func TestPlantedSecretsAreNowhere(t *testing.T) {
	both(t, func(t *testing.T, l *locked) {
		auth := func(user string) string {
			return base64.StdEncoding.EncodeToString([]byte(user + ":planted-secret-of-" + user))
		}
		conf := func(user string) string { return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, l.host, auth(user)) }
		dir := t.TempDir()
		file := filepath.Join(dir, "file.json")
		require.NoError(t, os.WriteFile(file, []byte(conf("file")), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "docker-credential-planted"), []byte("#!/bin/sh\necho '{\"Username\":\"h\",\"Secret\":\"planted-secret-of-helper\"}'\n"), 0o755)) //nolint:gosec // a program
		set := []func(o *Options){
			func(o *Options) {
				o.Logins = []credentials.Explicit{{For: l.host, Login: credentials.Login{Username: "e", Password: "planted-secret-of-settings"}}}
			},
			func(o *Options) { o.CredentialFiles = []string{file} },
			func(o *Options) { o.Environment["DOCKER_CONFIG"] = conf("text") },
			func(o *Options) { o.Environment["DOCKER_AUTH_CONFIG"] = conf("auth") },
			func(o *Options) { o.Environment["REGISTRY_AUTH_FILE"] = file },
			func(o *Options) {
				o.Environment["DOCKER_CONFIG"], o.Environment["PATH"] = `{"credsStore":"planted"}`, dir
			},
			func(o *Options) {
				o.Environment["KANIKO_127_0_0_1_USER"], o.Environment["KANIKO_127_0_0_1_PASSWORD"] = "k", "planted-secret-of-variable"
			},
			func(o *Options) {
				o.Environment["CI_REGISTRY"], o.Environment["CI_REGISTRY_USER"], o.Environment["CI_REGISTRY_PASSWORD"] = l.host, "g", "planted-secret-of-gitlab"
			},
			func(o *Options) {
				o.Environment["DOCKER_AUTH_CONFIG"] = fmt.Sprintf(`{"auths":{%q:{"identitytoken":"planted-secret-identity"}}}`, l.host)
			},
		}
		for i, f := range set {
			var said strings.Builder
			c := newClient(t, f, func(o *Options) {
				o.Mirrors = []string{l.host + "/mirror"}
				o.Progress = sinkFunc(func(e progress.Event) { _, _ = fmt.Fprintf(&said, "%+v\n", e) })
			})
			_, err := c.Resolve(t.Context(), l.host+"/team/app:1", nil)
			require.ErrorIs(t, err, ErrDenied, i)
			p, err2 := c.Pusher(l.host + "/team/app")
			require.NoError(t, err2)
			err2 = p.Check(t.Context())
			require.ErrorIs(t, err2, ErrDenied)
			err3 := c.Login(t.Context(), l.host)
			require.ErrorIs(t, err3, ErrDenied)
			found, _ := c.Search(t.Context(), l.host+"/team/app")
			require.NotEmpty(t, found.Source, i)
			all := said.String() + fmt.Sprintf("%+v %#v %+v %#v %+v %+v %s", err, err, err2, err2, err3, found.Looked, found.Source)
			require.NotContains(t, all, "planted-secret", i)
			for _, user := range []string{"file", "text", "auth"} {
				require.NotContains(t, all, auth(user))
			}
		}
	})
}

func TestAnEchoOfTheLoginIsHidden(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		_, password, _ := r.BasicAuth()
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(w, `{"errors":[{"code":"X","message":"you sent %s, that is %s"}]}`, password, r.Header.Get("Authorization"))
	}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	_, err := login(t, host, "u", "planted-password").Resolve(t.Context(), host+"/x:1", nil)
	require.ErrorContains(t, err, "400")
	require.NotContains(t, err.Error(), "planted-password")
	require.NotContains(t, err.Error(), base64.StdEncoding.EncodeToString([]byte("u:planted-password")))
}

func TestATagThatMustNotChange(t *testing.T) {
	s := newServer(t)
	for name, answer := range map[string]struct {
		code int
		body string
	}{
		"ECR":               {400, `{"errors":[{"code":"TAG_INVALID","message":"The image tag '1' already exists in the 'x' repository and cannot be overwritten because the tag is immutable."}]}`},
		"Harbor":            {412, `{"errors":[{"code":"PRECONDITION","message":"Failed to process request due to 'x:1' configured as immutable."}]}`},
		"Artifact Registry": {400, `{"errors":[{"code":"MANIFEST_INVALID","message":"cannot update tag 1. The repository has enabled tag immutability"}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			s.on(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/manifests/1") {
					w.WriteHeader(answer.code)
					_, _ = io.WriteString(w, answer.body)
					return true
				}
				return false
			})
			img := platformImage(t, amd64)
			tag := func(ignore bool, notices *[]progress.Event) error {
				p, err := newClient(t, func(o *Options) {
					o.IgnoreImmutableTags = ignore
					o.Progress = sinkFunc(func(e progress.Event) {
						if n, ok := e.(progress.Notice); ok {
							*notices = append(*notices, n)
						}
					})
				}).Pusher(s.host + "/x")
				require.NoError(t, err)
				require.NoError(t, p.Put(t.Context(), img))
				return p.Tag(t.Context(), img, "1")
			}
			var said []progress.Event
			err := tag(false, &said)
			require.ErrorIs(t, err, ErrImmutable)
			f, _ := fault.As(err)
			require.Contains(t, f.Remedy, "--push-ignore-immutable-tag-errors")
			require.Empty(t, said)
			require.NoError(t, tag(true, &said))
			require.Len(t, said, 1)
		})
	}
}

func TestMapsMirrorsAndFallback(t *testing.T) {
	a, b := newServer(t), newServer(t)
	push(t, newClient(t), platformImage(t, amd64), a.host+"/prefix/team/app:1")
	push(t, newClient(t), platformImage(t, amd64), b.host+"/team/app:2")
	c := newClient(t, func(o *Options) { o.Maps = map[string][]string{b.host: {a.host + "/prefix"}} })
	img, err := c.Resolve(t.Context(), b.host+"/team/app:1", nil)
	require.NoError(t, err)
	require.Equal(t, b.host+"/team/app:1", img.Name, "the name stays what it is")
	_, err = c.Resolve(t.Context(), b.host+"/team/app:2", nil)
	require.NoError(t, err, "then its own registry is asked")

	c = newClient(t, func(o *Options) {
		o.Maps, o.NoFallback, o.Mirrors = map[string][]string{b.host: {a.host + "/prefix"}}, true, []string{a.host + "/prefix"}
	})
	_, err = c.Resolve(t.Context(), b.host+"/team/app:2", nil)
	require.ErrorIs(t, err, ErrNotFound)
	f, _ := fault.As(err)
	require.Contains(t, f.Remedy, "--skip-default-registry-fallback")
	_, err = c.Resolve(t.Context(), "team/app:1", nil)
	require.NoError(t, err, "a mirror of Docker Hub")
	_, err = c.Resolve(t.Context(), a.host+"/prefix/team/app:1", nil)
	require.NoError(t, err, "a registry without mirror is asked itself")
}

func TestPlace(t *testing.T) {
	for text, want := range map[string]string{
		"registry.example": "registry.example/", "registry.example:5000": "registry.example:5000/", "localhost": "localhost/",
		"https://registry.example/": "registry.example/", "docker.io": "docker.io/", "https://index.docker.io/v1/": "docker.io/",
		"debian": "docker.io/library/debian", "team/app:1": "docker.io/team/app", "registry.example/team/app:1": "registry.example/team/app",
	} {
		repo, err := place(text)
		require.NoError(t, err, text)
		require.Equal(t, want, repo.String(), text)
	}
	_, err := place("https://u:planted-secret@host/UPPER")
	require.Error(t, err)
	require.NotContains(t, err.Error(), "planted-secret")
}

// TestALoginIsAskedForAgainWhenItExpires: a build may take longer than a token
// lives.
func TestALoginIsAskedForAgainWhenItExpires(t *testing.T) {
	c := login(t, "r.example", "u", "p")
	cred := c.keys.credential(repository{"r.example", "x"})
	_, err := cred.AuthorizationContext(t.Context())
	require.NoError(t, err)
	cred.found.Password, cred.found.Expires = "old", time.Now().Add(-time.Second)
	a, err := cred.Authorization()
	require.NoError(t, err)
	require.Equal(t, "p", a.Password)
	cred.found.Password = "kept"
	a, err = cred.Authorization()
	require.NoError(t, err)
	require.Equal(t, "kept", a.Password)
}

type sinkFunc func(progress.Event)

func (f sinkFunc) Emit(e progress.Event) { f(e) }
