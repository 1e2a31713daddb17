package layer

import "time"

// node is what one layer has made in a directory. Opaque markers and
// whiteouts hide what lower layers have, never what is in here, and only the
// links in here are followed.
type node struct {
	kind nodeKind
	kids map[string]*node
	// time is set at the end, for every entry below changes it; hasTime only
	// for directories that the layer lists.
	time    time.Time
	hasTime bool
}

type nodeKind uint8

const (
	dirNode nodeKind = iota
	fileNode
	linkNode
	// hiddenNode is a lower layer's name that a whiteout has removed.
	hiddenNode
)

func newNode(kind nodeKind) *node { return &node{kind: kind} }

// child gives nil for what is not there; n may be nil.
func (n *node) child(name string) *node {
	if n == nil {
		return nil
	}
	return n.kids[name]
}

// put replaces a child.
func (n *node) put(name string, kid *node) *node {
	if n.kids == nil {
		n.kids = map[string]*node{}
	}
	n.kids[name] = kid
	return kid
}

// dir gives the directory below n, made where it is not one.
func (n *node) dir(name string) *node {
	if kid := n.kids[name]; kid != nil && kid.kind == dirNode {
		return kid
	}
	return n.put(name, newNode(dirNode))
}
