package profile

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
)

// read gives the trace's entries of a phase.
func read(t *testing.T, dir, phase string) (list []entry) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, TraceFile))
	require.NoError(t, err)
	var all struct {
		Entries []entry `json:"traceEvents"`
	}
	require.NoError(t, json.Unmarshal(data, &all))
	for _, e := range all.Entries {
		if e.Phase == phase {
			list = append(list, e)
		}
	}
	return list
}

func TestATraceSaysWhatRanWhen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	p, err := Start(dir)
	require.NoError(t, err)
	start := time.Now()
	step := core.Step{ID: "a", Number: 3, Name: "[2/2] RUN make", Location: &core.Location{File: "Dockerfile", Start: 7, Source: []byte("FROM scratch")}}
	p.Emit(core.Work{Kind: "open", Start: start, Took: time.Second})
	p.Emit(core.Work{Step: step, Kind: "command", Start: start.Add(time.Second), Took: 2 * time.Second})
	p.Emit(core.Done{Step: step, Err: errors.New("exit code 2"), Time: start.Add(4 * time.Second), Duration: 3 * time.Second})
	p.Emit(core.Done{Step: core.Step{ID: "b", Number: 4, Name: "known"}, Cached: true, Time: start})
	for _, id := range []string{"x", "y"} { // side by side
		p.Emit(core.Transfer{ID: id, Name: "push " + id, Current: 1, Total: 10, Time: start})
	}
	for _, id := range []string{"x", "y"} {
		p.Emit(core.Transfer{ID: id, Name: "push " + id, Current: 10, Total: 10, Finished: true, Time: start.Add(time.Second)})
	}
	p.Emit(core.Notice{Text: "by the way", Time: start})
	require.Eventually(t, func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.trace.entries) > 8 }, 10*time.Second, every)
	require.NoError(t, p.Stop())

	spans := map[string]entry{}
	for _, e := range read(t, dir, "X") {
		spans[e.Name] = e
	}
	require.Len(t, spans, 5, "no span for what was known")
	require.Equal(t, int64(2_000_000), spans["command"].Took)
	whole := spans["[2/2] RUN make"]
	require.Equal(t, "exit code 2", whole.Args["error"])
	require.InDelta(t, 7, whole.Args["line"], 0)
	require.Equal(t, whole.Row, spans["command"].Row, "a step's work is in its row")
	require.NotEqual(t, spans["push x"].Row, spans["push y"].Row, "what goes on at once is in rows of its own")
	require.InDelta(t, 10, spans["push x"].Args["bytes"], 0)
	require.NotEmpty(t, read(t, dir, "C"), "memory")
	require.Len(t, read(t, dir, "i"), 1)
	for _, name := range []string{CPUFile, HeapFile} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, []byte{0x1f, 0x8b}, data[:2], "pprof's format is gzip")
	}
}

func TestADirectoryThatCannotBeWrittenIsSaidAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := Start(file)
	var e *core.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, core.KindUsage, e.Kind)
	require.Contains(t, e.Remedy, "can be written")
}
