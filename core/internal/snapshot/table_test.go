package snapshot

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestATableIsAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a seed that repeats
	for _, names := range []int{3, few, few + 1, 40, 3000} {
		var table fileTable
		want := map[string]fileEntry{}
		for range 20 * names {
			name := fmt.Sprint("n", random.IntN(names), strings.Repeat("x", random.IntN(2)*(255-8)))
			switch random.IntN(3) {
			case 0:
				table.remove(name)
				delete(want, name)
			default:
				e := fileEntry{ino: random.Uint64(), size: random.Int64(), mtime: random.Int64(), ctime: random.Int64(), sum: random.Uint64(), mode: random.Uint32() & 0xffff, uid: random.Uint32(), gid: random.Uint32(), hasSum: random.IntN(2) == 0}
				if random.IntN(5) == 0 {
					e.rdev, e.caps = random.Uint64(), random.Uint64()
				}
				table.set(name, e)
				want[name] = e
			}
			got, ok := table.get(name)
			e, wantOK := want[name]
			require.Equal(t, wantOK, ok)
			require.Equal(t, e, got)
		}
		require.Equal(t, len(want), table.len())
		require.ElementsMatch(t, slices.Collect(maps.Keys(want)), slices.Collect(table.all))
		for name, e := range want {
			got, ok := table.get(name)
			require.True(t, ok && table.has(name))
			require.Equal(t, e, got)
		}
		require.False(t, table.has("never"))
	}
}

// TestHalfAMillionFilesInLittleMemory holds what the builder's memory is made of
// where an image has very many files: 160 MiB were promised for all of it.
func TestHalfAMillionFilesInLittleMemory(t *testing.T) {
	const files, perDir = 500_000, 50
	before := inUse()
	ix := &index{root: newDirNode(nil)}
	for d := range files / perDir {
		dir := newDirNode(nil)
		ix.root.addDir(fmt.Sprint("directory-", d), dir)
		for f := range perDir {
			dir.addFile(fmt.Sprint("some-file-", f, ".js"), fileEntry{ino: uint64(f), hasSum: true}) //nolint:gosec // small
		}
	}
	used := inUse() - before
	t.Logf("%d bytes a file", used/files)
	require.Less(t, used, int64(80<<20))
	runtime.KeepAlive(ix)
}

func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // far from the limit
}
