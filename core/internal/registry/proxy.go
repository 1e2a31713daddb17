package registry

import (
	"net/http"
	"net/url"

	"golang.org/x/net/http/httpproxy"
)

// Proxy chooses the proxy of each request by HTTP_PROXY, HTTPS_PROXY and
// NO_PROXY, in capitals or not, as the variables have them. Loopback addresses
// are reached directly.
func Proxy(env map[string]string) func(*http.Request) (*url.URL, error) {
	get := func(upper, lower string) string {
		if v := env[upper]; v != "" {
			return v
		}
		return env[lower]
	}
	choose := (&httpproxy.Config{
		HTTPProxy: get("HTTP_PROXY", "http_proxy"), HTTPSProxy: get("HTTPS_PROXY", "https_proxy"), NoProxy: get("NO_PROXY", "no_proxy"),
		// A CGI script's HTTP_PROXY is a header of its client's.
		CGI: env["REQUEST_METHOD"] != "",
	}).ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return choose(r.URL) }
}
