package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/drone"
	"github.com/layerwright/layerwright/github"
	"github.com/layerwright/layerwright/gitlab"
	"github.com/layerwright/layerwright/plugin"
	"github.com/layerwright/layerwright/plugin/display"
)

// hosts are the CIs, one line each; the first whose environment this is wins
// (docs/adding-a-ci.md).
func hosts() []plugin.CI {
	return []plugin.CI{
		github.CI(),
		gitlab.CI(),
		drone.Woodpecker(), // sets Drone's variables too
		drone.CI(),
	}
}

// hostVariable names the CI where the environment misleads; "none" is the
// command line.
const hostVariable = "LAYERWRIGHT_HOST"

// host is the CI that the program runs in; nil where it is none.
func (p *process) host() (*plugin.CI, error) {
	name := p.env[hostVariable]
	switch base := filepath.Base(p.args[0]); {
	case base == "executor" || base == "warmer": // Kaniko's, whatever runs them
		return nil, nil
	case name == "none":
		return nil, nil
	}
	var names []string
	for _, h := range hosts() {
		if h.Name == name || name == "" && h.Detect(p.env) {
			return &h, nil
		}
		names = append(names, h.Name)
	}
	if name != "" {
		err := usage("%s=%s: unknown", hostVariable, name)
		err.Remedy = "Use " + strings.Join(names, ", ") + ", or none for the command line."
		return nil, err
	}
	return nil, nil
}

// hostCommands are the CIs as commands.
func (p *process) hostCommands() (list []*cobra.Command) {
	for _, h := range hosts() {
		c := &cobra.Command{Use: h.Name, Args: cobra.NoArgs, Annotations: map[string]string{"host": h.Name}, RunE: func(c *cobra.Command, _ []string) error {
			return p.inCI(c, h)
		}}
		c.Flags().Bool("print-settings", false, "")
		c.SetHelpFunc(func(c *cobra.Command, _ []string) {
			fmt.Fprintf(c.OutOrStdout(), "layerwright %s builds what the variables of this CI describe; --print-settings only shows what they come to.\n", h.Name)
		})
		list = append(list, c)
	}
	return list
}

// inCI builds what a CI describes, or with --print-settings only shows it.
func (p *process) inCI(c *cobra.Command, h plugin.CI) error {
	adapter := h.New(p.job())
	if show, err := c.Flags().GetBool("print-settings"); err != nil || show {
		if err != nil {
			return err
		}
		values, _, _ := adapter.Read()
		return plugin.WriteSettings(c.OutOrStdout(), values)
	}
	proc := plugin.Process{Stderr: p.stderr, Color: p.color(), Inside: p.inside}
	if p.inside {
		proc.Store = p.env[core.StoreVariable]
	}
	shown, err := plugin.Execute(c.Context(), adapter, proc, p.enter)
	var status *exitStatus
	if errors.As(err, &status) {
		p.code = enteredCode(c.Context(), status.code)
		return nil
	}
	p.code = exitCode(c.Context(), err)
	if err != nil && !shown {
		_, _ = io.WriteString(p.stderr, display.ErrorText(ended(c.Context(), err), p.color()))
	}
	return nil
}

// enter runs the program again where the isolation needs it, and hardens the one
// that will build.
func (p *process) enter(ctx context.Context, r core.Request) (chosen string, done bool, err error) {
	if !p.inside && len(r.Engines) == 0 {
		entered, err := core.Enter(ctx, core.EnterOptions{
			Isolation: r.Isolation, Store: r.Store, Args: p.args, Env: p.environ(),
			Notice: func(text string) {
				display.Early(display.Plain, p.stderr, display.Options{}, core.Notice{Level: core.Info, Text: text, Time: time.Now()})
			},
		})
		if err != nil {
			return "", false, err
		}
		if entered.Done {
			if entered.Code != 0 {
				err = &exitStatus{entered.Code}
			}
			return "", true, err
		}
		chosen = entered.Chosen
	}
	return chosen, false, core.Harden()
}

// job is what an adapter may use of the process.
func (p *process) job() plugin.Job {
	return plugin.Job{Env: p.env, Stdout: p.stdout, ReadFile: os.ReadFile, Glob: filepath.Glob, Exists: exists, Append: appendTo, WriteFile: func(path string, data []byte) error { return os.WriteFile(path, data, 0o644) }, Now: time.Now}
}

// exists is also false for an empty directory.
func exists(path string) bool {
	fi, err := os.Stat(path)
	if err != nil || !fi.IsDir() {
		return err == nil
	}
	d, err := os.Open(path)
	if err != nil {
		return false
	}
	defer d.Close()
	_, err = d.Readdirnames(1)
	return err == nil
}

func appendTo(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, fs.FileMode(0o644))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.Write(data)
	return err
}

// exitStatus is a process of ours that ended with a code.
type exitStatus struct{ code int }

func (e *exitStatus) Error() string { return fmt.Sprintf("the build ended with code %d", e.code) }
