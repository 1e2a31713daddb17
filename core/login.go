package core

import (
	"context"
	"strings"

	"github.com/layerwright/layerwright/core/internal/credentials"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/registry"
)

// Login checks a login at a registry and keeps it in Docker's config.json, as
// r.Environment says where that is, or with the helper that it names. where says
// which. Nothing is written when the registry refuses the login.
func Login(ctx context.Context, text string, user, password string, r Registry) (host, where string, err error) {
	if host, err = registryHost(text); err != nil {
		return "", "", err
	}
	if user == "" || password == "" {
		return host, "", fault.New(fault.Usage, "log in at %s: user or password is empty", host).With("Give both: -u USER and --password-stdin.")
	}
	r.Credentials = []Credential{{Host: host, Username: user, Password: password}}
	client, err := registry.New(r.options())
	if err != nil {
		return host, "", err
	}
	if err := client.Login(ctx, host); err != nil {
		return host, "", err
	}
	where, err = credentials.Store(ctx, r.Environment, host, credentials.Login{Username: user, Password: password})
	return host, where, err
}

// Logout removes the logins for a registry from where Login keeps them; found
// says whether there was one.
func Logout(ctx context.Context, text string, environment map[string]string) (where string, found bool, err error) {
	host, err := registryHost(text)
	if err != nil {
		return "", false, err
	}
	return credentials.Erase(ctx, environment, host)
}

// registryHost is the registry to log in at, Docker Hub where none is named.
func registryHost(text string) (string, error) {
	if text == "" {
		return "docker.io", nil
	}
	if !strings.Contains(text, "/") && !strings.ContainsAny(text, ".:") {
		text += ":443" // a word alone is a host here
		host, err := registry.Registry(text)
		return strings.TrimSuffix(host, ":443"), err
	}
	return registry.Registry(text)
}
