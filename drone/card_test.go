package drone

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin"
)

// end reports an end of a step that pushes tags 1 and 2, and gives its card as Drone's
// runner finds it in the log.
func end(t *testing.T, env map[string]string, r plugin.Report) (card cardData, log string) {
	t.Helper()
	env["DRONE_CARD_PATH"] = "/dev/stdout"
	a, out := job(env, map[string]string{})
	plan, err := plugin.Prepare(a.Read())
	if err != nil {
		r.Err = err
	}
	r.Plan = plan
	require.NoError(t, a.Report(r))
	// Drone's runner: github.com/drone/runner-go/pipeline/runtime, "\x1b]1338;…\x1b]0m".
	found := regexp.MustCompile("\x1b]1338;([A-Za-z0-9+/=]*)\x1b]0m\n").FindStringSubmatch(out.String())
	require.NotNil(t, found, out.String())
	raw, err := base64.StdEncoding.DecodeString(found[1])
	require.NoError(t, err)
	var whole struct {
		Schema string
		Data   json.RawMessage
	}
	require.NoError(t, json.Unmarshal(raw, &whole))
	require.Equal(t, cardSchema, whole.Schema)
	rendered(t, whole.Data)
	require.NoError(t, json.Unmarshal(whole.Data, &card))
	return card, out.String()
}

func TestTheCardSaysHowItEnded(t *testing.T) {
	env := func() map[string]string { return step("TAGS", "1,2", "REPO", "r.example/o/a") }
	c, _ := end(t, env(), plugin.Report{Took: 12345 * time.Millisecond, Result: &core.Result{Digest: "sha256:d", ImageID: "sha256:i", Size: 1234, Destinations: []string{"r.example/o/a:1"},
		Cache: []core.CachedStep{{Hit: true}, {}}}})
	require.Equal(t, cardData{Status: "pushed", Color: "good", Image: "r.example/o/a:1", Problems: []cardProblem{}, Tags: []cardTag{{"r.example/o/a:1"}, {"r.example/o/a:2"}},
		Digest: "sha256:d", ImageID: "sha256:i", Size: "1.234kB", Took: "12.3s", Cache: "1 of 2 steps were known"}, c)

	c, _ = end(t, env(), plugin.Report{Err: &core.Error{Kind: core.KindStep, Op: "run", Err: errors.New("exit code 7"), Remedy: "Look at the log."}})
	require.Equal(t, "failed attention run: exit code 7 Look at the log.", c.Status+" "+c.Color+" "+c.Text+" "+c.Remedy)

	skipped := step("AUTO_TAG", "true")
	skipped["DRONE_COMMIT_REF"] = "refs/heads/dev"
	c, log := end(t, skipped, plugin.Report{})
	require.Equal(t, "skipped", c.Status)
	require.Contains(t, c.Text, "refs/heads/dev")
	require.Contains(t, log, "nothing is built: ")
}

// TestTheCardHasAllMistakes is the list of bad input.
func TestTheCardHasAllMistakes(t *testing.T) {
	env := step("BUILD_ARGS", "=geheim", "TAGS", "-", "LOAD", "true", "SECRET_FILES", "token=missing", "LOGINS", "{geheim", "REPO", "r.example/o/a,A B")
	c, _ := end(t, env, plugin.Report{})
	require.Equal(t, "failed", c.Status)
	require.Equal(t, "Correct the settings; nothing was built.", c.Remedy)
	said := map[string]string{}
	for _, p := range c.Problems {
		said[p.Setting] = p.Text
		require.NotContains(t, p.Text, "geheim")
	}
	for _, name := range []string{"setting build_args", "setting tags", "setting load", "setting secret_files", "setting logins", "setting repo"} {
		require.NotEmpty(t, said[name], name)
	}
	require.Len(t, said, 6)
	env = step("NO_PUSH", "false")
	delete(env, "PLUGIN_REPO")
	c, _ = end(t, env, plugin.Report{})
	require.Len(t, c.Problems, 1)
	require.Equal(t, "setting repo", c.Problems[0].Setting)
	require.Contains(t, c.Problems[0].Text, "it is missing: name the image")
}

// TestATagIsNoImage: docker would push 1.0 to Docker Hub's library.
func TestATagIsNoImage(t *testing.T) {
	without := func(kv ...string) map[string]string {
		env := step(kv...)
		delete(env, "PLUGIN_REPO")
		return env
	}
	require.Contains(t, wrong(t, without("TAGS", "1.0,latest"), nil), "setting repo: it is missing")
	require.Contains(t, wrong(t, without("PUSH_ONLY", "true", "SOURCE_TAR_PATH", "x"), nil), "setting repo: it is missing")
	require.Equal(t, []string{"r.example/a:1"}, prepare(t, without("TAGS", "r.example/a:1")).Request.Outputs.Destinations)
	require.Equal(t, []string{"o/b"}, prepare(t, without("OUTPUTS", "type=image,name=o/b,push=true")).Request.Outputs.Destinations)
	for _, kv := range [][]string{{"TAGS", "1.0", "NO_PUSH", "true"}, {"TAGS", "1.0", "TAR_PATH", "x"}} {
		p := prepare(t, without(kv...))
		require.Empty(t, p.Request.Outputs.Destinations)
		require.Equal(t, []string{"the tags of setting tags have no effect without repo"}, p.Notices)
	}
}

func TestTheCardGoesWhereItIsWanted(t *testing.T) {
	files := map[string]string{}
	env := step()
	env["DRONE_CARD_PATH"] = "card.json"
	a, out := job(env, files)
	plan, err := plugin.Prepare(a.Read())
	require.NoError(t, err)
	require.NoError(t, a.Report(plugin.Report{Plan: plan, Result: &core.Result{}}))
	require.JSONEq(t, `"`+cardSchema+`"`, schemaOf(t, files["card.json"]))
	require.Empty(t, out.String())
	env["DRONE_CARD_PATH"] = "/dev/stderr"
	require.NoError(t, a.Report(plugin.Report{Plan: plan, Result: &core.Result{}}))
	require.True(t, strings.HasPrefix(files["/dev/stderr"], "\x1b]1338;"))
	a.job.WriteFile = func(string, []byte) error { return errors.New("read-only") }
	env["DRONE_CARD_PATH"] = "card.json"
	require.ErrorContains(t, a.Report(plugin.Report{Plan: plan, Result: &core.Result{}}), "write DRONE_CARD_PATH: read-only")
}

func schemaOf(t *testing.T, text string) string {
	t.Helper()
	var c map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(text), &c))
	return string(c["schema"])
}

// elements are what card.json may use of Adaptive Cards 1.5
// (adaptivecards.io/explorer), and what each needs; $when and $data are the
// template's.
var elements = map[string]struct{ needs, may []string }{
	"AdaptiveCard": {[]string{"version", "body"}, []string{"$schema"}},
	"TextBlock":    {[]string{"text"}, []string{"weight", "size", "wrap", "isSubtle", "spacing", "color", "horizontalAlignment", "fontType"}},
	"ColumnSet":    {[]string{"columns"}, nil},
	"Column":       {[]string{"items"}, []string{"width"}},
	"Container":    {[]string{"items"}, nil},
	"FactSet":      {[]string{"facts"}, nil},
	"":             {[]string{"title", "value"}, nil}, // a fact
}

var expression = regexp.MustCompile(`\$\{([^}]*)\}`)

// rendered checks that card.json is an adaptive card, and that each of its expressions
// finds its value in the data.
func rendered(t *testing.T, data []byte) {
	t.Helper()
	text, err := os.ReadFile("card.json")
	require.NoError(t, err)
	var root, values map[string]any
	require.NoError(t, json.Unmarshal(text, &root))
	require.NoError(t, json.Unmarshal(data, &values))
	require.Equal(t, "AdaptiveCard", root["type"])
	element(t, root, values)
}

func element(t *testing.T, e map[string]any, values map[string]any) {
	t.Helper()
	kind, _ := e["type"].(string)
	known, ok := elements[kind]
	require.True(t, ok, "unknown element %q", kind)
	for _, k := range known.needs {
		require.Contains(t, e, k, kind)
	}
	if from, ok := e["$data"].(string); ok {
		list, isList := values[expression.FindStringSubmatch(from)[1]].([]any)
		require.True(t, isList, from)
		if len(list) == 0 {
			return
		}
		inner, isMap := list[0].(map[string]any)
		require.True(t, isMap, from)
		values = inner
	}
	for key, value := range e {
		if key != "type" && key != "$when" && key != "$data" {
			require.Contains(t, append(known.needs, known.may...), key, kind)
		}
		switch value := value.(type) {
		case string:
			if key == "$data" {
				continue
			}
			for _, m := range expression.FindAllStringSubmatch(value, -1) {
				name := regexp.MustCompile(`^(?:count\((\w+)\) > 0|(\w+) != ''|(\w+))$`).FindStringSubmatch(m[1])
				require.NotNil(t, name, "%s: not one of the forms that are used", value)
				require.Contains(t, values, name[1]+name[2]+name[3], value)
			}
		case []any:
			for _, child := range value {
				inner, ok := child.(map[string]any)
				require.True(t, ok)
				element(t, inner, values)
			}
		}
	}
}

func TestOutputsOfHarness(t *testing.T) {
	files := map[string]string{}
	env := step("TAGS", "1", "REPO", "o/a", "TAR_PATH", "i.tar", "ARTIFACT_FILE", "artifact.json", "METADATA_FILE", "meta.json")
	env["HARNESS_OUTPUT_FILE"] = "out"
	a, _ := job(env, files)
	plan, err := plugin.Prepare(a.Read())
	require.NoError(t, err)
	require.Equal(t, "meta.json", plan.Request.Outputs.MetadataFile)
	require.NoError(t, a.Report(plugin.Report{Plan: plan, Result: &core.Result{Digest: "sha256:d", ImageID: "sha256:i"}}))
	require.Equal(t, "digest=sha256:d\nimageid=sha256:i\nimage=o/a:1\ntags=o/a:1\nIMAGE_TAR_PATH=i.tar\n", files["out"])
	require.JSONEq(t, `{"kind":"docker/v1","data":{"registryType":"Docker","registryUrl":"https://index.docker.io/v1/","images":[{"image":"o/a:1","digest":"sha256:d"}]}}`, files["artifact.json"])
	require.NoError(t, a.Report(plugin.Report{Plan: plan, Err: errors.New("x")}))
	require.Equal(t, 1, strings.Count(files["out"], "digest="), "a build that failed has no outputs")
	for host, kind := range map[string]string{"123456789012.dkr.ecr.eu-west-1.amazonaws.com": "ECR", "gcr.io": "GCR", "eu-docker.pkg.dev": "GAR", "x.azurecr.io": "ACR", "r.example": "Docker"} {
		require.Equal(t, kind, registryType(host))
	}
}
