// Package layer owns the translation between a file tree and the tar stream of
// an image layer (OCI image-spec, layer.md): whiteouts, hardlinks, xattrs,
// devices, exact owners, modes and times. It refuses to leave its root, knows
// nothing of compression, registries or snapshots drivers, and holds no file in
// memory.
package layer

import "golang.org/x/sys/unix"

// Whiteouts is how Apply represents a deletion. It is a sealed choice.
type Whiteouts int

const (
	// Remove deletes the path from the tree (a tree that holds the whole
	// chain: driver flat).
	Remove Whiteouts = iota
	// OverlayTrusted writes overlayfs' own form, a 0/0 character device and
	// trusted.overlay.opaque (a tree that holds one layer: driver overlay).
	OverlayTrusted
	// OverlayUser is the same with user.overlay.* attributes, for mounts
	// made inside a user namespace (option userxattr).
	OverlayUser
)

// ApplyOptions are the choices of Apply. The zero value removes and observes
// nothing.
type ApplyOptions struct {
	Whiteouts Whiteouts
	// Observe, when set, is called in stream order, from the goroutine that
	// called Apply, after each path is in its final state except for the
	// times of directories.
	Observe func(Observed)
	// Implicit, when set, is called for a directory that the layer does not
	// list but that an entry of it needs; it was made with mode 0755. Its
	// attributes have to come from the layers below (driver overlay).
	Implicit func(path string)
	// Lower, when set, gives the absolute path of a file of the layers below
	// that a hardlink of this layer points at (driver overlay: the target is
	// then copied up). Without it such a link is an error.
	Lower func(path string) (string, error)
	// Literal treats names that look like whiteouts as ordinary files (ADD of
	// an archive).
	Literal bool
	// Limit, when not 0, is how many bytes of content may be written; more
	// is an error that wraps ErrTooLarge, before the file that has them.
	Limit int64
	// Owner, when not nil, is given to every entry in place of its own.
	Owner *Owner
	// Hollow leaves out what large files contain, for a tree of which only names
	// and attributes are wanted. The files have their size; HollowSum knows them.
	Hollow bool
}

// Owner is a user and group id.
type Owner struct{ UID, GID int }

// Observed is one path that Apply wrote or removed.
type Observed struct {
	// Path is relative to the root, slash-separated, without leading "./".
	Path string
	// Removed is set for a path that a whiteout removed (with all below it).
	Removed bool
	// Stat is the path's lstat after writing. Nil when Removed.
	Stat *unix.Stat_t
	// Sum is a fast hash (xxhash64) of a regular file's content; 0 for
	// everything else. A hardlink repeats its target's Stat and has Sum 0.
	Sum uint64
	// Hardlink is set for a second name of an inode.
	Hardlink bool
}

// Change is one path that a layer records.
type Change struct {
	// Path is relative to the root, slash-separated; "" is never recorded.
	Path string
	// Delete records a whiteout for the path. Otherwise the path, as it is
	// in the tree, is recorded (not what is below it: each path is a Change
	// of its own).
	Delete bool
	// Opaque, for a directory, records that nothing from below shows
	// through.
	Opaque bool
}
