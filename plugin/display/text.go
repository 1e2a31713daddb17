package display

import (
	"bytes"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/docker/go-units"
	"golang.org/x/text/width"
)

// SGR sequences; the only ones that the views put into lines.
const (
	reset  = "\x1b[0m"
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	blue   = "\x1b[34m"
	faint  = "\x1b[2m"
)

// paint colours s where colours are allowed.
func paint(on bool, sgr, s string) string {
	if !on || s == "" {
		return s
	}
	return sgr + s + reset
}

// duration is "4.2s", "3m07s", "1h02m".
func duration(d time.Duration) string {
	switch {
	case d < 0:
		return "0.0s"
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
}

// size is "28.2MB".
func size(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// rate is "9.1MB/s", empty where too little time has passed to tell.
func rate(n int64, d time.Duration) string {
	if d < 100*time.Millisecond || n <= 0 {
		return ""
	}
	return size(int64(float64(n)/d.Seconds())) + "/s"
}

// oneLine makes a name or message fit for a single line: no control
// characters, no line breaks.
func oneLine(s string) string {
	return strings.Join(strings.Fields(clean([]byte(strings.ReplaceAll(s, "\n", " ")), false)), " ")
}

// lastOverwrite is what a terminal would still show of a line with carriage
// returns in it (progress bars).
func lastOverwrite(line []byte) []byte {
	line = bytes.TrimRight(line, "\r")
	if i := bytes.LastIndexByte(line, '\r'); i >= 0 {
		line = line[i+1:]
	}
	return line
}

// clean makes a line of a step's output safe to show: it cannot move the
// cursor, clear the screen, set the title or start a line of its own. Colours
// stay where allowed, and end with the line.
func clean(line []byte, color bool) string {
	var b strings.Builder
	colored := false
	for i := 0; i < len(line); {
		if line[i] == 0x1b {
			n := escapeLen(line[i:])
			if color && n > 2 && line[i+1] == '[' && line[i+n-1] == 'm' {
				b.Write(line[i : i+n])
				colored = true
			}
			i += n
			continue
		}
		r, n := utf8.DecodeRune(line[i:])
		i += n
		if r == '\t' || !unicode.IsControl(r) {
			b.WriteRune(r)
		}
	}
	if colored {
		b.WriteString(reset)
	}
	return b.String()
}

// escapeLen is the length of the escape sequence that b starts with.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return len(b)
	}
	switch b[1] {
	case '[': // CSI: parameters, then one byte from @ to ~
		for i := 2; i < len(b); i++ {
			if b[i] >= 0x40 && b[i] <= 0x7e {
				return i + 1
			}
		}
		return len(b)
	case ']', 'P', '_', '^', 'X': // strings: up to BEL or ESC \
		for i := 2; i < len(b); i++ {
			if b[i] == 0x07 {
				return i + 1
			}
			if b[i] == 0x1b && i+1 < len(b) && b[i+1] == '\\' {
				return i + 2
			}
		}
		return len(b)
	}
	return 2
}

// cells is how many columns r takes in a terminal.
func cells(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case width.LookupRune(r).Kind() == width.EastAsianWide,
		width.LookupRune(r).Kind() == width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// fit cuts s to w columns, with an ellipsis where something is lost, and
// says how many columns are left. s has no control characters.
func fit(s string, w int) (string, int) {
	s = strings.ReplaceAll(s, "\t", "    ")
	used := 0
	for i, r := range s {
		if used += cells(r); used > w {
			return cut(s[:i], w)
		}
	}
	return s, w - used
}

// cut makes room for an ellipsis at the end of s, which is as wide as w.
func cut(s string, w int) (string, int) {
	if w <= 1 {
		return "", max(w, 0)
	}
	used := 0
	for i, r := range s {
		if used+cells(r) > w-1 {
			s = s[:i]
			break
		}
		used += cells(r)
	}
	return s + "…", w - used - 1
}

// lineBuffer cuts a stream into lines.
type lineBuffer struct{ buf []byte }

// maxLine is how much of a line without an end is kept back.
const maxLine = 16 << 10

// add calls line for each line that data completes. line must not keep it.
func (l *lineBuffer) add(data []byte, line func([]byte)) {
	for {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			break
		}
		if len(l.buf) > 0 {
			l.buf = append(l.buf, data[:i]...)
			line(lastOverwrite(l.buf))
			l.buf = l.buf[:0]
		} else {
			line(lastOverwrite(data[:i]))
		}
		data = data[i+1:]
	}
	l.buf = append(l.buf, data...)
	if len(l.buf) > maxLine {
		l.buf = append(l.buf[:0], lastOverwrite(l.buf)...)
	}
	if len(l.buf) > maxLine {
		l.flush(line)
	}
}

// flush gives out the unfinished line, if there is one.
func (l *lineBuffer) flush(line func([]byte)) {
	if rest := lastOverwrite(l.buf); len(rest) > 0 {
		line(rest)
	}
	l.buf = l.buf[:0]
}
