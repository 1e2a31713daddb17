package plugin

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Field describes one setting: the table of all of them is what adapters, their
// documentation and --print-settings are made of.
type Field struct {
	// Name is neutral, in the form of a flag.
	Name string
	// Help is one sentence without a full stop; Default and Example are as a
	// user writes them.
	Help, Default, Example string
	// Secret values are never shown.
	Secret bool
	// at is where the value belongs: *string, *bool, *[]string or
	// *time.Duration.
	at func(*Settings) any
}

// List says whether the setting has several values.
func (f Field) List() bool { _, ok := f.at(&Settings{}).(*[]string); return ok }

// Kind is a word for the documentation: text, list, yes or no, duration.
func (f Field) Kind() string {
	switch f.at(&Settings{}).(type) {
	case *[]string:
		return "list"
	case *bool:
		return "bool"
	case *time.Duration:
		return "duration"
	}
	return "text"
}

// Sample is a value for the documentation that makes a difference; secret ones are for
// the host to write, which has its own way not to write them.
func (f Field) Sample() string {
	switch {
	case f.Example != "":
		return f.Example
	case f.Default == "false":
		return "true"
	case f.Default == "true":
		return "false"
	}
	return ""
}

// Fields are all settings, in the order of the documentation.
func Fields() []Field {
	return slices.Concat(buildFields(), nameFields(), outputFields(), registryFields(), cloudFields(), cacheFields(), otherFields())
}

func buildFields() []Field {
	return []Field{
		{Name: "context", Help: "build context: a directory, a git repository or a URL", Default: ".", Example: "./app", at: func(s *Settings) any { return &s.Context }},
		{Name: "context-sub-path", Help: "directory in the context that is the context instead", Example: "app", at: func(s *Settings) any { return &s.ContextSubPath }},
		{Name: "file", Help: "Dockerfile; also looked for in the context", Default: "Dockerfile", Example: "docker/Dockerfile", at: func(s *Settings) any { return &s.File }},
		{Name: "target", Help: "stage to build instead of the last one", Example: "production", at: func(s *Settings) any { return &s.Target }},
		{Name: "build-args", Help: "build arguments; a name alone has its value from the environment", Example: "VERSION=1.2.3", at: func(s *Settings) any { return &s.BuildArgs }},
		{Name: "build-contexts", Help: "named contexts", Example: "base=docker-image://debian:12", at: func(s *Settings) any { return &s.BuildContexts }},
		{Name: "platforms", Help: "platforms to build for", Example: "linux/amd64", at: func(s *Settings) any { return &s.Platforms }},
		{Name: "secrets", Help: "secrets of RUN --mount=type=secret, as ID=VALUE", Example: "token=…", Secret: true, at: func(s *Settings) any { return &s.Secrets }},
		{Name: "secret-envs", Help: "secrets with their values in variables, as ID=VARIABLE", Example: "token=API_TOKEN", at: func(s *Settings) any { return &s.SecretEnvs }},
		{Name: "secret-files", Help: "secrets with their values in files, as ID=PATH", Example: "npmrc=./.npmrc", at: func(s *Settings) any { return &s.SecretFiles }},
		{Name: "github-token", Help: "token for a context that is a git repository (the secret GIT_AUTH_TOKEN)", Secret: true, at: func(s *Settings) any { return &s.GitToken }},
		{Name: "ssh", Help: "ssh agents and keys, for steps and git", Example: "default", at: func(s *Settings) any { return &s.SSH }},
		{Name: "ssh-key", Help: "text of a private key, as the ssh agent default", Example: "…", Secret: true, at: func(s *Settings) any { return &s.SSHKey }},
		{Name: "no-cache", Help: "run every step", Default: "false", at: func(s *Settings) any { return &s.NoCache }},
		{Name: "no-cache-filters", Help: "stages whose steps all run", Example: "test", at: func(s *Settings) any { return &s.NoCacheFilters }},
		{Name: "add-hosts", Help: "lines of /etc/hosts, as NAME:IP", Example: "db:10.0.0.7", at: func(s *Settings) any { return &s.AddHosts }},
		{Name: "ulimit", Help: "limits of steps", Example: "nofile=1024:2048", at: func(s *Settings) any { return &s.Ulimits }},
		{Name: "shm-size", Help: "size of /dev/shm in steps", Example: "128m", at: func(s *Settings) any { return &s.ShmSize }},
		{Name: "network", Help: "network of steps: default, host or none", Default: "default", Example: "none", at: func(s *Settings) any { return &s.Network }},
		{Name: "hostname", Help: "name of the host in steps", Example: "builder", at: func(s *Settings) any { return &s.Hostname }},
		{Name: "ignore-paths", Help: "absolute paths that no layer has, with what is below them", Example: "/var/cache/apt", at: func(s *Settings) any { return &s.IgnorePaths }},
		{Name: "cgroup-parent", Help: "has no effect: steps stay in the job's control group", Example: "/builds", at: func(s *Settings) any { return &s.CgroupParent }},
	}
}

func nameFields() []Field {
	return []Field{
		{Name: "images", Help: "image names that every tag is put on", Example: "ghcr.io/org/app", at: func(s *Settings) any { return &s.Images }},
		{Name: "tags", Help: "tags, whole references, or rules of docker/metadata-action", Example: "type=semver,pattern={{version}}", at: func(s *Settings) any { return &s.Tags }},
		{Name: "flavor", Help: "what holds for all tags: latest=auto|true|false, prefix=, suffix=, onlatest=", Example: "suffix=-alpine,onlatest=true", at: func(s *Settings) any { return &s.Flavor }},
		{Name: "auto-tag", Help: "tags of the git event: metadata, drone, gitlab, or none", Example: "drone", at: func(s *Settings) any { return &s.AutoTag }},
		{Name: "auto-tag-suffix", Help: "suffix of the tags of auto-tag drone", Example: "arm64", at: func(s *Settings) any { return &s.AutoTagSuffix }},
		{Name: "expand-tags", Help: "a tag that is a version also in its shorter forms: v1.2.3 as 1.2.3, 1.2 and 1", Default: "false", at: func(s *Settings) any { return &s.ExpandTags }},
		{Name: "short-sha-length", Help: "letters of a commit in tags of type=sha and {{sha}}", Default: "7", Example: "12", at: func(s *Settings) any { return &s.ShortSHALength }},
		{Name: "labels", Help: "labels of the image", Example: "org.opencontainers.image.vendor=Us", at: func(s *Settings) any { return &s.Labels }},
		{Name: "annotations", Help: "annotations, as [KIND:]KEY=VALUE", Example: "index:key=value", at: func(s *Settings) any { return &s.Annotations }},
		{Name: "default-labels", Help: "add the labels and annotations of OCI: source, revision, created, version and so on", Default: "true", at: func(s *Settings) any { return &s.DefaultLabels }},
	}
}

func outputFields() []Field {
	return []Field{
		{Name: "push", Help: "push the tags", Default: "true", at: func(s *Settings) any { return &s.Push }},
		{Name: "push-by-digest", Help: "push without tags, for a job with merge; the digest is an output, and in digest-file", Default: "false", at: func(s *Settings) any { return &s.PushByDigest }},
		{Name: "destination-policy", Help: "which destinations must get the image for success: all or any", Default: "all", Example: "any", at: func(s *Settings) any { return &s.DestinationPolicy }},
		{Name: "merge", Help: "build nothing: put the tags on one image for several platforms, made of digests", Default: "false", at: func(s *Settings) any { return &s.Merge }},
		{Name: "digests", Help: "what merge is made of: digests, references, and files with digests", Example: "digests/*", at: func(s *Settings) any { return &s.Digests }},
		{Name: "skip-if-tag-exists", Help: "build nothing where one of the tags is in its registry already", Default: "false", at: func(s *Settings) any { return &s.SkipIfTagExists }},
		{Name: "outputs", Help: "further outputs, as docker has them: type local, tar, oci, docker, image, registry", Example: "type=oci,dest=image.tar", at: func(s *Settings) any { return &s.Outputs }},
		{Name: "oci-layout-path", Help: "write an OCI image layout to this directory", Example: "out/layout", at: func(s *Settings) any { return &s.OCILayout }},
		{Name: "tar-path", Help: "write what docker load reads to this file", Example: "image.tar", at: func(s *Settings) any { return &s.Tar }},
		{Name: "push-from", Help: "build nothing, and push this image: a tar or OCI layout that a build or docker save has written", Example: "image.tar", at: func(s *Settings) any { return &s.PushFrom }},
		{Name: "single-snapshot", Help: "make one layer of all that is added to the base image", Default: "false", at: func(s *Settings) any { return &s.SingleSnapshot }},
		{Name: "image-name-with-digest-file", Help: "write a line NAME@DIGEST for each destination to this file", Example: "names.txt", at: func(s *Settings) any { return &s.NameDigestFile }},
		{Name: "image-name-tag-with-digest-file", Help: "write a line NAME:TAG@DIGEST for each destination to this file", Example: "tags.txt", at: func(s *Settings) any { return &s.NameTagDigestFile }},
		{Name: "digest-file", Help: "write the digest to this file", Example: "digest.txt", at: func(s *Settings) any { return &s.DigestFile }},
		{Name: "metadata-file", Help: "write digests and names as JSON to this file", Example: "metadata.json", at: func(s *Settings) any { return &s.MetadataFile }},
		{Name: "image-id-file", Help: "write the image ID to this file", Example: "image-id.txt", at: func(s *Settings) any { return &s.ImageIDFile }},
		{Name: "image-format", Help: "oci or docker", Default: "oci", Example: "docker", at: func(s *Settings) any { return &s.ImageFormat }},
		{Name: "compression", Help: "of new layers: gzip, zstd or none", Default: "gzip", Example: "zstd", at: func(s *Settings) any { return &s.Compression }},
		{Name: "compression-level", Help: "0 to 9 for gzip, 1 to 22 for zstd", Example: "3", at: func(s *Settings) any { return &s.CompressionLevel }},
		{Name: "reproducible", Help: "no file later than SOURCE_DATE_EPOCH, or 1970 without one", Default: "false", at: func(s *Settings) any { return &s.Reproducible }},
		{Name: "rewrite-timestamp", Help: "no file of a new layer later than SOURCE_DATE_EPOCH, a build argument", Default: "false", at: func(s *Settings) any { return &s.RewriteTimestamp }},
		{Name: "load", Help: "an error: there is no Docker engine to load into", Default: "false", at: func(s *Settings) any { return &s.Load }},
		{Name: "provenance", Help: "an error unless it is off: not made yet", Default: "false", at: func(s *Settings) any { return &s.Provenance }},
		{Name: "sbom", Help: "an error unless it is off: not made yet", Default: "false", at: func(s *Settings) any { return &s.SBOM }},
		{Name: "attests", Help: "an error unless it is empty: not made yet", Example: "type=sbom,disabled=true", at: func(s *Settings) any { return &s.Attests }},
	}
}

func registryFields() []Field {
	return []Field{
		{Name: "registry", Help: "registry that username and password are for", Default: "that of the first image", Example: "ghcr.io", at: func(s *Settings) any { return &s.Registry }},
		{Name: "username", Help: "name to log in with", Example: "robot", at: func(s *Settings) any { return &s.Username }},
		{Name: "password", Help: "password or token to log in with", Secret: true, at: func(s *Settings) any { return &s.Password }},
		{Name: "docker-config", Help: "directory of config.json with further credentials", Default: "$DOCKER_CONFIG or ~/.docker", Example: ".docker", at: func(s *Settings) any { return &s.DockerConfig }},
		{Name: "credential-helpers", Help: "use of env, google, ecr, acr and gitlab only these, or none", Example: "ecr", at: func(s *Settings) any { return &s.CredentialHelpers }},
		{Name: "insecure", Help: "plain HTTP with all registries", Default: "false", at: func(s *Settings) any { return &s.Insecure }},
		{Name: "insecure-registries", Help: "plain HTTP with these registries", Example: "registry.local:5000", at: func(s *Settings) any { return &s.InsecureRegistries }},
		{Name: "skip-tls-verify", Help: "check no certificates", Default: "false", at: func(s *Settings) any { return &s.SkipTLSVerify }},
		{Name: "skip-tls-verify-registries", Help: "do not check the certificates of these registries", Example: "registry.local", at: func(s *Settings) any { return &s.SkipTLSVerifyRegistries }},
		{Name: "registry-certificates", Help: "trust these authorities' certificates, too, as HOST=FILE", Example: "registry.local=ca.pem", at: func(s *Settings) any { return &s.Certificates }},
		{Name: "insecure-pull", Help: "plain HTTP with registries that are pulled from", Default: "false", at: func(s *Settings) any { return &s.InsecurePull }},
		{Name: "skip-tls-verify-pull", Help: "check no certificates of registries that are pulled from", Default: "false", at: func(s *Settings) any { return &s.SkipTLSVerifyPull }},
		{Name: "registry-client-certs", Help: "certificates that registries get to see, as HOST=CERT,KEY", Example: "registry.local=cert.pem,key.pem", at: func(s *Settings) any { return &s.ClientCertificates }},
		{Name: "skip-default-registry-fallback", Help: "where there are mirrors, ask nobody else", Default: "false", at: func(s *Settings) any { return &s.NoFallback }},
		{Name: "registry-mirrors", Help: "ask these first for images of Docker Hub", Example: "mirror.local", at: func(s *Settings) any { return &s.Mirrors }},
		{Name: "registry-maps", Help: "ask these first for images of a registry, as HOST=OTHER[/PREFIX]", Example: "quay.io=mirror.local/quay", at: func(s *Settings) any { return &s.RegistryMaps }},
		{Name: "skip-push-permission-check", Help: "do not check before the build that pushing is allowed", Default: "false", at: func(s *Settings) any { return &s.SkipPushCheck }},
		{Name: "push-ignore-immutable-tag-errors", Help: "a tag that is there and must not change is no error", Default: "false", at: func(s *Settings) any { return &s.IgnoreImmutableTags }},
		{Name: "push-retry", Help: "further attempts at a push", Default: "3", Example: "5", at: func(s *Settings) any { return &s.PushRetry }},
		{Name: "pull-retry", Help: "further attempts at a pull", Default: "3", Example: "5", at: func(s *Settings) any { return &s.PullRetry }},
	}
}

// cloudFields are keys for the registries of clouds, and what is made there.
func cloudFields() []Field {
	return []Field{
		{Name: "aws-access-key-id", Help: "key for Amazon's registries (ECR)", Example: "AKIA…", at: func(s *Settings) any { return &s.AWSAccessKeyID }},
		{Name: "aws-secret-access-key", Help: "secret half of that key", Example: "…", Secret: true, at: func(s *Settings) any { return &s.AWSSecretAccessKey }},
		{Name: "aws-session-token", Help: "token of a key that is valid for a while", Example: "…", Secret: true, at: func(s *Settings) any { return &s.AWSSessionToken }},
		{Name: "aws-role", Help: "role to take, with the key, the job's own identity or oidc-token", Example: "arn:aws:iam::123456789012:role/ci", at: func(s *Settings) any { return &s.AWSRole }},
		{Name: "aws-external-id", Help: "external id that the role's owner wants", Example: "our-ci", at: func(s *Settings) any { return &s.AWSExternalID }},
		{Name: "aws-region", Help: "region of contexts in S3; that of a registry is in its name", Example: "eu-west-1", at: func(s *Settings) any { return &s.AWSRegion }},
		{Name: "create-repository", Help: "make the repository where it is missing, and that of the cache (ECR; other registries do so themselves)", Default: "false", at: func(s *Settings) any { return &s.CreateRepository }},
		{Name: "scan-on-push", Help: "have the repository scan what is pushed (ECR)", Default: "false", at: func(s *Settings) any { return &s.ScanOnPush }},
		{Name: "repository-policy", Help: "file with the repository's policy, JSON (ECR)", Example: "policy.json", at: func(s *Settings) any { return &s.RepositoryPolicy }},
		{Name: "lifecycle-policy", Help: "file with the repository's lifecycle policy, JSON (ECR)", Example: "lifecycle.json", at: func(s *Settings) any { return &s.LifecyclePolicy }},
		{Name: "google-key", Help: "text of a key file for Google's registries: of a service account, a user or a federation; also in base64", Example: "…", Secret: true, at: func(s *Settings) any { return &s.GoogleKey }},
		{Name: "google-access-token", Help: "access token for Google's registries", Example: "…", Secret: true, at: func(s *Settings) any { return &s.GoogleAccessToken }},
		{Name: "google-project-number", Help: "project of the workload identity pool that takes oidc-token", Example: "123456789", at: func(s *Settings) any { return &s.GoogleProjectNumber }},
		{Name: "google-pool-id", Help: "that pool", Example: "ci", at: func(s *Settings) any { return &s.GooglePool }},
		{Name: "google-provider-id", Help: "its provider", Example: "drone", at: func(s *Settings) any { return &s.GoogleProvider }},
		{Name: "google-service-account", Help: "service account to speak for", Example: "ci@project.iam.gserviceaccount.com", at: func(s *Settings) any { return &s.GoogleAccount }},
		{Name: "azure-client-id", Help: "service principal for Azure's registries, with a secret, a certificate or oidc-token", Example: "00000000-0000-0000-0000-000000000001", at: func(s *Settings) any { return &s.AzureClientID }},
		{Name: "azure-tenant-id", Help: "its tenant", Example: "00000000-0000-0000-0000-000000000002", at: func(s *Settings) any { return &s.AzureTenant }},
		{Name: "azure-client-secret", Help: "its secret", Example: "…", Secret: true, at: func(s *Settings) any { return &s.AzureClientSecret }},
		{Name: "azure-client-certificate", Help: "its certificate with the key, PEM; also in base64", Example: "…", Secret: true, at: func(s *Settings) any { return &s.AzureClientCertificate }},
		{Name: "azure-authority-host", Help: "where it logs in", Default: "https://login.microsoftonline.com", Example: "https://login.microsoftonline.us", at: func(s *Settings) any { return &s.AzureAuthorityHost }},
		{Name: "oidc-token", Help: "token of the CI that a cloud takes instead of a key", Example: "…", Secret: true, at: func(s *Settings) any { return &s.OIDCToken }},
	}
}

func cacheFields() []Field {
	return []Field{
		{Name: "cache", Help: "keep results of steps beside the first destination", Default: "false", at: func(s *Settings) any { return &s.Cache }},
		{Name: "cache-repo", Help: "keep results of steps in this repository", Example: "ghcr.io/org/app/cache", at: func(s *Settings) any { return &s.CacheRepo }},
		{Name: "cache-from", Help: "look for results there too: a repository, or type=registry,ref=NAME", Example: "type=registry,ref=org/app:buildcache", at: func(s *Settings) any { return &s.CacheFrom }},
		{Name: "cache-to", Help: "keep results there: a repository, or type=registry,ref=NAME", Example: "type=registry,ref=org/app:buildcache,mode=max", at: func(s *Settings) any { return &s.CacheTo }},
		{Name: "cache-ttl", Help: "use no older results", Default: "336h", Example: "72h", at: func(s *Settings) any { return &s.CacheTTL }},
		{Name: "no-push-cache", Help: "only read the cache, as jobs for pull requests do unless it is false", Example: "true", at: func(s *Settings) any { return &s.NoPushCache }},
		{Name: "cache-run-layers", Help: "keep results of RUN", Default: "true", at: func(s *Settings) any { return &s.CacheRunLayers }},
		{Name: "cache-copy-layers", Help: "keep results of COPY, ADD and WORKDIR", Default: "true", at: func(s *Settings) any { return &s.CacheCopyLayers }},
		{Name: "explain-cache", Help: "say more about hits and misses at the end", Default: "false", at: func(s *Settings) any { return &s.ExplainCache }},
		{Name: "cache-mounts", Help: "keep RUN --mount=type=cache too: on, off, or auto: with cache-repo", Default: "auto", Example: "off", at: func(s *Settings) any { return &s.CacheMounts }},
		{Name: "cache-mount-max-size", Help: "of a cache mount that is kept", Default: "2g", Example: "500m", at: func(s *Settings) any { return &s.CacheMountMaxSize }},
		{Name: "cache-scope", Help: "separates cache mounts, of branches for example", Example: "main", at: func(s *Settings) any { return &s.CacheScope }},
		{Name: "cache-dir", Help: "base images that layerwright warmer has fetched", Default: "/cache", Example: "/mnt/bases", at: func(s *Settings) any { return &s.CacheDir }},
	}
}

func otherFields() []Field {
	return []Field{
		{Name: "isolation", Help: "how steps run: auto, namespaces, inplace or chroot", Default: "auto", Example: "inplace", at: func(s *Settings) any { return &s.Isolation }},
		{Name: "engine", Help: "build by a BuildKit elsewhere: buildkit=ADDRESS, with platforms=, ca=, cert=, key=, servername= after commas (docs/scale.md)", Example: "buildkit=tcp://builder:1234", at: func(s *Settings) any { return &s.Engine }},
		{Name: "store", Help: "directory for file trees and layers", Example: "/mnt/scratch", at: func(s *Settings) any { return &s.Store }},
		{Name: "snapshots", Help: "how file trees are kept: auto, overlay or flat", Default: "auto", Example: "flat", at: func(s *Settings) any { return &s.Snapshots }},
		{Name: "min-free", Help: "must be free in the store at the start; 0 asks nothing", Default: "128m", Example: "2g", at: func(s *Settings) any { return &s.MinFree }},
		{Name: "verbosity", Help: "error, warn, info or debug", Default: "info", Example: "debug", at: func(s *Settings) any { return &s.Verbosity }},
		{Name: "log-format", Help: "plain or json", Default: "plain", Example: "json", at: func(s *Settings) any { return &s.LogFormat }},
	}
}

// read makes settings of values.
func (c *checker) read(values Values) Settings {
	s := Settings{DefaultLabels: true, Push: true, CacheTTL: defaultCacheTTL, CacheRunLayers: true, CacheCopyLayers: true}
	known := map[string]bool{}
	for _, f := range Fields() {
		known[f.Name] = true
		list := given(values[f.Name].Values)
		if len(list) == 0 {
			continue
		}
		if !f.List() && len(list) > 1 {
			list = []string{strings.Join(list, "\n")}
		}
		if err := set(f.at(&s), list); err != nil {
			c.add(f.Name, "%w", err)
		}
	}
	for name := range values {
		if !known[name] {
			c.add(name, "there is no such setting")
		}
	}
	return s
}

// defaultCacheTTL is that of the command line, Kaniko's: two weeks.
const defaultCacheTTL = 14 * 24 * time.Hour

// given are the values that are not empty.
func given(list []string) (out []string) {
	for _, v := range list {
		if strings.TrimSpace(v) != "" {
			out = append(out, v)
		}
	}
	return out
}

func set(at any, list []string) (err error) {
	switch at := at.(type) {
	case *[]string:
		*at = list
	case *string:
		*at = strings.TrimSpace(list[0])
	case *bool:
		if *at, err = strconv.ParseBool(strings.ToLower(strings.TrimSpace(list[0]))); err != nil {
			return fmt.Errorf("%q is neither true nor false", list[0])
		}
	case *time.Duration:
		if *at, err = time.ParseDuration(strings.TrimSpace(list[0])); err != nil || *at < 0 {
			return fmt.Errorf("%q is no duration: write 72h", list[0])
		}
	}
	return nil
}
