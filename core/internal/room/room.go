// Package room owns how much a download or an archive may write: what comes from
// outside must not fill the disk that the rest of the job works on. It refuses
// to write anything itself.
package room

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

const (
	// most is what one archive or download may have at all.
	most = 64 << 30
	// reserve is left free, or a twentieth where that is less.
	reserve = 1 << 30
	// Enough is what must be free before a build begins, where nobody says
	// otherwise.
	Enough = 128 << 20
)

// Limit is a number of bytes.
type Limit struct {
	Bytes int64
	// Disk says that it is the file system that allows no more.
	Disk bool
}

// Of is what may be written to the file system of dir by one archive or
// download: 64 GiB, or what is free less a reserve.
func Of(dir string) Limit {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil || st.Bsize <= 0 {
		return Limit{Bytes: most} // writing will say what is wrong
	}
	free := int64(min(st.Bavail, uint64(1)<<62/uint64(st.Bsize))) * st.Bsize
	free -= min(reserve, free/20)
	if free >= most {
		return Limit{Bytes: most}
	}
	return Limit{Bytes: free, Disk: true}
}

// Check is an error where less than so many bytes are free on the file system of
// dir: a build that cannot succeed should not begin. With 0 it is Enough; negative
// asks nothing.
func Check(dir string, least int64) error {
	if least == 0 {
		least = Enough
	}
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil || st.Bsize <= 0 {
		return nil // writing will say what is wrong
	}
	if free := int64(min(st.Bavail, uint64(1)<<62/uint64(st.Bsize))) * st.Bsize; free < least {
		return fault.New(fault.Environment, "only %s are free in %s, and a build should have %s", text(free), dir, text(least)).
			With("Free some space, put the store on a larger file system with --store, or ask for less with --min-free.")
	}
	return nil
}

// Exceeded is the error about something that has more than the limit.
func (l Limit) Exceeded(what string) error {
	if l.Disk {
		return fault.New(fault.Environment, "%s has more than the %s that are free in the store", what, text(l.Bytes)).
			With("If it is meant to be that large, put the store on a larger file system with --store.")
	}
	return fault.New(fault.User, "%s has more than %s", what, text(l.Bytes)).
		With("This is the limit for one archive or download: make it smaller, or split it.")
}

func text(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size {
			return fmt.Sprintf("%.4g %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
