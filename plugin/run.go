package plugin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/display"
)

// Process is what the program has for a run.
type Process struct {
	// Stderr takes the log; Color allows colours in it.
	Stderr io.Writer
	Color  bool
	// Inside, Chosen and Store are what core.Enter has come to.
	Inside        bool
	Chosen, Store string
	// Watch also takes the build's events; may be nil.
	Watch core.Sink
}

// Run carries the plan out and shows it. The outcome has the error, if any; it
// was shown already, and has no secret in it.
func (p *Plan) Run(ctx context.Context, proc Process) display.Outcome {
	started := time.Now()
	view := display.New(p.Format, proc.Stderr, display.Options{Verbosity: p.Verbosity, Color: proc.Color, Secrets: p.Secrets})
	for _, n := range p.Notices {
		view.Emit(core.Notice{Level: core.Info, Text: n, Time: time.Now()})
	}
	hide := display.NewRedactor(p.Secrets)
	r := p.Request
	r.Inside, r.Chosen, r.Progress = proc.Inside, proc.Chosen, both{view, proc.Watch, hide}
	if r.Store == "" {
		r.Store = proc.Store
	}
	var out display.Outcome
	dir, remove, err := p.logIn(r.Registry.DockerConfig)
	if err == nil {
		r.Registry.DockerConfig = dir
		out.Result, err = core.Build(ctx, r)
		err = errors.Join(err, remove())
	}
	if err != nil {
		out.Result, out.Err = nil, err
	} else {
		out.Files = p.Files()
	}
	out.Took = time.Since(started)
	view.Finish(out)
	return hide.Outcome(out)
}

// Files are the local outputs that the plan writes.
func (p *Plan) Files() (list []string) {
	o := p.Request.Outputs
	for _, f := range []string{o.OCILayout, o.OCITar, o.DockerTar, o.RootDir, o.RootTar, o.DigestFile, o.ImageIDFile, o.MetadataFile} {
		if f != "" {
			list = append(list, f)
		}
	}
	return list
}

// both hands events to two sinks, the second of which may be missing: the host's
// own, which writes summaries and annotations and gets no secret.
type both struct {
	view, watch core.Sink
	hide        *display.Redactor
}

// Emit implements core.Sink.
func (b both) Emit(e core.Event) {
	b.view.Emit(e)
	if b.watch != nil {
		b.watch.Emit(b.hide.Event(e))
	}
}

// hubKey is what docker login calls Docker Hub in config.json.
const hubKey = "https://index.docker.io/v1/"

// logIn makes a directory with a config.json that has the explicit login beside
// what is in the user's; the user's own file is never changed. The engine reads
// it at its start. Without a login it is the user's directory.
func (p *Plan) logIn(dir string) (made string, remove func() error, err error) {
	logins := slices.DeleteFunc(append(slices.Clone(p.logins), p.Login), func(l Login) bool { return l.Password == "" })
	if len(logins) == 0 && p.authConfig == nil {
		return dir, func() error { return nil }, nil
	}
	var old []byte
	if dir != "" {
		if old, err = os.ReadFile(filepath.Join(dir, "config.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", nil, fmt.Errorf("read credentials: %w", err)
		}
	}
	data, err := withLogins(old, p.authConfig, logins)
	if err != nil {
		return "", nil, &core.Error{Kind: core.KindUsage, Op: "read credentials " + filepath.Join(dir, "config.json"), Err: err, Remedy: "The file must be JSON as docker login writes it."}
	}
	if made, err = os.MkdirTemp("", "layerwright-login-"); err != nil {
		return "", nil, fmt.Errorf("keep the login: %w", err)
	}
	remove = func() error { return os.RemoveAll(made) }
	if err = os.WriteFile(filepath.Join(made, "config.json"), data, 0o600); err != nil {
		return "", nil, errors.Join(fmt.Errorf("keep the login: %w", err), remove())
	}
	return made, remove, nil
}

// withLogins adds logins to the texts of two config.json, which may be empty;
// what comes later holds.
func withLogins(config, more []byte, list []Login) ([]byte, error) {
	file, auths, helpers, err := readConfig(config)
	if err != nil {
		return nil, err
	}
	_, others, otherHelpers, err := readConfig(more)
	if err != nil {
		return nil, err
	}
	maps.Copy(auths, others)
	maps.Copy(helpers, otherHelpers)
	for _, l := range list {
		host := l.Registry
		switch host {
		case "docker.io", "index.docker.io", "registry-1.docker.io", "https://index.docker.io/v2/":
			host = hubKey
		}
		auth := base64.StdEncoding.EncodeToString([]byte(l.Username + ":" + l.Password))
		auths[host] = json.RawMessage(`{"auth":"` + auth + `"}`)
		delete(helpers, host) // which would come first
	}
	if file["auths"], err = json.Marshal(auths); err != nil {
		return nil, err
	}
	if len(helpers) > 0 {
		if file["credHelpers"], err = json.Marshal(helpers); err != nil {
			return nil, err
		}
	} else {
		delete(file, "credHelpers")
	}
	return json.Marshal(file)
}

// readConfig takes a config.json apart. Errors have nothing of its text.
func readConfig(data []byte) (file, auths map[string]json.RawMessage, helpers map[string]string, err error) {
	file, auths, helpers = map[string]json.RawMessage{}, map[string]json.RawMessage{}, map[string]string{}
	if len(data) > 0 {
		if err := json.Unmarshal(data, &file); err != nil || file == nil {
			return nil, nil, nil, errors.New("it is not JSON")
		}
	}
	for key, to := range map[string]any{"auths": &auths, "credHelpers": &helpers} {
		if len(file[key]) == 0 || string(file[key]) == "null" {
			continue
		}
		if err := json.Unmarshal(file[key], to); err != nil {
			return nil, nil, nil, fmt.Errorf("%s is not an object", key)
		}
	}
	return file, auths, helpers, nil
}
