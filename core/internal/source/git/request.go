package git

import (
	"encoding/base64"
	"errors"
	"net"
	"net/url"
	"path"
	"regexp"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/gitutil"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// request is a git source, understood.
type request struct {
	remote                  *remote
	ref, subdir, checksum   string
	keepGit, skipSubmodules bool
	byCommit, commitTime    bool
}

// remote is a repository's address and how to get in.
type remote struct {
	// url has credentials in it, if the user wrote them there; shown has not.
	url, shown string
	// scheme is http, https, ssh or git; host may have a port.
	scheme, host, path string
	user               *url.Userinfo
	access             *access
}

// access is what a source has for getting in, at its own repository and its
// submodules'.
type access struct {
	// header is the value of the header Authorization, for the repositories
	// that are scope or below it; "" for none.
	header, scope string
	// agent is the id of an ssh agent; knownHosts a file's content.
	agent, knownHosts string
}

var checksumForm = regexp.MustCompile(`^[a-fA-F0-9]+$`)

// request reads identifier and attributes.
func (s *Source) request(identifier string, attrs map[string]string) (*request, error) {
	for _, k := range []string{pb.AttrGitSignatureVerifyPubKey, pb.AttrGitSignatureVerifyRejectExpired,
		pb.AttrGitSignatureVerifyRequireSignedTag, pb.AttrGitSignatureVerifyIgnoreSignedTag} {
		if attrs[k] != "" {
			return nil, fault.New(fault.User, "checking the signature of a git commit is not supported").With("Give the commit's hash instead.")
		}
	}
	if attrs[pb.AttrGitBundle] != "" || attrs[pb.AttrGitCheckoutBundle] == "true" {
		return nil, fault.New(fault.User, "git bundles are not supported").With("Name the repository itself.")
	}
	rest := strings.TrimPrefix(identifier, "git://")
	if !gitutil.IsGitTransport(rest) {
		rest = "https://" + rest
	}
	u, err := gitutil.ParseURL(rest)
	if err != nil {
		return nil, badURL()
	}
	req := &request{checksum: attrs[pb.AttrGitChecksum], keepGit: attrs[pb.AttrKeepGitDir] == "true",
		skipSubmodules: attrs[pb.AttrGitSkipSubmodules] == "true", byCommit: attrs[pb.AttrGitFetchByCommit] == "true",
		commitTime: attrs[pb.AttrGitMTime] == "commit"}
	if o := u.Opts; o != nil {
		req.ref, req.subdir = o.Ref, o.Subdir
	}
	req.subdir = strings.Trim(path.Clean("/"+req.subdir), "/")
	full := u.Remote
	if v := attrs[pb.AttrFullRemoteURL]; v != "" {
		if full = v; !gitutil.IsGitTransport(v) {
			full = "https://" + v
		}
	}
	a := &access{agent: attrs[pb.AttrMountSSHSock], knownHosts: attrs[pb.AttrKnownSSHHosts]}
	if req.remote, err = parseRemote(full, a); err != nil {
		return nil, err
	}
	s.authorize(req.remote, attrs)
	if strings.HasPrefix(req.ref, "-") {
		return nil, fault.New(fault.User, "git repository %s: invalid ref %q", req.remote.shown, req.ref).With("Name a branch, a tag or a commit.")
	}
	if req.checksum != "" && !checksumForm.MatchString(req.checksum) {
		return nil, fault.New(fault.User, "git repository %s: invalid checksum %q", req.remote.shown, req.checksum).
			With("Give the commit's hash in hexadecimal digits.")
	}
	return req, nil
}

func badURL() error {
	return fault.New(fault.User, "the address of a git repository cannot be understood").
		With("Write https://HOST/PATH.git, ssh://USER@HOST/PATH or USER@HOST:PATH.")
}

// parseRemote reads a repository's URL; only protocols over a network are known.
func parseRemote(raw string, a *access) (*remote, error) {
	u, err := gitutil.ParseURL(raw)
	if errors.Is(err, gitutil.ErrInvalidProtocol) || errors.Is(err, gitutil.ErrUnknownProtocol) {
		scheme, _, _ := strings.Cut(raw, ":")
		return nil, fault.New(fault.User, "git repositories by %q are not supported", scheme).With("Use an https, http, ssh or git URL.")
	}
	if err != nil || u.Host == "" {
		return nil, badURL()
	}
	r := &remote{url: u.Remote, scheme: strings.ToLower(u.Scheme), host: u.Host, path: u.Path, user: u.User, access: a}
	if at := "@" + u.Host + ":"; !strings.Contains(raw, "://") && strings.Contains(raw, at) {
		r.shown = raw
	} else {
		r.shown = (&url.URL{Scheme: r.scheme, Host: u.Host, Path: path.Join("/", u.Path)}).String()
	}
	return r, nil
}

// authorize looks for the secrets that BuildKit looks for.
func (s *Source) authorize(r *remote, attrs map[string]string) {
	token, header := attrs[pb.AttrAuthTokenSecret], attrs[pb.AttrAuthHeaderSecret]
	for _, c := range []struct {
		name  string
		token bool
		given bool
	}{
		{header + "." + r.host, false, header != ""},
		{token + "." + r.host, true, token != ""},
		{header, false, header != ""},
		{token, true, token != ""},
	} {
		v, ok := s.Secrets[c.name]
		if !c.given || !ok {
			continue
		}
		value := strings.TrimSpace(string(v))
		if c.token {
			value = "basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+value))
		}
		r.access.header, r.access.scope = value, scope(r)
		return
	}
}

// scope is where a token may be sent: its own repository, but all of github.com,
// as for BuildKit.
func scope(r *remote) string {
	if r.scheme == "https" && (r.host == "github.com" || r.host == "www.github.com") {
		return "https://" + r.host + "/"
	}
	return r.base()
}

// base is the URL of a repository without credentials, for HTTP.
func (r *remote) base() string {
	return strings.TrimSuffix((&url.URL{Scheme: r.scheme, Host: r.host, Path: path.Join("/", r.path)}).String(), "/")
}

// authorization is the header to send to this repository, "" for none.
func (r *remote) authorization() string {
	if a := r.access; a.header != "" {
		if b := r.base(); b == a.scope || strings.HasPrefix(b, strings.TrimSuffix(a.scope, "/")+"/") {
			return a.header
		}
	}
	if r.user == nil {
		return ""
	}
	password, _ := r.user.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(r.user.Username()+":"+password))
}

// address is host and port, with the scheme's port where none is given.
func (r *remote) address(port string) string {
	u := url.URL{Host: r.host}
	if p := u.Port(); p != "" {
		port = p
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// check compares the checksum with hashes that it may be the beginning of.
func (q *request) check(hashes ...string) error {
	if q.checksum == "" {
		return nil
	}
	var got []string
	for _, h := range hashes {
		if h == "" {
			continue
		}
		if strings.HasPrefix(h, q.checksum) {
			return nil
		}
		if len(got) == 0 || got[0] != h {
			got = append(got, h)
		}
	}
	return fault.New(fault.User, "git repository %s: checksum %s was expected, %s is %s", q.remote.shown, q.checksum, q.refShown(head{}), strings.Join(got, " or ")).
		With("If the change is meant, correct the checksum; otherwise somebody has moved the ref.")
}

func (q *request) refShown(h head) string {
	switch {
	case q.ref != "":
		return q.ref
	case h.ref != "":
		return h.ref
	}
	return "the default branch"
}

// trusted is fetch-by-commit: the checksum is the commit, the ref is only a
// name.
func (q *request) trusted() (head, error) {
	if !gitutil.IsCommitSHA(q.checksum) {
		return head{}, fault.New(fault.User, "git repository %s: fetching by commit needs the whole hash of the commit", q.remote.shown).
			With("Give 40 hexadecimal digits as the checksum, or leave fetch-by-commit out.")
	}
	h := head{ref: q.ref, object: q.checksum}
	switch {
	case q.ref == "":
		h.ref = q.checksum
	case !strings.HasPrefix(q.ref, "refs/"):
		h.ref = "refs/heads/" + q.ref
	}
	return h, nil
}

// namesOf are the full names that a short one may mean, first choice first; of
// no name, what the default branch is found by.
func namesOf(name string) []string {
	if name == "" {
		return []string{"HEAD"}
	}
	return []string{
		"refs/" + strings.TrimPrefix(name, "refs/"),
		"refs/heads/" + strings.TrimPrefix(name, "refs/heads/"),
		"refs/tags/" + strings.TrimPrefix(name, "refs/tags/"),
	}
}

func defaultBranch(refs []ref) string {
	for _, r := range refs {
		if name, ok := strings.CutPrefix(r.target, "refs/heads/"); r.name == "HEAD" && ok {
			return name
		}
	}
	return ""
}
