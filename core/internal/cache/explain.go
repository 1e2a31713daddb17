package cache

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/layerwright/layerwright/core/internal/content"
	"github.com/layerwright/layerwright/core/internal/graph"
)

// Explanation says of one step whether it came from the cache, and if not why.
type Explanation struct {
	Vertex *graph.Vertex
	Hit    bool
	// Why is a few words; Details are more, a line each: changed files.
	Why     string
	Details []string
}

// made is what the key of a step was made of. It is kept in the repository for
// the next build's explanations, and for nothing else: values of variables only
// as salted hashes.
type made struct {
	Step string `json:"step"`
	Key  string `json:"key"`
	// Operation is the hash of the operation without its variables.
	Operation string            `json:"op"`
	Variables map[string]string `json:"env,omitempty"`
	// Inputs are the keys of what it depends on; Base names the image that
	// the tree began with.
	Inputs []string `json:"in,omitempty"`
	Base   string   `json:"base,omitempty"`
	// Files are those of the context that it reads.
	Files map[string]content.File `json:"files,omitempty"`
}

// list is what the last build of a target was made of.
type list struct {
	Salt  string `json:"salt"`
	Steps []made `json:"steps"`
}

const (
	labelSteps = "dev.layerwright.cache.steps"
	// maxSteps bounds the list as it is stored: registries refuse manifests
	// of more than 4 MiB.
	maxSteps = 2 << 20
	// maxDetails is how many changed files are named.
	maxDetails = 10
)

// Explain says how the steps of a solve went, in graph order. It asks for the
// list of the build before, and writes the new one, where something was missed.
func (c *Cache) Explain(ctx context.Context, name string, vertices []*graph.Vertex) []Explanation {
	ran := c.ran(vertices)
	var out []Explanation
	missed := false
	for _, v := range vertices {
		if c.cacheable(v) && singleOutput(v) {
			out = append(out, Explanation{Vertex: v, Hit: !ran[v]})
			missed = missed || ran[v]
		}
	}
	if !missed {
		return out
	}
	tag := c.listTag(name)
	before, hadRecord := c.lastList(ctx, tag)
	now := c.listOf(ctx, vertices, before.Salt)
	for i := range out {
		if !out[i].Hit {
			out[i].Why, out[i].Details = c.why(out[i].Vertex, ran, before, now, hadRecord)
		}
	}
	c.saveList(ctx, tag, now)
	return out
}

// ran are the vertices that were needed and not found.
func (c *Cache) ran(vertices []*graph.Vertex) map[*graph.Vertex]bool {
	consumed, out := map[*graph.Vertex]bool{}, map[*graph.Vertex]bool{}
	for _, v := range vertices {
		for _, in := range v.Inputs {
			consumed[in.Vertex] = true
		}
	}
	needed := map[*graph.Vertex]bool{}
	for i := len(vertices) - 1; i >= 0; i-- {
		v := vertices[i]
		if consumed[v] && !needed[v] || c.keysOf(v).hit && c.keysOf(v).early {
			continue
		}
		out[v] = !c.keysOf(v).hit
		for _, in := range v.Inputs {
			needed[in.Vertex] = true
		}
	}
	return out
}

func (c *Cache) listTag(name string) string {
	h := newHash()
	h.add("list", Format, name)
	return tagOf("s-" + h.sum())
}

// lastList is the list of the build before.
func (c *Cache) lastList(ctx context.Context, tag string) (l list, ok bool) {
	for _, repo := range c.reachable() {
		r, err := patientGet(ctx, repo, tag)
		if err != nil {
			continue // an explanation is not worth a complaint
		}
		if l, err = decodeList(r.Labels[labelSteps]); err == nil {
			return l, true
		}
	}
	return list{Salt: rand.Text()}, false
}

func decodeList(s string) (l list, err error) {
	raw, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return l, err
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return l, err
	}
	return l, json.NewDecoder(io.LimitReader(z, 64<<20)).Decode(&l)
}

func (l list) encode() (string, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	err := json.NewEncoder(z).Encode(l)
	if err = errors.Join(err, z.Close()); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(b.Bytes()), nil
}

func (c *Cache) saveList(ctx context.Context, tag string, l list) {
	w := c.opts.Write
	if w == nil || c.isDown(w) {
		return
	}
	text, err := l.encode()
	if err == nil && len(text) > maxSteps {
		for i := range l.Steps {
			l.Steps[i].Files = nil // the next explanation is a shorter one
		}
		text, err = l.encode()
	}
	if err != nil || len(text) > maxSteps {
		return
	}
	c.saves.Go(func() error {
		img, err := assemble(v1.ConfigFile{OS: "linux", Architecture: "unknown"}, map[string]string{labelSteps: text, labelStep: "what the last build was made of"}, nil, c.opts.Now())
		if err == nil {
			err = w.Put(ctx, img, []string{tag})
		}
		c.complain(ctx, w, err)
		return nil
	})
}

// listOf is what the keys of this build are made of.
func (c *Cache) listOf(ctx context.Context, vertices []*graph.Vertex, salt string) list {
	l := list{Salt: salt}
	for _, v := range vertices {
		if !c.cacheable(v) || !singleOutput(v) {
			continue
		}
		m := made{Step: graph.Instruction(v), Key: c.keysOf(v).definition, Operation: operationHash(v), Variables: map[string]string{}}
		for _, kv := range v.Op.GetExec().GetMeta().GetEnv() {
			name, value, _ := strings.Cut(kv, "=")
			h := newHash()
			h.add(salt, name, value)
			m.Variables[name] = h.sum()[:16]
		}
		selections := selectionsOf(v)
		for i, in := range v.Inputs {
			if isLocal(in.Vertex) && len(selections[i]) > 0 {
				m.addFiles(c, ctx, in.Vertex, selections[i])
				continue
			}
			m.Inputs = append(m.Inputs, c.keysOf(in.Vertex).definition)
		}
		if source := bottom(v); source != nil {
			m.Base = source.Op.GetSource().Identifier
		}
		l.Steps = append(l.Steps, m)
	}
	return l
}

func (m *made) addFiles(c *Cache, ctx context.Context, v *graph.Vertex, selections []content.Selection) {
	t, err := c.opts.Local(ctx, v)
	if err != nil {
		return
	}
	for _, sel := range selections {
		files, err := content.Files(ctx, t, sel)
		if err != nil {
			continue
		}
		if m.Files == nil {
			m.Files = map[string]content.File{}
		}
		maps.Copy(m.Files, files)
	}
}

// operationHash is the operation without variables, which are compared one by
// one.
func operationHash(v *graph.Vertex) string {
	op := v.Op.CloneVT()
	if e := op.GetExec(); e != nil && e.Meta != nil {
		e.Meta.Env = nil
	}
	raw, err := operation(op)
	if err != nil {
		return ""
	}
	h := newHash()
	h.add("operation", string(raw))
	return h.sum()[:16]
}

// why finds the words for a miss.
func (c *Cache) why(v *graph.Vertex, ran map[*graph.Vertex]bool, before, now list, hadRecord bool) (string, []string) {
	k := c.keysOf(v)
	switch {
	case v.IgnoreCache:
		return "--no-cache was asked for", nil
	case c.opts.Fresh:
		return "--no-cache was asked for", nil
	case c.unreadable:
		return "the cache is damaged", nil
	case c.wasExpired(tagOf(k.definition)):
		return fmt.Sprintf("the record is older than %s (--cache-ttl)", c.opts.TTL), nil
	case !hadRecord:
		return "no earlier record", nil
	}
	current := find(now, graph.Instruction(v), k.definition)
	old := find(before, current.Step, current.Key)
	if old == nil {
		return "the instruction is new or was changed", nil
	}
	if names := changedVariables(old, current); len(names) > 0 {
		return "changed: build argument or variable " + strings.Join(names, ", "), nil
	}
	if old.Operation != current.Operation {
		return "the instruction was changed, or a value in it", nil
	}
	if details := changedFiles(old.Files, current.Files); len(details) > 0 {
		n := len(details)
		if n > maxDetails {
			details = append(details[:maxDetails], fmt.Sprintf("… and %d more", n-maxDetails))
		}
		return fmt.Sprintf("%d of the context's files changed", n), details
	}
	if base, ok := graph.Base(v); old.Base != current.Base && ok && base.Vertex.Op.GetSource() != nil {
		return fmt.Sprintf("the base changed: %s, before %s", digestOf(current.Base), digestOf(old.Base)), nil
	}
	for _, in := range v.Inputs {
		if ran[in.Vertex] && in.Vertex.Op.GetSource() == nil {
			return "an earlier step was missed", nil
		}
	}
	if !slices.Equal(old.Inputs, current.Inputs) {
		return "what it reads changed", nil
	}
	return "no earlier record", nil
}

// find is the step of a list with a key, or else the first with that text.
func find(l list, step, key string) *made {
	for i := range l.Steps {
		if key != "" && l.Steps[i].Key == key {
			return &l.Steps[i]
		}
	}
	for i := range l.Steps {
		if l.Steps[i].Step == step {
			return &l.Steps[i]
		}
	}
	return nil
}

func changedVariables(old, current *made) (names []string) {
	for n, h := range current.Variables {
		if old.Variables[n] != h {
			names = append(names, n)
		}
	}
	for n := range old.Variables {
		if _, ok := current.Variables[n]; !ok {
			names = append(names, n+" (gone)")
		}
	}
	slices.Sort(names)
	return names
}

func changedFiles(old, current map[string]content.File) (lines []string) {
	for _, p := range slices.Sorted(maps.Keys(current)) {
		o, ok := old[p]
		f := current[p]
		name := strings.TrimPrefix(p, "/")
		switch {
		case !ok:
			lines = append(lines, name+" (new)")
		case o == f:
		default:
			var what []string
			if o.Sum != f.Sum {
				what = append(what, "content")
			}
			if o.Mode != f.Mode {
				what = append(what, fmt.Sprintf("mode %04o → %04o", fs.FileMode(o.Mode).Perm(), fs.FileMode(f.Mode).Perm()))
			}
			if o.Owner != f.Owner {
				what = append(what, "owner "+o.Owner+" → "+f.Owner)
			}
			lines = append(lines, name+" ("+strings.Join(what, ", ")+")")
		}
	}
	for _, p := range slices.Sorted(maps.Keys(old)) {
		if _, ok := current[p]; !ok {
			lines = append(lines, strings.TrimPrefix(p, "/")+" (gone)")
		}
	}
	return lines
}

// digestOf is the end of a source's identifier that tells it from others.
func digestOf(identifier string) string {
	_, rest, _ := strings.Cut(identifier, "://")
	if name, digest, ok := strings.Cut(rest, "@"); ok {
		return name + "@" + digest[:min(len(digest), 19)]
	}
	return rest
}
