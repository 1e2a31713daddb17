package credentials

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/docker/docker-credential-helpers/client"
	helpercreds "github.com/docker/docker-credential-helpers/credentials"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// Store keeps a login for a registry where docker login would: in config.json of
// DOCKER_CONFIG or ~/.docker, or with the helper that this file names, if that
// program exists. where says which, for a message.
func Store(ctx context.Context, env map[string]string, host string, l Login) (where string, err error) {
	path, conf, err := own(env)
	if err != nil {
		return "", err
	}
	key := ServerKey(host)
	if prog := helperOf(env, conf, host); prog != nil {
		c := &helpercreds.Credentials{ServerURL: key, Username: l.Username, Secret: l.Password}
		if err := client.Store(prog.Start(ctx), c); err != nil {
			return "", programError(prog)
		}
		return prog.Name, nil
	}
	forget(conf, host)
	conf.AuthConfigs[key] = types.AuthConfig{Username: l.Username, Password: l.Password}
	return path, write(path, conf)
}

// Erase removes all logins for a registry from where Store keeps them; found
// says whether there was one.
func Erase(ctx context.Context, env map[string]string, host string) (where string, found bool, err error) {
	path, conf, err := own(env)
	if err != nil {
		return "", false, err
	}
	found = forget(conf, host)
	where = path
	if prog := helperOf(env, conf, host); prog != nil {
		where += " and " + prog.Name
		_, err := client.Get(prog.Start(ctx), ServerKey(host))
		if err == nil {
			found = true
			if err := client.Erase(prog.Start(ctx), ServerKey(host)); err != nil {
				return "", false, programError(prog)
			}
		} else if !helpercreds.IsErrCredentialsNotFound(err) {
			return "", false, programError(prog)
		}
	}
	if !found {
		return where, false, nil
	}
	return where, true, write(path, conf)
}

func programError(p *Program) error {
	err := p.Err
	if err == nil {
		err = errors.New("its answer cannot be understood")
	}
	return fault.New(fault.Registry, "run %s: %w%s", p.Name, err, p.said()).With("Put the helper right, or take it out of config.json (credsStore, credHelpers).")
}

// own is the file that docker login writes, and its content.
func own(env map[string]string) (string, *configfile.ConfigFile, error) {
	path := under(Home(env), ".docker", config.ConfigFileName)
	if v := env["DOCKER_CONFIG"]; v != "" {
		if InlineConfig(v) {
			return "", nil, fault.New(fault.Usage, "the variable DOCKER_CONFIG is itself the configuration, which cannot be written to").
				With("Let DOCKER_CONFIG name a directory, or unset it.")
		}
		var err error
		if path, err = ConfigPath(v); err != nil {
			return "", nil, err
		}
	}
	if path == "" {
		return "", nil, fault.New(fault.Usage, "there is no place for config.json: neither DOCKER_CONFIG nor HOME is set").With("Set DOCKER_CONFIG to a directory.")
	}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", nil, fault.New(fault.Usage, "read %s: %w", path, errors.Unwrap(err)).With("Make the file readable for this user.")
	}
	if _, err := parse(path, data); err != nil {
		return "", nil, err // with line and column; it is not overwritten
	}
	conf, err := config.LoadFromReader(bytes.NewReader(data))
	if err != nil {
		return "", nil, fault.New(fault.Registry, "read credentials %s: it cannot be understood", path).With(example)
	}
	if conf.AuthConfigs == nil {
		conf.AuthConfigs = map[string]types.AuthConfig{}
	}
	return path, conf, nil
}

// helperOf is the helper that the file names for a host; nil where there is none,
// or no such program.
func helperOf(env map[string]string, conf *configfile.ConfigFile, host string) *Program {
	name := conf.CredentialsStore
	for k, v := range conf.CredentialHelpers {
		if Normal(k) == Normal(host) {
			name = v
		}
	}
	if name == "" {
		return nil
	}
	p := &Program{Name: "docker-credential-" + name, Environment: env}
	if _, err := p.Find(); errors.Is(err, exec.ErrNotFound) {
		return nil
	}
	return p
}

// forget takes every spelling of a host out of a configuration.
func forget(conf *configfile.ConfigFile, host string) (found bool) {
	for k := range conf.AuthConfigs {
		if Normal(k) == Normal(host) {
			delete(conf.AuthConfigs, k)
			found = true
		}
	}
	return found
}

// write replaces a file, or what a link points at, at once and for its owner
// only.
func write(path string, conf *configfile.ConfigFile) (err error) {
	defer func() {
		if err != nil {
			err = fault.New(fault.Environment, "write %s: %w", path, err).With("Make the directory writable for this user, or set DOCKER_CONFIG to another one.")
		}
	}()
	var text bytes.Buffer
	if err := conf.SaveToWriter(&text); err != nil {
		return err
	}
	if to, err := filepath.EvalSymlinks(path); err == nil {
		path = to
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return bareError(err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".config.json-") // mode 0600
	if err != nil {
		return bareError(err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text.Bytes())
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return bareError(err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return bareError(err)
	}
	return nil
}

func bareError(err error) error {
	var pe *fs.PathError
	var le *os.LinkError
	switch {
	case errors.As(err, &pe):
		return pe.Err
	case errors.As(err, &le):
		return le.Err
	}
	return fmt.Errorf("%w", err)
}
