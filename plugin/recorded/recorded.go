// Package recorded reads, for tests, environments as real runners gave them to jobs.
// It knows no CI.
package recorded

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Environment reads a file of one NAME=value a line, each as a Go string.
func Environment(t testing.TB, file string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	env := map[string]string{}
	for line := range strings.Lines(string(data)) {
		text, err := strconv.Unquote(strings.TrimSpace(line))
		require.NoError(t, err)
		name, value, _ := strings.Cut(text, "=")
		env[name] = value
	}
	return env
}
