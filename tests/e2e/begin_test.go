package e2e_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// soon is how long a build may take to begin with its first step, a tenth of which is
// what people are promised: test machines are shared.
const soon = time.Second

// TestTheFirstStepBeginsSoon after the start of the process, in a default container:
// what is found out before, and / made ready for steps, is all in it.
func TestTheFirstStepBeginsSoon(t *testing.T) {
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + smallBase(t) + "\nRUN true\n"})
	// The time since the machine's start is what a shell knows in fractions of seconds.
	script := "read -r now rest < /proc/uptime; echo began $now; exec layerwright build --log-format json --no-push -c /workspace"
	var fastest, fastestRun time.Duration
	for i := range 3 {
		got := inShell(t, dir, script)
		require.Zero(t, got.code, got.output)
		began := regexp.MustCompile(`(?m)^began ([0-9.]+)$`).FindStringSubmatch(got.output)
		require.NotNil(t, began, got.output)
		start := machineStart(t).Add(seconds(t, began[1]))
		var first, run time.Duration
		for line := range strings.Lines(got.output) {
			var e struct {
				Type string
				Time time.Time
				Step struct{ Name string }
			}
			if json.Unmarshal([]byte(line), &e) != nil || e.Type != "started" {
				continue
			}
			if first == 0 {
				first = e.Time.Sub(start)
			}
			if strings.Contains(e.Step.Name, "RUN true") {
				run = e.Time.Sub(start)
			}
		}
		require.NotZero(t, run, got.output)
		if i == 0 || first < fastest {
			fastest, fastestRun = first, run
		}
	}
	t.Logf("the first step began after %s, the first RUN after %s", fastest, fastestRun)
	require.Positive(t, fastest)
	require.Less(t, fastest, soon)
}

// machineStart is when the machine has started, as far as its clock goes.
func machineStart(t *testing.T) time.Time {
	t.Helper()
	data, err := os.ReadFile("/proc/uptime")
	require.NoError(t, err)
	return time.Now().Add(-seconds(t, strings.Fields(string(data))[0]))
}

func seconds(t *testing.T, text string) time.Duration {
	t.Helper()
	n, err := strconv.ParseFloat(text, 64)
	require.NoError(t, err)
	return time.Duration(n * float64(time.Second))
}
