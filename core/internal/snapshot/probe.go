package snapshot

import (
	"errors"
	"os"
	"path/filepath"
)

// ProbeOverlay finds out by mounting whether driver overlay works in dir, an
// existing directory, and whether it needs Options.UserXattr.
func ProbeOverlay(dir string) (userXattr bool, err error) {
	base, err := os.MkdirTemp(dir, ".probe-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(base)
	at := func(name string) string { return filepath.Join(base, name) }
	for _, d := range []string{"l1", "l2", "upper", "work", "m"} {
		if err := os.Mkdir(at(d), 0o755); err != nil {
			return false, err
		}
	}
	lower := []string{at("l1"), at("l2")}
	first := mountOverlay(at("m"), lower, at("upper"), at("work"), false)
	if first != nil {
		if err := mountOverlay(at("m"), lower, at("upper"), at("work"), true); err != nil {
			return false, errors.Join(first, err)
		}
		userXattr = true
	}
	return userXattr, unmount(at("m"))
}
