package plugin

import (
	"context"
	"errors"
	"fmt"

	"github.com/layerwright/layerwright/core"
)

// audience is what a token of the host must be made out for, where a cloud's settings
// want one and none was given; the clouds' own actions use the same by default.
type audience struct{ setting, value string }

// audiences are those of the clouds in the settings.
func (s Settings) audiences(host Host) (list []audience) {
	if s.OIDCToken != "" || host.Token == nil {
		return nil
	}
	otherwise := host.Env["AWS_ACCESS_KEY_ID"] != "" || host.Env["AWS_WEB_IDENTITY_TOKEN_FILE"] != ""
	if s.AWSRole != "" && s.AWSAccessKeyID == "" && !otherwise {
		list = append(list, audience{"aws-role", "sts.amazonaws.com"})
	}
	if s.GoogleProvider != "" && s.GoogleKey == "" && s.GoogleAccessToken == "" {
		list = append(list, audience{"google-provider-id", fmt.Sprintf("https://iam.googleapis.com/projects/%s/locations/global/workloadIdentityPools/%s/providers/%s",
			s.GoogleProjectNumber, s.GooglePool, s.GoogleProvider)})
	}
	if s.AzureClientID != "" && s.AzureClientSecret == "" && s.AzureClientCertificate == "" {
		list = append(list, audience{"azure-client-id", "api://AzureADTokenExchange"})
	}
	return list
}

// oneToken refuses what one token cannot do: it is made out for one cloud.
func (c *checker) oneToken(s Settings) {
	if list := s.audiences(c.host); len(list) > 1 {
		c.add(list[1].setting, "a token of the CI is for one cloud, and %s wants one, too: give one of them a key", c.host.Spell(list[0].setting))
	}
}

// federate asks the host for the token that a cloud's settings want, and hides it.
func (p *Plan) federate(ctx context.Context, host Host, hide func([][]byte)) error {
	list := p.Settings.audiences(host)
	if len(list) == 0 || p.Skip() != "" {
		return nil
	}
	token, err := host.Token(ctx, list[0].value)
	if err == nil && token == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return &core.Error{Kind: core.KindRegistry, Err: fmt.Errorf("%s: the CI gives no token for %s: %w", host.Spell(list[0].setting), list[0].value, err),
			Remedy: "Run the job again, or give a key instead."}
	}
	hide([][]byte{[]byte(token)})
	p.Request.Registry.Clouds.OIDCToken = token
	p.Secrets = append(p.Secrets, []byte(token))
	return nil
}
