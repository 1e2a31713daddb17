package tags

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// momentToken is one part of a format, longest first: text in brackets, a token,
// or any other character.
var momentToken = regexp.MustCompile(`\[[^\]]*\]|YYYY|YY|Y|GGGG|GG|MMMM|MMM|MM|Mo|M|DDDD|DDD|DD|Do|D|dddd|ddd|dd|d|E|WW|W|Qo|Q|HH|H|hh|h|kk|k|mm|m|ss|s|S{1,9}|A|a|ZZ|Z|X|x|[\s\S]`)

// layouts are tokens that Go's own formats have.
var layouts = map[string]string{
	"YYYY": "2006", "YY": "06", "MMMM": "January", "MMM": "Jan", "MM": "01", "M": "1",
	"DD": "02", "D": "2", "dddd": "Monday", "ddd": "Mon", "HH": "15", "hh": "03", "h": "3",
	"mm": "04", "m": "4", "ss": "05", "s": "5", "A": "PM", "a": "pm", "ZZ": "-0700", "Z": "-07:00",
}

// moment renders a time by a format of moment.js (momentjs.com, "Display,
// Format"), in English. Tokens that need a locale (w, e, L, …) are refused.
func moment(t time.Time, format string) (string, error) {
	var bad error
	out := momentToken.ReplaceAllStringFunc(format, func(token string) string {
		if layout, ok := layouts[token]; ok {
			return t.Format(layout)
		}
		if s, ok := number(t, token); ok {
			return s
		}
		switch c := token[0]; {
		case c == '[' && len(token) > 1:
			return token[1 : len(token)-1]
		case (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') && c != 'T':
			bad = fmt.Errorf("the format %q has an unknown token %s; text stands in [brackets]", format, token)
		}
		return token
	})
	return out, bad
}

func number(t time.Time, token string) (string, bool) {
	isoYear, week := t.ISOWeek()
	quarter := (int(t.Month()) + 2) / 3
	n, width := 0, 1
	switch token {
	case "Y":
		n = t.Year()
	case "GGGG":
		n, width = isoYear, 4
	case "GG":
		n, width = isoYear%100, 2
	case "W":
		n = week
	case "WW":
		n, width = week, 2
	case "DDD":
		n = t.YearDay()
	case "DDDD":
		n, width = t.YearDay(), 3
	case "H":
		n = t.Hour()
	case "k":
		n = (t.Hour()+23)%24 + 1
	case "kk":
		n, width = (t.Hour()+23)%24+1, 2
	case "d":
		n = int(t.Weekday())
	case "E":
		n = (int(t.Weekday())+6)%7 + 1
	case "Q":
		n = quarter
	case "dd":
		return t.Format("Mon")[:2], true
	case "Mo":
		return ordinal(int(t.Month())), true
	case "Do":
		return ordinal(t.Day()), true
	case "Qo":
		return ordinal(quarter), true
	case "X":
		return strconv.FormatInt(t.Unix(), 10), true
	case "x":
		return strconv.FormatInt(t.UnixMilli(), 10), true
	default:
		if token[0] == 'S' {
			return fmt.Sprintf("%09d", t.Nanosecond())[:len(token)], true
		}
		return "", false
	}
	return fmt.Sprintf("%0*d", width, n), true
}

func ordinal(n int) string {
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return strconv.Itoa(n) + suffix
}
