package sandbox

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// probeMain tries what it is started for and writes one JSON object for each
// attempt as it goes, so that a crash loses only the last one.
func probeMain(spaces bool) int {
	dir, err := io.ReadAll(os.Stdin)
	if err != nil {
		return 1
	}
	out := json.NewEncoder(os.Stdout)
	say := func(name, tried string, err error) error {
		_ = out.Encode(attempt(name, tried, err))
		return err
	}
	unix.Umask(0o022)
	if spaces {
		probeInside(string(dir), out, say)
	} else {
		probeOutside(string(dir), say)
	}
	return 0
}

// probeInside tries what isolation namespaces needs.
func probeInside(dir string, out *json.Encoder, say func(name, tried string, err error) error) {
	n := mappedIDs()
	_ = out.Encode(Attempt{Name: TryIDs, Tried: "map user ids", OK: n > 1, Answer: strconv.Itoa(n)})
	if say(TryPrivate, "make the mounts private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")) != nil {
		return
	}
	store := filepath.Dir(filepath.Dir(dir))
	if say(TryOverlay, "mount overlay in "+store+" and change it", tryOverlay(filepath.Join(dir, "o1"), "")) != nil {
		_ = say(TryUserXattr, "the same with userxattr", tryOverlay(filepath.Join(dir, "o2"), ",userxattr"))
	}
	if say(TryTmpfs, "mount tmpfs", unix.Mount("tmpfs", dir, "tmpfs", 0, "")) != nil {
		return
	}
	root := filepath.Join(dir, "root")
	for _, d := range []string{"", "/proc", "/outer"} {
		if err := os.Mkdir(root+d, 0o755); err != nil {
			_ = say(TryTmpfs, "make directories on tmpfs", err)
			return
		}
	}
	if say(TryBind, "bind a directory on itself", unix.Mount(root, root, "", unix.MS_BIND|unix.MS_REC, "")) != nil {
		return
	}
	_ = say(TryProc, "mount proc", unix.Mount("proc", root+"/proc", "proc", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, ""))
	_ = say(TryProcBind, "bind /proc recursively", unix.Mount("/proc", root+"/outer", "", unix.MS_BIND|unix.MS_REC, ""))
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		err = loopbackUp()
	}
	_ = say(TryNetwork, "unshare the network and bring its loopback up", err)
	err = unix.Chdir(root)
	if err == nil {
		err = unix.PivotRoot(".", ".")
	}
	_ = say(TryPivot, "pivot_root", err)
}

// mappedIDs counts the user ids of our own user namespace.
func mappedIDs() int {
	maps, err := identityMap("/proc/self/uid_map")
	if err != nil {
		return 0
	}
	return idMappings{uid: maps}.count()
}

// tryOverlay mounts a small overlay and changes something in it: some
// filesystems accept the mount and then fail.
func tryOverlay(dir, option string) error {
	for _, d := range []string{"", "lower", "lower/d", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "lower/d/f"), []byte("lower"), 0o644); err != nil {
		return err
	}
	merged := filepath.Join(dir, "merged")
	opts := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir) + option
	if err := unix.Mount("overlay", merged, "overlay", 0, opts); err != nil {
		return err
	}
	defer func() { _ = unix.Unmount(merged, unix.MNT_DETACH) }()
	if err := os.WriteFile(filepath.Join(merged, "d/f"), []byte("changed"), 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(merged, "d")); err != nil {
		return err
	}
	return os.Mkdir(filepath.Join(merged, "d"), 0o755)
}

// probeOutside tries what isolation chroot needs.
func probeOutside(dir string, say func(name, tried string, err error) error) {
	null := filepath.Join(dir, "null")
	err := unix.Mknod(null, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(null, os.O_RDWR, 0); err == nil {
			_ = f.Close()
		}
	}
	_ = say(TryDevices, "mknod in the store and open it", err)
	_ = say(TryUlimits, "raise the hard limit of open files", raiseLimit())
	_ = say(TryChroot, "chroot", unix.Chroot(dir))
}

// raiseLimit raises a hard limit that is not the highest.
func raiseLimit() error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &l); err != nil {
		return err
	}
	l.Max--
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 0, Max: l.Max}); err != nil {
		return err
	}
	l.Max++
	return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 0, Max: l.Max})
}
