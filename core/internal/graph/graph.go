// Package graph owns the decoded form of a build: immutable vertices of LLB
// operations, BuildKit's low-level build format, with their inputs, their
// digest and the Dockerfile lines that they come from. It does not know how an
// operation is carried out.
package graph

import (
	"bytes"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// Vertex is one operation. Vertices are shared: two definitions that contain
// the same operation on the same inputs yield one Vertex. Never changed after
// Builder.Graph.
type Vertex struct {
	// Digest identifies the operation and, through its inputs' digests, all
	// that it depends on. What differs between runs of one definition
	// (session ids, unique ids of local sources) is not part of it.
	Digest digest.Digest
	// Index is the position in Graph.Vertices, from 0: an input's index is
	// always lower.
	Index int
	// Op is the normalised operation. Its Inputs digests are BuildKit's raw
	// ones; use Inputs below.
	Op *pb.Op
	// Inputs are in the order of Op.Inputs.
	Inputs []Edge
	// Name is for people: "[build 2/4] RUN make".
	Name string
	// Location is nil where the operation has none.
	Location *fault.Location
	// IgnoreCache is set by --no-cache and --no-cache-filter.
	IgnoreCache bool
}

// Edge is one output of a vertex.
type Edge struct {
	Vertex *Vertex
	// Output is the index of the output, from 0.
	Output int
}

// Graph is everything that one solver run may have to do. It may hold the
// graphs of several platforms, which share what they have in common.
type Graph struct {
	// Vertices are in topological order: inputs before their consumers.
	Vertices []*Vertex
	// Roots are the results asked for, in the order in which they were
	// added to the Builder. A root whose Vertex is nil is an empty tree
	// (FROM scratch with nothing in it).
	Roots []Edge
}

// Instruction is what a vertex carries out, as the Dockerfile has it: unlike
// Name without the values of its arguments. Vertices without a place in the
// Dockerfile have their name.
func Instruction(v *Vertex) string {
	if v.Location == nil || v.Op.GetSource() != nil {
		return v.Name
	}
	lines := bytes.Split(v.Location.Source, []byte("\n"))
	if v.Location.Start < 1 || v.Location.End > len(lines) {
		return v.Name
	}
	text := strings.Join(strings.Fields(string(bytes.Join(lines[v.Location.Start-1:v.Location.End], []byte(" ")))), " ")
	if len(text) > maxInstruction {
		text = strings.ToValidUTF8(text[:maxInstruction], "") + "…"
	}
	return text
}

// maxInstruction is the length, in bytes, from which an instruction is cut.
const maxInstruction = 200
