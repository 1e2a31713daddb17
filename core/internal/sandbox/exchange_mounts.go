package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mountPoint is a mount beneath a root.
type mountPoint struct {
	ID int
	// Path is relative to the root, as the mount point is now: it follows
	// when a directory above it is renamed.
	Path string
}

// mountsBeneath reads the mount points beneath root from the kernel.
func mountsBeneath(root string) ([]mountPoint, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	var list []mountPoint
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		id, err := strconv.Atoi(fields[0])
		if err != nil {
			continue
		}
		rel, err := filepath.Rel(root, unescapeMount(fields[4]))
		if err != nil || rel == "." || strings.HasPrefix(rel, "../") {
			continue
		}
		list = append(list, mountPoint{ID: id, Path: rel})
	}
	return list, nil
}

// unescapeMount undoes the kernel's octal escapes of space, tab, newline and
// backslash.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// mountAt is the id of the topmost mount at rel; 0 where there is none.
func mountAt(mounts []mountPoint, rel string) int {
	id := 0
	for _, m := range mounts {
		if m.Path == rel {
			id = m.ID
		}
	}
	return id
}

// mountWithin says whether there is a mount beneath rel.
func mountWithin(mounts []mountPoint, rel string) bool {
	for _, m := range mounts {
		if strings.HasPrefix(m.Path, rel+"/") {
			return true
		}
	}
	return false
}

// heldDirs gives a function that says whether a process that we may look at
// works in a directory or beneath it.
func heldDirs() func(dir string) bool {
	var held map[string]bool
	return func(dir string) bool {
		if held == nil {
			held = map[string]bool{}
			links, _ := filepath.Glob("/proc/[0-9]*/cwd")
			for _, l := range append(links, "/proc/self/cwd") {
				if cwd, err := os.Readlink(l); err == nil {
					held[cwd] = true
				}
			}
		}
		return held[dir]
	}
}
