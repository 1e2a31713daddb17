// Package profile owns what --profile writes: where the processor and the memory
// went, and what the build did when. It listens to the engine's events; it
// measures nothing inside the engine and changes nothing of a build.
package profile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/layerwright/layerwright/core"
)

// The names of the files in the directory.
const (
	// CPUFile and HeapFile are read by "go tool pprof".
	CPUFile  = "cpu.pprof"
	HeapFile = "heap.pprof"
	// TraceFile is read by https://ui.perfetto.dev and chrome://tracing.
	TraceFile = "trace.json"
)

// every is how often memory is looked at.
const every = 50 * time.Millisecond

// Profile is being recorded. It is a core.Sink.
type Profile struct {
	dir  string
	cpu  *os.File
	heap *os.File
	file *os.File

	stop    chan struct{}
	sampler sync.WaitGroup

	mu    sync.Mutex
	trace trace
}

// Start begins to record into dir, which is made. The files are opened at once:
// later the path may not lead to them (isolation inplace). One profile at a time
// is possible in a process.
func Start(dir string) (_ *Profile, err error) {
	p := &Profile{dir: dir, stop: make(chan struct{}), trace: newTrace(time.Now())}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, refused(dir, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.closeFiles())
		}
	}()
	for name, f := range map[string]**os.File{CPUFile: &p.cpu, HeapFile: &p.heap, TraceFile: &p.file} {
		if *f, err = os.Create(filepath.Join(dir, name)); err != nil {
			return nil, refused(dir, err)
		}
	}
	if err := pprof.StartCPUProfile(p.cpu); err != nil {
		return nil, fmt.Errorf("start profile: %w", err)
	}
	p.sampler.Go(p.sample)
	return p, nil
}

func refused(dir string, err error) error {
	return &core.Error{Kind: core.KindUsage, Op: "--profile " + dir, Err: err, Remedy: "Name a directory that can be written."}
}

// Emit implements core.Sink.
func (p *Profile) Emit(e core.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trace.event(e)
}

// sample follows the memory.
func (p *Profile) sample() {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-t.C:
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			p.mu.Lock()
			p.trace.counter(now, "memory in MiB", map[string]float64{"heap": mib(m.HeapInuse), "resident": mib(resident())})
			p.trace.counter(now, "goroutines", map[string]float64{"goroutines": float64(runtime.NumGoroutine())})
			p.mu.Unlock()
		}
	}
}

func mib(n uint64) float64 { return float64(n) / (1 << 20) }

// resident is the process's memory in bytes; 0 where /proc does not tell.
func resident() uint64 {
	var size, pages uint64
	f, err := os.Open("/proc/self/statm")
	if err != nil {
		return 0
	}
	defer f.Close()
	if _, err := fmt.Fscan(f, &size, &pages); err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}

// Stop ends the recording and completes the files. The heap's profile has what
// was allocated by whom since the start, and what is in use now.
func (p *Profile) Stop() error {
	pprof.StopCPUProfile()
	close(p.stop)
	p.sampler.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	err := errors.Join(pprof.Lookup("heap").WriteTo(p.heap, 0), p.trace.write(p.file))
	if err = errors.Join(err, p.closeFiles()); err != nil {
		return &core.Error{Kind: core.KindEnvironment, Op: "write profile to " + p.dir, Err: err, Remedy: "Name another directory with --profile."}
	}
	return nil
}

func (p *Profile) closeFiles() error {
	var err error
	for _, f := range []*os.File{p.cpu, p.heap, p.file} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}
