// Package dronefile reads, for tests, a .drone.yml or Woodpecker pipeline as their
// runners do: which image each step runs, and which variables it gets. It knows no
// setting of any plugin.
package dronefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// Step is one step of a pipeline.
type Step struct {
	Name, Image string
	// Commands are for a shell in the image; a plugin has none.
	Commands []string
	// Environment has the step's own variables, and PLUGIN_ ones of its settings.
	Environment map[string]string
}

var variable = regexp.MustCompile(`\$\{\w+\}`)

// Steps are those of all pipelines of a file, in their order. Of env ${NAME} is
// filled in before anything is parsed, as Drone does; secrets are by their names.
func Steps(text string, env, secrets map[string]string) (steps []Step, err error) {
	text = variable.ReplaceAllStringFunc(text, func(v string) string { return env[v[2:len(v)-1]] })
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var doc struct {
			Steps []struct {
				Name, Image           string
				Commands              []string
				Settings, Environment map[string]any
			}
		}
		if err := d.Decode(&doc); errors.Is(err, io.EOF) {
			return steps, nil
		} else if err != nil {
			return nil, fmt.Errorf("parse the pipeline: %w", err)
		}
		for _, s := range doc.Steps {
			step := Step{s.Name, s.Image, s.Commands, map[string]string{}}
			// Drone keeps hyphens in names.
			for prefix, values := range map[string]map[string]any{"PLUGIN_": s.Settings, "": s.Environment} {
				for name, v := range values {
					if prefix != "" {
						name = prefix + strings.ToUpper(name)
					}
					if step.Environment[name], err = value(v, secrets); err != nil {
						return nil, fmt.Errorf("step %s: %s: %w", s.Name, name, err)
					}
				}
			}
			steps = append(steps, step)
		}
	}
}

// value is a setting as a variable: a list is joined by commas, in which nothing is
// escaped; what is nested is JSON.
func value(v any, secrets map[string]string) (string, error) {
	switch v := v.(type) {
	case map[string]any:
		if name, ok := v["from_secret"].(string); ok {
			secret, ok := secrets[name]
			if !ok {
				return "", fmt.Errorf("there is no secret %s", name)
			}
			return secret, nil
		}
		return nested(v)
	case []any:
		var parts []string
		for _, e := range v {
			switch e.(type) {
			case map[string]any, []any:
				return nested(v)
			}
			parts = append(parts, fmt.Sprint(e))
		}
		return strings.Join(parts, ","), nil
	}
	return fmt.Sprint(v), nil
}

func nested(v any) (string, error) {
	text, err := json.Marshal(v)
	return string(text), err
}
