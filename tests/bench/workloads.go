package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// workload is one Dockerfile with its context. Bytes of the context are the same
// in every run; only big-layer makes its bytes while it builds.
type workload struct {
	name, about string
	// dockerfile is written for a base image and a scale.
	dockerfile func(base string, scale float64) string
	// context writes the other files, if there are any.
	context func(dir string, scale float64) error
	// platforms are those to build for; none is the machine's. Such workloads are
	// only measured cold, and by who builds for several platforms.
	platforms []string
	// aside says that it has a section of its own, and is only measured cold.
	aside bool
}

func workloadNames() []string {
	var out []string
	for _, w := range workloads() {
		out = append(out, w.name)
	}
	return out
}

func workloads() []workload {
	return append([]workload{
		{name: "many-files", about: "20,000 small files made by one RUN, then five tiny RUNs", dockerfile: manyFiles},
		{name: "big-layer", about: "400 MB of random bytes in one stage, COPY --from, RUN", dockerfile: bigLayer},
		{name: "branches", about: "three stages on one base, each `sleep 4`, joined by COPY --from", dockerfile: branches},
		{name: "copy-tree", about: "COPY of 11,500 files, 156 MB, no RUN", context: copyTreeContext,
			dockerfile: func(base string, _ float64) string { return "FROM " + base + "\nCOPY tree /tree\n" }},
		{name: "app", about: "a stage of 3,000 dependencies, a build stage on it, a final stage with two COPY --from and a RUN",
			dockerfile: app, context: appContext},
		{name: "apt", about: "`apt-get update && apt-get install curl` on Debian, from whatever mirror the base image names",
			dockerfile: func(base string, _ float64) string {
				return "FROM " + base + "\n" + run("apt-get update && apt-get install -y curl")
			}},
		{name: crossOne, about: "a Go service, compiled with this machine's Go toolchain (COPYed) for one platform", dockerfile: cross, context: crossContext,
			platforms: crossPlatforms[:1]},
		{name: crossFour, about: "the same for four platforms in one build, each compiled on the machine's own processor", dockerfile: cross, context: crossContext,
			platforms: crossPlatforms[:]},
	}, stepWorkloads()...)
}

func scaled(n int, scale float64) int { return max(1, int(float64(n)*scale)) }

// run is a RUN that says how long its command took, whatever the builder does
// before and after. Every shell can read the kernel's clock of centiseconds.
func run(command string) string {
	return "RUN read began _ < /proc/uptime && { " + command + "; } && read ended _ < /proc/uptime && " +
		"echo step took $((${ended%.*}${ended#*.}-${began%.*}${began#*.}))0 ms\n"
}

func manyFiles(base string, scale float64) string {
	text := "FROM " + base + "\n" + run(fmt.Sprintf(
		"mkdir /files && cd /files && for d in $(seq %d); do mkdir $d && for f in $(seq 100); do echo $d $f > $d/$f || exit 1; done; done", scaled(200, scale)))
	for i := range 5 {
		text += run(fmt.Sprintf("echo %d > /tiny-%[1]d", i))
	}
	return text
}

func bigLayer(base string, scale float64) string {
	return "FROM " + base + " AS big\n" +
		run(fmt.Sprintf("dd if=/dev/urandom of=/big bs=1000000 count=%d iflag=fullblock status=none", scaled(400, scale))) +
		"FROM " + base + "\nCOPY --from=big /big /big\n" + run("ls -l /big > /listing")
}

func branches(base string, scale float64) string {
	var stages, joined strings.Builder
	for _, s := range []string{"a", "b", "c"} {
		fmt.Fprintf(&stages, "FROM %s AS %s\n%s", base, s, run(fmt.Sprintf("sleep %.2f && echo %s > /%[2]s", 4*scale, s)))
		fmt.Fprintf(&joined, "COPY --from=%s /%[1]s /%[1]s\n", s)
	}
	return stages.String() + "FROM " + base + "\n" + joined.String()
}

func app(base string, scale float64) string {
	return "FROM " + base + " AS deps\nWORKDIR /app\nCOPY dependencies .\n" +
		run(fmt.Sprintf("mkdir modules && for d in $(seq %d); do mkdir modules/$d && for f in $(seq 30); do cat dependencies > modules/$d/$f && echo $d $f >> modules/$d/$f || exit 1; done; done", scaled(100, scale))) +
		"FROM deps AS build\nCOPY src src\n" + run("mkdir dist && cat src/* > dist/app && find modules -type f | sort > dist/modules") +
		"FROM " + base + "\nWORKDIR /app\nCOPY --from=deps /app/modules modules\nCOPY --from=build /app/dist dist\n" + run("echo ready > ready")
}

func appContext(dir string, scale float64) error {
	w := newWriter(2)
	if err := w.file(filepath.Join(dir, "dependencies"), 2000); err != nil {
		return err
	}
	for i := range scaled(40, scale) {
		if err := w.file(filepath.Join(dir, "src", fmt.Sprint(i)), 5000); err != nil {
			return err
		}
	}
	return nil
}

func copyTreeContext(dir string, scale float64) error {
	w := newWriter(1)
	for i := range scaled(11500, scale) {
		// Most files of a source tree are small, and some are not.
		size := 2000 + i%100*120
		if i%50 == 0 {
			size += 280000
		}
		if err := w.file(filepath.Join(dir, "tree", fmt.Sprint(i%10), fmt.Sprint(i%115), fmt.Sprint(i)), size); err != nil {
			return err
		}
	}
	return nil
}

// writer writes files that compress about as well as source code.
type writer struct {
	random *rand.Rand
	words  [][]byte
}

func newWriter(seed uint64) *writer {
	w := &writer{random: rand.New(rand.NewPCG(seed, seed))}
	for range 2000 {
		word := make([]byte, 2+w.random.IntN(10))
		for i := range word {
			word[i] = byte('a' + w.random.IntN(26))
		}
		w.words = append(w.words, append(word, " \n"[w.random.IntN(2)]))
	}
	return w
}

func (w *writer) file(path string, size int) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	var b bytes.Buffer
	for b.Len() < size {
		b.Write(w.words[w.random.IntN(len(w.words))])
	}
	return os.WriteFile(path, b.Bytes()[:size], 0o644)
}

// write makes a workload's context in dir.
func (w workload) write(dir, base string, scale float64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if w.context != nil {
		if err := w.context(dir, scale); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(w.dockerfile(base, scale)), 0o644)
}
