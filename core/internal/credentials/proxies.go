package credentials

import "github.com/docker/cli/cli/config/configfile"

// proxySettings are the proxies of one configuration, by daemon or "default".
type proxySettings struct {
	label  string
	byHost map[string]configfile.ProxyConfig
}

// Proxies are the predefined build arguments that docker build makes of the
// first configuration with an entry proxies.default: HTTP_PROXY, http_proxy and
// so on. from is that configuration; empty where there is none.
func (c *Chain) Proxies() (args map[string]string, from string) {
	for _, p := range c.proxies {
		d, ok := p.byHost["default"]
		if !ok {
			continue
		}
		args = map[string]string{}
		for _, v := range []struct{ upper, lower, value string }{
			{"HTTP_PROXY", "http_proxy", d.HTTPProxy}, {"HTTPS_PROXY", "https_proxy", d.HTTPSProxy},
			{"NO_PROXY", "no_proxy", d.NoProxy}, {"FTP_PROXY", "ftp_proxy", d.FTPProxy}, {"ALL_PROXY", "all_proxy", d.AllProxy},
		} {
			if v.value != "" {
				args[v.upper], args[v.lower] = v.value, v.value
			}
		}
		if len(args) > 0 {
			return args, p.label
		}
	}
	return nil, ""
}
