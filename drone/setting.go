package drone

import (
	"slices"
	"strings"

	"github.com/layerwright/layerwright/plugin"
	"github.com/layerwright/layerwright/plugin/syntax"
)

// names are further names of a setting, in the order in which they are looked
// for: those of drone-kaniko, drone-docker and Woodpecker's plugins. Its own
// name (PLUGIN_BUILD_ARGS) comes first.
func names() map[string][]string {
	return map[string][]string{
		"file": {"DOCKERFILE"}, "images": {"REPO"}, "tags": {"TAG"}, "platforms": {"PLATFORM", "CUSTOM_PLATFORM"},
		"auto-tag": {"DEFAULT_TAGS"}, "auto-tag-suffix": {"DEFAULT_SUFFIX"}, "expand-tags": {"EXPAND_TAG"}, "labels": {"CUSTOM_LABELS", "LABEL"}, "default-labels": {"AUTO_LABEL", "AUTO_LABELS"}, "outputs": {"OUTPUT"},
		"tar-path": {"DESTINATION_TAR_PATH"}, "push-from": {"SOURCE_TAR_PATH"}, "cache": {"ENABLE_CACHE"}, "registry-mirrors": {"MIRROR", "MIRRORS"},
		"insecure-registries": {"INSECURE_REGISTRY"}, "registry-certificates": {"REGISTRY_CERTIFICATE"}, "registry-client-certs": {"REGISTRY_CLIENT_CERT"},
		"skip-tls-verify-registries": {"SKIP_TLS_VERIFY_REGISTRY"}, "add-hosts": {"ADD_HOST"}, "pull-retry": {"IMAGE_DOWNLOAD_RETRY"},
		"verbosity": {"LOG_LEVEL"}, "ignore-paths": {"IGNORE_PATH"}, "secret-envs": {"SECRETS_FROM_ENV"}, "secret-files": {"SECRETS_FROM_FILE"}, "ssh-key": {"SSH_AGENT_KEY"},
		"single-snapshot": {"SQUASH"}, "skip-if-tag-exists": {"SKIP_PUSH_IF_TAG_EXISTS"},
		"aws-access-key-id": {"ACCESS_KEY"}, "aws-secret-access-key": {"SECRET_KEY"}, "aws-role": {"ASSUME_ROLE"}, "aws-external-id": {"EXTERNAL_ID"}, "aws-region": {"REGION"},
		"create-repository": {"ECR_CREATE_REPOSITORY"}, "lifecycle-policy": {"ECR_LIFECYCLE_POLICY"}, "repository-policy": {"ECR_REPOSITORY_POLICY"}, "scan-on-push": {"ECR_SCAN_ON_PUSH"},
		"google-access-token": {"ACCESS_TOKEN"},
		"google-key":          {"JSON_KEY"}, "google-project-number": {"PROJECT_NUMBER"}, "google-pool-id": {"POOL_ID"}, "google-provider-id": {"PROVIDER_ID"}, "google-service-account": {"SERVICE_ACCOUNT_EMAIL"},
		"azure-client-id": {"CLIENT_ID"}, "azure-client-secret": {"CLIENT_SECRET"}, "azure-client-certificate": {"CLIENT_CERTIFICATE"}, "azure-tenant-id": {"TENANT_ID"},
		"oidc-token": {"OIDC_TOKEN_ID"},
	}
}

// bare are variables that drone-docker and drone-kaniko read without PLUGIN_, by the
// setting that they stand for; a setting comes first. Those of a cloud only count
// where the image goes to a registry of it: TOKEN may be anything.
func bare() []struct{ setting, cloud, variables string } {
	return []struct{ setting, cloud, variables string }{
		{"MIRROR", "", "DOCKER_PLUGIN_MIRROR"}, {"CONFIG", "", "DOCKER_PLUGIN_CONFIG"},
		{"ACCESS_KEY", "aws", "ECR_ACCESS_KEY"}, {"SECRET_KEY", "aws", "ECR_SECRET_KEY"}, {"REGION", "aws", "ECR_REGION"}, {"CREATE_REPOSITORY", "aws", "ECR_CREATE_REPOSITORY"},
		{"JSON_KEY", "google", "GCR_JSON_KEY GOOGLE_CREDENTIALS TOKEN"}, {"GOOGLE_ACCESS_TOKEN", "google", "ACCESS_TOKEN"},
		{"USERNAME", "azure", "SERVICE_PRINCIPAL_CLIENT_ID"}, {"PASSWORD", "azure", "SERVICE_PRINCIPAL_CLIENT_SECRET"},
		{"CLIENT_ID", "azure", "CLIENT_ID AZURE_CLIENT_ID AZURE_APP_ID"}, {"CLIENT_SECRET", "azure", "CLIENT_SECRET"}, {"CLIENT_CERTIFICATE", "azure", "CLIENT_CERTIFICATE"},
		{"TENANT_ID", "azure", "TENANT_ID AZURE_TENANT_ID"}, {"AZURE_AUTHORITY_HOST", "azure", "AZURE_AUTHORITY_HOST"},
	}
}

// refused are known settings that would promise what is not done.
func refused() map[string]string {
	return map[string]string{
		"SOURCE_IMAGE":       "it names an image in a Docker daemon, and there is none: save it to a file, and set source_tar_path",
		"COSIGN_PRIVATE_KEY": "images are not signed here: leave it out, and run cosign in a step of its own with the digest of DRONE_OUTPUT",
	}
}

// ignored are known settings without effect, and why.
func ignored() map[string]string {
	const daemon, kaniko, builder = "there is no Docker daemon", "it tunes Kaniko, which this is not", "there is no buildx builder: this is the builder"
	list := map[string]string{
		"COMPRESS": "the context is not sent anywhere", "PULL_IMAGE": "base images are always resolved anew", "QUIET": "use verbosity",
		"EMAIL": "registries do not ask for it", "FORCE": "it is for running Kaniko outside of its image",
		"LOG_TIMESTAMP":     "Drone shows times itself",
		"WORKLOAD_IDENTITY": "json_key says itself what it is", "SUBSCRIPTION_ID": "it is for a link to Azure's portal, which is not made",
		"DAEMON_REGISTRY": "the artifact file names the registry", "COSIGN_PASSWORD": "images are not signed here", "COSIGN_PARAMS": "images are not signed here",
	}
	for why, text := range map[string]string{
		daemon:  "STORAGE_DRIVER STORAGE_PATH BIP MTU CUSTOM_DNS CUSTOM_DNS_SEARCH IPV6 EXPERIMENTAL DEBUG DAEMON_OFF DAEMON_RETRY_COUNT PURGE BUILDKIT_CONFIG BUILDKIT_DEBUG",
		kaniko:  "SNAPSHOT_MODE USE_NEW_RUN SKIP_UNUSED_STAGES CLEANUP IGNORE_VAR_RUN COMPRESSED_CACHING IMAGE_FS_EXTRACT_RETRY",
		builder: "BUILDER_NAME BUILDER_CONFIG BUILDER_DRIVER BUILDER_DRIVER_OPTS BUILDER_DRIVER_OPTS_NEW BUILDER_REMOTE_CONN BUILDX_LOAD BUILDKIT_DRIVEROPT",
	} {
		for _, n := range strings.Fields(text) {
			list[n] = why
		}
	}
	return list
}

// variable is a setting as it stands in the environment.
func variable(setting string) string {
	return strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
}

// spell is a setting as it stands in the YAML: as it was written there, or else as
// Drone's plugins call it.
func (r *reading) spell(setting string) string {
	if source := r.values[setting].Source; strings.HasPrefix(source, "setting ") {
		return source
	}
	name := variable(setting)
	cloud, _, _ := strings.Cut(setting, "-")
	if known := names()[setting]; len(known) > 0 && (slices.Contains([]string{"images", "file", "push-from", "oidc-token"}, setting) || slices.Contains([]string{"aws", "google", "azure"}, cloud)) {
		name = known[0]
	}
	return "setting " + strings.ToLower(name)
}

// settings are the variables by their names without PLUGIN_; Drone keeps hyphens,
// Woodpecker does not.
func settings(env map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range env {
		if name, ok := strings.CutPrefix(k, "PLUGIN_"); ok && strings.TrimSpace(v) != "" {
			out[strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = v
		}
	}
	return out
}

// nearest is the known name that differs least.
func nearest(name string) string {
	known := []string{}
	for _, f := range plugin.Fields() {
		known = append(append(known, variable(f.Name)), names()[f.Name]...)
	}
	for _, s := range ownSettings() {
		known = append(known, s.name)
	}
	return strings.ToLower(syntax.Nearest(name, known))
}
