package snapshot

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// removalDepth is how far down a tree is split for its removal: for driver overlay, a
// layer and what is three levels below its root.
const removalDepth = 4

// removeTree removes a tree whatever its modes are, on every processor: a build ends
// with it.
func removeTree(dir string) error {
	var parts []string
	directoriesAt(dir, removalDepth, &parts)
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, part := range parts {
		group.Go(func() error { return os.RemoveAll(part) })
	}
	// What failed there fails again, and then with all else removed.
	_ = group.Wait()
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}

// directoriesAt appends the directories that are so many levels below dir.
func directoriesAt(dir string, depth int, out *[]string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // left to os.RemoveAll
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		at := filepath.Join(dir, e.Name())
		if depth == 1 {
			*out = append(*out, at)
		} else {
			directoriesAt(at, depth-1, out)
		}
	}
}
