package gitlab

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin"
)

// The files that a job hands on as artifacts.
const (
	dotenvFile  = "build.env"
	qualityFile = "gl-code-quality-report.json"
)

// Report implements plugin.Adapter: mistakes and images in a section, and the
// files of artifacts.
func (a *adapter) Report(r plugin.Report) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if problems := plugin.Problems(r.Err); len(problems) > 0 {
		var list []string
		for _, p := range problems {
			list = append(list, p.Error())
		}
		return a.section("layerwright_settings", "Mistakes in the settings", list)
	}
	if r.Plan.Skip() != "" {
		return a.section("layerwright_image", "Nothing was built", []string{r.Plan.Skip()})
	}
	err := a.quality(r)
	if r.Result == nil {
		return err
	}
	references := r.Plan.Request.Outputs.Destinations
	var list []string
	for _, ref := range references {
		list = append(list, ref+" "+r.Result.Digest)
	}
	return errors.Join(err, a.section("layerwright_image", "Image", list), a.dotenv(references, r.Result))
}

// section is a part of the log that GitLab folds (docs.gitlab.com, "Custom
// collapsible sections"). What came from elsewhere cannot end it.
func (a *adapter) section(name, head string, list []string) error {
	at := a.job.Now().Unix()
	text := strings.NewReplacer("\x1b", "", "\r", "").Replace(strings.Join(list, "\n"))
	_, err := fmt.Fprintf(a.job.Stdout, "\x1b[0Ksection_start:%d:%s\r\x1b[0K%s\n%s\n\x1b[0Ksection_end:%d:%s\r\x1b[0K\n", at, name, head, text, at, name)
	return err
}

// maxDotenv is GitLab's limit for artifacts:reports:dotenv.
const maxDotenv = 5 << 10

// dotenv writes build.env for later jobs. Tags that do not fit are left out.
func (a *adapter) dotenv(references []string, r *core.Result) error {
	var b strings.Builder
	fmt.Fprintf(&b, "IMAGE_DIGEST=%s\nIMAGE_ID=%s\n", r.Digest, r.ImageID)
	if len(references) > 0 {
		image := references[0]
		name := image[:strings.LastIndex(image, ":")]
		fmt.Fprintf(&b, "IMAGE=%s\nIMAGE_WITH_DIGEST=%s@%s\n", image, name, r.Digest)
		var tags []string
		for _, ref := range references {
			if size := b.Len() + len("IMAGE_TAGS=\n") + len(strings.Join(append(tags, ref), " ")); size > maxDotenv {
				break
			}
			tags = append(tags, ref)
		}
		fmt.Fprintf(&b, "IMAGE_TAGS=%s\n", strings.Join(tags, " "))
	}
	return a.write(dotenvFile, []byte(b.String()))
}

// finding is one entry of a Code Quality report (docs.gitlab.com, "Code Quality
// report format").
type finding struct {
	Description string   `json:"description"`
	CheckName   string   `json:"check_name"`
	Fingerprint string   `json:"fingerprint"`
	Severity    string   `json:"severity"`
	Location    location `json:"location"`
}

type location struct {
	Path  string `json:"path"`
	Lines lines  `json:"lines"`
}

type lines struct {
	Begin int `json:"begin"`
}

// quality writes what the linter has found, an empty list too: GitLab compares
// it with that of the target branch.
func (a *adapter) quality(r plugin.Report) error {
	list := []finding{}
	seen := map[string]bool{}
	for _, w := range a.warnings {
		file := a.dockerfile(r, w.Location)
		sum := sha256.Sum256([]byte(fmt.Sprintf("%s\n%s\n%s\n%d", file, w.Rule, w.Text, w.Location.Start)))
		f := finding{Description: w.Text, CheckName: w.Rule, Fingerprint: hex.EncodeToString(sum[:]), Severity: "minor", Location: location{file, lines{w.Location.Start}}}
		if !seen[f.Fingerprint] {
			seen[f.Fingerprint] = true
			list = append(list, f)
		}
	}
	data, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", qualityFile, err)
	}
	return a.write(qualityFile, append(data, '\n'))
}

// dockerfile is the Dockerfile's path in the project.
func (a *adapter) dockerfile(r plugin.Report, l *core.Location) string {
	file, project := r.Plan.Settings.File, a.job.Env["CI_PROJECT_DIR"]
	if file == "" {
		file = "Dockerfile"
	}
	if path.Base(file) != path.Base(l.File) {
		return l.File
	}
	if dir := r.Plan.Request.Context; !path.IsAbs(file) && !a.job.Exists(file) && !core.IsRemote(dir) {
		file = path.Join(dir, file)
	}
	return strings.TrimPrefix(path.Clean(file), project+"/")
}

func (a *adapter) write(name string, data []byte) error {
	if err := a.job.WriteFile(a.path(name), data); err != nil {
		return &core.Error{Kind: core.KindEnvironment, Op: "write " + name, Err: err, Remedy: "The project's directory must be writable for the job."}
	}
	return nil
}
