package display

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/layerwright/layerwright/core"
)

const (
	linesAround = 3  // of a Dockerfile, before and after what is at fault
	outputLines = 20 // of a failed step
)

// ErrorText is err for a person, some lines, ending in a line break: what, where
// with the Dockerfile's lines around it, the failing command's last output, and
// the remedy.
func ErrorText(err error, color bool) string {
	var b strings.Builder
	b.WriteString(paint(color, red, "ERROR:") + " " + indentRest(cleanText(err.Error())) + "\n")
	var e *core.Error
	if !errors.As(err, &e) {
		return b.String()
	}
	if e.Location != nil {
		writeSource(&b, e.Location, color)
	}
	if len(bytes.TrimSpace(e.Output)) > 0 {
		writeOutput(&b, e.Output, color)
	}
	if e.Kind == core.KindStep && e.ExitCode != 0 {
		fmt.Fprintf(&b, "\nexit code: %d%s\n", e.ExitCode, signalHint(e.ExitCode))
	}
	if r := remedy(e); r != "" {
		b.WriteString("\n" + paint(color, yellow, "remedy:") + " " + indentRest(cleanText(r)) + "\n")
	}
	return b.String()
}

// remedy is the error's own, or what helps with all errors of its kind. A step,
// a Dockerfile and a registry speak for themselves.
func remedy(e *core.Error) string {
	switch {
	case e.Remedy != "":
		return e.Remedy
	case e.Kind == core.KindEnvironment:
		return "layerwright doctor shows what this machine allows; --isolation, --snapshots and --store choose otherwise."
	case e.Kind == core.KindInternal:
		return "This is a defect of Layerwright: please report it with the Dockerfile and this output."
	}
	return ""
}

// signalHint explains the exit codes that the kernel rather than the command
// has chosen.
func signalHint(code int) string {
	switch code {
	case 137:
		return " (killed: often the memory limit)"
	case 139:
		return " (crashed: segmentation fault)"
	}
	return ""
}

// cleanText is clean for text of several lines.
func cleanText(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, l := range lines {
		lines[i] = clean([]byte(l), false)
	}
	return strings.Join(lines, "\n")
}

func indentRest(s string) string { return strings.ReplaceAll(s, "\n", "\n  ") }

func writeSource(b *strings.Builder, loc *core.Location, color bool) {
	if len(loc.Source) == 0 || loc.Start < 1 {
		return
	}
	lines := strings.Split(strings.TrimRight(string(loc.Source), "\n"), "\n")
	if loc.Start > len(lines) {
		return
	}
	end := min(max(loc.End, loc.Start), len(lines))
	first, last := max(loc.Start-linesAround, 1), min(end+linesAround, len(lines))
	digits := len(fmt.Sprint(last))
	fmt.Fprintf(b, "\n%s\n", loc)
	for n := first; n <= last; n++ {
		mark := "   "
		text := clean([]byte(strings.TrimRight(lines[n-1], "\r")), false)
		if n >= loc.Start && n <= end {
			mark, text = paint(color, red, ">>>"), paint(color, red, text)
		}
		b.WriteString(strings.TrimRight(fmt.Sprintf("  %*d | %s %s", digits, n, mark, text), " ") + "\n")
	}
}

func writeOutput(b *strings.Builder, output []byte, color bool) {
	lines := bytes.Split(bytes.TrimRight(output, "\r\n"), []byte{'\n'})
	b.WriteString("\nlast output of the step:\n")
	if n := len(lines) - outputLines; n > 0 {
		lines = lines[n:]
	}
	for _, l := range lines {
		b.WriteString(strings.TrimRight("  | "+clean(lastOverwrite(l), color), " ") + "\n")
	}
}

// summaryText says what a build has made.
func summaryText(o Outcome) string {
	var b strings.Builder
	if o.Result != nil {
		b.WriteString(cacheText(o.Result.Cache, o.ExplainCache))
		for _, d := range o.Result.Destinations {
			b.WriteString("pushed  " + d + "\n")
		}
	}
	for _, f := range o.Files {
		b.WriteString("wrote   " + f + "\n")
	}
	if o.Result != nil && o.Result.Digest != "" {
		b.WriteString("digest  " + o.Result.Digest + "\n")
	}
	if o.Took > 0 {
		b.WriteString("built in " + duration(o.Took) + "\n")
	}
	return b.String()
}
