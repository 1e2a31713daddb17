package frontend

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPlaceOfErrorsWithoutOne(t *testing.T) {
	for name, c := range map[string]struct {
		err, text  string
		start, end int
	}{
		"a stage's number": {"invalid stage index 7", "FROM scratch\nCOPY --from=1 a b\nCOPY --from=7 \\\n a b\n", 3, 4},
		"a directive":      {"invalid escape token 'x' does not match ` or \\", "# syntax=docker/dockerfile\n# escape = x\nFROM scratch\n", 2, 2},
		"another error":    {"target stage could not be found", "FROM scratch\n", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := placeOf(errors.New(c.err), "Dockerfile", []byte(c.text))
			if c.start == 0 {
				require.Nil(t, got)
				return
			}
			require.NotNil(t, got)
			require.Equal(t, []int{c.start, c.end}, []int{got.Start, got.End})
		})
	}
}
