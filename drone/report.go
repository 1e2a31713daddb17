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

// Report implements plugin.Adapter. The card has mistakes in the settings too; the
// log has them in any case.
func (a *adapter) Report(r plugin.Report) error {
	err := a.card(r)
	if skip := r.Plan.Skip(); skip != "" && r.Err == nil {
		_, printed := fmt.Fprintf(a.job.Stdout, "nothing is built: %s\n", skip)
		return errors.Join(err, printed)
	}
	if r.Result == nil {
		return err
	}
	return errors.Join(err, a.outputs(r), a.artifact(r))
}

// outputs writes KEY=VALUE for later steps of Harness; Drone itself has none.
func (a *adapter) outputs(r plugin.Report) error {
	name := "DRONE_OUTPUT"
	if a.env[name] == "" {
		name = "HARNESS_OUTPUT_FILE"
	}
	if a.env[name] == "" {
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
	return failed(name, a.job.Append(a.env[name], []byte(b.String())))
}

// hubURL is how drone-docker's artifact file names Docker Hub.
const hubURL = "https://index.docker.io/v1/"

// artifact writes every image that was pushed, also those with automatic tags.
func (a *adapter) artifact(r plugin.Report) error {
	path := a.own.ArtifactFile
	if path == "" || r.Plan.Request.Outputs.NoPush {
		return nil
	}
	file := artifact{Kind: "docker/v1", Data: artifactData{RegistryType: a.own.RegistryType, Images: []artifactImage{}}}
	for _, ref := range r.Plan.Request.Outputs.Destinations {
		file.Data.Images = append(file.Data.Images, artifactImage{ref, r.Result.Digest})
		if host, _, ok := strings.Cut(ref, "/"); ok && strings.ContainsAny(host, ".:") && file.Data.RegistryURL == "" {
			file.Data.RegistryURL = "https://" + host
			if file.Data.RegistryType == "" {
				file.Data.RegistryType = registryType(host)
			}
		}
	}
	if file.Data.RegistryURL == "" {
		file.Data.RegistryURL = hubURL
	}
	if file.Data.RegistryType == "" {
		file.Data.RegistryType = "Docker"
	}
	data, err := json.Marshal(file)
	if err == nil {
		err = a.job.WriteFile(path, data)
	}
	return failed("artifact_file", err)
}

// registryType is what Harness calls a registry.
func registryType(host string) string {
	switch core.CloudOf(host) {
	case "aws":
		return "ECR"
	case "azure":
		return "ACR"
	case "google":
		if strings.HasSuffix(host, ".pkg.dev") {
			return "GAR"
		}
		return "GCR"
	}
	return "Docker"
}

func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return &core.Error{Kind: core.KindEnvironment, Op: "write " + what, Err: err, Remedy: "The file must be writable for this step."}
}
