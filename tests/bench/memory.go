package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// watch follows the peak memory of a builder while it builds: the sum of the
// peaks (VmHWM) of its processes that live at the same time, with the pages of an
// executable counted once for all that run it. What steps run is not counted. The kernel keeps a process' peak, so looking seldom misses only
// what a process needed at its very end.
type watch struct {
	// belongs says whether a process with this executable and command line is
	// the builder's; its children with the same executable are as well.
	belongs func(exe, cmdline string) bool
	done    chan struct{}
	peak    chan int64
}

func newWatch(belongs func(exe, cmdline string) bool) *watch {
	w := &watch{belongs: belongs, done: make(chan struct{}), peak: make(chan int64, 1)}
	go w.follow()
	return w
}

// end gives the peak in bytes; 0 if no process lived long enough to be seen.
func (w *watch) end() int64 {
	close(w.done)
	return <-w.peak
}

func (w *watch) follow() {
	var peak int64
	for {
		select {
		case <-w.done:
			w.peak <- max(peak, w.sum())
			return
		case <-time.After(40 * time.Millisecond):
			peak = max(peak, w.sum())
		}
	}
}

func (w *watch) sum() int64 {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0
	}
	type process struct {
		exe, parent, memory string
		// own is the peak without pages of files, of which there are file.
		own, file int64
	}
	found, ours := map[string]process{}, map[string]bool{}
	for _, d := range dirs {
		exe, err := os.Readlink(d + "/exe")
		if err != nil {
			continue
		}
		exe = filepath.Base(exe)
		if !builderNames[exe] {
			continue
		}
		status := status(d)
		peak, file := kilobytes(status["VmHWM"]), kilobytes(status["RssFile"])
		if peak == 0 {
			continue
		}
		pid := filepath.Base(d)
		found[pid] = process{exe, status["PPid"], memoryOf(status), max(0, peak-file), file}
		cmdline, err := os.ReadFile(d + "/cmdline")
		if err == nil && w.belongs(exe, string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}))) {
			ours[pid] = true
		}
	}
	var sum int64
	files := map[string]int64{}
	for pid, p := range found {
		for at := pid; ; at = found[at].parent {
			if ours[at] {
				if found[p.parent].memory == p.memory {
					break // just started, it still uses its parent's
				}
				sum += p.own
				files[p.exe] = max(files[p.exe], p.file)
				break
			}
			if found[at].exe != p.exe {
				break
			}
		}
	}
	for _, file := range files {
		sum += file
	}
	return sum
}

// memoryOf tells memories of processes apart: between fork and exec a child has its
// parent's (CLONE_VM), and with it all of these numbers.
func memoryOf(status map[string]string) string {
	return strings.Join([]string{status["VmPeak"], status["VmSize"], status["VmData"], status["VmStk"]}, " ")
}

// kilobytes reads "123 kB" as bytes; 0 where it is missing.
func kilobytes(text string) int64 {
	n, err := strconv.ParseInt(strings.TrimSuffix(text, " kB"), 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}

// builderNames are the executables that may be a builder's.
var builderNames = map[string]bool{"layerwright": true, "buildkitd": true, "buildctl": true, "buildah": true}

func status(dir string) map[string]string {
	b, err := os.ReadFile(dir + "/status")
	if err != nil {
		return nil
	}
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(line, ":")
		out[k] = strings.TrimSpace(v)
	}
	return out
}

// forgetPeaks sets the peak of a running daemon to what it holds now.
func forgetPeaks(belongs func(exe, cmdline string) bool) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return
	}
	for _, d := range dirs {
		exe, err := os.Readlink(d + "/exe")
		if err != nil {
			continue
		}
		cmdline, err := os.ReadFile(d + "/cmdline")
		if err == nil && belongs(filepath.Base(exe), string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}))) {
			_ = os.WriteFile(d+"/clear_refs", []byte("5"), 0) // an old kernel has none
		}
	}
}
