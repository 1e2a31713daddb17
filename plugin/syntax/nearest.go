package syntax

import "strings"

// Nearest is the name that s was probably meant to be, or empty.
func Nearest(s string, names []string) string {
	best, limit := "", max(len(s)/3, 1)+1
	for _, n := range names {
		d := distance(s, n)
		if strings.HasPrefix(n, s) && len(s) > 2 {
			d = min(d, 1)
		}
		if d < limit || d == limit && best != "" && n < best {
			best, limit = n, d
		}
	}
	return best
}

// distance counts the single letters to change, add or remove, and the pairs to
// swap, between two short words.
func distance(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
