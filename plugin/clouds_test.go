package plugin

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
)

func TestCloudsAreWhatTheEngineIsTold(t *testing.T) {
	p := prepare(t, nil, "images", "r.example/o/app", "aws-access-key-id", "K", "aws-secret-access-key", "geheim-1", "aws-role", "arn", "aws-external-id", "x",
		"google-key", `{"private_key":"-----BEGIN\nmore-than-twenty-characters-of-a-key\n-----END"}`, "azure-client-id", "c", "azure-tenant-id", "t", "azure-client-secret", "geheim-2",
		"azure-authority-host", "https://login.example", "oidc-token", "geheim-3", "create-repository", "true", "lifecycle-policy", "json", "aws-region", "eu-west-1")
	require.Equal(t, core.AWS{AccessKeyID: "K", SecretAccessKey: "geheim-1", Role: "arn", ExternalID: "x"}, p.Request.Registry.Clouds.AWS)
	require.Equal(t, core.Azure{ClientID: "c", Tenant: "t", ClientSecret: "geheim-2", AuthorityHost: "https://login.example"}, p.Request.Registry.Clouds.Azure)
	require.Equal(t, core.Repository{Create: true, Lifecycle: "{}"}, p.Request.Outputs.Repository)
	require.Equal(t, "eu-west-1", p.Request.Registry.Environment["AWS_REGION"])
	for _, secret := range []string{"geheim-1", "geheim-2", "geheim-3", "more-than-twenty-characters-of-a-key"} {
		require.Contains(t, p.Secrets, []byte(secret))
	}
}

func TestSettingsOfCloudsThatNeedEachOther(t *testing.T) {
	for _, c := range []struct {
		kv   []string
		says []string
	}{
		{[]string{"aws-access-key-id", "K"}, []string{"PLUGIN_AWS-SECRET-ACCESS-KEY: it is missing"}},
		{[]string{"aws-secret-access-key", "geheim"}, []string{"PLUGIN_AWS-ACCESS-KEY-ID: it is missing"}},
		{[]string{"aws-external-id", "x"}, []string{"PLUGIN_AWS-ROLE: it is missing"}},
		{[]string{"google-pool-id", "x", "oidc-token", "geheim"}, []string{"PLUGIN_GOOGLE-PROJECT-NUMBER: it is missing", "PLUGIN_GOOGLE-PROVIDER-ID: it is missing"}},
		{[]string{"azure-client-secret", "geheim"}, []string{"PLUGIN_AZURE-CLIENT-ID: it is missing", "PLUGIN_AZURE-TENANT-ID: it is missing"}},
		{[]string{"azure-client-id", "c", "azure-tenant-id", "t"}, []string{"PLUGIN_AZURE-CLIENT-SECRET: it is missing"}},
		{[]string{"oidc-token", "geheim"}, []string{"PLUGIN_OIDC-TOKEN: it is of no use alone"}},
		{[]string{"lifecycle-policy", "there"}, []string{"PLUGIN_LIFECYCLE-POLICY: there is not JSON"}},
		{[]string{"repository-policy", "missing"}, []string{"PLUGIN_REPOSITORY-POLICY: there is no such file"}},
		{[]string{"registry-client-certs", "h=c"}, []string{"PLUGIN_REGISTRY-CLIENT-CERTS: h=c: write HOST=CERT,KEY"}},
		{[]string{"ignore-paths", "x"}, []string{"PLUGIN_IGNORE-PATHS: x: write an absolute path below /"}},
		{[]string{"push-from", "x", "push", "false"}, []string{"PLUGIN_PUSH-FROM: nothing is left to do"}},
	} {
		_, err := Prepare(of(append([]string{"images", "r.example/o/app"}, c.kv...)...), facts(), host(nil))
		for _, text := range c.says {
			require.ErrorContains(t, err, text)
		}
		require.NotContains(t, err.Error(), "geheim")
	}
}
