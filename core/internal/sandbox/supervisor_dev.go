package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// deviceDirs are the container's own and seen by every step: what a step leaves
// in them is taken away, what it has removed is made again.
var deviceDirs = []string{"dev", "dev/shm"}

// deviceDir is what one of them held.
type deviceDir struct {
	Path    string
	Own     attrs
	Entries map[string]deviceEntry
}

// inDev says whether a mount goes below /dev, which is the container's own: its
// content is copied there for the step. BuildKit puts the script of a heredoc
// with an interpreter of its own at /dev/pipes.
func inDev(m Mount) bool {
	return under(m.Target, "/dev") && !under(m.Target, "/dev/shm") && (m.Kind == Bind || m.Kind == Secret)
}

// placeInDev makes such mounts; restoreDevices takes them away, since they are
// new there.
func placeInDev(mounts []Mount) error {
	for _, m := range mounts {
		if !inDev(m) {
			continue
		}
		err := os.MkdirAll(path.Dir(m.Target), 0o755)
		if err == nil && m.Kind == Secret {
			err = writeOwned(m.Target, m.Data, m.UID, m.GID, m.Mode)
		} else if err == nil {
			err = copyInto(m.Source, m.Target)
		}
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, cause(err))
		}
	}
	return nil
}

// deviceEntry is what is needed to make a device node or a link again.
type deviceEntry struct {
	Mode     uint32
	Rdev     uint64
	UID, GID uint32
	Link     string
}

// noteDevices writes down what the device directories hold.
func noteDevices(x *exchange) error {
	for _, dir := range deviceDirs {
		d, err := readDevices(x.Root, dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read /%s: %w", dir, cause(err))
		}
		if err := x.note(journalRecord{Devices: &d}); err != nil {
			return err
		}
	}
	return nil
}

func readDevices(root, dir string) (deviceDir, error) {
	d := deviceDir{Path: dir, Entries: map[string]deviceEntry{}}
	var err error
	if d.Own, err = readAttrs(in(root, dir)); err != nil {
		return d, err
	}
	entries, err := os.ReadDir(in(root, dir))
	if err != nil {
		return d, err
	}
	for _, e := range entries {
		if entry, err := readDevice(in(root, path.Join(dir, e.Name()))); err == nil {
			d.Entries[e.Name()] = entry
		}
	}
	return d, nil
}

func readDevice(name string) (deviceEntry, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return deviceEntry{}, err
	}
	e := deviceEntry{Mode: st.Mode, Rdev: uint64(st.Rdev), UID: st.Uid, GID: st.Gid}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		link, err := os.Readlink(name)
		if err != nil {
			return deviceEntry{}, err
		}
		e.Link = link
	}
	return e, nil
}

// restoreDevices makes them hold what they held. Mounts are left alone.
func restoreDevices(x *exchange) error {
	if len(x.devices) == 0 {
		return nil
	}
	mounts, err := x.ops.mounts()
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range x.devices {
		now, err := readDevices(x.Root, d.Path)
		if err != nil {
			errs = append(errs, fmt.Errorf("read /%s: %w", d.Path, cause(err)))
			continue
		}
		for name := range now.Entries {
			rel := path.Join(d.Path, name)
			if _, was := d.Entries[name]; !was && mountAt(mounts, rel) == 0 && !mountWithin(mounts, rel) {
				errs = append(errs, removeAll(in(x.Root, rel)))
			}
		}
		for name, was := range d.Entries {
			if e, ok := now.Entries[name]; !ok || e != was {
				errs = append(errs, was.remake(in(x.Root, path.Join(d.Path, name))))
			}
		}
		errs = append(errs, d.Own.apply(in(x.Root, d.Path)))
	}
	return errors.Join(errs...)
}

// remake makes a device node or a link as it was. Anything else that was in such
// a directory is the job's data and cannot be made again.
func (e deviceEntry) remake(name string) error {
	now, err := readDevice(name)
	kind := e.Mode & unix.S_IFMT
	if kind != unix.S_IFCHR && kind != unix.S_IFLNK {
		return nil
	}
	if err != nil || now.Mode&unix.S_IFMT != kind || now.Rdev != e.Rdev || now.Link != e.Link {
		if err := removeAll(name); err != nil {
			return err
		}
		if kind == unix.S_IFLNK {
			err = os.Symlink(e.Link, name)
		} else {
			err = unix.Mknod(name, e.Mode, int(e.Rdev))
		}
		if err != nil {
			return fmt.Errorf("make %s again: %w", name, cause(err))
		}
	}
	if err := unix.Lchown(name, int(e.UID), int(e.GID)); err != nil {
		return err
	}
	if kind == unix.S_IFLNK {
		return nil
	}
	return unix.Chmod(name, e.Mode&0o7777)
}
