// Package drone is the adapter for Drone, Woodpecker and Harness: PLUGIN_*
// variables, as drone-docker and drone-kaniko have them, become plugin.Values,
// and the build's end becomes a card, outputs and an artifact file. It decides
// nothing about the build, and reads only what plugin.Job hands it.
package drone

import (
	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin"
)

// Woodpecker sets Drone's variables too, so it is asked for first.
func Woodpecker() plugin.CI {
	return plugin.CI{
		Name: "woodpecker",
		Detect: func(env map[string]string) bool {
			return env["CI"] == "woodpecker" || env["CI_SYSTEM_NAME"] == "woodpecker"
		},
		New: newAdapter,
	}
}

// CI is Drone, and Harness, whose plugins have Drone's variables.
func CI() plugin.CI {
	return plugin.CI{
		Name: "drone",
		// drone exec sets neither DRONE=true nor DRONE_TAG.
		Detect: func(env map[string]string) bool {
			return env["DRONE"] == "true" || env["DRONE_WORKSPACE"] != "" || env["HARNESS_BUILD_ID"] != "" || env["HARNESS_PIPELINE_ID"] != ""
		},
		New: newAdapter,
	}
}

func newAdapter(j plugin.Job) plugin.Adapter { return &adapter{job: j} }

type adapter struct {
	job plugin.Job
	// env are the job's variables, and those of env_file.
	env     map[string]string
	own     own
	notices []string
}

// Hide implements plugin.Adapter. Drone masks its own secrets and takes no more.
func (a *adapter) Hide([][]byte) {}

// Emit implements core.Sink; there is nothing to show steps in.
func (a *adapter) Emit(core.Event) {}
