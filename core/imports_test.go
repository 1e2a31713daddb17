package core_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/layerwright/layerwright/"

// tiers are the engine's packages, lowest first: an import only ever goes to a
// lower tier, so that data has one direction and each part can be tested
// without what is above it (docs/architecture.md).
var tiers = [][]string{
	{"fault", "filecopy", "follow", "needs"},
	{"graph", "progress", "hostview", "room", "content", "credentials", "netrc", "emulation"},
	{"layer", "registry"},
	{"snapshot"},
	{"solve", "source/local", "source/git", "source/image", "source/layout", "source/saved", "source/web", "sandbox", "fileop", "commit", "image", "sshagent"},
	{"frontend", "ops", "export", "cache"},
	{"buildkit"},
}

// sole are third-party packages that one of ours wraps; nobody else imports
// them.
var sole = map[string]string{
	"github.com/google/go-containerregistry/pkg/v1/remote":           "registry",
	"github.com/google/go-containerregistry/pkg/v1/remote/transport": "registry",
	"github.com/moby/buildkit/frontend/dockerfile/builder":           "frontend",
	"github.com/moby/buildkit/client":                                "buildkit",
}

func tierOf(pkg string) int {
	for i, t := range tiers {
		for _, p := range t {
			if p == pkg {
				return i
			}
		}
	}
	return -1
}

// sources calls f with every Go file that is not a test, its package's folder
// (relative to the module) and its imports.
func sources(t *testing.T, f func(file, folder string, imports []string)) {
	t.Helper()
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "tools") && p != root {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		var imports []string
		for _, i := range parsed.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			imports = append(imports, path)
		}
		f(rel, filepath.ToSlash(filepath.Dir(rel)), imports)
		return nil
	})
	require.NoError(t, err)
}

func TestImportsOnlyGoDown(t *testing.T) {
	seen := 0
	sources(t, func(file, folder string, imports []string) {
		pkg, ok := strings.CutPrefix(folder, "core/internal/")
		if !ok {
			return
		}
		seen++
		mine := tierOf(pkg)
		require.GreaterOrEqual(t, mine, 0, "%s: package %s has no tier: add it to the table and to docs/architecture.md", file, pkg)
		for _, i := range imports {
			other, ok := strings.CutPrefix(i, module+"core/internal/")
			if !ok || other == pkg {
				continue
			}
			require.Less(t, tierOf(other), mine, "%s imports %s, which is not below it", file, other)
		}
	})
	require.Greater(t, seen, 30)
}

func TestWrappedLibrariesHaveOneImporter(t *testing.T) {
	sources(t, func(file, folder string, imports []string) {
		if strings.HasPrefix(folder, "tests") || strings.HasSuffix(file, "_test.go") {
			return
		}
		for _, i := range imports {
			if owner, ok := sole[i]; ok {
				require.Equal(t, "core/internal/"+owner, folder, "%s imports %s, which only %s may", file, i, owner)
			}
		}
	})
}

func TestBlackBoxTestsSeeNothingInside(t *testing.T) {
	sources(t, func(file, folder string, imports []string) {
		if !strings.HasPrefix(folder, "tests") {
			return
		}
		for _, i := range imports {
			require.NotContains(t, i, "core/internal", "%s tests the built program, not its parts", file)
		}
	})
}

func TestTheEngineKnowsNoAdapter(t *testing.T) {
	sources(t, func(file, folder string, imports []string) {
		if !strings.HasPrefix(folder, "core") {
			return
		}
		for _, i := range imports {
			for _, above := range []string{"entrypoint", "plugin", "github", "drone", "gitlab"} {
				require.NotContains(t, i+"/", module+above+"/", "%s: the engine must not know who calls it", file)
			}
		}
	})
}

// adapters are the packages above the engine and what of ours each may import:
// a CI's adapter translates, package plugin decides, the engine builds.
var adapters = map[string][]string{
	"plugin/tags":    {},
	"plugin/display": {"core"},
	"plugin/syntax":  {"core"},
	"plugin":         {"core", "plugin/display", "plugin/syntax", "plugin/tags"},
	"github":         {"core", "plugin", "plugin/syntax", "plugin/tags"},
	"drone":          {"core", "plugin", "plugin/syntax", "plugin/tags"},
	"gitlab":         {"core", "plugin", "plugin/syntax", "plugin/tags"},
}

func TestAdaptersKnowOnlyThePluginAndTheEnginesFront(t *testing.T) {
	seen := map[string]bool{}
	sources(t, func(file, folder string, imports []string) {
		allowed, ok := adapters[folder]
		if !ok || strings.HasSuffix(file, "_test.go") {
			return
		}
		seen[folder] = true
		for _, i := range imports {
			if ours, ok := strings.CutPrefix(i, module); ok {
				require.Contains(t, allowed, ours, "%s: see docs/architecture.md", file)
			}
		}
	})
	require.Contains(t, seen, "plugin")
	require.Contains(t, seen, "plugin/tags")
}

// TestThePluginKnowsNoCI keeps the names of variables of one CI in its adapter.
func TestThePluginKnowsNoCI(t *testing.T) {
	root, err := filepath.Abs("../plugin")
	require.NoError(t, err)
	seen := 0
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return err
		}
		seen++
		parsed, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				for _, prefix := range []string{"GITHUB_", "DRONE_", "PLUGIN_", "CI_", "GITLAB_", "INPUT_"} {
					require.NotContains(t, lit.Value, prefix, "%s: names of a CI's variables belong to its adapter", p)
				}
			}
			return true
		})
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, seen, 10)
}
