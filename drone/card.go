package drone

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin"
)

// cardSchema is what Drone's page renders a card's data with: card.json in this
// folder, an adaptive card with a template.
const cardSchema = "https://raw.githubusercontent.com/layerwright/layerwright/v1/drone/card.json"

// card is what Drone reads from DRONE_CARD_PATH.
type card struct {
	Schema string   `json:"schema"`
	Data   cardData `json:"data"`
}

// cardData is what card.json shows. Every member is always there, since the template
// shows the name of one that is not.
type cardData struct {
	// Status is pushed, built, skipped or failed; Color is one of an adaptive card.
	Status string `json:"status"`
	Color  string `json:"color"`
	// Image is the first destination; Text is what was wrong, or why nothing was
	// built, and Remedy what to do.
	Image  string `json:"image"`
	Text   string `json:"text"`
	Remedy string `json:"remedy"`
	// Problems are mistakes in the settings, one each.
	Problems []cardProblem `json:"problems"`
	Tags     []cardTag     `json:"tags"`
	Digest   string        `json:"digest"`
	ImageID  string        `json:"imageId"`
	Size     string        `json:"size"`
	Took     string        `json:"took"`
	// Cache says how many steps were known.
	Cache string `json:"cache"`
}

type cardProblem struct {
	Setting string `json:"setting"`
	Text    string `json:"text"`
}

type cardTag struct {
	Tag string `json:"tag"`
}

// card writes the end where Drone shows it: also what is wrong with the settings.
func (a *adapter) card(r plugin.Report) error {
	path := a.env["DRONE_CARD_PATH"]
	if path == "" {
		return nil
	}
	text, err := json.Marshal(card{Schema: cardSchema, Data: dataOf(r)})
	if err != nil {
		return fmt.Errorf("write the card: %w", err)
	}
	// The runner takes it out of the log between these.
	line := "\x1b]1338;" + base64.StdEncoding.EncodeToString(text) + "\x1b]0m\n"
	switch path {
	case "/dev/stdout":
		_, err = fmt.Fprint(a.job.Stdout, line)
	case "/dev/stderr":
		err = a.job.Append(path, []byte(line))
	default:
		err = a.job.WriteFile(path, text)
	}
	return failed("DRONE_CARD_PATH", err)
}

// dataOf is the card of an end.
func dataOf(r plugin.Report) cardData {
	d := cardData{Status: "built", Color: "good", Problems: []cardProblem{}, Tags: []cardTag{}, Took: r.Took.Round(time.Second / 10).String()}
	o := r.Plan.Request.Outputs
	if len(o.Destinations) > 0 {
		d.Image = o.Destinations[0]
	}
	switch {
	case r.Err != nil:
		d.Status, d.Color = "failed", "attention"
		var e *core.Error
		if errors.As(r.Err, &e) {
			d.Remedy = e.Remedy
		}
		for _, p := range plugin.Problems(r.Err) {
			d.Problems = append(d.Problems, cardProblem{p.Spelled, p.Err.Error()})
		}
		if d.Text = r.Err.Error(); len(d.Problems) > 0 {
			d.Text = "The settings are wrong, and nothing was built."
		}
		return d
	case r.Plan.Skip() != "":
		d.Status, d.Color, d.Text = "skipped", "accent", r.Plan.Skip()
		return d
	case r.Result == nil:
		return d
	}
	if !o.NoPush && len(r.Result.Destinations) > 0 {
		d.Status = "pushed"
	}
	for _, ref := range o.Destinations {
		d.Tags = append(d.Tags, cardTag{ref})
	}
	d.Digest, d.ImageID = r.Result.Digest, r.Result.ImageID
	if r.Result.Size > 0 {
		d.Size = units.HumanSize(float64(r.Result.Size))
	}
	if steps := r.Result.Cache; len(steps) > 0 {
		known := 0
		for _, s := range steps {
			if s.Hit {
				known++
			}
		}
		d.Cache = fmt.Sprintf("%d of %d steps were known", known, len(steps))
	}
	d.Text = strings.Join(r.Plan.Files(), ", ")
	return d
}
