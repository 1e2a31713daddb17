// Package git owns git repositories as a source of files: finding the commit
// that a ref means, fetching it (smart HTTP, ssh and git protocols, versions 0 to
// 2) and laying out its files, submodules included, as BuildKit's git source
// does. No git program is needed. It refuses to run anything that a repository
// brings along: hooks, filter drivers and so Git LFS, whose pointer files stay
// as they are (as in BuildKit); of .gitattributes only text, eol, ident and
// binary count. It refuses repositories with SHA-256 object names, and the dumb
// HTTP protocol.
package git

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/moby/buildkit/util/gitutil"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/room"
)

// Source checks out repositories. What it has fetched and resolved it remembers:
// a ref means one commit for as long as the Source lives, and no commit is
// fetched twice. Methods may be called from many goroutines.
type Source struct {
	// Dir is an existing directory where clones are kept. Nobody else may
	// write there; whoever made it removes it.
	Dir string
	// Secrets are looked up for credentials, by the names in the attributes
	// of a source (GIT_AUTH_TOKEN and GIT_AUTH_HEADER), first with ".HOST"
	// behind them. May be nil.
	Secrets map[string][]byte
	// Agent opens a connection to the ssh agent with an id of --ssh. nil
	// means that there is none.
	Agent func(ctx context.Context, id string) (net.Conn, error)
	// Transport is http.DefaultTransport when nil.
	Transport http.RoundTripper
	// Progress takes Transfer events; nil drops them.
	Progress progress.Sink

	mu       sync.Mutex
	clones   map[string]*clone
	resolved map[string]*answer
}

// answer is what a ref of a repository means, asked once.
type answer struct {
	mu   sync.Mutex
	done bool
	head head
}

// head is what a ref points at.
type head struct {
	// ref is the ref's full name, or a commit's hash.
	ref string
	// object is the hash that the ref has: a commit's or an annotated tag's.
	// peeled is the tag's commit where it counts for a checksum.
	object, peeled string
}

// Commit is a commit that a source means.
type Commit struct {
	// Ref is the full name of the ref, or the commit's hash.
	Ref string
	// Hash is what the ref points at: of an annotated tag, the tag.
	Hash string
	// Object is the commit as git stores it, without header.
	Object []byte
}

// Checkout puts the files of a git source, as its identifier ("git://HOST/PATH
// #REF:SUBDIR") and its attributes (pb.AttrGit…) say, into the existing, empty
// directory to. Owner is who calls, modes are 0644 and 0755, times are now, or
// the commit's where that is asked for.
func (s *Source) Checkout(ctx context.Context, identifier string, attrs map[string]string, to string) error {
	req, err := s.request(identifier, attrs)
	if err != nil {
		return err
	}
	at, err := s.fetch(ctx, req)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		return fmt.Errorf("check out %s: %w", req.remote.shown, err)
	}
	defer func() { _ = root.Close() }()
	limit := room.Of(to)
	c := &checkout{src: s, req: req, limit: limit, left: limit.Bytes}
	if err := c.run(ctx, root, at); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, ok := fault.As(err); ok {
			return err
		}
		return fmt.Errorf("check out %s: %w", req.remote.shown, err)
	}
	return nil
}

// Resolve gives the commit that a source means, and fetches it for a later
// Checkout.
func (s *Source) Resolve(ctx context.Context, identifier string, attrs map[string]string) (*Commit, error) {
	req, err := s.request(identifier, attrs)
	if err != nil {
		return nil, err
	}
	at, err := s.fetch(ctx, req)
	if err != nil {
		return nil, err
	}
	raw, err := at.store.rawCommit(at.commit.Hash)
	if err != nil {
		return nil, fmt.Errorf("read commit of %s: %w", req.remote.shown, err)
	}
	return &Commit{Ref: at.head.ref, Hash: at.head.object, Object: raw}, nil
}

// Find gives the hash that a source's ref has, a commit's or an annotated tag's,
// without fetching what it points at.
func (s *Source) Find(ctx context.Context, identifier string, attrs map[string]string) (string, error) {
	req, err := s.request(identifier, attrs)
	if err != nil {
		return "", err
	}
	h, err := s.find(ctx, req)
	return h.object, err
}

// fetched is a commit that is there.
type fetched struct {
	store  *store
	commit *object.Commit
	head   head
	// tag says that head.object is an annotated tag.
	tag bool
}

// fetch finds out what a request means, and gets it.
func (s *Source) fetch(ctx context.Context, req *request) (*fetched, error) {
	h, err := s.find(ctx, req)
	if err != nil {
		return nil, err
	}
	st, err := s.get(ctx, req.remote, h.object)
	if err != nil {
		return nil, err
	}
	commit, tag, err := st.peel(plumbing.NewHash(h.object))
	if err != nil {
		return nil, fault.New(fault.User, "git repository %s: %s is no commit: %w", req.remote.shown, req.refShown(h), err).
			With("Name a branch, a tag or a commit.")
	}
	return &fetched{store: st, commit: commit, head: h, tag: tag}, nil
}

// find finds what the request's ref means, by asking the server once.
func (s *Source) find(ctx context.Context, req *request) (head, error) {
	switch {
	case gitutil.IsCommitSHA(req.ref):
		return head{ref: req.ref, object: req.ref}, req.check(req.ref)
	case req.byCommit:
		return req.trusted()
	}
	s.mu.Lock()
	if s.resolved == nil {
		s.resolved = map[string]*answer{}
	}
	key := req.remote.url + "#" + req.ref
	a, ok := s.resolved[key]
	if !ok {
		a = &answer{}
		s.resolved[key] = a
	}
	s.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.done {
		var err error
		if a.head, err = s.lookup(ctx, req); err != nil {
			return head{}, err
		}
		a.done = true
	}
	return a.head, req.check(a.head.object, a.head.peeled)
}

// lookup asks the server for a ref. Which of several refs of one short name is
// meant is BuildKit's rule: refs/NAME, then the branch, then the tag.
func (s *Source) lookup(ctx context.Context, req *request) (head, error) {
	c, err := s.connect(ctx, req.remote)
	if err != nil {
		return head{}, err
	}
	defer c.Close()
	name := req.ref
	refs, err := c.list(ctx, namesOf(name)...)
	if err != nil {
		return head{}, req.remote.failure(ctx, err)
	}
	if name == "" {
		if name = defaultBranch(refs); name == "" {
			return head{}, fault.New(fault.User, "git repository %s has no default branch", req.remote.shown).
				With("Name a branch, a tag or a commit behind #.")
		}
		if refs, err = c.list(ctx, namesOf(name)...); err != nil {
			return head{}, req.remote.failure(ctx, err)
		}
	}
	names := namesOf(name)
	for i, n := range names {
		for _, r := range refs {
			if r.name != n {
				continue
			}
			h := head{ref: n, object: r.hash}
			if i == 2 { // only then does BuildKit look behind the tag
				h.peeled = r.peeled
			}
			return h, nil
		}
	}
	remedy := "Check the name; a commit needs its whole hash of 40 digits."
	return head{}, fault.New(fault.User, "git repository %s has no branch or tag %s", req.remote.shown, strconv.Quote(name)).With(remedy)
}

// clone is one repository's objects; mu is held while they are fetched.
type clone struct {
	mu  sync.Mutex
	dir string
}

// get makes sure that an object, with what it refers to but for parents, is in
// the repository's clone.
func (s *Source) get(ctx context.Context, r *remote, hash string) (*store, error) {
	s.mu.Lock()
	if s.clones == nil {
		s.clones = map[string]*clone{}
	}
	c, ok := s.clones[r.url]
	if !ok {
		c = &clone{dir: filepath.Join(s.Dir, "repository"+strconv.Itoa(len(s.clones)))}
		s.clones[r.url] = c
	}
	s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	st, err := openStore(c.dir)
	if err != nil {
		return nil, fmt.Errorf("open clone of %s: %w", r.shown, err)
	}
	if st.has(hash) {
		return st, nil
	}
	if err := s.download(ctx, r, hash, st); err != nil {
		return nil, err
	}
	return openStore(c.dir) // with the new packs
}

// download fetches one commit or tag without history, or, where the server does
// not hand that out, everything it has.
func (s *Source) download(ctx context.Context, r *remote, hash string, st *store) error {
	c, err := s.connect(ctx, r)
	if err != nil {
		return err
	}
	defer func() { c.Close() }()
	err = c.fetch(ctx, []string{hash}, true, st)
	if err == nil {
		return nil
	}
	if !refusedWant(err) {
		return r.failure(ctx, err)
	}
	c.Close()
	if c, err = s.connect(ctx, r); err != nil {
		return err
	}
	refs, err := c.list(ctx, "refs/")
	if err != nil {
		return r.failure(ctx, err)
	}
	seen, wants := map[string]bool{}, []string{}
	for _, ref := range refs {
		if !seen[ref.hash] {
			seen[ref.hash] = true
			wants = append(wants, ref.hash)
		}
	}
	if len(wants) > 0 {
		if err := c.fetch(ctx, wants, false, st); err != nil {
			return r.failure(ctx, err)
		}
	}
	full, err := openStore(st.dir)
	if err != nil {
		return err
	}
	if !full.has(hash) {
		return fault.New(fault.User, "git repository %s has no commit %s", r.shown, hash).With("Check the commit's hash, and that it has been pushed.")
	}
	return nil
}
