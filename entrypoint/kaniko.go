package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// kanikoFlag is a flag of Kaniko, or of its maintained fork, that has nothing to
// do here.
type kanikoFlag struct {
	name string
	// value is what Kaniko's flag takes, empty for a switch.
	value string
	// instead is what happens, for the log and the help.
	instead string
}

// kanikoFlags are accepted, so that a pipeline goes on to work, and said to have no
// effect when they are given. docs/kaniko.md has all of Kaniko's flags.
func kanikoFlags() []kanikoFlag {
	return []kanikoFlag{
		{"snapshot-mode", "MODE", "change times find changes, contents decide"},
		{"use-new-run", "", "change times find changes, contents decide"},
		{"compressed-caching", "", "layers are never kept in memory"},
		{"cleanup", "", "the job's own files are always put back"},
		{"pre-cleanup", "", "steps never see the job's own files"},
		{"preserve-context", "", "the job's own files are always put back"},
		{"materialize", "", "the job's files are put back; see --rootfs-dir"},
		{"ignore-var-run", "", "what is mounted is never part of an image"},
		{"image-fs-extract-retry", "N", "layers are checked; see --image-download-retry"},
		{"kaniko-dir", "DIR", "--store says where file trees are"},
		{"force-build-metadata", "", "instructions without files run nothing"},
		{"skip-unused-stages", "", "stages that nothing needs are never built"},
		{"log-timestamp", "", "lines have the seconds since their step began"},
	}
}

// kanikoGroup is the paragraph of the help about them.
func kanikoGroup() flagGroup {
	g := flagGroup{title: "Kaniko's that have no effect", quiet: true}
	for _, k := range kanikoFlags() {
		g.more = append(g.more, k.name)
	}
	return g
}

// registerKaniko adds the flags that have nothing to do.
func registerKaniko(fs *pflag.FlagSet) {
	for _, k := range kanikoFlags() {
		if k.value == "" {
			fs.Bool(k.name, false, "\t"+k.instead)
			continue
		}
		fs.String(k.name, "", k.value+"\t"+k.instead)
	}
}

// kanikoNotices say of each that was given what happens instead, and once of the
// fork's feature flags.
func kanikoNotices(given map[string]bool, env map[string]string) (notices []string) {
	for _, k := range kanikoFlags() {
		if given[k.name] {
			notices = append(notices, fmt.Sprintf("--%s has no effect: %s", k.name, k.instead))
		}
	}
	for name := range env {
		if strings.HasPrefix(name, "FF_KANIKO_") {
			return append(notices, "variables FF_KANIKO_… have no effect: they choose between ways of Kaniko's own")
		}
	}
	return notices
}
