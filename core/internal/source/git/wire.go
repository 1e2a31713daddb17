package git

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// agentName is what servers are told.
const agentName = "agent=layerwright"

// peer carries requests to a git server and its answers back.
type peer interface {
	// hello gives the server's first words.
	hello(ctx context.Context) (io.Reader, error)
	// ask sends a request; the answer is to be read before the next one.
	ask(ctx context.Context, body []byte) (io.Reader, error)
	// Close lets the connection go; more than once does no harm.
	Close()
}

// ref is one of a repository's refs. target is what a symbolic ref points at,
// peeled the commit of an annotated tag.
type ref struct{ name, hash, target, peeled string }

// conversation is a server that has said hello (gitprotocol-v2, gitprotocol-pack).
type conversation struct {
	peer
	v2   bool
	caps map[string]string
	refs []ref // known from hello before version 2
	// meter counts what comes in.
	meter func(io.Reader) io.Reader
}

// serverError is what the server said in place of an answer.
type serverError struct{ text string }

func (e *serverError) Error() string { return "the server says: " + e.text }

// errNotSmart is an answer that is not of the protocol.
var errNotSmart = errors.New("the server does not speak git's smart protocol")

// errSHA256 is a repository of the other kind of object names.
var errSHA256 = errors.New("repositories with SHA-256 object names are not supported")

// errCannotWant says that a server hands out only what its refs point at.
var errCannotWant = errors.New("the server does not hand out this commit")

// refusedWant says that a commit was not handed out because no ref points at it.
func refusedWant(err error) bool {
	var se *serverError
	if errors.As(err, &se) {
		return strings.Contains(se.text, "not our ref") || strings.Contains(se.text, "unadvertised object")
	}
	return errors.Is(err, errCannotWant)
}

// Packets that are no data.
const (
	flush = "0000"
	delim = "0001"
)

func pkt(text string) string { return fmt.Sprintf("%04x%s", len(text)+4, text) }

// packets reads pkt-lines.
type packets struct{ r *bufio.Reader }

func newPackets(r io.Reader) *packets { return &packets{bufio.NewReaderSize(r, 66<<10)} }

// next gives a line's data, or special: flush or delim.
func (p *packets) next() (data []byte, special string, err error) {
	var head [4]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return nil, "", unexpected(err)
	}
	n, err := strconv.ParseUint(string(head[:]), 16, 16)
	if err != nil {
		return nil, "", errNotSmart
	}
	if n < 4 {
		return nil, string(head[:]), nil
	}
	data = make([]byte, n-4)
	if _, err := io.ReadFull(p.r, data); err != nil {
		return nil, "", unexpected(err)
	}
	if text, ok := bytes.CutPrefix(data, []byte("ERR ")); ok {
		return nil, "", &serverError{strings.TrimSpace(string(text))}
	}
	return data, "", nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// line is next as text without its newline.
func (p *packets) line() (text, special string, err error) {
	data, special, err := p.next()
	return strings.TrimSuffix(string(data), "\n"), special, err
}

// greet begins a conversation.
func greet(ctx context.Context, p peer) (*conversation, error) {
	r, err := p.hello(ctx)
	if err != nil {
		return nil, err
	}
	c := &conversation{peer: p, caps: map[string]string{}, meter: func(r io.Reader) io.Reader { return r }}
	in := newPackets(r)
	text, special, err := in.line()
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(text, "# service=") {
		if _, _, err := in.line(); err != nil { // a flush
			return nil, err
		}
		if text, special, err = in.line(); err != nil {
			return nil, err
		}
	}
	if text == "version 2" {
		c.v2 = true
		return c, c.capabilities(in)
	}
	if text == "version 1" {
		if text, special, err = in.line(); err != nil {
			return nil, err
		}
	}
	return c, c.advertised(in, text, special)
}

func (c *conversation) capabilities(in *packets) error {
	for {
		text, special, err := in.line()
		if err != nil {
			return err
		}
		if special != "" {
			break
		}
		name, value, _ := strings.Cut(text, "=")
		c.caps[name] = value
	}
	if f := c.caps["object-format"]; f != "" && f != "sha1" {
		return errSHA256
	}
	return nil
}

// advertised reads the refs of versions 0 and 1.
func (c *conversation) advertised(in *packets, text, special string) error {
	text, list, _ := strings.Cut(text, "\x00")
	symrefs := map[string]string{}
	for _, f := range strings.Fields(list) {
		name, value, _ := strings.Cut(f, "=")
		if name == "symref" {
			from, to, _ := strings.Cut(value, ":")
			symrefs[from] = to
			continue
		}
		c.caps[name] = value
	}
	if f := c.caps["object-format"]; f != "" && f != "sha1" {
		return errSHA256
	}
	for special == "" {
		hash, name, ok := strings.Cut(text, " ")
		switch {
		case !ok:
			return errNotSmart
		case hash == "shallow", name == "capabilities^{}":
		case strings.HasSuffix(name, "^{}"):
			if n := len(c.refs); n > 0 && c.refs[n-1].name+"^{}" == name {
				c.refs[n-1].peeled = hash
			}
		default:
			c.refs = append(c.refs, ref{name: name, hash: hash, target: symrefs[name]})
		}
		var err error
		if text, special, err = in.line(); err != nil {
			return err
		}
	}
	return nil
}

// list gives the refs whose names begin with one of prefixes, and perhaps more.
func (c *conversation) list(ctx context.Context, prefixes ...string) ([]ref, error) {
	if !c.v2 {
		return c.refs, nil
	}
	var b strings.Builder
	b.WriteString(pkt("command=ls-refs\n") + c.common() + delim + pkt("peel\n") + pkt("symrefs\n"))
	for _, p := range prefixes {
		b.WriteString(pkt("ref-prefix " + p + "\n"))
	}
	b.WriteString(flush)
	r, err := c.ask(ctx, []byte(b.String()))
	if err != nil {
		return nil, err
	}
	in := newPackets(r)
	var out []ref
	for {
		text, special, err := in.line()
		if err != nil {
			return nil, err
		}
		if special != "" {
			return out, nil
		}
		f := strings.Fields(text)
		if len(f) < 2 || f[0] == "unborn" {
			continue
		}
		r := ref{hash: f[0], name: f[1]}
		for _, a := range f[2:] {
			if v, ok := strings.CutPrefix(a, "symref-target:"); ok {
				r.target = v
			} else if v, ok := strings.CutPrefix(a, "peeled:"); ok {
				r.peeled = v
			}
		}
		out = append(out, r)
	}
}

// common are the capabilities that go with every command of version 2.
func (c *conversation) common() string {
	s := pkt(agentName)
	if _, ok := c.caps["object-format"]; ok {
		s += pkt("object-format=sha1")
	}
	return s
}

// fetch gets objects, with their history or without, and stores them.
func (c *conversation) fetch(ctx context.Context, wants []string, shallow bool, into *store) error {
	for _, w := range wants {
		if len(w) != 40 {
			return errSHA256
		}
	}
	var r io.Reader
	var err error
	if c.v2 {
		r, err = c.fetch2(ctx, wants, shallow)
	} else {
		r, err = c.fetch0(ctx, wants, shallow)
	}
	if err != nil {
		return err
	}
	return into.unpack(c.meter(r))
}

func (c *conversation) fetch2(ctx context.Context, wants []string, shallow bool) (io.Reader, error) {
	var b strings.Builder
	b.WriteString(pkt("command=fetch") + c.common() + delim + pkt("no-progress\n") + pkt("ofs-delta\n"))
	for _, w := range wants {
		b.WriteString(pkt("want " + w + "\n"))
	}
	if shallow && slices.Contains(strings.Fields(c.caps["fetch"]), "shallow") {
		b.WriteString(pkt("deepen 1\n"))
	}
	b.WriteString(pkt("done\n") + flush)
	r, err := c.ask(ctx, []byte(b.String()))
	if err != nil {
		return nil, err
	}
	in := newPackets(r)
	for {
		text, special, err := in.line()
		if err != nil {
			return nil, err
		}
		if special == flush {
			return nil, io.ErrUnexpectedEOF
		}
		if text == "packfile" {
			return &band{in: in}, nil
		}
	}
}

func (c *conversation) fetch0(ctx context.Context, wants []string, shallow bool) (io.Reader, error) {
	has := func(name string) bool { _, ok := c.caps[name]; return ok }
	if !has("allow-tip-sha1-in-want") && !has("allow-reachable-sha1-in-want") {
		for _, w := range wants {
			if !slices.ContainsFunc(c.refs, func(r ref) bool { return r.hash == w || r.peeled == w }) {
				return nil, errCannotWant
			}
		}
	}
	caps := []string{agentName}
	for _, name := range []string{"multi_ack_detailed", "side-band-64k", "ofs-delta", "no-progress"} {
		if has(name) {
			caps = append(caps, name)
		}
	}
	deepen := shallow && has("shallow")
	if deepen {
		caps = append(caps, "shallow")
	}
	var b strings.Builder
	for i, w := range wants {
		if i == 0 {
			w += " " + strings.Join(caps, " ")
		}
		b.WriteString(pkt("want " + w + "\n"))
	}
	if deepen {
		b.WriteString(pkt("deepen 1\n"))
	}
	b.WriteString(flush + pkt("done\n"))
	r, err := c.ask(ctx, []byte(b.String()))
	if err != nil {
		return nil, err
	}
	in := newPackets(r)
	for { // shallow lines and their flush, if any, then NAK
		text, _, err := in.line()
		if err != nil {
			return nil, err
		}
		if text == "NAK" || strings.HasPrefix(text, "ACK ") {
			break
		}
	}
	if has("side-band-64k") {
		return &band{in: in}, nil
	}
	return in.r, nil
}

// band is the pack among what a server sends side by side.
type band struct {
	in   *packets
	rest []byte
}

func (b *band) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		data, special, err := b.in.next()
		switch {
		case err != nil:
			return 0, err
		case special != "":
			return 0, io.EOF
		case len(data) == 0:
		case data[0] == 1:
			b.rest = data[1:]
		case data[0] == 3:
			return 0, &serverError{strings.TrimSpace(string(data[1:]))}
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}
