package dronefile

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/plugin/recorded"
)

// TestVariablesAreThoseOfARealRunner compares with what drone exec has made of the
// same settings.
func TestVariablesAreThoseOfARealRunner(t *testing.T) {
	steps, err := Steps(`
kind: pipeline
steps:
- name: plugin
  image: plugins/docker
  environment: {FOO: "1"}
  settings:
    repo: foo/bar
    tags: [a, b]
    auto_tag: true
    build_args: [A=1, "B=x,y"]
    registry-mirrors: [m1, m2]
    logins: [{registry: r1, username: u}]
    nested: {k: v, l: [1, 2]}
    password: {from_secret: password}
`, nil, map[string]string{"password": "********"})
	require.NoError(t, err)
	require.Len(t, steps, 1)
	want := map[string]string{"FOO": "1"}
	for name, value := range recorded.Environment(t, "../../drone/testdata/exec.env") {
		if len(name) > 7 && name[:7] == "PLUGIN_" {
			want[name] = value
		}
	}
	require.Equal(t, want, steps[0].Environment)
}

func TestWhatIsFilledIn(t *testing.T) {
	steps, err := Steps("steps: [{name: a, commands: [ls]}]\n---\nsteps: [{name: b, settings: {tags: \"${DRONE_TAG},latest\"}}]", map[string]string{"DRONE_TAG": "v1"}, nil)
	require.NoError(t, err)
	require.Equal(t, []Step{{"a", "", []string{"ls"}, map[string]string{}}, {"b", "", nil, map[string]string{"PLUGIN_TAGS": "v1,latest"}}}, steps)
	_, err = Steps("steps: [{name: a, settings: {password: {from_secret: missing}}}]", nil, nil)
	require.EqualError(t, err, "step a: PLUGIN_PASSWORD: there is no secret missing")
	_, err = Steps("steps: [", nil, nil)
	require.Error(t, err)
}
