package syntax

import "regexp"

var userinfo = regexp.MustCompile(`(https?://)([^/@\s:]*)(?::([^/@\s]*))?@`)

// minToken is what a name without a password is at least long where it is a token, and
// no "git".
const minToken = 8

// URLSecrets are the passwords in http and https URLs, and tokens in place of a name.
func URLSecrets(text string) (secrets [][]byte) {
	for _, m := range userinfo.FindAllStringSubmatch(text, -1) {
		if secret := m[3]; secret != "" {
			secrets = append(secrets, []byte(secret))
		} else if len(m[2]) >= minToken {
			secrets = append(secrets, []byte(m[2]))
		}
	}
	return secrets
}

// WithoutURLSecrets has *** for whom a URL logs in.
func WithoutURLSecrets(text string) string { return userinfo.ReplaceAllString(text, "$1***@") }
