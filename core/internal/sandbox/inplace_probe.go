package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// ProbeInplace tries whether "/" can be exchanged with trees in the store, by
// renaming every entry of "/" aside and back. It is an error, too, where nothing
// says that the container is one that is thrown away.
func ProbeInplace(ctx context.Context, store string) error {
	return probeInplace(ctx, store, false)
}

// ProbeInplaceForced is ProbeInplace without the question what the container is
// for.
func ProbeInplaceForced(ctx context.Context, store string) error {
	return probeInplace(ctx, store, true)
}

func probeInplace(ctx context.Context, store string, forced bool) (err error) {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := checkWritable(); err != nil {
		return err
	}
	store, keep, err := keptPaths(store, nil)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(inplaceDir(store), 0o700); err != nil {
		return fault.New(fault.Environment, "create directory in the store: %w", err)
	}
	lock, err := lockFile(store, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := repairLocked(store, "/"); err != nil {
		return err
	}
	if !forced {
		if err := checkDisposable(); err != nil {
			return err
		}
	}
	if err := tryRename(store); err != nil {
		return err
	}
	x, err := beginWithoutTree(store, keep, forced)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, finishExchange(x)) }()
	return tryEntries(x)
}

// checkWritable is an error for a read-only root.
func checkWritable() error {
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		return fmt.Errorf("look at /: %w", err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return fault.New(fault.Environment, "the container's root filesystem is read-only").
			With("Run the container with a writable root filesystem, or use --isolation chroot.")
	}
	return nil
}

// tryRename renames a directory from the store to "/" and back.
func tryRename(store string) error {
	dir, err := os.MkdirTemp(inplaceDir(store), "probe-")
	if err != nil {
		return fault.New(fault.Environment, "create directory in the store: %w", err)
	}
	defer os.Remove(dir)
	there := "/.layerwright-" + filepath.Base(dir)
	a, err := readAttrs("/")
	if err != nil {
		return err
	}
	err = os.Rename(dir, there)
	switch {
	case errors.Is(err, unix.EXDEV):
		return fault.New(fault.Environment, "store %s is not on the filesystem of /", store).
			With("Choose a store that is not on a volume or mount of the container (--store), or use --isolation chroot.")
	case err != nil:
		return fault.New(fault.Environment, "rename a directory into /: %w", linkCause(err)).
			With("Run as root in a container, or use another isolation.")
	}
	return errors.Join(os.Rename(there, dir), a.applyTimes("/"))
}

// tryEntries renames every entry aside and at once back. That some cannot be
// renamed as a whole is expected of mount points and of directories of the
// container's own image.
func tryEntries(x *exchange) error {
	own, err := readAttrs(x.Root)
	if err != nil {
		return err
	}
	if err := x.note(journalRecord{Merge: &mergedDir{Own: own}}); err != nil {
		return err
	}
	entries, err := os.ReadDir(x.Root)
	if err != nil {
		return fmt.Errorf("read directory: %w", err)
	}
	for _, e := range entries {
		if x.stays(e.Name()) || x.leadsToOurs(e.Name()) {
			continue
		}
		err := x.ops.rename(in(x.Root, e.Name()), in(x.Aside, e.Name()))
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EXDEV) && e.IsDir() {
			continue
		}
		if err == nil {
			err = x.ops.rename(in(x.Aside, e.Name()), in(x.Root, e.Name()))
		}
		if err != nil {
			return fault.New(fault.Environment, "rename /%s: %w", e.Name(), linkCause(err))
		}
	}
	return nil
}

func beginWithoutTree(store string, keep []string, durable bool) (*exchange, error) {
	j, err := createJournal(journalPath(store))
	if err != nil {
		return nil, err
	}
	// The tree is a path that is not there: nothing is in the way.
	dir := inplaceDir(store)
	x, err := newExchange(journalBegin{Root: "/", Tree: filepath.Join(dir, "none"), Aside: filepath.Join(dir, "aside"), Keep: keep, Life: currentLife(), Durable: durable}, j, realOps("/"))
	if err != nil {
		return nil, errors.Join(err, j.remove())
	}
	return x, os.MkdirAll(x.Aside, 0o700)
}

// checkDisposable is an error where nothing says that "/" is a container's.
func checkDisposable() error {
	kind := rootFilesystem()
	if slices.Contains([]string{"overlay", "fuse.fuse-overlayfs", "aufs"}, kind) {
		return nil
	}
	// A machine whose disk was made from an image has the marks of a container,
	// too, on a file system that disks have.
	if !slices.Contains([]string{"ext4", "ext3", "xfs"}, kind) {
		for _, mark := range []string{"/.dockerenv", "/run/.containerenv", "/var/run/secrets/kubernetes.io"} {
			if exists(mark) {
				return nil
			}
		}
	}
	return fault.New(fault.Environment, "this does not look like a container that is thrown away").
		With("Isolation inplace renames everything in / while a step runs. Use --isolation namespaces or chroot, or --force if losing this root would do no harm.")
}

// rootFilesystem is the type of the filesystem at "/".
func rootFilesystem() string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	kind := ""
	for line := range strings.Lines(string(data)) {
		before, after, _ := strings.Cut(line, " - ")
		if f := strings.Fields(before); len(f) > 4 && f[4] == "/" {
			kind, _, _ = strings.Cut(after, " ")
		}
	}
	return kind
}
