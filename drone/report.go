package drone

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin"
)

// artifact is what drone-docker writes to artifact_file, for the artifacts of
// Harness.
type artifact struct {
	Kind string       `json:"kind"`
	Data artifactData `json:"data"`
}

type artifactData struct {
	RegistryType string          `json:"registryType"`
	RegistryURL  string          `json:"registryUrl"`
	Images       []artifactImage `json:"images"`
}

type artifactImage struct {
	Image  string `json:"image"`
	Digest string `json:"digest"`
}

// Report implements plugin.Adapter. Mistakes are shown by the program; Drone has
// no place for them but the log.
func (a *adapter) Report(r plugin.Report) error {
	if skip := r.Plan.Skip(); skip != "" && r.Err == nil {
		_, err := fmt.Fprintf(a.job.Stdout, "nothing is built: %s\n", skip)
		return err
	}
	if r.Result == nil {
		return nil
	}
	return errors.Join(a.outputs(r), a.artifact(r))
}

// outputs writes KEY=VALUE for later steps of Harness; Drone itself has none.
func (a *adapter) outputs(r plugin.Report) error {
	path := a.job.Env["DRONE_OUTPUT"]
	if path == "" {
		path = a.job.Env["HARNESS_OUTPUT_FILE"]
	}
	if path == "" {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "digest=%s\nimageid=%s\n", r.Result.Digest, r.Result.ImageID)
	if o := r.Plan.Request.Outputs; len(o.Destinations) > 0 {
		fmt.Fprintf(&b, "image=%s\ntags=%s\n", o.Destinations[0], strings.Join(o.Destinations, ","))
	}
	if tar := r.Plan.Request.Outputs.DockerTar; tar != "" {
		fmt.Fprintf(&b, "IMAGE_TAR_PATH=%s\n", tar)
	}
	return failed("DRONE_OUTPUT", a.job.Append(path, []byte(b.String())))
}

// artifact writes every image that was pushed, also those with automatic tags.
func (a *adapter) artifact(r plugin.Report) error {
	path := settings(a.job.Env)["ARTIFACT_FILE"]
	if path == "" || r.Plan.Request.Outputs.NoPush {
		return nil
	}
	file := artifact{Kind: "docker/v1", Data: artifactData{RegistryType: "Docker", Images: []artifactImage{}}}
	for _, ref := range r.Plan.Request.Outputs.Destinations {
		file.Data.Images = append(file.Data.Images, artifactImage{ref, r.Result.Digest})
		if host, _, ok := strings.Cut(ref, "/"); ok && strings.ContainsAny(host, ".:") && file.Data.RegistryURL == "" {
			file.Data.RegistryURL = "https://" + host
		}
	}
	if file.Data.RegistryURL == "" {
		file.Data.RegistryURL = "https://index.docker.io/"
	}
	data, err := json.Marshal(file)
	if err == nil {
		err = a.job.WriteFile(path, data)
	}
	return failed("artifact_file", err)
}

func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return &core.Error{Kind: core.KindEnvironment, Op: "write " + what, Err: err, Remedy: "The file must be writable for this step."}
}
