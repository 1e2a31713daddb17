package github

import (
	"fmt"
	"slices"
	"strings"

	"github.com/layerwright/layerwright/plugin"
	"github.com/layerwright/layerwright/plugin/syntax"
)

// kanikoNames are flags of Kaniko that are a setting by another name than their own or
// that with an s.
func kanikoNames() map[string]string {
	return map[string]string{
		"dockerfile": "file", "destination": "tags", "custom-platform": "platforms", "customPlatform": "platforms",
		"skip-tls-verify-registry": "skip-tls-verify-registries", "insecure-registry": "insecure-registries", "image-download-retry": "pull-retry", "tarPath": "tar-path",
	}
}

// kanikoIdle says of flags of Kaniko that have nothing to do here what happens instead.
func kanikoIdle() map[string]string {
	idle := map[string]string{"force": "it is for running Kaniko outside of its image", "log-format": "the log is as GitHub shows it"}
	for _, k := range syntax.KanikoFlags() {
		idle[k.Name] = k.Instead
	}
	idle["snapshotMode"], idle["whitelist-var-run"] = idle["snapshot-mode"], idle["ignore-var-run"] // older names
	return idle
}

// kanikoArgs reads int128/kaniko-action's input kaniko-args, a flag a line, into the
// settings that the flags are. It returns those that are none. An input comes first.
func kanikoArgs(lines []string, values plugin.Values) (notices []string, err error) {
	fields := map[string]plugin.Field{}
	for _, f := range plugin.Fields() {
		fields[f.Name] = f
	}
	var unknown []string
	for _, line := range lines {
		flag, value, given := strings.Cut(strings.TrimSpace(line), "=")
		name, isFlag := strings.CutPrefix(flag, "--")
		if instead := kanikoIdle()[name]; instead != "" && isFlag {
			notices = append(notices, "input kaniko-args: "+flag+" has no effect: "+instead)
			continue
		}
		f, ok := fields[name]
		for _, other := range []string{name + "s", kanikoNames()[name]} {
			if !ok {
				f, ok = fields[other]
			}
		}
		if !ok || !isFlag || !given && f.Kind() != "bool" {
			unknown = append(unknown, flag)
			continue
		}
		if !given {
			value = "true"
		}
		const source = "input kaniko-args"
		v := values[f.Name]
		switch {
		case f.List() && v.Source != "default":
			values[f.Name] = plugin.Given{Values: append(slices.Clone(v.Values), value), Source: source}
		case v.Source != "" && v.Source != "default":
			notices = append(notices, "input kaniko-args: "+flag+" has no effect beside "+f.Name)
		default:
			values[f.Name] = plugin.Given{Values: []string{value}, Source: source}
		}
	}
	if unknown != nil {
		return notices, fmt.Errorf("there is no input for %s: write a flag a line, as --name=value, or leave it out", strings.Join(unknown, ", "))
	}
	return notices, nil
}
