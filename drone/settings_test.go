package drone

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin"
)

// wrong is what Prepare complains about; nothing in it may be secret.
func wrong(t *testing.T, env, files map[string]string) string {
	t.Helper()
	a, _ := job(env, files)
	_, err := plugin.Prepare(a.Read())
	require.Error(t, err)
	require.NotContains(t, err.Error(), "geheim")
	return err.Error()
}

// with are files of the job.
func with(t *testing.T, env, files map[string]string) *plugin.Plan {
	t.Helper()
	a, _ := job(env, files)
	p, err := plugin.Prepare(a.Read())
	require.NoError(t, err)
	return p
}

func TestListsAndMapsInEachForm(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"A=1,B=2":                    {"A": "1", "B": "2"},
		"A=1,2,B=x=y":                {"A": "1,2", "B": "x=y"},
		"A=1\nB=2":                   {"A": "1", "B": "2"},
		`["A=1,2","B=2"]`:            {"A": "1,2", "B": "2"},
		`{"A":"1,2","B":true,"C":3}`: {"A": "1,2", "B": "true", "C": "3"},
		"A=$(touch /tmp/x)`id`":      {"A": "$(touch /tmp/x)`id`"},
	} {
		for _, name := range []string{"BUILD_ARGS", "BUILD-ARGS", "build_args"} {
			require.Equal(t, want, prepare(t, step(name, text)).Request.BuildArgs, text)
		}
	}
	require.Equal(t, []string{"o/a:1", "o/a:2.0"}, prepare(t, step("TAGS", `[1,"2.0"]`)).Request.Outputs.Destinations)
	require.Equal(t, []string{"[::1]:5000", "r"}, prepare(t, step("INSECURE_REGISTRIES", "[::1]:5000,r")).Request.Registry.InsecureRegistries, "an address is no JSON")
	for _, text := range []string{`["A=geheim"`, `{"A":geheim}`, `[{"A":"geheim"}]`, `["A=1"] geheim`} {
		require.Contains(t, wrong(t, step("BUILD_ARGS", text), nil), "setting build_args: ", text)
	}
}

func TestTheEnvFile(t *testing.T) {
	env := step("ENV_FILE", "my.env", "BUILD_ARGS_FROM_ENV", "FROM_FILE,SET", "SECRETS_FROM_ENV", "token=TOKEN_IN_FILE")
	env["SET"] = "by the step"
	delete(env, "PLUGIN_REPO")
	p := with(t, env, map[string]string{"my.env": "# words\nPLUGIN_REPO=o/a\nexport FROM_FILE='a $HOME $(id)'\nSET=by the file\nTOKEN_IN_FILE=geheim-1\n"})
	require.Equal(t, []string{"o/a:latest"}, p.Request.Outputs.Destinations)
	require.Equal(t, map[string]string{"FROM_FILE": "a $HOME $(id)", "SET": "by the step"}, p.Request.BuildArgs, "what is set stays")
	require.Contains(t, p.Secrets, []byte("geheim-1"))
	require.Contains(t, wrong(t, env, map[string]string{}), "setting env_file: read my.env: file does not exist")
	require.Contains(t, wrong(t, env, map[string]string{"my.env": "-geheim=1"}), "setting env_file: my.env has a line that is not KEY=VALUE")
}

func TestSettingsOfBothPlugins(t *testing.T) {
	p := with(t, step("CONTEXT_SUB_PATH", "sub", "IGNORE_PATH", "/a", "SKIP_DEFAULT_REGISTRY_FALLBACK", "true", "SINGLE_SNAPSHOT", "true", "INSECURE_PULL", "true",
		"SKIP_TLS_VERIFY_PULL", "true", "REGISTRY", "https://r.example/v2/", "REGISTRY_CERTIFICATE", "ca.pem", "REGISTRY_CLIENT_CERT", "h=c.pem,k.pem", "IMAGE_NAME_WITH_DIGEST_FILE", "n",
		"IMAGE_NAME_TAG_WITH_DIGEST_FILE", "nt", "PUSH_RETRY", "2", "IMAGE_DOWNLOAD_RETRY", "4", "REPRODUCIBLE", "true", "LABEL_SCHEMA", "vendor=Us,a.b=c,d", "REPO_LINK", "https://h/o/a",
		"SECRET", "id=one,src=file", "SECRETS_FROM_FILE", "two=file", "SSH_AGENT_KEY", "geheim-key", "ADD_HOST", "db:10.0.0.7", "EXPAND_TAG", "true", "TAG", "v1.2.3", "NO_CACHE", "true", "TARGET", "t",
		"OCI_LAYOUT_PATH", "layout", "SKIP_PUSH_IF_TAG_EXISTS", "true"), map[string]string{"file": "geheim-2"})
	r := p.Request
	require.Equal(t, "sub", r.ContextSubPath)
	require.Equal(t, []string{"/a"}, r.IgnorePaths)
	require.True(t, r.Registry.NoFallback && r.Outputs.SingleSnapshot && r.Registry.InsecurePull && r.Registry.SkipTLSVerifyPull && r.NoCache && p.SkipExisting)
	require.False(t, r.Registry.Insecure || r.Registry.SkipTLSVerify, "for pulling only")
	require.Equal(t, map[string][]string{"r.example": {"ca.pem"}}, r.Registry.Certificates)
	require.Equal(t, map[string]core.ClientCertificate{"h": {Cert: "c.pem", Key: "k.pem"}}, r.Registry.ClientCertificates)
	require.Equal(t, "n nt layout", r.Outputs.NameDigestFile+" "+r.Outputs.NameTagDigestFile+" "+r.Outputs.OCILayout)
	require.Equal(t, "Us c,d https://h/o/a", p.Labels["org.opencontainers.image.vendor"]+" "+p.Labels["org.opencontainers.image.a.b"]+" "+p.Labels["org.opencontainers.image.url"])
	require.Equal(t, []core.Secret{{ID: "two", Value: []byte("geheim-2")}, {ID: "one", Value: []byte("geheim-2")}}, r.Secrets)
	require.Contains(t, p.Secrets, []byte("geheim-key"))
	require.Equal(t, []string{"o/a:1", "o/a:1.2", "o/a:1.2.3"}, r.Outputs.Destinations)
	require.Equal(t, 2, r.Registry.PushRetries)
	require.Equal(t, 4, r.Registry.PullRetries)

	require.True(t, prepare(t, step("SKIP_TLS_VERIFY_REGISTRY", "true")).Request.Registry.SkipTLSVerify, "a truth value, as in drone-kaniko")
	require.Equal(t, []string{"r"}, prepare(t, step("SKIP_TLS_VERIFY_REGISTRY", "r")).Request.Registry.SkipTLSVerifyRegistries)
	require.Equal(t, map[string]string{"A": "1"}, prepare(t, step("BUILD_ARGS", "A=1", "BUILD_ARGS_NEW", "A=2;B=3")).Request.BuildArgs)
	require.Equal(t, map[string]string{"A": "2", "B": "3,4"}, prepare(t, step("BUILD_ARGS", "A=1", "BUILD_ARGS_NEW", "A=2;B=3,4", "MULTIPLE_BUILD_ARGS", "true")).Request.BuildArgs)
	require.Empty(t, prepare(t, step("ENABLE_CACHE", "false", "CACHE_REPO", "o/cache")).Request.Cache.Repo, "drone-kaniko has a cache only when told")
	require.True(t, prepare(t, step("SQUASH", "true")).Request.Outputs.SingleSnapshot)
}

func TestPushingWhatWasBuiltBefore(t *testing.T) {
	p := prepare(t, step("PUSH_ONLY", "true", "SOURCE_TAR_PATH", "image.tar"))
	require.Equal(t, "image.tar", p.PushFrom)
	require.Empty(t, prepare(t, step("SOURCE_TAR_PATH", "image.tar")).PushFrom, "as in drone-kaniko, only with push_only")
	require.Contains(t, wrong(t, step("PUSH_ONLY", "true"), nil), "setting push_only: source_tar_path is missing")
	require.Contains(t, wrong(t, step("PUSH_ONLY", "true", "NO_PUSH", "true", "SOURCE_TAR_PATH", "x"), nil), "setting push_only: it cannot be used together with no_push")
	require.Contains(t, wrong(t, step("SOURCE_IMAGE", "a:b"), nil), "setting source_image: it names an image in a Docker daemon")
	require.Contains(t, wrong(t, step("COSIGN_PRIVATE_KEY", "geheim"), nil), "setting cosign_private_key: images are not signed here")
	require.Contains(t, wrong(t, step("AUTO_TAG", "true", "EXPAND_TAG", "true"), nil), "setting expand_tag: it cannot be used together with auto_tag")
}

func TestLoginsOfEachKind(t *testing.T) {
	credentials := func(kv ...string) []core.Credential {
		return prepare(t, step(kv...)).Request.Registry.Credentials
	}
	require.Equal(t, []core.Credential{{Host: "docker.io", Username: "u", Password: "geheim"}}, credentials("USERNAME", "u", "PASSWORD", "geheim"))
	require.Equal(t, []core.Credential{{Host: "index.docker.io", Username: "u", Password: "geheim"}}, credentials("USERNAME", "u", "PASSWORD", "geheim", "REGISTRY", "https://index.docker.io/v1/"))
	require.Equal(t, []core.Credential{{Host: "r1", Username: "u", Password: "geheim"}, {Host: "r2:5000", Username: "v", Password: "geheim"}},
		credentials("LOGINS", `[{"registry":"https://r1","username":"u","password":"geheim"},{"registry":"r2:5000","username":"v","password":"geheim"}]`))
	require.Equal(t, []core.Credential{{Host: "docker.io", Username: "push", Password: "geheim"}, {Host: "base.example", Username: "pull", Password: "geheim"}},
		credentials("USERNAME", "push", "PASSWORD", "geheim", "BASE_IMAGE_REGISTRY", "base.example", "BASE_IMAGE_USERNAME", "pull", "BASE_IMAGE_PASSWORD", "geheim"))
	require.Equal(t, []core.Credential{{Host: "docker.io", Username: "pull", Password: "geheim"}}, credentials("DOCKER_USERNAME", "pull", "DOCKER_PASSWORD", "geheim"))

	env := step()
	env["DOCKER_USERNAME"], env["DOCKER_PASSWORD"], env["DOCKER_REGISTRY"] = "bare", "geheim", "r.example"
	require.Equal(t, []core.Credential{{Host: "r.example", Username: "bare", Password: "geheim"}}, prepare(t, env).Request.Registry.Credentials, "as in drone-docker")
	env["PLUGIN_USERNAME"], env["PLUGIN_PASSWORD"] = "push", "geheim"
	require.Equal(t, []core.Credential{{Host: "docker.io", Username: "push", Password: "geheim"}, {Host: "r.example", Username: "bare", Password: "geheim"}},
		prepare(t, env).Request.Registry.Credentials, "as in drone-kaniko")

	require.Contains(t, wrong(t, step("BASE_IMAGE_USERNAME", "u"), nil), "setting docker_password: it is missing, and base_image_username is set")
	require.Contains(t, wrong(t, step("LOGINS", `[{"username":"u","password":"geheim"}]`), nil), "setting logins: number 1: the registry is missing")
	require.Contains(t, wrong(t, step("LOGINS", `[{"registry":"r","password":"geheim"}]`), nil), "setting logins: number 1: the username is missing")
	require.Contains(t, prepare(t, step("LOGINS", `[{"registry":"r1"}]`)).Notices, "setting logins has no password for r1: from_secret works for the whole list only")
}

// TestCloudsByTheirRegistry has the settings of the plugins for each cloud, as their
// documentation has them.
func TestCloudsByTheirRegistry(t *testing.T) {
	const ecr = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	for name, c := range map[string]struct {
		settings []string
		bare     map[string]string
		image    string
		clouds   core.Clouds
	}{
		"plugins/ecr, the registry before repo": {[]string{"REPO", ecr + "/foo", "REGISTRY", ecr, "ACCESS_KEY", "K", "SECRET_KEY", "geheim", "REGION", "eu-west-1"}, nil,
			ecr + "/foo:latest", core.Clouds{AWS: core.AWS{AccessKeyID: "K", SecretAccessKey: "geheim"}}},
		"plugins/kaniko-ecr": {[]string{"REPO", "foo/bar", "REGISTRY", ecr, "ACCESS_KEY", "K", "SECRET_KEY", "geheim", "ASSUME_ROLE", "arn", "EXTERNAL_ID", "x"}, nil,
			ecr + "/foo/bar:latest", core.Clouds{AWS: core.AWS{AccessKeyID: "K", SecretAccessKey: "geheim", Role: "arn", ExternalID: "x"}}},
		"a role with OIDC": {[]string{"REPO", "foo", "REGISTRY", ecr, "ASSUME_ROLE", "arn", "OIDC_TOKEN_ID", "geheim"}, nil,
			ecr + "/foo:latest", core.Clouds{AWS: core.AWS{Role: "arn"}, OIDCToken: "geheim"}},
		"ECR_ACCESS_KEY": {[]string{"REPO", "foo", "REGISTRY", ecr}, map[string]string{"ECR_ACCESS_KEY": "K", "ECR_SECRET_KEY": "geheim", "TOKEN": "geheim", "CLIENT_ID": "c"},
			ecr + "/foo:latest", core.Clouds{AWS: core.AWS{AccessKeyID: "K", SecretAccessKey: "geheim"}}},
		"plugins/gcr": {[]string{"REPO", "project/foo", "JSON_KEY", "geheim"}, nil, "gcr.io/project/foo:latest", core.Clouds{Google: core.Google{Key: "geheim"}}},
		"plugins/kaniko-gcr, a registry with its project": {[]string{"REPO", "project/foo", "REGISTRY", "us.gcr.io/project-id", "JSON_KEY", "geheim"}, nil,
			"us.gcr.io/project-id/project/foo:latest", core.Clouds{Google: core.Google{Key: "geheim"}}},
		"plugins/gar by location": {[]string{"REPO", "project/r/foo", "LOCATION", "europe-west1", "JSON_KEY", "geheim"}, nil,
			"europe-west1-docker.pkg.dev/project/r/foo:latest", core.Clouds{Google: core.Google{Key: "geheim"}}},
		"plugins/kaniko-gar with workload identity": {[]string{"REPO", "p/r/foo", "REGISTRY", "us-docker.pkg.dev", "OIDC_TOKEN_ID", "geheim", "PROJECT_NUMBER", "1", "POOL_ID", "p", "PROVIDER_ID", "o", "SERVICE_ACCOUNT_EMAIL", "a@b"}, nil,
			"us-docker.pkg.dev/p/r/foo:latest", core.Clouds{Google: core.Google{ProjectNumber: "1", Pool: "p", Provider: "o", ServiceAccount: "a@b"}, OIDCToken: "geheim"}},
		"TOKEN": {[]string{"REPO", "gcr.io/p/foo"}, map[string]string{"TOKEN": "geheim"}, "gcr.io/p/foo:latest", core.Clouds{Google: core.Google{Key: "geheim"}}},
		"plugins/acr": {[]string{"REPO", "foo", "REGISTRY", "team.azurecr.io", "CLIENT_ID", "c", "CLIENT_SECRET", "geheim", "TENANT_ID", "t", "SUBSCRIPTION_ID", "s"}, nil,
			"team.azurecr.io/foo:latest", core.Clouds{Azure: core.Azure{ClientID: "c", ClientSecret: "geheim", Tenant: "t"}}},
		"plugins/kaniko-acr, bare": {[]string{"REPO", "team.azurecr.io/foo", "REGISTRY", "team.azurecr.io"}, map[string]string{"CLIENT_ID": "c", "CLIENT_CERTIFICATE": "geheim", "TENANT_ID": "t"},
			"team.azurecr.io/foo:latest", core.Clouds{Azure: core.Azure{ClientID: "c", Certificate: "geheim", Tenant: "t"}}},
		"acr with OIDC": {[]string{"REPO", "foo", "REGISTRY", "team.azurecr.io", "CLIENT_ID", "c", "TENANT_ID", "t", "OIDC_TOKEN_ID", "geheim"}, nil,
			"team.azurecr.io/foo:latest", core.Clouds{Azure: core.Azure{ClientID: "c", Tenant: "t"}, OIDCToken: "geheim"}},
	} {
		t.Run(name, func(t *testing.T) {
			env := step(c.settings...)
			for k, v := range c.bare {
				env[k] = v
			}
			p := prepare(t, env)
			require.Equal(t, []string{c.image}, p.Request.Outputs.Destinations)
			require.Equal(t, c.clouds, p.Request.Registry.Clouds)
			require.Empty(t, p.Request.Registry.Credentials)
			for _, n := range p.Notices {
				require.NotContains(t, n, "unknown")
			}
		})
	}
	p := prepare(t, step("REPO", "foo", "REGISTRY", ecr, "CREATE_REPOSITORY", "true", "CACHE_REPO", "cache", "ENABLE_CACHE", "true", "ACCESS_KEY", "K", "SECRET_KEY", "geheim", "USERNAME", "hub", "PASSWORD", "geheim-hub"))
	require.True(t, p.Request.Outputs.Repository.Create)
	require.Equal(t, ecr+"/cache", p.Request.Cache.Repo, "the registry is put before it, as in kaniko-ecr")
	require.Equal(t, []core.Credential{{Host: "docker.io", Username: "hub", Password: "geheim-hub"}}, p.Request.Registry.Credentials, "for base images")
	p = prepare(t, step("REPO", "team.azurecr.io/foo", "USERNAME", "u", "PASSWORD", "geheim"))
	require.Equal(t, []core.Credential{{Host: "team.azurecr.io", Username: "u", Password: "geheim"}}, p.Request.Registry.Credentials, "a token of the registry itself")

	all := wrong(t, step("REPO", "foo", "ACCESS_KEY", "K", "LIFECYCLE_POLICY", "missing.json"), map[string]string{})
	require.Contains(t, all, "setting secret_key: it is missing")
	require.Contains(t, all, "setting registry: it is missing: write ACCOUNT.dkr.ecr.REGION.amazonaws.com")
	require.Contains(t, all, "setting lifecycle_policy: ")
	require.Contains(t, wrong(t, step("REGISTRY", "team.azurecr.io", "CLIENT_ID", "c", "CLIENT_SECRET", "geheim"), nil), "setting tenant_id: it is missing")
}

// TestEverySettingOfDronesPluginsIsKnown has all names that drone-kaniko (docker, ecr,
// gcr, gar, acr) and drone-docker (docker, ecr, gcr, gar, acr) read.
func TestEverySettingOfDronesPluginsIsKnown(t *testing.T) {
	kaniko := `DOCKERFILE CONTEXT TAGS EXPAND_REPO EXPAND_TAG AUTO_TAG CONFIG AUTO_TAG_SUFFIX BUILD_ARGS BUILD_ARGS_NEW MULTIPLE_BUILD_ARGS TARGET REPO CUSTOM_LABELS REGISTRY
		DOCKER_REGISTRY BASE_IMAGE_REGISTRY REGISTRY_MIRRORS USERNAME DOCKER_USERNAME BASE_IMAGE_USERNAME PASSWORD DOCKER_PASSWORD BASE_IMAGE_PASSWORD SKIP_TLS_VERIFY SNAPSHOT_MODE ENABLE_CACHE
		CACHE_REPO CACHE_TTL ARTIFACT_FILE NO_PUSH TAR_PATH DESTINATION_TAR_PATH VERBOSITY PLATFORM CUSTOM_PLATFORM SKIP_UNUSED_STAGES CACHE_DIR CACHE_COPY_LAYERS CACHE_RUN_LAYERS CLEANUP
		COMPRESSED_CACHING CONTEXT_SUB_PATH FORCE IMAGE_NAME_WITH_DIGEST_FILE IMAGE_NAME_TAG_WITH_DIGEST_FILE INSECURE INSECURE_PULL INSECURE_REGISTRY LABEL LOG_FORMAT LOG_TIMESTAMP OCI_LAYOUT_PATH
		PUSH_RETRY REGISTRY_CERTIFICATE REGISTRY_CLIENT_CERT SKIP_DEFAULT_REGISTRY_FALLBACK REPRODUCIBLE SINGLE_SNAPSHOT SKIP_PUSH_PERMISSION_CHECK SKIP_TLS_VERIFY_PULL SKIP_TLS_VERIFY_REGISTRY
		USE_NEW_RUN IGNORE_VAR_RUN IGNORE_PATH IGNORE_PATHS IMAGE_FS_EXTRACT_RETRY IMAGE_DOWNLOAD_RETRY SOURCE_TAR_PATH PUSH_ONLY ENV_FILE CREATE_REPOSITORY REGION ACCESS_KEY SECRET_KEY ASSUME_ROLE
		EXTERNAL_ID LIFECYCLE_POLICY REPOSITORY_POLICY OIDC_TOKEN_ID JSON_KEY PROJECT_NUMBER POOL_ID PROVIDER_ID SERVICE_ACCOUNT_EMAIL CLIENT_ID CLIENT_SECRET CLIENT_CERTIFICATE TENANT_ID SUBSCRIPTION_ID`
	docker := `DRY_RUN NO_PUSH MIRROR STORAGE_DRIVER STORAGE_PATH BIP MTU CUSTOM_DNS CUSTOM_DNS_SEARCH INSECURE IPV6 EXPERIMENTAL DEBUG DAEMON_OFF DAEMON_RETRY_COUNT DOCKERFILE CONTEXT TAG TAGS DEFAULT_TAGS
		AUTO_TAG DEFAULT_SUFFIX AUTO_TAG_SUFFIX BUILD_ARGS BUILD_ARGS_FROM_ENV BUILD_ARGS_NEW MULTIPLE_BUILD_ARGS QUIET TARGET CACHE_FROM SQUASH PULL_IMAGE COMPRESS REPO CUSTOM_LABELS LABEL_SCHEMA
		AUTO_LABEL REPO_LINK REGISTRY USERNAME PASSWORD EMAIL CONFIG PURGE NO_CACHE ADD_HOST SECRET SECRETS_FROM_ENV SECRETS_FROM_FILE PLATFORM SSH_AGENT_KEY ARTIFACT_FILE REGISTRY_TYPE
		COSIGN_PRIVATE_KEY COSIGN_PASSWORD COSIGN_PARAMS PUSH_ONLY SOURCE_IMAGE SCAN_ON_PUSH SKIP_PUSH_IF_TAG_EXISTS WORKLOAD_IDENTITY LOCATION DAEMON_REGISTRY AZURE_AUTHORITY_HOST`
	for _, name := range strings.Fields(kaniko + " " + docker) {
		a, _ := job(map[string]string{"PLUGIN_" + name: "true"}, map[string]string{})
		_, facts, _ := a.Read()
		for _, n := range facts.Notices {
			require.NotContains(t, n, "unknown", name)
		}
	}
}

// TestASecretInDockersForm is drone-docker's setting of one secret.
func TestASecretInDockersForm(t *testing.T) {
	of := func(text string) plugin.Values {
		a, _ := job(step("SECRET", text, "NPM", "x"), map[string]string{})
		values, _, _ := a.Read()
		return values
	}
	require.Equal(t, []string{"id=NPM"}, of("type=env,id=id,src=NPM")["secret-envs"].Values)
	require.Equal(t, []string{"a=file"}, of("type=file,id=a,source=file")["secret-files"].Values)
	for _, text := range []string{"TOKEN=geheim", "id=a,geheim", "src=geheim", "id=a,src=x,env=y"} {
		a, _ := job(step("SECRET", text), map[string]string{})
		_, err := plugin.Prepare(a.Read())
		require.ErrorContains(t, err, "setting secret: ")
		require.NotContains(t, err.Error(), "geheim")
	}
}

// TestSecretsAsWoodpeckersPluginHasThem: a list that Woodpecker has joined with commas.
func TestSecretsAsWoodpeckersPluginHasThem(t *testing.T) {
	env := step("SECRETS", `id=a\,src=file,id=b,env=NPM`)
	env["NPM"] = "geheim-2"
	p := with(t, env, map[string]string{"file": "geheim-1"})
	require.Len(t, p.Request.Secrets, 2)
	require.Contains(t, p.Secrets, []byte("geheim-1"))
	require.Equal(t, []core.Secret{{ID: "a", Value: []byte("b,c")}}, prepare(t, step("SECRETS", "a=b,c")).Request.Secrets)
	require.Contains(t, wrong(t, step("SECRETS", "id=a,geheim"), nil), "setting secrets: write id=ID,src=FILE")
}

// TestProxiesAreBuildArguments, as drone-docker makes them.
func TestProxiesAreBuildArguments(t *testing.T) {
	env := step("BUILD_ARGS", "A=1,no_proxy=own")
	env["HTTP_PROXY"], env["https_proxy"], env["no_proxy"] = "http://u:geheim@p:3128", "http://q", "h"
	p := prepare(t, env)
	require.Equal(t, map[string]string{"A": "1", "no_proxy": "own", "HTTP_PROXY": "http://u:geheim@p:3128", "https_proxy": "http://q"}, p.Request.BuildArgs)
	require.Contains(t, p.Secrets, []byte("geheim"))
}
