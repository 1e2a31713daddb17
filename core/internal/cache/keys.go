package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"path"
	"slices"

	"github.com/moby/buildkit/solver/pb"

	"github.com/layerwright/layerwright/core/internal/content"
	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/snapshot"
	"github.com/layerwright/layerwright/core/internal/solve"
)

// Format is the version of keys and records. It is part of every tag: a record
// of another version is never found.
const Format = "2"

// keys are what the result of a vertex is known by; "" where there is none.
type keys struct {
	// definition is made of the operation, the definition keys of its inputs
	// and, for local and fetched sources, what they hold: known before
	// anything runs.
	definition string
	// content is made of the operation, the content key of the tree that it
	// changes, and what it reads of other trees: known when those are there.
	content string
	// fresh says that the vertex, or something it depends on, must run: its
	// result is not looked up by definition.
	fresh bool
	// hit says that the result came from a record, early that this was known
	// before anything ran, so that its inputs were not needed.
	hit, early bool
}

func (k *keys) tags() (out []string) {
	for _, key := range []string{k.definition, k.content} {
		if key != "" && !slices.Contains(out, tagOf(key)) {
			out = append(out, tagOf(key))
		}
	}
	return out
}

// tagOf is the tag that a key's record has.
func tagOf(key string) string { return "lw" + Format + "-" + key }

func (c *Cache) keysOf(v *graph.Vertex) *keys {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.keys[v]
	if !ok {
		k = &keys{}
		c.keys[v] = k
	}
	return k
}

// define makes the definition keys of vertices, which are in graph order.
func (c *Cache) define(ctx context.Context, vertices []*graph.Vertex) {
	for _, v := range vertices {
		k := c.keysOf(v)
		k.fresh = v.IgnoreCache
		for _, in := range v.Inputs {
			k.fresh = k.fresh || c.keysOf(in.Vertex).fresh
		}
		if k.definition != "" {
			continue
		}
		key, err := c.definition(ctx, v)
		// What is missing, or cannot be fetched, is said by the step itself,
		// with its line.
		if err != nil && v.Op.GetSource() == nil && !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
			c.notice(fmt.Sprintf("%s is not looked for in the cache: %v", v.Name, err))
		}
		k.definition = key
		if v.Op.GetSource() != nil {
			k.content = key
		}
	}
}

// definition is the key of a vertex, "" if there can be none.
func (c *Cache) definition(ctx context.Context, v *graph.Vertex) (string, error) {
	if s := v.Op.GetSource(); s != nil {
		return c.sourceKey(ctx, v, s)
	}
	h, err := c.newKey("definition", v)
	if err != nil {
		return "", err
	}
	selections := selectionsOf(v)
	for i, in := range v.Inputs {
		if isLocal(in.Vertex) && len(selections[i]) > 0 {
			for _, sel := range selections[i] {
				d, err := c.localDigest(ctx, in.Vertex, sel)
				if err != nil {
					return "", err
				}
				h.add("local", d)
			}
			continue
		}
		key := c.keysOf(in.Vertex).definition
		if key == "" {
			return "", nil
		}
		h.add("input", key, fmt.Sprint(in.Output))
	}
	return h.sum(), nil
}

func isLocal(v *graph.Vertex) bool { return graph.SourceScheme(v) == "local" }

// sourceKey says what a source holds.
func (c *Cache) sourceKey(ctx context.Context, v *graph.Vertex, s *pb.SourceOp) (string, error) {
	h := newHash()
	h.add("source", Format)
	switch graph.SourceScheme(v) {
	case "docker-image", "oci-layout":
		layers, err := c.opts.Image(ctx, v)
		if err != nil {
			return "", err
		}
		if p := v.Op.Platform; p != nil {
			h.add("platform", p.OS, p.Architecture, p.Variant, p.OSVersion)
		}
		for _, l := range layers {
			d, err := l.DiffID()
			if err != nil {
				return "", err
			}
			h.add("layer", d.String())
		}
	case "local":
		d, err := c.localDigest(ctx, v, content.Selection{})
		if err != nil {
			return "", err
		}
		h.add("content", d)
	default:
		d, err := c.opts.Fetched(ctx, v)
		if err != nil || d == "" {
			return "", err
		}
		h.add("content", d)
	}
	return h.sum(), nil
}

func (c *Cache) localDigest(ctx context.Context, v *graph.Vertex, sel content.Selection) (string, error) {
	t, err := c.opts.Local(ctx, v)
	if err != nil {
		return "", err
	}
	return content.Digest(ctx, t, sel)
}

// contentKey is the second key of a vertex whose inputs are there.
func (c *Cache) contentKey(ctx context.Context, v *graph.Vertex, inputs []solve.Claim) string {
	if s := v.Op.GetSource(); s != nil {
		return c.keysOf(v).definition
	}
	h, err := c.newKey("content", v)
	if err != nil {
		return ""
	}
	base, based := graph.Base(v)
	selections := selectionsOf(v)
	for i, in := range v.Inputs {
		key := c.keysOf(in.Vertex).content
		root := based && in == base
		switch {
		case isLocal(in.Vertex) && len(selections[i]) > 0:
			for _, sel := range selections[i] {
				d, err := c.localDigest(ctx, in.Vertex, sel)
				if err != nil {
					return ""
				}
				h.add("content", d)
			}
			if !root {
				continue
			}
		case !root && v.Op.GetFile() != nil && variable(in.Vertex) && len(selections[i]) > 0:
			// Files of another stage or of a repository: what they are
			// counts, not how they came to be.
			if ok := c.addContent(ctx, h, inputs[i], selections[i]); !ok {
				return ""
			}
			continue
		}
		if key == "" {
			return ""
		}
		h.add("input", key, fmt.Sprint(in.Output))
	}
	return h.sum()
}

// variable says whether a vertex may yield the same files under another
// definition: everything but images, and local sources, which are known by their
// content anyway.
func variable(v *graph.Vertex) bool {
	switch graph.SourceScheme(v) {
	case "docker-image", "oci-layout", "local":
		return false
	}
	return true
}

func (c *Cache) addContent(ctx context.Context, h *keyHash, claim solve.Claim, selections []content.Selection) (done bool) {
	tree, ok := claim.(snapshot.Claim)
	if !ok {
		return false
	}
	view, err := tree.View(ctx)
	if err != nil {
		return false // the operation itself will say it
	}
	defer func() { done = view.Close() == nil && done }()
	for _, sel := range selections {
		d, err := content.Digest(ctx, content.Dir(view.Dir()), sel)
		if err != nil {
			return false
		}
		h.add("content", d)
	}
	return true
}

// selectionsOf is what a vertex reads of each of its inputs, by the input's
// index, apart from the tree that it changes.
func selectionsOf(v *graph.Vertex) map[int][]content.Selection {
	out := map[int][]content.Selection{}
	add := func(input int64, sel content.Selection) {
		if input >= 0 && input < int64(len(v.Inputs)) {
			out[int(input)] = append(out[int(input)], sel)
		}
	}
	if f := v.Op.GetFile(); f != nil {
		for _, a := range f.Actions {
			if cp := a.GetCopy(); cp != nil {
				add(a.SecondaryInput, content.Selection{Path: cp.Src, Wildcard: cp.AllowWildcard, Follow: cp.FollowSymlink,
					Include: cp.IncludePatterns, Exclude: cp.ExcludePatterns})
			}
		}
	}
	if e := v.Op.GetExec(); e != nil {
		for _, m := range e.Mounts {
			if m.Dest != pb.RootMount {
				add(m.Input, content.Selection{Path: path.Join("/", m.Selector), Follow: true})
			}
		}
	}
	return out
}

func copies(f *pb.FileOp) bool {
	return slices.ContainsFunc(f.Actions, func(a *pb.FileAction) bool { return a.GetCopy() != nil })
}

// singleOutput says that output 0 is all that a vertex yields.
func singleOutput(v *graph.Vertex) bool {
	if e := v.Op.GetExec(); e != nil {
		for _, m := range e.Mounts {
			// Secrets and ssh sockets say 0, and mean none.
			if m.MountType == pb.MountType_BIND && (m.Output > 0 || m.Output == 0 && m.Dest != pb.RootMount) {
				return false
			}
		}
	}
	if f := v.Op.GetFile(); f != nil {
		for _, a := range f.Actions {
			if a.Output > 0 {
				return false
			}
		}
	}
	return true
}

// bottom is the image source that the tree of a vertex began with; nil if it
// began empty or with a local directory.
func bottom(v *graph.Vertex) *graph.Vertex {
	for {
		switch graph.SourceScheme(v) {
		case "docker-image", "oci-layout":
			return v
		case "":
		default:
			return nil
		}
		if v.Op.GetMerge() != nil && len(v.Inputs) > 0 {
			v = v.Inputs[0].Vertex
			continue
		}
		base, based := graph.Base(v)
		if !based {
			return nil
		}
		v = base.Vertex
	}
}

// keyHash is a hash of lists of strings; no two lists look the same.
type keyHash struct{ hash.Hash }

func newHash() *keyHash { return &keyHash{sha256.New()} }

func (h *keyHash) add(kind string, list ...string) {
	fmt.Fprintf(h, "%s %d\n", kind, len(list))
	for _, s := range list {
		fmt.Fprintf(h, "%d ", len(s))
		h.Write([]byte(s))
	}
}

// sum is 40 hex digits: 160 bits, and a tag that fits everywhere.
func (h *keyHash) sum() string { return hex.EncodeToString(h.Sum(nil)[:20]) }

// newKey begins a key with the operation itself.
func (c *Cache) newKey(kind string, v *graph.Vertex) (*keyHash, error) {
	raw, err := operation(v.Op)
	if err != nil {
		return nil, fmt.Errorf("encode operation: %w", err)
	}
	h := newHash()
	h.add(kind, Format, c.opts.Variant(), string(raw))
	return h, nil
}

// operation is an operation without what does not change its result: inputs
// (keys of their own), proxies, addresses of extra hosts, the identity and
// sharing of cache mounts, and where errors are reported.
func operation(op *pb.Op) ([]byte, error) {
	op = op.CloneVT()
	op.Inputs = nil
	if e := op.GetExec(); e != nil {
		if e.Meta != nil {
			e.Meta.ProxyEnv = nil
			e.Meta.CgroupParent = ""
			for _, h := range e.Meta.ExtraHosts {
				h.IP = ""
			}
		}
		for _, m := range e.Mounts {
			if m.MountType == pb.MountType_CACHE {
				m.CacheOpt = nil
			}
		}
	}
	return op.MarshalVT()
}
