package github

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin"
)

// Report implements plugin.Adapter.
func (a *adapter) Report(r plugin.Report) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range a.notices {
		a.action.Noticef("%s", n)
	}
	a.annotate(r)
	if r.Plan.Skip() != "" {
		a.action.Noticef("nothing was built: %s", r.Plan.Skip())
	}
	var err error
	if r.Result != nil {
		a.image(r)
		err = a.outputs(r)
	}
	if problems := plugin.Problems(r.Err); len(problems) > 0 {
		return nil // there is nothing to sum up
	}
	return errors.Join(err, a.write("GITHUB_STEP_SUMMARY", a.summary(r)))
}

// image is a group of the log that GitHub folds: what was made.
func (a *adapter) image(r plugin.Report) {
	if r.Result.Digest == "" { // nothing was asked for but a build
		return
	}
	a.action.Group("Image")
	for _, ref := range r.Plan.Request.Outputs.Destinations {
		a.action.Infof("%s %s", ref, r.Result.Digest)
	}
	a.action.Infof("Digest %s", r.Result.Digest)
	a.action.Infof("Image ID %s", r.Result.ImageID)
	a.action.EndGroup()
}

// annotate puts what is wrong where GitHub shows it: warnings and the failing
// step at their lines.
func (a *adapter) annotate(r plugin.Report) {
	for _, w := range a.warnings {
		fields := map[string]string{"title": w.Rule}
		if w.Rule == "" {
			fields["title"] = "Layerwright"
		}
		a.at(fields, w.Location)
		a.action.WithFieldsMap(fields).Warningf("%s", strings.TrimSpace(w.Text+" "+w.URL))
	}
	if r.Err == nil {
		return
	}
	if problems := plugin.Problems(r.Err); len(problems) > 0 {
		for _, p := range problems {
			a.action.WithFieldsMap(map[string]string{"title": p.Spelled}).Errorf("%s", p.Error())
		}
		return
	}
	fields, text := map[string]string{"title": "Layerwright"}, r.Err.Error()
	var e *core.Error
	if errors.As(r.Err, &e) {
		a.at(fields, e.Location)
		if e.Remedy != "" {
			text += "\n" + e.Remedy
		}
		if e.Kind == core.KindRegistry {
			text += a.hint(text)
		}
	}
	a.action.WithFieldsMap(fields).Errorf("%s", text)
}

// hint explains the two traps that most people fall into.
func (a *adapter) hint(text string) string {
	switch {
	case strings.Contains(text, "no credentials"):
		return "\nA container action does not see ~/.docker of docker/login-action. Set the inputs registry, username and password, or give the step of login-action env DOCKER_CONFIG: ${{ runner.temp }}/_github_home/.docker (docs/github.md)."
	case a.token && strings.Contains(text, containerRegistry):
		return "\n" + containerRegistry + " was given the job's own token: it needs permissions: packages: write, and access to the package where another repository has made it."
	}
	return ""
}

func (a *adapter) at(fields map[string]string, l *core.Location) {
	if l == nil {
		return
	}
	fields["file"], fields["line"] = a.dockerfile(l), strconv.Itoa(l.Start)
	if l.End > l.Start {
		fields["endLine"] = strconv.Itoa(l.End)
	}
}

// Output is one output of action.yml.
type Output struct{ Name, Help string }

// Outputs are all outputs.
func Outputs() []Output {
	return []Output{
		{"digest", "digest of the image or index"},
		{"imageid", "digest of the image's configuration"},
		{"metadata", "JSON with containerimage.digest, containerimage.config.digest and image.name"},
		{"version", "the tag that names the version"},
		{"tags", "references of the image, one a line"},
		{"labels", "labels, KEY=VALUE, one a line"},
		{"image", "the first reference"},
		{"image-with-digest", "the first image's name with @digest"},
		{"cache-hits", "number of steps that were known"},
	}
}

// outputs writes GITHUB_OUTPUT.
func (a *adapter) outputs(r plugin.Report) error {
	references := r.Plan.Request.Outputs.Destinations
	metadata, err := json.Marshal(map[string]string{
		"containerimage.digest": r.Result.Digest, "containerimage.config.digest": r.Result.ImageID, "image.name": strings.Join(references, ","),
	})
	if err != nil {
		return fmt.Errorf("write outputs: %w", err)
	}
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(r.Plan.Labels)) {
		labels = append(labels, k+"="+r.Plan.Labels[k])
	}
	image := first(references)
	withDigest := ""
	if image != "" && r.Result.Digest != "" {
		withDigest = withoutTag(image) + "@" + r.Result.Digest
	}
	hits := 0
	for _, c := range r.Result.Cache {
		if c.Hit {
			hits++
		}
	}
	values := map[string]string{
		"digest": r.Result.Digest, "imageid": r.Result.ImageID, "metadata": string(metadata), "version": r.Plan.Names.Version,
		"tags": strings.Join(references, "\n"), "labels": strings.Join(labels, "\n"),
		"image": image, "image-with-digest": withDigest, "cache-hits": strconv.Itoa(hits),
	}
	var b strings.Builder
	for _, o := range Outputs() {
		// Random, so that no label can end its output and start another.
		end := "end_" + rand.Text()
		fmt.Fprintf(&b, "%s<<%s\n%s\n%s\n", o.Name, end, values[o.Name], end)
	}
	return a.write("GITHUB_OUTPUT", b.String())
}

func withoutTag(image string) string {
	if i := strings.LastIndex(image, ":"); i > strings.LastIndex(image, "/") {
		return image[:i]
	}
	return image
}

// write adds to a file that a variable names; without one there is nobody to
// read it.
func (a *adapter) write(variable, text string) error {
	path := a.job.Env[variable]
	if path == "" || text == "" {
		return nil
	}
	if err := a.job.Append(path, []byte(text)); err != nil {
		return &core.Error{Kind: core.KindEnvironment, Op: "write " + variable, Err: err, Remedy: "The runner's directory of file commands must be writable for this action."}
	}
	return nil
}
