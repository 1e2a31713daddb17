package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"time"
)

// Case is a Dockerfile with its context: a folder
//
//	Dockerfile      what is built; ARG BASE is the small base image's reference
//	RULE            one line: which rule the case shows
//	context/        the build context (optional)
//	setup.sh        run by sh in the copied context, for what git cannot hold:
//	                links, modes, devices, times (optional)
//	options.json    Options (optional)
type Case struct {
	Name, Dir string
	Options   Options
}

// Options are a case's settings; the zero value is none.
type Options struct {
	Args   map[string]string `json:"args"`
	Target string            `json:"target"`
	Labels map[string]string `json:"labels"`
	// Annotations are the manifest's.
	Annotations map[string]string `json:"annotations"`
	// Platform may be several, with commas.
	Platform string `json:"platform"`
	// Secrets are id to value.
	Secrets map[string]string `json:"secrets"`
	// Contexts are named contexts: name to a directory inside the case's
	// context, or an image.
	Contexts map[string]string `json:"contexts"`
	// Hosts are extra hosts: name to address.
	Hosts map[string]string `json:"hosts"`
	// Ulimits are NAME=SOFT:HARD; ShmSize is in bytes.
	Ulimits  []string `json:"ulimits"`
	ShmSize  int64    `json:"shmSize"`
	Hostname string   `json:"hostname"`
	// Network is the mode of steps that have none of their own: none or host.
	Network string `json:"network"`
	// Skip names isolation modes that cannot do it, with the reason.
	Skip map[string]string `json:"skip"`

	// Fails is part of the error that both builders must give. The rest is for
	// such cases only.
	Fails string `json:"fails"`
	// Line is the line of the Dockerfile that Layerwright must point at.
	Line int `json:"line"`
	// Code is Layerwright's exit code, 1 where it is not given.
	Code int `json:"code"`
	// Runs says that a step runs before the error, so that every mode counts.
	Runs bool `json:"runs"`
}

// Cases reads all cases below a folder, sorted by name.
func Cases(dir string) ([]Case, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []Case
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		c := Case{Name: e.Name(), Dir: filepath.Join(dir, e.Name())}
		if _, err := os.Stat(filepath.Join(c.Dir, "RULE")); err != nil {
			return nil, fmt.Errorf("case %s: %w", c.Name, err)
		}
		b, err := os.ReadFile(filepath.Join(c.Dir, "options.json"))
		if err == nil {
			err = decode(b, &c.Options)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("case %s: %w", c.Name, err)
		}
		out = append(out, c)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// decode is strict: a misspelt option would silently test something else.
func decode(b []byte, into *Options) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// contextTime is the modification time of every file of a copied context that
// setup.sh does not change.
var contextTime = time.Date(2021, 2, 3, 4, 5, 6, 0, time.UTC)

// Prepare copies the case's context and Dockerfile to dir, as umask 022 would
// leave them, all of one time.
func (c Case) Prepare(ctx context.Context, dir string) error {
	from := filepath.Join(c.Dir, "context")
	if _, err := os.Stat(from); err == nil {
		if err := copyTree(from, dir); err != nil {
			return err
		}
	}
	b, err := os.ReadFile(filepath.Join(c.Dir, "Dockerfile"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), b, 0o644); err != nil {
		return err
	}
	if err := settle(dir); err != nil {
		return err
	}
	setup := filepath.Join(c.Dir, "setup.sh")
	if _, err := os.Stat(setup); err != nil {
		return nil
	}
	cmd := exec.CommandContext(ctx, "sh", "-eu", "-c", "umask 022; . \"$0\"", setup)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("setup.sh: %w\n%s", err, out)
	}
	return nil
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return os.MkdirAll(dst, 0o755)
		case info.Mode()&fs.ModeSymlink != 0:
			l, err := os.Readlink(p)
			if err != nil {
				return err
			}
			return os.Symlink(l, dst)
		default:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			mode := fs.FileMode(0o644)
			if info.Mode()&0o111 != 0 {
				mode = 0o755
			}
			return os.WriteFile(dst, b, mode)
		}
	})
}

// settle sets the times of everything, children before their directories.
func settle(dir string) error {
	var paths []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSymlink == 0 {
			paths = append(paths, p)
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := len(paths) - 1; i >= 0; i-- {
		if err := os.Chtimes(paths[i], contextTime, contextTime); err != nil {
			return err
		}
	}
	return nil
}

// WriteSecrets writes the secrets as files below dir.
func (o Options) WriteSecrets(dir string) error {
	for k, v := range o.Secrets {
		if err := os.WriteFile(filepath.Join(dir, k), []byte(v), 0o600); err != nil {
			return err
		}
	}
	return nil
}
