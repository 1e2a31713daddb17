package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

// TestBenchWorks runs the program on a small scale: it measures everything that
// it should, and Layerwright's warm builds ask and fetch little. Times say nothing
// here.
func TestBenchWorks(t *testing.T) {
	dir := t.TempDir()
	var progress bytes.Buffer
	err := program(t.Context(), []string{"--base", "small", "--scale", "0.02", "-n", "1", "-w", "many-files,big-layer,branches,copy-tree,app,steps,files", "-b", "inplace,overlay,buildkit", "-o", dir}, io.Discard, &progress)
	if lacks := (*setUpError)(nil); errors.As(err, &lacks) {
		parts.Need(t, err)
	}
	require.NoError(t, err, progress.String())

	var rep report
	b, err := os.ReadFile(filepath.Join(dir, "benchmarks", "results.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &rep))
	require.Len(t, rep.workloads(), 5)
	for _, w := range stepWorkloads() {
		for _, builder := range []string{inplace, overlay, buildKit} {
			r, ok := rep.find(w.name, builder, cold)
			require.True(t, ok, "%s by %s", w.name, builder)
			require.Positive(t, r.Between)
		}
	}
	require.Positive(t, rep.Program.Bytes)
	require.Positive(t, rep.Program.StartSeconds)
	for _, w := range rep.workloads() {
		for _, builder := range []string{inplace, overlay, buildKit} {
			for _, state := range allStates {
				r, ok := rep.find(w, builder, state)
				require.True(t, ok, "%s by %s, %s", w, builder, state)
				require.Positive(t, r.Seconds)
				require.Positive(t, r.Requests)
				if state == cold {
					require.Positive(t, r.PeakBytes)
					require.Positive(t, r.Received)
				}
				if builder == buildKit || state == cold || state == cached {
					continue
				}
				// And a question and a mount for each blob that the destination lacks.
				require.LessOrEqual(t, r.Requests-r.Mounts, 12, "%s by %s, %s", w, builder, state)
				require.LessOrEqual(t, r.Received, int64(64<<10), "%s by %s, %s", w, builder, state)
			}
		}
	}
	r, ok := rep.find("big-layer", limit, cold)
	require.True(t, ok)
	require.Positive(t, r.Seconds)
	text, err := os.ReadFile(filepath.Join(dir, "benchmarks.md"))
	require.NoError(t, err)
	require.NotContains(t, string(text), dir)
	require.NotContains(t, string(text), "%!")
	for _, s := range allStates {
		require.Contains(t, string(text), "benchmarks/"+s+".svg")
		f, err := os.Open(filepath.Join(dir, "benchmarks", s+".svg"))
		require.NoError(t, err)
		require.NoError(t, wellFormed(f))
		require.NoError(t, f.Close())
	}
}

func wellFormed(r io.Reader) error {
	d := xml.NewDecoder(r)
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestRequestsAreCountedFromTheLog(t *testing.T) {
	const begin, end = `127.0.0.1 - - [24/Nov/2026:03:00:00 +0000] "`, ` "" "agent"` + "\n"
	r := count(begin + `GET /v2/ HTTP/1.1" 200 2` + end +
		begin + `HEAD /v2/a/manifests/1 HTTP/1.1" 200 500` + end +
		begin + `GET /v2/a/manifests/1 HTTP/1.1" 200 500` + end +
		"a line of something else\n" +
		begin + `POST /v2/a/blobs/uploads/?mount=sha256:1&from=b HTTP/1.1" 201 0` + end +
		begin + `POST /v2/a/blobs/uploads/?mount=sha256:2&from=b HTTP/1.1" 202 0` + end +
		begin + `POST /v2/a/blobs/uploads/ HTTP/1.1" 202 0` + end +
		begin + `DELETE /v2/a/blobs/uploads/1-2-3?_state=x HTTP/1.1" 204 0` + end)
	require.Equal(t, 1, r.Pings)
	require.Equal(t, 2, r.Permissions)
	require.Equal(t, 1, r.Mounts)
	require.Equal(t, 4, r.Counted)
	require.Equal(t, int64(502), r.Received)
}

func TestMediansAndRatios(t *testing.T) {
	require.Equal(t, 2, median([]int{3, 1, 2}))
	require.Equal(t, 2.5, median([]float64{4, 1, 2, 3}))
	var results []result
	for i, s := range []float64{3, 1, 2} {
		results = append(results,
			result{Workload: "app", Builder: inplace, State: cold, Seconds: s, StepSeconds: 0.5, PeakBytes: int64(i)},
			result{Workload: "app", Builder: buildKit, State: cold, Seconds: 2 * s, StepSeconds: 1})
	}
	rep := newReport(options{}, []namedBuilder{{name: buildKit}, {name: inplace}}, nil, t.TempDir(), results)
	require.Equal(t, []string{inplace, buildKit}, rep.builders)
	r, ok := rep.find("app", inplace, cold)
	require.True(t, ok)
	require.Equal(t, row{Workload: "app", Builder: inplace, State: cold, Builds: 3, Seconds: 2, Least: 1, Most: 3,
		OwnSeconds: 1.5, Ratio: 0.5, OwnRatio: 0.5, PeakBytes: 2}, r)
	require.Equal(t, []string{"app"}, rep.workloads())
}

// TestTargetsAreJudged: what is missed says by how much and comes first, what was not
// measured is not judged.
func TestTargetsAreJudged(t *testing.T) {
	results := []result{
		{Workload: "app", Builder: inplace, State: cold, Seconds: 1},
		{Workload: "app", Builder: buildKit, State: cold, Seconds: 2},
		{Workload: "many-files", Builder: inplace, State: cold, Seconds: 3},
		{Workload: "many-files", Builder: buildKit, State: cold, Seconds: 2},
		{Workload: "big-layer", Builder: inplace, State: cold, Seconds: 4, PeakBytes: 32 << 20},
	}
	rep := newReport(options{scale: 1}, []namedBuilder{{name: buildKit}, {name: inplace}}, nil, t.TempDir(), results)
	var b bytes.Buffer
	rep.judge(func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) })
	require.Contains(t, b.String(), "2 met and 1 missed")
	require.Contains(t, b.String(), "|---|---|---:|---:|---|\n| many-files, cold ÷ BuildKit | inplace | 0.90 | 1.50 | missed by 67 % |\n")
	require.Contains(t, b.String(), "| app, cold ÷ BuildKit | inplace | 0.90 | 0.50 | met |\n")
	require.Contains(t, b.String(), "| big-layer, peak memory, cold | inplace | 64 MiB | 32.00 MiB | met |\n")
	require.NotContains(t, b.String(), "copy-tree")
}

// TestAddKeepsTheRest: what is measured again replaces what was there, and nothing is
// compared with a report of other sizes.
func TestAddKeepsTheRest(t *testing.T) {
	dir := t.TempDir()
	o := options{output: dir, scale: 1, base: debian, repetitions: 1, workloads: []string{"app"}, builders: []string{inplace}, states: []string{cold}}
	old, err := earlier(o)
	require.NoError(t, err)
	require.Empty(t, old.Results)
	o.add = true
	_, err = earlier(o)
	require.ErrorContains(t, err, "results.json")
	kept := []result{{Workload: "app", Builder: inplace, State: warm, Seconds: 2}, {Workload: "app", Builder: buildah, State: cold, Seconds: 3}, {Workload: "apt", Builder: inplace, State: cold, Seconds: 4}}
	rep := newReport(o, []namedBuilder{{name: inplace}}, nil, dir, append([]result{{Workload: "app", Builder: inplace, State: cold, Seconds: 1}}, kept...))
	require.Equal(t, []string{inplace, buildah}, rep.builders)
	require.NoError(t, rep.write(dir))
	old, err = earlier(o)
	require.NoError(t, err)
	require.Equal(t, kept, old.Results)
	o.scale = 0.5
	_, err = earlier(o)
	require.ErrorContains(t, err, "scale 1 on the debian base")
}

// TestAReportNamesTheProgramThatWasMeasured, not one that was only built beside it.
func TestAReportNamesTheProgramThatWasMeasured(t *testing.T) {
	before := report{Versions: map[string]string{"layerwright": "v1", overlay: "v1", buildKit: "b1"}, Program: binary{Bytes: 1}}
	now := map[string]string{"layerwright": "v2", buildah: "a2"}
	versions, program := described(options{builders: []string{buildah}}, before, now, binary{Bytes: 2})
	require.Equal(t, map[string]string{"layerwright": "v1", overlay: "v1", buildKit: "b1", buildah: "a2"}, versions)
	require.Equal(t, binary{Bytes: 1}, program)
	versions, program = described(options{builders: []string{inplace}}, before, now, binary{Bytes: 2})
	require.Equal(t, "v2", versions["layerwright"])
	require.Equal(t, binary{Bytes: 2}, program)
	versions, _ = described(options{builders: []string{buildah}}, report{}, now, binary{Bytes: 2})
	require.Equal(t, "v2", versions["layerwright"], "nothing was measured before")
}

func TestContextsAreTheSameEachTime(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, w := range workloads() {
		require.NoError(t, w.write(filepath.Join(a, w.name), "base:1", 0.01))
		require.NoError(t, w.write(filepath.Join(b, w.name), "base:1", 0.01))
	}
	require.Equal(t, files(t, a), files(t, b))
}

func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		out[p[len(dir):]] = string(b)
		return err
	}))
	return out
}

func TestStepsTellTheirTime(t *testing.T) {
	r, w := io.Pipe()
	go func() {
		_, _ = io.WriteString(w, before+"\n#5 0.1 step took 1230 ms\n#6 RUN echo step took $((1))0 ms\n#7 0.2 step took 20 ms\n"+after+"\nlast")
		_ = w.Close()
	}()
	began, ended, ran, output, err := follow(r)
	require.NoError(t, err)
	require.Len(t, ran, 2)
	// The second step ended when the first one did: it ran beside it and counts once.
	require.InDelta(t, (1230 * time.Millisecond).Seconds(), covered(ran).Seconds(), 0.01)
	require.False(t, began.IsZero() || ended.Before(began))
	require.NotContains(t, output, "bench:")
	require.Contains(t, output, "last")
}

func TestFlagsAreChecked(t *testing.T) {
	for name, args := range map[string][]string{
		"workload": {"-w", "apps"}, "builder": {"-b", "kaniko"}, "state": {"-s", "hot"}, "base": {"--base", "x"},
		"repetitions": {"-n", "0"}, "scale": {"--scale", "0"}, "argument": {"app"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(args, io.Discard)
			require.Error(t, err)
		})
	}
	o, err := parse([]string{"--base", "small"}, io.Discard)
	require.NoError(t, err)
	require.False(t, slices.Contains(o.workloads, "apt"))
}

func TestCovered(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	require.Equal(t, 7*time.Second, covered([]span{{at(4), at(5)}, {at(0), at(2)}, {at(1), at(6)}, {at(8), at(9)}}))
	require.Zero(t, covered(nil))
}

// TestBetween: what is between steps is the builder's, the time after the first excepted.
func TestBetween(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	require.Equal(t, 2*time.Second, between([]span{{at(0), at(1)}, {at(100), at(101)}, {at(104), at(105)}, {at(106), at(110)}}))
	// Lines that come late, two at once, change nothing in the sum.
	require.Equal(t, 2*time.Second, between([]span{{at(0), at(1)}, {at(100), at(101)}, {at(105), at(106)}, {at(106), at(110)}}))
	require.Zero(t, between([]span{{at(0), at(1)}, {at(2), at(3)}}))
}
