package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// stepCaps are the capabilities of a root step: Docker's default set without
// CAP_SETPCAP. The outer processes keep that one, and so the kernel refuses a
// step their memory, environment and root (ptrace(2), access mode checking: the
// target's permitted set must be a subset of the tracer's).
const stepCaps uint64 = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FSETID |
	1<<unix.CAP_FOWNER | 1<<unix.CAP_MKNOD | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SETGID |
	1<<unix.CAP_SETUID | 1<<unix.CAP_SETFCAP | 1<<unix.CAP_NET_BIND_SERVICE |
	1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_KILL | 1<<unix.CAP_AUDIT_WRITE

// runChild makes this process the step's command. It returns only on failure.
// Credentials are set on one thread: the one that calls execve, whose
// credentials are what the new program gets.
func runChild(spec childSpec) startFault {
	runtime.LockOSThread()
	if spec.Root != "" {
		if err := enterChroot(spec.Root); err != nil {
			return environmentFault(err, "")
		}
	}
	_, _ = unix.Setsid()
	unix.Umask(0o022)
	if f := setUlimits(spec.Ulimits); f != nil {
		return *f
	}
	// As a user may work in a directory that only root can enter, try before
	// becoming the user and, where that is refused, again after.
	_ = os.MkdirAll(spec.Cwd, 0o755)
	cwdErr := unix.Chdir(spec.Cwd)
	if cwdErr != nil && !errors.Is(cwdErr, fs.ErrPermission) {
		return cwdFault(spec.Cwd, cwdErr)
	}
	dropBounding(stepCaps)
	// Kept until exec, which takes them from all but root: as with runc, a user's
	// step may begin with a program that only root may enter or run.
	_ = unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	if f := becomeUser(spec); f != nil {
		return *f
	}
	if err := limitCaps(stepCaps); err != nil {
		return environmentFault(fmt.Errorf("limit capabilities: %w", err), "")
	}
	if cwdErr != nil {
		if err := unix.Chdir(spec.Cwd); err != nil {
			return cwdFault(spec.Cwd, err)
		}
	}
	if len(spec.Args) == 0 {
		return startFault{Kind: fault.User, Message: "no command given"}
	}
	name, err := lookPath(spec.Args[0], spec.Env)
	if err != nil {
		return startFault{Kind: fault.Step, Code: exitCodeOf(err), Message: fmt.Sprintf("exec: %q: %v", spec.Args[0], err)}
	}
	err = syscall.Exec(name, spec.Args, spec.Env)
	for i := 0; i < 200 && errors.Is(err, unix.ETXTBSY); i++ {
		// The builder has just written this file, and a process that it was
		// forking meanwhile holds it open until its own exec.
		time.Sleep(10 * time.Millisecond)
		err = syscall.Exec(name, spec.Args, spec.Env)
	}
	return startFault{Kind: fault.Step, Code: 126, Message: fmt.Sprintf("exec %s: %v", name, err)}
}

func environmentFault(err error, remedy string) startFault {
	return startFault{Kind: fault.Environment, Message: err.Error(), Remedy: remedy}
}

func cwdFault(cwd string, err error) startFault {
	return startFault{Kind: fault.User, Message: fmt.Sprintf("change to working directory %q: %v", cwd, err)}
}

// exitCodeOf is what a shell would exit with for a command that lookPath did
// not accept.
func exitCodeOf(err error) int {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotInPath) {
		return 127
	}
	return 126
}

func enterChroot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("enter %s: %w", root, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot to %s: %w", root, err)
	}
	return unix.Chdir("/")
}

// dropBounding takes every capability but keep out of the thread's bounding
// set. Without CAP_SETPCAP the kernel refuses: then no outer process of ours
// has it either, and there is nothing better to be done.
func dropBounding(keep uint64) {
	for c := uintptr(0); c < 64; c++ {
		if keep&(1<<c) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); errors.Is(err, unix.EINVAL) {
			break // past the last one that this kernel knows
		}
	}
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
}

// limitCaps leaves of the thread's capabilities those in keep, all of them
// effective and none inheritable.
func limitCaps(keep uint64) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return err
	}
	for i := range data {
		part := uint32(keep >> (32 * i))
		data[i].Permitted &= part
		data[i].Effective = data[i].Permitted
		data[i].Inheritable = 0
	}
	return unix.Capset(&hdr, &data[0])
}

// becomeUser sets groups, gid and uid of this thread only.
func becomeUser(spec childSpec) *startFault {
	const remedy = "Run with a range of user ids (entries for the user in /etc/subuid and /etc/subgid, and newuidmap installed), as root in a container, or use an image whose steps run as root."
	if err := setGroups(spec.Groups); err != nil && !(errors.Is(err, unix.EPERM) && len(spec.Groups) <= 1) {
		f := environmentFault(fmt.Errorf("set groups %v: %w", spec.Groups, err), remedy)
		return &f
	}
	gid, uid := uintptr(spec.GID), uintptr(spec.UID)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		f := environmentFault(fmt.Errorf("become group %d: %w", spec.GID, errno), remedy)
		return &f
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		f := environmentFault(fmt.Errorf("become user %d: %w", spec.UID, errno), remedy)
		return &f
	}
	return nil
}

func setGroups(groups []uint32) error {
	var first unsafe.Pointer
	if len(groups) > 0 {
		first = unsafe.Pointer(&groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0); errno != 0 {
		return errno
	}
	return nil
}

// ulimitNumbers are the names that Docker knows (github.com/docker/go-units).
func ulimitNumber(name string) (int, bool) {
	n, ok := map[string]int{
		"core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
		"fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK,
		"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
		"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
		"rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
	}[strings.ToLower(name)]
	return n, ok
}

func setUlimits(limits []Ulimit) *startFault {
	for _, l := range limits {
		n, ok := ulimitNumber(l.Name)
		if !ok {
			return &startFault{Kind: fault.Usage, Message: fmt.Sprintf("unknown ulimit %q", l.Name)}
		}
		// Through package syscall, so that the runtime does not put back the
		// limit of open files that it has raised for itself.
		if err := syscall.Setrlimit(n, &syscall.Rlimit{Cur: uint64(l.Soft), Max: uint64(l.Hard)}); err != nil {
			f := environmentFault(fmt.Errorf("set ulimit %s=%s: %w", l.Name,
				strconv.FormatInt(l.Soft, 10)+":"+strconv.FormatInt(l.Hard, 10), err),
				"Limits can only be lowered here; ask for a lower one, or raise that of the container that the build runs in.")
			return &f
		}
	}
	return nil
}

var errNotInPath = errors.New("executable file not found in $PATH")

// lookPath finds name as execvp would, by the step's own PATH and as its user.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	path := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			dir = "."
		}
		if file := filepath.Join(dir, name); executable(file) == nil {
			if !filepath.IsAbs(file) {
				file = "./" + file
			}
			return file, nil
		}
	}
	return "", errNotInPath
}

func executable(file string) error {
	st, err := os.Stat(file)
	if err != nil {
		return err
	}
	if st.IsDir() {
		return unix.EISDIR
	}
	err = unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		if st.Mode()&0o111 != 0 {
			return nil
		}
		return unix.EACCES
	}
	return err
}
