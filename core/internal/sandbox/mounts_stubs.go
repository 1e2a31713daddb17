package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	cfs "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// stubs are the mount points that a tree lacks. They are made before a step and
// removed after it, as BuildKit does (executor/stubs.go): unless the step has
// put something into them.
type stubs struct {
	list []stub
}

type stub struct {
	target, path string
	file         bool
	// parents that are missing too, outermost first.
	parents []string
	// parent is the first that was there, with its times before and after.
	parent        string
	atime, before int64
	after         int64
}

// planStubs notes which mount points are missing, before anything else is made.
func planStubs(root string, mounts []Mount) *stubs {
	s := &stubs{}
	add := func(target string, file bool) {
		p, err := cfs.RootPath(root, target)
		if err != nil || exists(p) {
			return
		}
		st := stub{target: target, path: p, file: file}
		st.parent, st.parents = missingParents(p)
		if fi, err := os.Stat(st.parent); err == nil {
			st.atime, st.before = atime(fi.Sys()), fi.ModTime().UnixNano()
		}
		s.list = append(s.list, st)
	}
	add("/etc/resolv.conf", true)
	add("/etc/hosts", true)
	for _, m := range sortMounts(mounts) {
		if under(m.Target, "/dev") || under(m.Target, "/proc") || under(m.Target, "/sys") {
			continue // in a mount of the step's own
		}
		file := m.Kind == Secret || m.Kind == SSHAgent
		if m.Kind == Bind || m.Kind == Cache {
			if fi, err := os.Stat(m.Source); err == nil {
				file = !fi.IsDir()
			}
		}
		add(m.Target, file)
	}
	return s
}

// has says whether the mount point for target was missing.
func (s *stubs) has(target string) bool {
	return slices.ContainsFunc(s.list, func(st stub) bool { return st.target == target })
}

func under(p, dir string) bool { return p == dir || len(p) > len(dir) && p[:len(dir)+1] == dir+"/" }

func (s *stubs) make() error {
	for i := range s.list {
		st := &s.list[i]
		dir := st.path
		if st.file {
			dir = filepath.Dir(st.path)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fault.New(fault.User, "create mount point: %w", cause(err))
		}
		if st.file {
			f, err := os.OpenFile(st.path, os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW, 0o644)
			if err != nil {
				return fault.New(fault.User, "create mount point: %w", cause(err))
			}
			f.Close()
		}
	}
	for i := range s.list {
		if fi, err := os.Stat(s.list[i].parent); err == nil {
			s.list[i].after = fi.ModTime().UnixNano()
		}
	}
	return nil
}

// remove takes away the stubs that are still empty. A parent that only we have
// changed gets its old times back.
func (s *stubs) remove() error {
	var errs []error
	for _, st := range slices.Backward(s.list) {
		if fi, err := os.Stat(st.parent); err == nil {
			touched := st.after != 0 && fi.ModTime().UnixNano() != st.after && fi.ModTime().UnixNano() != st.before
			if touched {
				st.atime, st.before = atime(fi.Sys()), fi.ModTime().UnixNano()
			}
		} else {
			continue
		}
		for _, p := range append([]string{st.path}, reversed(st.parents)...) {
			if !removeEmpty(p) {
				break
			}
		}
		if st.after == 0 {
			continue // was never made
		}
		ts := []unix.Timespec{unix.NsecToTimespec(st.atime), unix.NsecToTimespec(st.before)}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, st.parent, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("restore times: %w", err))
		}
	}
	return errors.Join(errs...)
}

func reversed(list []string) []string {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

// removeEmpty removes an empty directory or file; true also where there is none.
func removeEmpty(p string) bool {
	fi, err := os.Lstat(p)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	if !fi.IsDir() && fi.Size() != 0 {
		return false
	}
	return os.Remove(p) == nil
}

// makeRuntimeDirs makes /proc, /dev and /sys where a tree has none. As with
// BuildKit's runtime they stay, and show in the step's layer.
func makeRuntimeDirs(root string) error {
	for _, name := range []string{"/proc", "/dev", "/sys"} {
		p, err := cfs.RootPath(root, name)
		if err != nil {
			return fault.New(fault.User, "resolve %s: %w", name, err)
		}
		if exists(p) {
			continue
		}
		if err := mkdirAllOwned(p, 0o755, 0, 0); err != nil {
			return fmt.Errorf("create %s: %w", name, cause(err))
		}
	}
	return nil
}

// defaultHostname is BuildKit's.
const defaultHostname = "buildkitsandbox"

func hostname(step Step) string {
	if step.Hostname != "" {
		return step.Hostname
	}
	return defaultHostname
}

// hostsFile is a step's /etc/hosts, as BuildKit writes it.
func hostsFile(step Step) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n", hostname(step))
	for _, h := range step.ExtraHosts {
		fmt.Fprintf(&b, "%s\t%s\n", h.IP, h.Host)
	}
	return b.Bytes()
}

// readResolv is the outer resolv.conf; empty where there is none.
func readResolv(name string) []byte {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	return data
}

// makeDevices fills a new /dev. Where mknod is refused the outer node is bound,
// if bind says that this is possible.
func makeDevices(dev string, bind bool) error {
	nodes := []struct {
		name         string
		major, minor uint32
	}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}
	for _, n := range nodes {
		p := filepath.Join(dev, n.name)
		err := unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(n.major, n.minor)))
		if err == nil {
			err = os.Chmod(p, 0o666)
		} else if bind {
			err = bindNode("/dev/"+n.name, p)
		}
		if err != nil {
			return fault.New(fault.Environment, "make /dev/%s: %w", n.name, err)
		}
	}
	// On a filesystem mounted nodev they are made, and of no use.
	null, err := os.OpenFile(filepath.Join(dev, "null"), os.O_WRONLY, 0)
	if err != nil {
		return fault.New(fault.Environment, "open /dev/null: %w", cause(err))
	}
	_ = null.Close()
	for _, l := range [][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"}} {
		if err := os.Symlink(l[1], filepath.Join(dev, l[0])); err != nil {
			return err
		}
	}
	for _, d := range []string{"pts", "shm", "mqueue"} {
		if err := os.Mkdir(filepath.Join(dev, d), 0o755); err != nil {
			return err
		}
	}
	return os.Chmod(filepath.Join(dev, "shm"), 0o777|fs.ModeSticky)
}

func bindNode(source, target string) error {
	f, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	f.Close()
	return unix.Mount(source, target, "", unix.MS_BIND, "")
}
