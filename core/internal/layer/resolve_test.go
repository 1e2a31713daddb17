package layer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
		at, err := openDirs(root)
		if err != nil {
			t.Fatal(err)
		}
		defer at.close()
		a := &applier{root: root, dirs: at, own: newNode(dirNode)}
		name, err := relative(link)
		if err != nil || name == "" {
			t.Skip()
		}
		parent, err := a.walk(filepath.Dir(name), make0755)
		if err != nil {
			t.Skip()
		}
		if err := os.Symlink(target, filepath.Join(root, parent.path, filepath.Base(name))); err != nil {
			t.Skip()
		}
		parent.own.put(filepath.Base(name), newNode(linkNode))
		dir, err := relative(path)
		if err != nil {
			return
		}
		got, err := a.walk(dir, make0755)
		if err != nil {
			return // too many links, names that are too long
		}
		real, err := filepath.EvalSymlinks(filepath.Join(root, got.path))
		if err != nil {
			t.Fatal(err)
		}
		want, err := filepath.EvalSymlinks(root)
		if err != nil {
			t.Fatal(err)
		}
		if real != filepath.Join(want, got.path) {
			t.Fatalf("%q through %q -> %q is %s, not %s in the root", path, link, target, real, got.path)
		}
	})
}
