package drone

import (
	"strings"

	"github.com/layerwright/layerwright/plugin"
)

// names are further names of a setting, in the order in which they are looked
// for: those of drone-kaniko, drone-docker and Woodpecker's plugins. Its own
// name (PLUGIN_BUILD_ARGS) comes first.
func names() map[string][]string {
	return map[string][]string{
		"file": {"DOCKERFILE"}, "images": {"REPO"}, "tags": {"TAG"}, "platforms": {"PLATFORM", "CUSTOM_PLATFORM"},
		"auto-tag": {"DEFAULT_TAGS"}, "auto-tag-suffix": {"DEFAULT_SUFFIX"}, "labels": {"CUSTOM_LABELS", "LABEL"}, "default-labels": {"AUTO_LABEL"},
		"username": {"DOCKER_USERNAME"}, "password": {"DOCKER_PASSWORD"}, "registry": {"DOCKER_REGISTRY"},
		"tar-path": {"DESTINATION_TAR_PATH"}, "cache": {"ENABLE_CACHE"}, "registry-mirrors": {"MIRROR", "MIRRORS"}, "insecure-registries": {"INSECURE_REGISTRY"}, "registry-certificates": {"REGISTRY_CERTIFICATE"},
		"skip-tls-verify-registries": {"SKIP_TLS_VERIFY_REGISTRY"}, "add-hosts": {"ADD_HOST"}, "pull-retry": {"IMAGE_DOWNLOAD_RETRY"},
		"verbosity": {"LOG_LEVEL"}, "digest-file": {"IMAGE_NAME_WITH_DIGEST_FILE"},
	}
}

// special are settings that are not simply a neutral one by another name.
func special() map[string]string {
	return map[string]string{
		"NO_PUSH": "true pushes nothing", "DRY_RUN": "true pushes nothing",
		"BUILD_ARGS_NEW": "build arguments, separated by ;", "BUILD_ARGS_FROM_ENV": "names of variables that become build arguments",
		"TAGS_FILE": "file with tags, .tags by default, used where there are no tags", "EXPAND_REPO": "true puts registry before repo",
		"LOGINS": "JSON list of registry, username and password", "CONFIG": "text of a config.json", "DOCKER_PLUGIN_CONFIG": "text of a config.json",
		"ARTIFACT_FILE": "file that gets the images as JSON of kind docker/v1",
	}
}

// ignored are known settings without effect, and why.
func ignored() map[string]string {
	const daemon, kaniko = "there is no Docker daemon", "it tunes Kaniko, which this is not"
	list := map[string]string{"SQUASH": daemon, "COMPRESS": daemon, "PULL_IMAGE": "base images are always resolved anew", "QUIET": "use verbosity"}
	for _, n := range strings.Fields("STORAGE_DRIVER STORAGE_PATH BIP MTU CUSTOM_DNS CUSTOM_DNS_SEARCH IPV6 EXPERIMENTAL DEBUG DAEMON_OFF DAEMON_RETRY_COUNT PURGE BUILDKIT_CONFIG") {
		list[n] = daemon
	}
	for _, n := range strings.Fields("SNAPSHOT_MODE USE_NEW_RUN SKIP_UNUSED_STAGES CLEANUP IGNORE_VAR_RUN COMPRESSED_CACHING IMAGE_FS_EXTRACT_RETRY") {
		list[n] = kaniko
	}
	return list
}

// variable is a setting as it stands in the environment.
func variable(setting string) string {
	return strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
}

// spell is a setting as it stands in the YAML: build_args, repo.
func spell(setting string) string {
	name := variable(setting)
	switch setting {
	case "images", "file":
		name = names()[setting][0]
	}
	return "setting " + strings.ToLower(name)
}

// settings are the variables by their names without PLUGIN_; Drone keeps hyphens,
// Woodpecker does not.
func settings(env map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range env {
		if name, ok := strings.CutPrefix(k, "PLUGIN_"); ok && strings.TrimSpace(v) != "" {
			out[strings.ReplaceAll(name, "-", "_")] = v
		}
	}
	return out
}

// nearest is the known name that differs least, in at most two letters.
func nearest(name string) string {
	best, limit := "", 3
	known := []string{}
	for _, f := range plugin.Fields() {
		known = append(append(known, variable(f.Name)), names()[f.Name]...)
	}
	for n := range special() {
		known = append(known, n)
	}
	for _, n := range known {
		if d := distance(name, n); d < limit || d == limit && best != "" && n < best {
			best, limit = n, d
		}
	}
	return strings.ToLower(best)
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0]++
		for j := range len(b) {
			cost := before
			if a[i] != b[j] {
				cost++
			}
			before = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
