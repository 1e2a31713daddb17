package graph

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// Builder decodes definitions into one graph. Not safe for concurrent use.
type Builder struct {
	vertices map[digest.Digest]*Vertex
	order    []*Vertex
	roots    []Edge
}

// maxDepth bounds the recursion on a definition, which comes from a frontend
// and cannot be trusted to be sane.
const maxDepth = 100_000

// Add decodes one definition and makes its result a root. A nil or empty
// definition is an empty tree: an Edge without a vertex.
func (b *Builder) Add(def *pb.Definition) (Edge, error) {
	if def == nil || len(def.Def) == 0 {
		b.roots = append(b.roots, Edge{})
		return Edge{}, nil
	}
	if b.vertices == nil {
		b.vertices = map[digest.Digest]*Vertex{}
	}
	d := decoder{b: b, def: def, ops: map[digest.Digest]*pb.Op{}, done: map[digest.Digest]*Vertex{}, open: map[digest.Digest]bool{}}
	var last *pb.Op
	for _, raw := range def.Def {
		op := &pb.Op{}
		if err := op.Unmarshal(raw); err != nil {
			return Edge{}, fmt.Errorf("decode operation: %w", err)
		}
		last = op
		d.ops[digest.FromBytes(raw)] = op
	}
	// The last entry has no operation of its own; its input is the result.
	if last.Op != nil || len(last.Inputs) == 0 {
		return Edge{}, errors.New("decode definition: no result")
	}
	e, err := d.edge(last.Inputs[0], 0)
	if err != nil {
		return Edge{}, err
	}
	b.roots = append(b.roots, e)
	return e, nil
}

// Graph is everything that was added. The Builder must not be used afterwards.
func (b *Builder) Graph() *Graph {
	return &Graph{Vertices: b.order, Roots: b.roots}
}

type decoder struct {
	b    *Builder
	def  *pb.Definition
	ops  map[digest.Digest]*pb.Op
	done map[digest.Digest]*Vertex
	open map[digest.Digest]bool
}

func (d *decoder) edge(in *pb.Input, depth int) (Edge, error) {
	v, err := d.vertex(digest.Digest(in.Digest), depth)
	if err != nil {
		return Edge{}, err
	}
	if in.Index < 0 {
		return Edge{}, fmt.Errorf("decode definition: output %d of %s", in.Index, v.Name)
	}
	return Edge{Vertex: v, Output: int(in.Index)}, nil
}

func (d *decoder) vertex(raw digest.Digest, depth int) (*Vertex, error) {
	if v, ok := d.done[raw]; ok {
		return v, nil
	}
	op, ok := d.ops[raw]
	if !ok || op.Op == nil {
		return nil, fmt.Errorf("decode definition: operation %s is missing", raw)
	}
	if d.open[raw] || depth > maxDepth {
		return nil, fmt.Errorf("decode definition: operation %s depends on itself", raw)
	}
	d.open[raw] = true
	defer delete(d.open, raw)
	var inputs []Edge
	for _, in := range op.Inputs {
		e, err := d.edge(in, depth+1)
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, e)
	}
	v, err := d.build(raw, op, inputs)
	if err != nil {
		return nil, err
	}
	d.done[raw] = v
	return v, nil
}

// build makes the vertex, or finds the same one from before.
func (d *decoder) build(raw digest.Digest, op *pb.Op, inputs []Edge) (*Vertex, error) {
	op = normalise(op)
	dgst, err := identity(op, inputs)
	if err != nil {
		return nil, err
	}
	md := d.def.Metadata[string(raw)]
	if v, ok := d.b.vertices[dgst]; ok {
		v.IgnoreCache = v.IgnoreCache || md.GetIgnoreCache()
		return v, nil
	}
	v := &Vertex{Digest: dgst, Index: len(d.b.order), Op: op, Inputs: inputs, Location: d.location(raw)}
	if md != nil {
		v.IgnoreCache = md.IgnoreCache
		v.Name = md.Description["llb.customname"]
	}
	if v.Name == "" {
		v.Name = defaultName(op)
	}
	d.b.vertices[dgst] = v
	d.b.order = append(d.b.order, v)
	return v, nil
}

// normalise drops what differs between runs of one definition.
func normalise(op *pb.Op) *pb.Op {
	op = op.CloneVT()
	if s := op.GetSource(); s != nil {
		for _, k := range []string{pb.AttrLocalSessionID, pb.AttrLocalUniqueID} {
			delete(s.Attrs, k)
		}
	}
	op.Constraints = nil
	return op
}

// identity is the digest over the operation and its inputs' identities.
func identity(op *pb.Op, inputs []Edge) (digest.Digest, error) {
	bare := op.CloneVT()
	bare.Inputs = nil
	raw, err := bare.MarshalVT()
	if err != nil {
		return "", fmt.Errorf("encode operation: %w", err)
	}
	if s := bare.GetSource(); s != nil { // maps marshal in random order
		raw = []byte("source " + s.Identifier + " " + platformText(op.Platform))
		for _, k := range slices.Sorted(maps.Keys(s.Attrs)) {
			raw = append(raw, fmt.Sprintf("\n%q=%q", k, s.Attrs[k])...)
		}
	}
	h := digest.SHA256.Digester()
	fmt.Fprintf(h.Hash(), "%d\n%s", len(raw), raw)
	for _, in := range inputs {
		fmt.Fprintf(h.Hash(), "\n%s %d", in.Vertex.Digest, in.Output)
	}
	return h.Digest(), nil
}

func platformText(p *pb.Platform) string {
	if p == nil {
		return ""
	}
	return strings.Join([]string{p.OS, p.Architecture, p.Variant, p.OSVersion}, "/")
}

func defaultName(op *pb.Op) string {
	switch o := op.Op.(type) {
	case *pb.Op_Source:
		return o.Source.Identifier
	case *pb.Op_Exec:
		return strings.Join(o.Exec.GetMeta().GetArgs(), " ")
	case *pb.Op_File:
		return "file operation"
	case *pb.Op_Merge:
		return "merge"
	}
	return "operation"
}

// location is the first Dockerfile range that the definition gives for an
// operation.
func (d *decoder) location(raw digest.Digest) *fault.Location {
	if d.def.Source == nil {
		return nil
	}
	locs := d.def.Source.Locations[string(raw)]
	if locs == nil {
		return nil
	}
	for _, l := range locs.Locations {
		i := int(l.SourceIndex)
		if i < 0 || i >= len(d.def.Source.Infos) || len(l.Ranges) == 0 || l.Ranges[0].Start == nil {
			continue
		}
		info := d.def.Source.Infos[i]
		loc := &fault.Location{File: info.Filename, Source: info.Data, Start: int(l.Ranges[0].Start.Line)}
		last := l.Ranges[len(l.Ranges)-1]
		if loc.End = loc.Start; last.End != nil {
			loc.End = max(loc.Start, int(last.End.Line))
		}
		return loc
	}
	return nil
}

// SourceScheme is the kind of a source ("docker-image", "local", "https"); "" for
// other vertices.
func SourceScheme(v *Vertex) string {
	scheme, _, ok := strings.Cut(v.Op.GetSource().GetIdentifier(), "://")
	if !ok {
		return ""
	}
	return scheme
}

// Base is the input of a vertex whose tree the vertex changes: the root mount
// of a command, the tree that files are copied to. Without one (sources, a file
// operation on scratch) ok is false. A merge has several: see Chain.
func Base(v *Vertex) (base Edge, ok bool) {
	i := int64(-1)
	switch o := v.Op.Op.(type) {
	case *pb.Op_Exec:
		for _, m := range o.Exec.Mounts {
			if m.Dest == pb.RootMount {
				i = m.Input
			}
		}
	case *pb.Op_File:
		// Actions count their inputs after the vertex's own; the first one
		// of a chain names the tree.
		for _, a := range o.File.Actions {
			if a.Input >= 0 && a.Input < int64(len(v.Inputs)) {
				i = a.Input
				break
			}
			if a.Input < 0 {
				break
			}
		}
	}
	if i < 0 || i >= int64(len(v.Inputs)) {
		return Edge{}, false
	}
	return v.Inputs[i], true
}

// Reads says whether a vertex may read what files of one of its inputs contain.
// It does not where files are only put on the input's tree, none of them from that
// tree and no owner by a name that it explains. An archive may have links to files
// that are there already, which are then part of what has changed.
func Reads(v *Vertex, in Edge) bool {
	switch o := v.Op.Op.(type) {
	case *pb.Op_Merge:
		return v.Inputs[0] != in || slices.Contains(v.Inputs[1:], in)
	case *pb.Op_File:
		if base, ok := Base(v); !ok || base != in {
			return true
		}
		return slices.ContainsFunc(o.File.Actions, func(a *pb.FileAction) bool {
			c := a.GetCopy()
			return c != nil && (ofInput(v, in, a.SecondaryInput) || c.AttemptUnpackDockerCompatibility) || named(a)
		})
	}
	return true
}

// ofInput says whether an action's input is an input of the vertex, or what an
// earlier action has made of one.
func ofInput(v *Vertex, in Edge, i int64) bool {
	return i >= int64(len(v.Inputs)) || i >= 0 && v.Inputs[i] == in
}

// named says whether an action gives files to an owner by name.
func named(a *pb.FileAction) bool {
	for _, o := range []*pb.ChownOpt{a.GetCopy().GetOwner(), a.GetMkdir().GetOwner(), a.GetMkfile().GetOwner(), a.GetSymlink().GetOwner()} {
		if o.GetUser().GetByName() != nil || o.GetGroup().GetByName() != nil {
			return true
		}
	}
	return false
}

// Chain is the set of vertices whose layers end up in the tree of e, e's own
// included.
func Chain(e Edge) map[*Vertex]bool {
	out := map[*Vertex]bool{}
	todo := []Edge{e}
	for len(todo) > 0 {
		v := todo[len(todo)-1].Vertex
		todo = todo[:len(todo)-1]
		if v == nil || out[v] {
			continue
		}
		out[v] = true
		if v.Op.GetMerge() != nil {
			todo = append(todo, v.Inputs...)
		} else if base, ok := Base(v); ok {
			todo = append(todo, base)
		}
	}
	return out
}

// Captured is the set of vertices whose layers somebody asks for: those of the
// roots' chains, and those of every merge, which is made of its inputs' layers
// even where only files are copied from its result.
func (g *Graph) Captured() map[*Vertex]bool {
	out := map[*Vertex]bool{}
	for _, r := range g.Roots {
		maps.Copy(out, Chain(r))
	}
	for _, v := range g.Vertices {
		if v.Op.GetMerge() != nil {
			maps.Copy(out, Chain(Edge{Vertex: v}))
		}
	}
	return out
}
