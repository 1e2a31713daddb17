package plugin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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
// was shown already.
func (p *Plan) Run(ctx context.Context, proc Process) display.Outcome {
	started := time.Now()
	view := display.New(p.Format, proc.Stderr, display.Options{Verbosity: p.Verbosity, Color: proc.Color, Secrets: p.Secrets})
	for _, n := range p.Notices {
		view.Emit(core.Notice{Level: core.Info, Text: n, Time: time.Now()})
	}
	r := p.Request
	r.Inside, r.Chosen, r.Progress = proc.Inside, proc.Chosen, both{view, proc.Watch}
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
	return out
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

// both hands events to two sinks, the second of which may be missing.
type both struct{ view, watch core.Sink }

// Emit implements core.Sink.
func (b both) Emit(e core.Event) {
	b.view.Emit(e)
	if b.watch != nil {
		b.watch.Emit(e)
	}
}

// hubKey is what docker login calls Docker Hub in config.json.
const hubKey = "https://index.docker.io/v1/"

// logIn makes a directory with a config.json that has the explicit login beside
// what is in the user's; the user's own file is never changed. The engine reads
// it at its start. Without a login it is the user's directory.
func (p *Plan) logIn(dir string) (made string, remove func() error, err error) {
	if p.Login.Password == "" {
		return dir, func() error { return nil }, nil
	}
	var old []byte
	if dir != "" {
		if old, err = os.ReadFile(filepath.Join(dir, "config.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", nil, fmt.Errorf("read credentials: %w", err)
		}
	}
	data, err := withLogin(old, p.Login)
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

// withLogin adds a login to the text of a config.json, which may be empty.
func withLogin(config []byte, l Login) ([]byte, error) {
	file := map[string]json.RawMessage{}
	if len(config) > 0 {
		if err := json.Unmarshal(config, &file); err != nil {
			return nil, errors.New("it is not JSON") // whose text may be in the cause
		}
	}
	logins, helpers := map[string]json.RawMessage{}, map[string]string{}
	for key, to := range map[string]any{"auths": &logins, "credHelpers": &helpers} {
		if err := json.Unmarshal(orNull(file[key]), to); err != nil {
			return nil, fmt.Errorf("%s is not an object", key)
		}
	}
	host := l.Registry
	switch host {
	case "docker.io", "index.docker.io", "registry-1.docker.io", "https://index.docker.io/v2/":
		host = hubKey
	}
	if logins == nil {
		logins = map[string]json.RawMessage{}
	}
	auth := base64.StdEncoding.EncodeToString([]byte(l.Username + ":" + l.Password))
	logins[host] = json.RawMessage(`{"auth":"` + auth + `"}`)
	delete(helpers, host) // the explicit login comes first
	var err error
	if file["auths"], err = json.Marshal(logins); err != nil {
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

func orNull(data json.RawMessage) []byte {
	if len(data) == 0 {
		return []byte("null")
	}
	return data
}
