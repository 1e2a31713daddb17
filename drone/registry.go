package drone

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin"
)

// hub is what Drone's plugins call Docker Hub, and take for the registry where none
// is set.
const hub = "https://index.docker.io/v1/"

// host is a registry without scheme, version and slash at the end.
func host(registry string) string {
	registry = strings.TrimSpace(registry)
	for _, scheme := range []string{"https://", "http://"} {
		registry = strings.TrimPrefix(registry, scheme)
	}
	for _, version := range []string{"/", "/v1", "/v2"} {
		registry = strings.TrimSuffix(registry, version)
	}
	return registry
}

// registryOf is the registry that the image goes to, as far as settings say so:
// drone-docker and drone-kaniko have an image of their own for each cloud, with
// another default; here the settings tell which was meant.
func registryOf(given map[string]string) string {
	if r := host(given["REGISTRY"]); r != "" {
		return r
	}
	if l := given["LOCATION"]; l != "" {
		return l + "-docker.pkg.dev"
	}
	first, _, _ := strings.Cut(given["REPO"], ",")
	if at, _, ok := strings.Cut(first, "/"); ok && strings.ContainsAny(at, ".:") {
		return at
	}
	for _, n := range []string{"JSON_KEY", "PROJECT_NUMBER", "POOL_ID", "GOOGLE_KEY"} {
		if given[n] != "" {
			return "gcr.io"
		}
	}
	return ""
}

// domain is a registry without what may stand between it and an image's name: the
// plugins for Google take us.gcr.io/PROJECT.
func domain(registry string) string {
	at, _, _ := strings.Cut(registry, "/")
	return at
}

// cloud is the one that the image goes to.
func (a *adapter) cloud(given map[string]string) string {
	return core.CloudOf(domain(registryOf(given)))
}

// names puts the registry before names where Drone's plugins do so: those for
// clouds always, the others when told.
func (a *adapter) names(r *reading) {
	a.withoutRepo(r)
	registry := registryOf(r.given)
	cloud := core.CloudOf(domain(registry))
	if text := r.first("registry"); text != "" {
		r.set("registry", "REGISTRY", domain(host(text)))
	}
	before := func(name string) string {
		if registry == "" || strings.HasPrefix(name, registry+"/") || name == "" || strings.HasPrefix(name, "oci:") {
			return name
		}
		return registry + "/" + name
	}
	if cloud != "" || a.own.ExpandRepo && r.given["REGISTRY"] != "" && r.given["REGISTRY"] != hub {
		for i, repo := range r.values["images"].Values {
			r.values["images"].Values[i] = before(strings.TrimSpace(repo))
		}
		if repo := r.first("cache-repo"); cloud != "" && repo != "" && !named(repo) {
			r.set("cache-repo", "CACHE_REPO", before(repo))
		}
	}
	if cloud == "" && (r.first("aws-access-key-id") != "" || r.first("aws-role") != "") && r.given["REGISTRY"] == "" {
		r.facts.Problems["registry"] = errors.New("it is missing: write ACCOUNT.dkr.ecr.REGION.amazonaws.com, or put that before repo")
	}
	// A file is for the registry that is set; Kaniko's flag would want HOST=FILE.
	for _, setting := range []string{"registry-certificates", "registry-client-certs"} {
		for i, text := range r.values[setting].Values {
			if !strings.Contains(text, "=") && registry != "" {
				r.values[setting].Values[i] = domain(registry) + "=" + text
			}
		}
	}
}

// withoutRepo refuses to take a tag for an image's name: what is written without a
// registry, a path or a tag is one in Drone.
func (a *adapter) withoutRepo(r *reading) {
	isName := func(text string) bool { return strings.ContainsAny(text, "/:") || strings.Contains(text, "name=") }
	if len(r.values["images"].Values) > 0 || slices.ContainsFunc(r.values["tags"].Values, isName) || slices.ContainsFunc(r.values["outputs"].Values, isName) {
		return
	}
	push, err := strconv.ParseBool(cmp.Or(r.first("push"), "true"))
	elsewhere := r.first("tar-path") + r.first("oci-layout-path") + r.first("outputs")
	if (push || err != nil) && elsewhere == "" {
		r.facts.Problems["images"] = errors.New("it is missing: name the image, as in registry.example/team/app, or set no_push")
	}
	if tags := r.values["tags"]; len(tags.Values) > 0 {
		delete(r.values, "tags")
		a.notices = append(a.notices, "the tags of "+tags.Source+" have no effect without repo")
	}
}

// named says whether a name begins with a registry.
func named(name string) bool {
	at, _, ok := strings.Cut(name, "/")
	return ok && (strings.ContainsAny(at, ".:") || at == "localhost")
}

// logins are those at several registries, at that of base images, and the text of a
// config.json.
func (a *adapter) logins(r *reading) {
	if a.own.Config != "" {
		r.facts.AuthConfig = []byte(a.own.Config)
	}
	for _, l := range a.own.Logins {
		if l.Password == "" { // Drone drops from_secret inside of a list
			a.notices = append(a.notices, "setting logins has no password for "+l.Registry+": from_secret works for the whole list only")
			continue
		}
		l.Registry = host(l.Registry)
		r.facts.Logins = append(r.facts.Logins, l)
	}
	of := func(names ...string) (string, string) {
		for _, n := range names {
			if v := r.given[n]; v != "" {
				return v, strings.ToLower(n)
			}
		}
		return "", strings.ToLower(names[0])
	}
	registry, _ := of("DOCKER_REGISTRY", "BASE_IMAGE_REGISTRY")
	user, userName := of("DOCKER_USERNAME", "BASE_IMAGE_USERNAME")
	password, passwordName := of("DOCKER_PASSWORD", "BASE_IMAGE_PASSWORD")
	a.unprefixed(r, &registry, &user, &password)
	if cloud := a.cloud(r.given); cloud != "" && a.hasKeys(r, cloud) && r.first("username") != "" && user == "" {
		// The plugins for clouds have no other use for them.
		user, password = r.first("username"), r.first("password")
		delete(r.values, "username")
		delete(r.values, "password")
		delete(r.values, "registry")
	}
	switch {
	case user == "" && password == "":
		return
	case password == "":
		r.facts.Problems[passwordName] = errors.New("it is missing, and " + userName + " is set")
	case user == "":
		r.facts.Problems[userName] = errors.New("it is missing, and " + passwordName + " is set")
	}
	if registry = host(registry); registry == "" {
		registry = "docker.io"
	}
	r.facts.Logins = append(r.facts.Logins, plugin.Login{Registry: registry, Username: user, Password: password})
}

// unprefixed are DOCKER_USERNAME and its like without PLUGIN_: the login to push with
// in drone-docker, that at the registry of base images in drone-kaniko. They are the
// former where nothing else is set.
func (a *adapter) unprefixed(r *reading, registry, user, password *string) {
	u, p := a.env["DOCKER_USERNAME"], a.env["DOCKER_PASSWORD"]
	if u == "" || p == "" {
		return
	}
	if r.first("username") == "" && r.first("password") == "" && a.cloud(r.given) == "" {
		r.values["username"] = plugin.Given{Values: []string{u}, Source: "DOCKER_USERNAME"}
		r.values["password"] = plugin.Given{Values: []string{p}, Source: "DOCKER_PASSWORD"}
		if at := a.env["DOCKER_REGISTRY"]; at != "" && r.first("registry") == "" {
			r.values["registry"] = plugin.Given{Values: []string{host(at)}, Source: "DOCKER_REGISTRY"}
		}
		return
	}
	if *user == "" && *password == "" {
		*user, *password = u, p
		if *registry == "" {
			*registry = a.env["DOCKER_REGISTRY"]
		}
	}
}

// hasKeys says whether there are settings with keys for a cloud.
func (a *adapter) hasKeys(r *reading, cloud string) bool {
	for setting := range r.values {
		if strings.HasPrefix(setting, cloud+"-") && setting != "aws-region" {
			return true
		}
	}
	return false
}
