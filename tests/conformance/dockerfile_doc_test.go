package conformance_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/stretchr/testify/require"
)

// docRow is a line of a table of docs/dockerfile.md.
type docRow struct {
	what, state string
	cases       []string
}

var docCase = regexp.MustCompile(`\[([a-z0-9-]+)\]\((\.\./tests/conformance/cases/[^)]*)\)`)

// docRows reads the tables of the page: what, its state, cases.
func docRows(t *testing.T) []docRow {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "dockerfile.md"))
	require.NoError(t, err)
	var rows []docRow
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.ReplaceAll(strings.TrimSpace(line), `\|`, "¦"), "|"), "|")
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.TrimSpace(cells[0]) == "what" {
			continue
		}
		require.Len(t, cells, 3, line)
		row := docRow{what: strings.TrimSpace(cells[0]), state: strings.TrimSpace(cells[1])}
		for _, m := range docCase.FindAllStringSubmatch(cells[2], -1) {
			require.Equal(t, "../tests/conformance/cases/"+m[1], m[2])
			row.cases = append(row.cases, m[1])
		}
		require.Equal(t, len(row.cases), strings.Count(cells[2], "]("), "a link that is no case: %s", line)
		rows = append(rows, row)
	}
	return rows
}

// TestDockerfileTable holds docs/dockerfile.md: it names no case that is not
// there, says of each thing whether it works, and misses no instruction, no flag
// and no kind of mount that the frontend knows.
func TestDockerfileTable(t *testing.T) {
	rows := docRows(t)
	has := func(what string) bool {
		return slices.ContainsFunc(rows, func(r docRow) bool { return strings.HasPrefix(r.what, "`"+what) })
	}
	for _, r := range rows {
		require.Regexp(t, `^(works|refused|ignored)`, r.state, r.what)
		for _, name := range r.cases {
			require.FileExists(t, filepath.Join("cases", name, "RULE"), "case of %s", r.what)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(command.Commands)) {
		require.True(t, has(strings.ToUpper(name)), "no row for %s", strings.ToUpper(name))
	}
	for _, kind := range []instructions.MountType{instructions.MountTypeBind, instructions.MountTypeCache, instructions.MountTypeTmpfs, instructions.MountTypeSecret, instructions.MountTypeSSH} {
		require.True(t, has("RUN --mount=type="+string(kind)), "no row for mounts of type %s", kind)
	}
	for instruction, flags := range knownFlags {
		for _, flag := range flags {
			require.True(t, has(instruction+" --"+flag), "no row for %s --%s", instruction, flag)
		}
	}
	for _, directive := range []string{"syntax", "escape", "check"} {
		require.True(t, has("# "+directive+"="), "no row for the directive %s", directive)
	}
}

// knownFlags are the flags of BuildKit's parser, which has no list of them: see
// TestKnownFlagsAreThoseOfTheParser.
var knownFlags = map[string][]string{
	"ADD":         {"chown", "chmod", "link", "keep-git-dir", "checksum", "unpack", "exclude"},
	"COPY":        {"chown", "from", "chmod", "link", "exclude", "parents"},
	"FROM":        {"platform"},
	"RUN":         {"mount", "network", "security", "device"},
	"HEALTHCHECK": {"interval", "timeout", "start-period", "start-interval", "retries"},
}

// TestKnownFlagsAreThoseOfTheParser reads BuildKit's source: a newer BuildKit may
// have more.
func TestKnownFlagsAreThoseOfTheParser(t *testing.T) {
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/buildkit").Output()
	require.NoError(t, err)
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "frontend", "dockerfile", "instructions", "*.go"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	var flags, kinds []string
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") || strings.HasSuffix(f, "bflag.go") {
			continue
		}
		text, err := os.ReadFile(f)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`flags\.Add(?:String|Strings|Bool)\("([a-z-]+)"`).FindAllSubmatch(text, -1) {
			flags = append(flags, string(m[1]))
		}
		for _, m := range regexp.MustCompile(`\tMountType\w+\s+MountType = "(\w+)"`).FindAllSubmatch(text, -1) {
			kinds = append(kinds, string(m[1]))
		}
	}
	var want []string
	for _, list := range knownFlags {
		want = append(want, list...)
	}
	require.ElementsMatch(t, want, flags)
	require.ElementsMatch(t, []string{"bind", "cache", "tmpfs", "secret", "ssh"}, kinds)
}
