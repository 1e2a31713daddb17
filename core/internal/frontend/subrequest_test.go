package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// rules are the rules and lines of an answer's violations.
func rules(t *testing.T, a *Answer) []string {
	t.Helper()
	var found struct {
		Warnings []struct {
			RuleName string
			Location struct {
				Ranges []struct{ Start struct{ Line int } }
			}
		}
	}
	require.NoError(t, json.Unmarshal(a.JSON, &found))
	out := []string{}
	for _, w := range found.Warnings {
		line := 0
		if len(w.Location.Ranges) > 0 {
			line = w.Location.Ranges[0].Start.Line
		}
		out = append(out, w.RuleName+":"+string(rune('0'+line)))
		require.Contains(t, a.Text, "WARNING: "+w.RuleName)
	}
	require.Len(t, out, a.Warnings)
	return out
}

const untidy = "FROM scratch as x\nMAINTAINER me\nWORKDIR rel\n"

func TestLintFindsWhatChecksAllow(t *testing.T) {
	all := []string{"FromAsCasing:1", "MaintainerDeprecated:2", "WorkdirRelativePath:3"}
	for name, c := range map[string]struct {
		check, arg string
		want       []string
		says       string
	}{
		"everything":                          {want: all},
		"without a rule":                      {check: "skip=FromAsCasing", want: []string{"MaintainerDeprecated:3", "WorkdirRelativePath:4"}},
		"nothing":                             {check: "skip=all", want: []string{}},
		"violations as errors":                {check: "skip=FromAsCasing,MaintainerDeprecated;error=true", want: []string{"WorkdirRelativePath:4"}, says: "lint violation found for rules: WorkdirRelativePath"},
		"nothing left to be an error":         {check: "skip=all;error=true", want: []string{}},
		"the build argument wins":             {check: "skip=all", arg: "skip=WorkdirRelativePath;error=false", want: []string{"FromAsCasing:2", "MaintainerDeprecated:3"}},
		"the build argument alone":            {arg: "skip=FromAsCasing", want: all[1:]},
		"violations as errors by an argument": {arg: "skip=FromAsCasing,MaintainerDeprecated;error=true", want: all[2:], says: "lint violation"},
		"a wrong option":                      {check: "bogus=1", want: []string{}, says: `invalid check option "bogus"`},
	} {
		t.Run(name, func(t *testing.T) {
			text := untidy
			if c.check != "" {
				text = "# check=" + c.check + "\n" + text
			}
			req := request(t, text, nil)
			if c.arg != "" {
				req.BuildArgs = map[string]string{"BUILDKIT_DOCKERFILE_CHECK": c.arg}
			}
			a, err := Ask(t.Context(), req, Lint, &images{})
			require.NoError(t, err)
			require.Equal(t, c.want, rules(t, a))
			if c.says == "" {
				require.NoError(t, a.Err)
			} else {
				require.ErrorContains(t, a.Err, c.says)
			}
			require.Empty(t, req.Progress.(*sink).list, "said twice")
		})
	}
}

func TestLintLooksAtEveryStageOrTheTargets(t *testing.T) {
	req := request(t, "FROM base AS a\nMAINTAINER me\nFROM base AS b\nWORKDIR rel\nFROM base\n", nil)
	a, err := Ask(t.Context(), req, Lint, &images{})
	require.NoError(t, err)
	require.Equal(t, []string{"MaintainerDeprecated:2", "WorkdirRelativePath:4"}, rules(t, a))
	req.Target = "a"
	a, err = Ask(t.Context(), req, Lint, &images{})
	require.NoError(t, err)
	require.Equal(t, []string{"MaintainerDeprecated:2"}, rules(t, a))
}

func TestLintKeepsErrorsKindAndPlace(t *testing.T) {
	for _, c := range []struct {
		text, says string
		line       int
		kind       fault.Kind
	}{
		{"FROM base\nRUNN x\n", "unknown instruction: RUNN", 2, fault.User},
		{"FROM missing\n", "manifest unknown", 1, fault.Registry},
		{"FROM base\nCOPY --from=missing a b\n", "manifest unknown", 2, fault.Registry},
		{"FROM base\nFROM base AS unused\nFROM missing AS other\nFROM base\n", "manifest unknown", 3, fault.Registry},
		{"", "cannot be empty", 0, fault.User},
	} {
		a, err := Ask(t.Context(), request(t, c.text, nil), Lint, &images{})
		require.NoError(t, err)
		require.ErrorContains(t, a.Err, c.says)
		e, ok := fault.As(a.Err)
		require.True(t, ok)
		require.Equal(t, c.kind, e.Kind, c.text)
		if c.line > 0 {
			require.NotNil(t, e.Location, c.text)
			require.Equal(t, c.line, e.Location.Start)
		}
	}
}

func TestOutlineNamesWhatTheTargetTakes(t *testing.T) {
	req := request(t, `# where to look
ARG FROM=base
# Used of nothing
FROM $FROM AS one
ARG NOT_MINE=1
# app is the service
FROM $FROM AS app
# VERSION is its version
ARG VERSION=7
RUN --mount=type=secret,id=token,required --mount=type=ssh,id=key --mount=type=cache,target=/c true
`, nil)
	req.BuildArgs = map[string]string{"VERSION": "8"}
	a, err := Ask(t.Context(), req, Outline, &images{})
	require.NoError(t, err)
	for _, word := range []string{"TARGET:", "app", "is the service", "VERSION", "8", "is its version", "token", "true", "key", "FROM"} {
		require.Contains(t, a.Text, word)
	}
	require.NotContains(t, a.Text, "NOT_MINE")
	require.True(t, json.Valid(a.JSON))
}

func TestTargetsAreTheStages(t *testing.T) {
	r := &images{}
	a, err := Ask(t.Context(), request(t, "FROM missing AS one\n# two is better\nFROM one AS two\nFROM scratch\n", nil), Targets, r)
	require.NoError(t, err)
	require.Contains(t, a.Text, "one")
	require.Contains(t, a.Text, "is better")
	require.Contains(t, a.Text, "(default)")
	require.Empty(t, r.asked, "no registry is needed")
}

func TestQuestionsOfWhatCannotBeRead(t *testing.T) {
	for _, q := range []Question{Outline, Targets} {
		_, err := Ask(t.Context(), request(t, "FROM base\nRUNN x\n", nil), q, &images{})
		e, ok := fault.As(err)
		require.True(t, ok)
		require.Equal(t, 2, e.Location.Start)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	_, err := Ask(ctx, request(t, "FROM base\n", nil), Lint, canceledImages{&images{}})
	require.ErrorIs(t, err, gone)
}

// canceledImages ends as a registry does that is asked no more.
type canceledImages struct{ *images }

// TestBuildWarnsAsLint: a build says what lint finds, each thing with its rule.
func TestBuildWarnsAsLint(t *testing.T) {
	for check, want := range map[string][]string{
		"skip=none":         {"FromAsCasing", "MaintainerDeprecated", "WorkdirRelativePath"},
		"skip=FromAsCasing": {"MaintainerDeprecated", "WorkdirRelativePath"},
		"skip=all":          nil,
	} {
		req := request(t, "# check="+check+"\n"+untidy, nil)
		_, err := Run(t.Context(), req, &images{})
		require.NoError(t, err)
		var got []string
		for _, n := range req.Progress.(*sink).list {
			require.Equal(t, progress.Warning, n.Level)
			require.NotNil(t, n.Location)
			require.NotContains(t, n.Text, n.Rule)
			got = append(got, n.Rule)
		}
		require.Equal(t, want, got, check)
	}
}

func TestSyntaxIsTheBuiltInFrontendOrAnError(t *testing.T) {
	sum := "@sha256:" + strings.Repeat("0", 64)
	for _, ref := range []string{
		"docker/dockerfile", "docker/dockerfile:1", "docker/dockerfile:1.7-labs", "docker/dockerfile:labs", "docker.io/docker/dockerfile:1",
		"index.docker.io/docker/dockerfile:1", "docker/dockerfile-upstream:master", "docker/dockerfile-upstream:master-labs",
		"docker.io/docker/dockerfile-upstream", "docker/dockerfile" + sum, "docker/dockerfile:1" + sum,
		"dockerfile.v0",
	} {
		for form, text := range map[string]string{"directive": "# syntax=" + ref, "spaced": "#  Syntax = " + ref + " --word", "after a shebang": "#!/bin/x\n#syntax=" + ref} {
			req := request(t, text+"\nFROM base\nRUN true\n", nil)
			_, err := Run(t.Context(), req, &images{})
			require.NoError(t, err, "%s: %s", form, ref)
			list := req.Progress.(*sink).list
			require.Len(t, list, 1)
			require.Contains(t, list[0].Text, ref+": the built-in Dockerfile frontend")
			require.Equal(t, progress.Info, list[0].Level)
		}
		_, err := Run(t.Context(), syntaxArg(t, ref, "# syntax=foo/bar\nFROM base\n"), &images{})
		require.NoError(t, err, "the argument wins over the line")
	}
	for _, ref := range []string{"foo/bar", "dockerfile", "registry.test/docker/dockerfile:1", "docker/dockerfilex", "docker/dockerfile-copy:1", "docker/docker/dockerfile"} {
		_, err := Run(t.Context(), request(t, "# escape=`\n# syntax="+ref+"\nFROM base\n", nil), &images{})
		require.ErrorContains(t, err, `frontend "`+ref+`" is not supported`)
		e, ok := fault.As(err)
		require.True(t, ok)
		require.Equal(t, 2, e.Location.Start)
		require.NotEmpty(t, e.Remedy)
		_, err = Run(t.Context(), syntaxArg(t, ref, "FROM base\n"), &images{})
		require.ErrorContains(t, err, "BUILDKIT_SYNTAX")
		e, ok = fault.As(err)
		require.True(t, ok)
		require.Contains(t, e.Remedy, "BUILDKIT_SYNTAX")
	}
}

func syntaxArg(t *testing.T, ref, text string) Request {
	t.Helper()
	req := request(t, text, nil)
	req.BuildArgs = map[string]string{"BUILDKIT_SYNTAX": ref}
	return req
}

// TestNoCacheFilter: names of stages in any case, by comma or one by one; what
// is no stage means nothing, as with BuildKit.
func TestNoCacheFilter(t *testing.T) {
	const text = "FROM base AS one\nRUN first\nFROM base AS Two\nRUN second\nFROM base AS three\nCOPY --from=one /a /a\nCOPY --from=two /b /b\nRUN third\n"
	for name, c := range map[string]struct {
		filter  []string
		all     bool
		want    string
		unknown int
	}{
		"none":           {nil, false, "", 0},
		"one":            {[]string{"one"}, false, "first", 0},
		"in any case":    {[]string{"TWO"}, false, "second", 0},
		"commas":         {[]string{"one,three"}, false, "first third", 0},
		"again":          {[]string{"one", "two"}, false, "first second", 0},
		"no such stage":  {[]string{"four", "one,FIVE"}, false, "first", 2},
		"no number":      {[]string{"0"}, false, "", 1},
		"all":            {nil, true, "first second third", 0},
		"all beats some": {[]string{"one"}, true, "first second third", 0},
	} {
		t.Run(name, func(t *testing.T) {
			req := request(t, text, nil)
			req.NoCacheFilter, req.NoCache = c.filter, c.all
			res, err := Run(t.Context(), req, &images{})
			require.NoError(t, err)
			var got []string
			for _, word := range []string{"first", "second", "third"} {
				for _, v := range res.Graph.Vertices {
					if e := v.Op.GetExec(); e != nil && v.IgnoreCache && e.Meta.Args[len(e.Meta.Args)-1] == word {
						got = append(got, word)
					}
				}
			}
			require.Equal(t, c.want, strings.Join(got, " "))
			warned := []string{}
			for _, n := range req.Progress.(*sink).list {
				if strings.Contains(n.Text, "no stage has this name") {
					warned = append(warned, n.Text)
				}
			}
			require.Len(t, warned, c.unknown, "BuildKit is silent")
		})
	}
}

func (canceledImages) ResolveImage(ctx context.Context, _ string, _ ocispecs.Platform) (string, []byte, error) {
	return "", nil, ctx.Err()
}
