package syntax

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/layerwright/layerwright/core"
)

// Pair is KEY=VALUE.
func Pair(text string) (key, value string, err error) {
	key, value, ok := strings.Cut(text, "=")
	if key = strings.TrimSpace(key); key == "" || !ok {
		return "", "", errors.New("write KEY=VALUE")
	}
	return key, value, nil
}

// Pairs are those of KEY=VALUE.
func Pairs(list []string) (pairs map[string]string, errs []error) {
	pairs = map[string]string{}
	for _, text := range list {
		k, v, err := Pair(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", text, err))
			continue
		}
		pairs[k] = v
	}
	return pairs, errs
}

// Contexts are named build contexts: NAME=WHERE.
func Contexts(list []string) (contexts map[string]string, errs []error) {
	contexts = map[string]string{}
	for _, text := range list {
		name, where, err := Pair(text)
		if err != nil || where == "" {
			errs = append(errs, fmt.Errorf("%s: write NAME=WHERE", WithoutURLSecrets(text)))
			continue
		}
		if err := core.CheckContext(where, true); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		contexts[name] = where
	}
	return contexts, errs
}

// Certificates are files that are trusted for a host: HOST=FILE.
func Certificates(list []string) (files map[string][]string, errs []error) {
	for _, text := range list {
		host, file, err := Pair(text)
		if err != nil || file == "" {
			errs = append(errs, fmt.Errorf("%s: write HOST=FILE", text))
			continue
		}
		if files == nil {
			files = map[string][]string{}
		}
		files[host] = append(files[host], file)
	}
	return files, errs
}

// ClientCertificates are what hosts get to see: HOST=CERT,KEY.
func ClientCertificates(list []string) (certificates map[string]core.ClientCertificate, errs []error) {
	for _, text := range list {
		host, files, err := Pair(text)
		cert, key, ok := strings.Cut(files, ",")
		if err != nil || !ok || cert == "" || key == "" {
			errs = append(errs, fmt.Errorf("%s: write HOST=CERT,KEY", text))
			continue
		}
		if certificates == nil {
			certificates = map[string]core.ClientCertificate{}
		}
		certificates[host] = core.ClientCertificate{Cert: cert, Key: key}
	}
	return certificates, errs
}

// Fields are those of KEY=VALUE,KEY=VALUE; one with commas stands in double quotes, as
// a whole. Keys become lowercase, and those of switches may stand alone.
func Fields(text string, switches ...string) (map[string]string, error) {
	r := csv.NewReader(strings.NewReader(text))
	r.LazyQuotes, r.TrimLeadingSpace = true, true
	record, err := r.Read()
	if err == nil {
		if _, err := r.Read(); !errors.Is(err, io.EOF) {
			return nil, errors.New("several lines, and only one is read")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("not a line of fields with commas between them: %w", err)
	}
	fields := map[string]string{}
	for i, field := range record {
		k, v, ok := strings.Cut(field, "=")
		if k = strings.ToLower(strings.TrimSpace(k)); !ok && slices.Contains(switches, k) {
			v, ok = "true", true
		}
		if !ok || k == "" {
			return nil, fmt.Errorf("field %d is not KEY=VALUE", i+1)
		}
		fields[k] = strings.TrimSpace(v)
	}
	return fields, nil
}

// wrong is an error for one value of a list, which it names by its number.
func wrong(i int, format string, args ...any) error {
	return fmt.Errorf("number %d: %w", i+1, fmt.Errorf(format, args...))
}

// Words are those of a list, without what is empty.
func Words(text, separator string) (out []string) {
	for _, s := range strings.Split(text, separator) {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// RegistryMaps are those of HOST=OTHER;HOST=OTHER, as Kaniko has it; one host may have
// several others, which are asked in order.
func RegistryMaps(list []string) (out map[string][]string, errs []error) {
	for _, text := range list {
		for _, kv := range Words(text, ";") {
			host, to, err := Pair(kv)
			if err != nil || to == "" {
				errs = append(errs, fmt.Errorf("%s: write HOST=OTHER", kv))
				continue
			}
			if out == nil {
				out = map[string][]string{}
			}
			out[host] = append(out[host], to)
		}
	}
	return out, errs
}

// CredentialHelpers are the built-in helpers of a list with commas; never nil. Kaniko's
// "default" stands for what is always on.
func CredentialHelpers(list []string) (out []string, errs []error) {
	out = []string{}
	for _, h := range Words(strings.Join(list, ","), ",") {
		switch {
		case h == "default" || h == "none":
		case !slices.Contains(core.CredentialHelpers(), h):
			errs = append(errs, fmt.Errorf("%s: it must be some of %s", h, strings.Join(core.CredentialHelpers(), ", ")))
		default:
			out = append(out, h)
		}
	}
	return out, errs
}

// BuildArgs are those of KEY=VALUE. KEY alone has its value from env, and is not set
// where it is not there, as with docker; SOURCE_DATE_EPOCH is one by itself.
func BuildArgs(list []string, env map[string]string) (args map[string]string, errs []error) {
	args = map[string]string{}
	for i, text := range list {
		k, v, ok := strings.Cut(text, "=")
		if k = strings.TrimSpace(k); k == "" || strings.ContainsAny(k, " \t\r\n") {
			errs = append(errs, wrong(i, "write KEY=VALUE"))
			continue
		}
		if !ok {
			if v, ok = env[k]; !ok {
				continue
			}
		}
		args[k] = v
	}
	const epoch = "SOURCE_DATE_EPOCH"
	if _, given := args[epoch]; !given && env[epoch] != "" {
		args[epoch] = env[epoch]
	}
	return args, errs
}

// SSH are the agents of ID, which is that of env, of ID=SOCKET and of ID=KEY,KEY, as
// docker buildx has them.
func SSH(list []string, env map[string]string) (agents []core.SSH, errs []error) {
	seen := map[string]bool{}
	for i, text := range list {
		id, value, _ := strings.Cut(strings.TrimSpace(text), "=")
		agent := core.SSH{ID: id, Paths: strings.Split(value, ",")}
		for j, p := range agent.Paths {
			agent.Paths[j] = strings.TrimSpace(p)
		}
		switch {
		case id == "":
			errs = append(errs, wrong(i, "write default, ID=SOCKET or ID=KEYFILE"))
			continue
		case seen[id]:
			errs = append(errs, wrong(i, "two agents have the same id"))
		case value == "" && env["SSH_AUTH_SOCK"] == "":
			errs = append(errs, wrong(i, "no agent is at $SSH_AUTH_SOCK: start one with ssh-agent, or write ID=KEYFILE"))
		case value == "":
			agent.Paths = []string{env["SSH_AUTH_SOCK"]}
		case slices.Contains(agent.Paths, ""):
			errs = append(errs, wrong(i, "a path is empty"))
		}
		seen[id] = true
		agents = append(agents, agent)
	}
	return agents, errs
}
