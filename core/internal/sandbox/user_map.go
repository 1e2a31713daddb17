package sandbox

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// idMappings are the ids of a new user namespace.
type idMappings struct {
	uid, gid []syscall.SysProcIDMap
	// helper: they are written by newuidmap and newgidmap.
	helper bool
	// single: only our own id is mapped, as root.
	single bool
}

// count is how many user ids there are.
func (m idMappings) count() int {
	n := 0
	for _, r := range m.uid {
		n += r.Size
	}
	return n
}

// findMappings takes all of our own namespace's ids where we may map them
// (CAP_SETUID and CAP_SETGID: root in a container), else the subordinate ones
// of the user, else our own only.
func findMappings() idMappings {
	if hasCap(unix.CAP_SETUID) && hasCap(unix.CAP_SETGID) {
		uid, uerr := identityMap("/proc/self/uid_map")
		gid, gerr := identityMap("/proc/self/gid_map")
		if uerr == nil && gerr == nil {
			return idMappings{uid: uid, gid: gid}
		}
	}
	euid, egid := os.Geteuid(), os.Getegid()
	m := idMappings{
		uid: []syscall.SysProcIDMap{{ContainerID: 0, HostID: euid, Size: 1}},
		gid: []syscall.SysProcIDMap{{ContainerID: 0, HostID: egid, Size: 1}},
	}
	if newuidmap(0) == "" || newuidmap(1) == "" {
		m.single = true
		return m
	}
	suid, sgid := subordinate("/etc/subuid", euid), subordinate("/etc/subgid", euid)
	if len(suid) == 0 || len(sgid) == 0 {
		m.single = true
		return m
	}
	m.uid, m.gid, m.helper = append(m.uid, suid...), append(m.gid, sgid...), true
	return m
}

// identityMap reads a uid_map and maps every id that it has to itself.
func identityMap(file string) ([]syscall.SysProcIDMap, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []syscall.SysProcIDMap
	for line := range strings.Lines(string(data)) {
		var inside, outside, size int
		if _, err := fmt.Sscan(line, &inside, &outside, &size); err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		list = append(list, syscall.SysProcIDMap{ContainerID: inside, HostID: inside, Size: size})
	}
	return list, nil
}

// subordinate reads a user's ranges in /etc/subuid or /etc/subgid. Inside they
// follow id 0 without gaps.
func subordinate(file string, uid int) []syscall.SysProcIDMap {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	id, name := strconv.Itoa(uid), ""
	if u, err := user.LookupId(id); err == nil {
		name = u.Username
	}
	var list []syscall.SysProcIDMap
	next := 1
	for s := bufio.NewScanner(f); s.Scan(); {
		part := strings.Split(strings.TrimSpace(s.Text()), ":")
		if len(part) != 3 || part[0] != id && (name == "" || part[0] != name) {
			continue
		}
		start, err1 := strconv.Atoi(part[1])
		size, err2 := strconv.Atoi(part[2])
		if err1 != nil || err2 != nil || size <= 0 {
			continue
		}
		list = append(list, syscall.SysProcIDMap{ContainerID: next, HostID: start, Size: size})
		next += size
	}
	return list
}

// newuidmap finds newuidmap (0) or newgidmap (1) at its usual places.
func newuidmap(which int) string {
	name := [...]string{"newuidmap", "newgidmap"}[which]
	for _, dir := range []string{"/usr/bin/", "/bin/", "/usr/local/bin/"} {
		if executable(dir+name) == nil {
			return dir + name
		}
	}
	return ""
}

// apply lets the helpers map the ids of a process.
func (m idMappings) apply(ctx context.Context, pid int) error {
	for which, ranges := range [][]syscall.SysProcIDMap{m.uid, m.gid} {
		args := []string{strconv.Itoa(pid)}
		for _, r := range ranges {
			args = append(args, strconv.Itoa(r.ContainerID), strconv.Itoa(r.HostID), strconv.Itoa(r.Size))
		}
		helper := newuidmap(which)
		if out, err := exec.CommandContext(ctx, helper, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", helper, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}
