package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	cfs "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// The paths that runc hides from and protects against containers.
var (
	maskedPaths = [...]string{
		"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/proc/interrupts", "/sys/firmware",
		"/sys/devices/virtual/powercap",
	}
	readonlyPaths = [...]string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// prepareRoot mounts everything that belongs into a step's root and makes it the
// root of this process and of its child.
func prepareRoot(s *supervision) error {
	spec := &s.spec
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount(spec.Root, spec.Root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind root: %w", err)
	}
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		// A seccomp profile may refuse the call and leave the file.
		if os.WriteFile("/proc/sys/kernel/hostname", []byte(spec.Hostname), 0) != nil && spec.Hostname != defaultHostname {
			s.notice(fmt.Sprintf("The hostname %q cannot be set here (%v); steps see that of the build's container.", spec.Hostname, err))
		}
	}
	if spec.Loopback {
		if err := loopbackUp(); err != nil {
			return loopbackFault(err)
		}
	}
	r := &rootMounts{root: spec.Root, material: spec.Scratch}
	if err := r.system(hasTarget(spec.Mounts, "/dev/shm")); err != nil {
		return err
	}
	if err := r.user(spec); err != nil {
		return err
	}
	s.result.Notices = append(s.result.Notices, r.notices...)
	if err := s.child.awaitBegun(); err != nil {
		return err
	}
	if err := unix.Chdir(spec.Root); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fault.New(fault.Environment, "pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach old root: %w", err)
	}
	return unix.Chdir("/")
}

func hasTarget(mounts []Mount, target string) bool {
	for _, m := range mounts {
		if m.Target == target {
			return true
		}
	}
	return false
}

// rootMounts mounts things beneath root; material is a directory where it
// mounts a tmpfs of its own for files that must never be on disk.
type rootMounts struct {
	root, material string
	files          int
	notices        []string
}

// at resolves a path of the step's to one of ours and makes it if it is missing.
func (r *rootMounts) at(target string, file bool) (string, error) {
	p, err := cfs.RootPath(r.root, target)
	if err != nil {
		return "", fault.New(fault.User, "resolve mount target %s: %w", target, err)
	}
	if exists(p) {
		return p, nil
	}
	dir := p
	if file {
		dir = filepath.Dir(p)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fault.New(fault.User, "create mount point %s: %w", target, cause(err))
	}
	if !file {
		return p, nil
	}
	f, err := os.OpenFile(p, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return "", fault.New(fault.User, "create mount point %s: %w", target, cause(err))
	}
	return p, f.Close()
}

func (r *rootMounts) mount(fstype, target string, flags uintptr, data string) error {
	p, err := r.at(target, false)
	if err != nil {
		return err
	}
	if err := unix.Mount(fstype, p, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", fstype, target, err)
	}
	return nil
}

// bind puts source at target; the extra attributes are added to those that the
// source's mount has.
func (r *rootMounts) bind(source, target string, attrs uint64) error {
	st, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("mount %s: %w", target, cause(err))
	}
	p, err := r.at(target, !st.IsDir())
	if err != nil {
		return err
	}
	if err := unix.Mount(source, p, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	if attrs == 0 {
		return nil
	}
	if err := addMountAttrs(p, attrs); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// addMountAttrs adds attributes to a mount and those beneath, keeping what is
// set (a user namespace must not clear what it inherited).
func addMountAttrs(p string, attrs uint64) error {
	err := unix.MountSetattr(unix.AT_FDCWD, p, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attrs})
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(p, &st); err != nil {
		return err
	}
	// The ST_ flags of these attributes have the values of MS_ and of MOUNT_ATTR_.
	const keep = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME
	return unix.Mount("", p, "", unix.MS_BIND|unix.MS_REMOUNT|uintptr(st.Flags)&keep|uintptr(attrs), "")
}

// system mounts /proc, /dev and /sys.
func (r *rootMounts) system(ownShm bool) error {
	const plain = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV
	if err := r.mount("proc", "/proc", plain, ""); err != nil {
		if err := r.bind("/proc", "/proc", 0); err != nil {
			return err
		}
		r.notices = append(r.notices, "The kernel refuses steps a /proc of their own; they see that of the build's container.")
	}
	if err := r.devices(ownShm); err != nil {
		return err
	}
	if err := r.mount("sysfs", "/sys", plain|unix.MS_RDONLY, ""); err != nil {
		if err := r.bind("/sys", "/sys", unix.MOUNT_ATTR_RDONLY); err != nil {
			return err
		}
	} else {
		var st unix.Statfs_t
		if unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			_ = r.mount("cgroup2", "/sys/fs/cgroup", plain|unix.MS_RDONLY, "")
		}
	}
	for _, p := range readonlyPaths {
		if full := filepath.Join(r.root, p); exists(full) {
			if err := unix.Mount(full, full, "", unix.MS_BIND|unix.MS_REC, ""); err == nil {
				_ = addMountAttrs(full, unix.MOUNT_ATTR_RDONLY)
			}
		}
	}
	for _, p := range maskedPaths {
		st, err := os.Stat(filepath.Join(r.root, p))
		if err != nil {
			continue
		}
		if st.IsDir() {
			_ = unix.Mount("tmpfs", filepath.Join(r.root, p), "tmpfs", unix.MS_RDONLY, "")
		} else {
			_ = unix.Mount(filepath.Join(r.root, "/dev/null"), filepath.Join(r.root, p), "", unix.MS_BIND, "")
		}
	}
	return nil
}

// devices makes /dev: what runc gives a container.
func (r *rootMounts) devices(ownShm bool) error {
	if err := r.mount("tmpfs", "/dev", unix.MS_NOSUID|unix.MS_STRICTATIME, "mode=755,size=65536k"); err != nil {
		return err
	}
	dev, err := cfs.RootPath(r.root, "/dev")
	if err != nil {
		return err
	}
	if err := makeDevices(dev, true); err != nil {
		return err
	}
	const plain = unix.MS_NOSUID | unix.MS_NOEXEC
	if err := r.mount("devpts", "/dev/pts", plain, "newinstance,ptmxmode=0666,mode=0620,gid=5"); err != nil {
		// Group 5 may not be mapped; devpts is not vital.
		_ = r.mount("devpts", "/dev/pts", plain, "newinstance,ptmxmode=0666,mode=0620")
	}
	if !ownShm {
		if err := r.mount("tmpfs", "/dev/shm", plain|unix.MS_NODEV, "mode=1777,size=65536k"); err != nil {
			return err
		}
	}
	_ = r.mount("mqueue", "/dev/mqueue", plain|unix.MS_NODEV, "")
	return nil
}

// user mounts /etc/hosts, /etc/resolv.conf and the step's own mounts.
func (r *rootMounts) user(spec *supervisedSpec) error {
	if err := unix.Mount("tmpfs", r.material, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700"); err != nil {
		return fmt.Errorf("mount tmpfs for secrets: %w", err)
	}
	const locked = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	for target, data := range map[string][]byte{"/etc/hosts": spec.Hosts, "/etc/resolv.conf": spec.Resolv} {
		if hasTarget(spec.Mounts, target) {
			continue
		}
		if err := r.file(Mount{Target: target, Data: data, Mode: 0o644}, locked); err != nil {
			return err
		}
	}
	for _, m := range spec.Mounts {
		var err error
		switch m.Kind {
		case Secret:
			err = r.file(m, locked)
		case Tmpfs:
			err = r.tmpfs(m)
		case SSHAgent:
			if err = setOwner(m.Source, m.UID, m.GID, m.Mode); err == nil {
				err = r.bind(m.Source, m.Target, 0)
			}
		default:
			var attrs uint64
			if m.ReadOnly {
				attrs = unix.MOUNT_ATTR_RDONLY
			}
			err = r.bind(m.Source, m.Target, attrs)
		}
		if err != nil {
			return err
		}
	}
	return unix.Unmount(r.material, unix.MNT_DETACH)
}

// file mounts a file whose content is only ever in memory.
func (r *rootMounts) file(m Mount, attrs uint64) error {
	r.files++
	name := filepath.Join(r.material, strconv.Itoa(r.files))
	if err := writeOwned(name, m.Data, m.UID, m.GID, m.Mode); err != nil {
		return fmt.Errorf("mount %s: %w", m.Target, cause(err))
	}
	return r.bind(name, m.Target, attrs)
}

// tmpfs mounts an empty directory, with the mode of the one that was there
// before we made a mount point (Mode, where that is known).
func (r *rootMounts) tmpfs(m Mount) error {
	var opts []string
	if m.Size > 0 {
		opts = append(opts, "size="+strconv.FormatInt(m.Size, 10))
	}
	flags := uintptr(unix.MS_NOSUID)
	if m.Target == "/dev/shm" {
		flags |= unix.MS_NOEXEC | unix.MS_NODEV
	} else if m.Mode != 0 {
		opts = append(opts, fmt.Sprintf("mode=%04o", m.Mode))
	} else if p, err := cfs.RootPath(r.root, m.Target); err == nil {
		if st, err := os.Stat(p); err == nil {
			opts = append(opts, fmt.Sprintf("mode=%04o", modeBits(st)))
		}
	}
	return r.mount("tmpfs", m.Target, flags, strings.Join(opts, ","))
}

func modeBits(st os.FileInfo) uint32 { return st.Sys().(*unixStat).Mode & 0o7777 }

func loopbackFault(err error) error {
	return fault.New(fault.Environment, "bring the loopback of --network=none up: %w", err).
		With("Leave out --network=none, or give the build's container CAP_NET_ADMIN.")
}

// loopbackUp brings "lo" of this network namespace up.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}
