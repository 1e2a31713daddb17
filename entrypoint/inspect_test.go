package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
)

func TestCallOfFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want call
	}{
		{nil, call{}},
		{[]string{"--call", "build"}, call{}},
		{[]string{"--check"}, call{asked: true, question: core.AskLint}},
		{[]string{"--check", "--call", "lint"}, call{asked: true, question: core.AskLint}},
		{[]string{"--check", "--call", "format=json"}, call{asked: true, question: core.AskLint, json: true}},
		{[]string{"--call=check,format=json,ignorestatus"}, call{asked: true, question: core.AskLint, json: true, ignoreStatus: true}},
		{[]string{"--call=lint,ignorestatus=false,format=text"}, call{asked: true, question: core.AskLint}},
		{[]string{"--call=outline"}, call{asked: true, question: core.AskOutline}},
		{[]string{"--call=targets,format=json"}, call{asked: true, question: core.AskTargets, json: true}},
	} {
		args := c.args
		if !c.want.asked {
			args = append(args, "--no-push")
		}
		s, err := parse(t, nil, args...)
		require.NoError(t, err, "%v: no destination is needed", c.args)
		require.Equal(t, c.want, s.call, c.args)
	}
	for _, c := range []struct{ arg, says string }{
		{"--call=lintt", "unknown method"},
		{"--call=outline,format=yaml", "unknown setting format=yaml"},
		{"--call=check,ignorestatus=perhaps", "ignorestatus is true or false"},
		{"--call=check,targets", "one method"},
	} {
		_, err := parse(t, nil, c.arg)
		require.ErrorContains(t, err, c.says)
	}
	_, err := parse(t, nil, "--check", "--call=outline")
	require.ErrorContains(t, err, "one method")
}

// TestCheckBuildsNothing: the answer is on standard output, everything else is
// not, and no store is made.
func TestCheckBuildsNothing(t *testing.T) {
	context := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(context, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	clean, untidy := write("Dockerfile", "# The service\nFROM scratch AS app\nARG VERSION=1\nCOPY Dockerfile /\n"), write("untidy", "FROM scratch as x\nMAINTAINER me\n")
	broken, other := write("broken", "FROM scratch\nCOPPY a b\n"), write("other", "# syntax=foo/bar\nFROM scratch\n")
	strict := write("strict", "# check=error=true\nFROM scratch as x\n")
	store := filepath.Join(t.TempDir(), "store")
	for name, c := range map[string]struct {
		args     []string
		code     int
		out, err string // what is said; empty is nothing
	}{
		"nothing found":            {[]string{"--check", "-f", clean}, 0, "Check complete, no warnings found.\n", ""},
		"violations":               {[]string{"--check", "-f", untidy}, 1, "Check complete, 2 warnings have been found!\n\nWARNING: FromAsCasing - https://", ""},
		"one target's":             {[]string{"--call=check", "-f", untidy, "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=FromAsCasing"}, 1, "Check complete, 1 warning has been found!\n\nWARNING: MaintainerDeprecated", ""},
		"in spite of violations":   {[]string{"--call=check,ignorestatus", "-f", untidy}, 0, "2 warnings", ""},
		"violations as errors":     {[]string{"--check", "-f", strict}, 1, "WARNING: FromAsCasing", "lint violation found"},
		"an error with its line":   {[]string{"--check", "-f", broken}, 1, "", "broken:2: dockerfile parse error"},
		"another frontend":         {[]string{"--check", "-f", other}, 1, "", `other:1: frontend "foo/bar" is not supported`},
		"outline":                  {[]string{"--call=outline", "-f", clean}, 0, "VERSION     1", ""},
		"outline of nothing":       {[]string{"--call=outline", "-f", untidy}, 0, "TARGET: x", "WARN: FromAsCasing"},
		"targets":                  {[]string{"--call=targets", "-f", clean}, 0, "app (default)", ""},
		"targets of what is wrong": {[]string{"--call=targets", "-f", broken}, 1, "", "broken:2"},
		"no Dockerfile":            {[]string{"--check", "-f", "absent"}, 1, "", "no Dockerfile at"},
		"a target that is none":    {[]string{"--check", "-f", clean, "--target", "y"}, 1, "", `target stage "y" could not be found`},
		"outputs are not looked at": {[]string{"--check", "-f", clean, "--tar-path", "/nowhere/x.tar", "--digest-file", "/nowhere/d", "--isolation", "inplace", "-d", "127.0.0.1:1/x"}, 0,
			"no warnings", ""},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, err := invoke(t, "", append([]string{"build", "--store", store, context}, c.args...)...)
			require.Equal(t, c.code, code, out+err)
			for got, want := range map[*string]string{&out: c.out, &err: c.err} {
				if want == "" {
					require.Empty(t, *got)
				} else {
					require.Contains(t, *got, want)
				}
			}
		})
	}
	require.NoFileExists(t, store)

	code, out, err := invoke(t, "FROM scratch as x\n", "build", "--call=check,format=json", "--log-format=json", "-f", "-", context)
	require.Equal(t, 1, code, err)
	var found struct{ Warnings []struct{ RuleName string } }
	require.NoError(t, json.Unmarshal([]byte(out), &found))
	require.Equal(t, "FromAsCasing", found.Warnings[0].RuleName)

	code, out, err = invoke(t, "", "build", "--check", "--log-format=json", "-f", broken, context)
	require.Equal(t, 1, code)
	require.Empty(t, out)
	var line struct{ Type, File string }
	require.NoError(t, json.Unmarshal([]byte(err), &line))
	require.Equal(t, "error broken", line.Type+" "+line.File)
}

// TestCgroupParentIsIgnoredWithAWord: the image is the same, and the user knows.
func TestCgroupParentIsIgnoredWithAWord(t *testing.T) {
	dir := t.TempDir()
	args := []string{"build", "--no-push", "--snapshots", "flat", "--store", filepath.Join(dir, "store"), "-f", "-", dir}
	code, _, plain := invoke(t, "FROM scratch\nLABEL a=b\n", args...)
	require.Zero(t, code, plain)
	require.NotContains(t, plain, "cgroup")
	code, _, said := invoke(t, "FROM scratch\nLABEL a=b\n", append(args, "--cgroup-parent", "/jobs")...)
	require.Zero(t, code, said)
	require.Contains(t, said, "--cgroup-parent /jobs is ignored")
}
