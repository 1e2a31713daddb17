package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A Go service for one platform and for four: what the other three cost beside their
// compiling. "cross" selects both.
const (
	crossName = "cross"
	crossOne  = "cross-1"
	crossFour = "cross-4"
)

var crossPlatforms = [...]string{"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x"}

func cross(base string, _ float64) string {
	return "FROM --platform=$BUILDPLATFORM " + base + " AS toolchain\nCOPY go /usr/local/go\n" +
		"FROM toolchain AS build\nWORKDIR /src\nCOPY go.mod main.go ./\nARG TARGETOS TARGETARCH\n" +
		run("CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-buildvcs=false HOME=/tmp GOOS=$TARGETOS GOARCH=$TARGETARCH /usr/local/go/bin/go build -trimpath -o /service .") +
		"FROM scratch\nCOPY --from=build /service /service\nENTRYPOINT [\"/service\"]\n"
}

const crossService = `package main

import (
	"log"
	"net/http"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello\\n")) })
	log.Fatal(http.ListenAndServe(":8080", nil))
}
`

// crossContext copies the toolchain, without its tests, beside a service that needs
// nothing but the standard library.
func crossContext(dir string, _ float64) error {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("find the Go toolchain: %w", err)
	}
	root := strings.TrimSpace(string(out))
	for _, part := range []string{"bin", "pkg/tool", "pkg/include", "src", "go.env", "VERSION"} {
		to := filepath.Join(dir, "go", part)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if out, err := exec.Command("cp", "-rL", "--no-preserve=mode", filepath.Join(root, part), to).CombinedOutput(); err != nil {
			return fmt.Errorf("copy the Go toolchain: %w\n%s", err, out)
		}
	}
	out, err = exec.Command("chmod", "-R", "a+rX,a+x", filepath.Join(dir, "go/bin"), filepath.Join(dir, "go/pkg/tool")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy the Go toolchain: %w\n%s", err, out)
	}
	for name, text := range map[string]string{"go.mod": "module example.org/service\n\ngo 1.21\n", "main.go": crossService} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// cross is what four platforms cost by the measure of one: without what compiling for
// the other three took.
func (rep *report) cross(line func(string, ...any)) {
	first := true
	for _, b := range rep.builders {
		one, ok := rep.find(crossOne, b, cold)
		four, also := rep.find(crossFour, b, cold)
		if !ok || !also {
			continue
		}
		if first {
			line("\n## Four platforms in one build\n")
			line("Cold. Compiling is what the commands of the steps took, together where they ran at the same time;")
			line("the ratio is that of four platforms, without compiling for three of them, to one.\n")
			line("| builder | one platform | of which compiling | four | of which compiling | ratio |\n|---|---:|---:|---:|---:|---:|")
			first = false
		}
		compileOne, compileFour := one.Seconds-one.OwnSeconds, four.Seconds-four.OwnSeconds
		line("| %s | %s | %s | %s | %s | %.2f |", b, secondsText(one.Seconds), secondsText(compileOne), secondsText(four.Seconds), secondsText(compileFour),
			(four.Seconds-(compileFour-compileOne))/one.Seconds)
	}
}
