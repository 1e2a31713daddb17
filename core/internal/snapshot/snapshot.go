// Package snapshot owns file trees: it prepares a tree from a chain of layers,
// lets an operation change it, freezes the result and captures what changed as
// a layer. It has two drivers, overlay and flat, which pass one conformance
// suite. It refuses to know what changes a tree (commands, copies) and where
// layers are stored.
//
// The life of a state:
//
//	Store.FromLayers / Store.Scratch ─▶ *State ─ Claims ─▶ Claim ─ Mutate ─▶ Mutable ─ Commit ─▶ *State
//	                                                            └ View   ─▶ View ─ Close
package snapshot

import (
	"context"
	"io"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/layerwright/layerwright/core/internal/layer"
)

// Store keeps the trees of one build in a directory of its own. All methods
// are safe for concurrent use.
type Store interface {
	// Scratch is the empty state.
	Scratch() State
	// FromLayers is the state that results from applying layers, base
	// first, on nothing. Nothing is fetched or extracted before a Claim of
	// it is viewed or mutated. Layer digests have been promised by a
	// manifest: the store applies Uncompressed() and verifies nothing again.
	FromLayers(layers []v1.Layer) State
	// Extend is the state that results from applying further layers on top
	// of parent (MergeOp; a cache hit on a known parent). Lazy as FromLayers.
	Extend(parent State, layers []v1.Layer) State
	// Close removes everything. States, views and mutables are invalid
	// afterwards. A second call waits for the first and returns what that one does.
	Close() error
}

// State is one immutable version of a file tree: a chain of layers. The tree
// itself may be materialised, or not yet, or no longer.
type State interface {
	// Layers is the chain, base first. A layer made by Commit may still be
	// in the making: its methods block until it is complete (Mutable.Commit).
	// Nil entries do not occur; a commit without capture makes Layers panic,
	// because the graph said that nobody would ask.
	Layers() []v1.Layer
	// Expect says, before Claims, what the owners will do, where that is known.
	Expect(use Use)
	// Claims splits the state among its consumers; called at most once.
	// owners[i] identifies the consumer of claim i (its vertex's index), in
	// ascending order. The last one that is left may change the tree in place;
	// everybody else gets a tree of its own. Without end waiting is only for owners
	// of a lower index, or who have settled, so no cycle is possible.
	Claims(owners []int) []Claim
}

// Use is what the owners of a state will do with it. The zero value knows
// nothing.
type Use struct {
	// Hollow promises that neither they nor whoever continues from their changes
	// reads what files of this state contain: a store may leave it out of a tree
	// that it unpacks for them. Names, sizes and attributes are wanted.
	Hollow bool
}

// Claim is one consumer's hold on a state.
type Claim interface {
	State() State
	// Prepare materialises the tree ahead of a View or Mutate, out of which comes
	// what goes wrong. Where that is not certain to come, it only says that it is
	// likely to: where another one is given the tree, it is made again. Not after
	// Release.
	Prepare(ctx context.Context, certain bool)
	// View materialises the tree and keeps it unchanged until View.Close or
	// Release. The tree must not be written to.
	View(ctx context.Context) (View, error)
	// Settle says, after View, that the owner asks for no tree to change until it
	// releases this claim: others may then wait for that.
	Settle()
	// Mutate gives a tree that the caller may change, in place or as a
	// branch. The claim is used up; Release afterwards does nothing. After a
	// View of the same claim it is always a branch, as often as it is asked
	// for, and the view stays what it was until Release: an operation that
	// reads its own base looks first and changes then.
	Mutate(ctx context.Context) (Mutable, error)
	// Take is View of a tree that the caller may take files out of: it ends with
	// View.Close. ok says whether it is given: nobody else may have a claim, and
	// the tree has to be a directory of the caller's kind (driver flat). Layers
	// stay what they are.
	Take(ctx context.Context) (v View, ok bool, err error)
	// Release gives the claim back. Idempotent; safe after View and Mutate.
	Release()
}

// View is a materialised read-only tree.
type View interface {
	// Dir is the tree's absolute path, valid until Close, also while a
	// sandbox has exchanged "/" (the store's own directory stays in place).
	Dir() string
	Close() error
}

// Mutable is a tree that is being changed by one operation. Exactly one of
// Commit and Discard ends it; a second call is an error (Commit) or nothing
// (Discard).
type Mutable interface {
	// Dir is the tree's absolute path (overlay: a mounted merged directory).
	Dir() string
	// Commit freezes the tree. capture, if not nil, is called exactly once,
	// with a function that writes the change against the parent as an
	// uncompressed layer tar; it returns the layer that it has stored.
	// Driver flat calls it before Commit returns, driver overlay may call it
	// later in another goroutine, ended by ctx; its error then comes out of
	// the layer's methods. A nil capture means that nobody will ask for this
	// state's Layers; no walk is made.
	Commit(ctx context.Context, changes Changes, capture Capture) (State, error)
	// Discard throws the change away.
	Discard() error
}

// Capture stores a layer: write produces the uncompressed tar stream.
type Capture func(ctx context.Context, write func(ctx context.Context, w io.Writer) error) (v1.Layer, error)

// Changes is what an operation knows about what it did to the tree. The zero
// value knows nothing: the driver finds out by itself.
type Changes struct {
	// Known, when not nil, is the complete set of paths (relative,
	// slash-separated) that were created, changed, or removed, their changed
	// parent directories included: nothing else need be looked at.
	Known []string
	// Suspect are paths whose ctime says nothing, because the sandbox itself
	// moved or touched them: they are compared by attributes and content.
	Suspect []string
	// Ignore are absolute paths that, with all below them, are in no layer
	// (Kaniko's --ignore-path). They stay in the tree.
	Ignore []string
}

// without leaves out what is to be ignored.
func (c Changes) without(list []layer.Change) []layer.Change {
	if len(c.Ignore) == 0 {
		return list
	}
	return slices.DeleteFunc(list, func(l layer.Change) bool {
		return slices.ContainsFunc(c.Ignore, func(p string) bool {
			p = strings.Trim(path.Clean("/"+p), "/")
			return l.Path == p || strings.HasPrefix(l.Path, p+"/")
		})
	})
}
