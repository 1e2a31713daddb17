package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
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
	Args     map[string]string `json:"args"`
	Target   string            `json:"target"`
	Labels   map[string]string `json:"labels"`
	Platform string            `json:"platform"`
	// Secrets are id to value.
	Secrets map[string]string `json:"secrets"`
	// Contexts are named contexts: name to a directory inside the case's
	// context, or an image.
	Contexts map[string]string `json:"contexts"`
	// Skip names isolation modes that cannot do it, with the reason.
	Skip map[string]string `json:"skip"`
	// Fails is part of the error that both builders must give.
	Fails string `json:"fails"`
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
			err = json.Unmarshal(b, &c.Options)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("case %s: %w", c.Name, err)
		}
		out = append(out, c)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
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

// BuildctlArgs are the arguments after "buildctl --addr …" that build the case
// from the prepared dir and push it to ref. Secret files are below secretDir.
func (c Case) BuildctlArgs(dir, secretDir, base, ref string) []string {
	args := []string{"build", "--progress", "plain", "--frontend", "dockerfile.v0",
		"--local", "context=" + dir, "--local", "dockerfile=" + dir,
		"--opt", "build-arg:BASE=" + base,
		"--output", "type=image,oci-mediatypes=true,push=true,name=" + ref}
	for _, k := range sortedKeys(c.Options.Args) {
		args = append(args, "--opt", "build-arg:"+k+"="+c.Options.Args[k])
	}
	for _, k := range sortedKeys(c.Options.Labels) {
		args = append(args, "--opt", "label:"+k+"="+c.Options.Labels[k])
	}
	if c.Options.Target != "" {
		args = append(args, "--opt", "target="+c.Options.Target)
	}
	if c.Options.Platform != "" {
		args = append(args, "--opt", "platform="+c.Options.Platform)
	}
	for _, k := range sortedKeys(c.Options.Secrets) {
		args = append(args, "--secret", "id="+k+",src="+filepath.Join(secretDir, k))
	}
	for _, k := range sortedKeys(c.Options.Contexts) {
		v := c.Options.Contexts[k]
		if strings.Contains(v, "://") {
			args = append(args, "--opt", "context:"+k+"="+strings.ReplaceAll(v, "$BASE", base))
			continue
		}
		args = append(args, "--local", k+"="+filepath.Join(dir, v), "--opt", "context:"+k+"=local:"+k)
	}
	return args
}

// LayerwrightArgs are the same for "layerwright".
func (c Case) LayerwrightArgs(dir, secretDir, base, ref string) []string {
	args := []string{"build", "--log-format", "plain", "--context", dir, "--dockerfile", filepath.Join(dir, "Dockerfile"),
		"--build-arg", "BASE=" + base, "--destination", ref}
	for _, k := range sortedKeys(c.Options.Args) {
		args = append(args, "--build-arg", k+"="+c.Options.Args[k])
	}
	for _, k := range sortedKeys(c.Options.Labels) {
		args = append(args, "--label", k+"="+c.Options.Labels[k])
	}
	if c.Options.Target != "" {
		args = append(args, "--target", c.Options.Target)
	}
	if c.Options.Platform != "" {
		args = append(args, "--platform", c.Options.Platform)
	}
	for _, k := range sortedKeys(c.Options.Secrets) {
		args = append(args, "--secret", "id="+k+",src="+filepath.Join(secretDir, k))
	}
	for _, k := range sortedKeys(c.Options.Contexts) {
		v := strings.ReplaceAll(c.Options.Contexts[k], "$BASE", base)
		if !strings.Contains(v, "://") {
			v = filepath.Join(dir, v)
		}
		args = append(args, "--build-context", k+"="+v)
	}
	return args
}

// WriteSecrets writes the case's secrets as files below dir.
func (c Case) WriteSecrets(dir string) error {
	for k, v := range c.Options.Secrets {
		if err := os.WriteFile(filepath.Join(dir, k), []byte(v), 0o600); err != nil {
			return err
		}
	}
	return nil
}
