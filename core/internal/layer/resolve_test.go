package layer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FuzzParent: whatever links a layer has made, the directory that a path is
// resolved to lies in the root.
func FuzzParent(f *testing.F) {
	f.Add("l", "..", "l/x")
	f.Add("l", "/etc", "l/../../x")
	f.Add("a/b", "../../..", "a/b/c/..//../d")
	f.Add("l", "l", "l/l/l")
	f.Add("x", "./x/../x", "x/y")
	f.Fuzz(func(t *testing.T, link, target, path string) {
		if strings.ContainsRune(link+target+path, 0) || len(link)+len(target)+len(path) > 500 || target == "" {
			t.Skip()
		}
		root := filepath.Join(t.TempDir(), "root")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		a := &applier{root: root, links: map[string]bool{}, own: map[string]bool{}, dirTimes: map[string]time.Time{}}
		name, err := relative(link)
		if err != nil || name == "" {
			t.Skip()
		}
		parent, err := a.parent(strings.TrimSuffix(filepath.Dir(name), "."))
		if err != nil {
			t.Skip()
		}
		at := filepath.Join(parent, filepath.Base(name))
		if err := os.Symlink(target, at); err != nil {
			t.Skip()
		}
		a.links[a.rel(at)] = true
		dir, err := relative(path)
		if err != nil {
			return
		}
		got, err := a.parent(dir)
		if err != nil {
			return // too many links, names that are too long
		}
		real, err := filepath.EvalSymlinks(got)
		if err != nil {
			t.Fatal(err)
		}
		want, err := filepath.EvalSymlinks(root)
		if err != nil {
			t.Fatal(err)
		}
		if real != want && !strings.HasPrefix(real, want+"/") {
			t.Fatalf("%q through %q -> %q is %s, outside of %s", path, link, target, real, want)
		}
	})
}
