package snapshot

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/needs"
)

// asked is what a claim gets.
type asked struct {
	number  int
	inPlace bool
	err     error
}

// ask acquires in the background.
func ask(ctx context.Context, c *claims, number int, out chan<- asked) {
	go func() {
		inPlace, err := c.acquire(ctx, number, false)
		out <- asked{number, inPlace, err}
	}()
}

// waitFor waits until a claim is in a state.
func (c *claims) waitFor(t *testing.T, number int, s claimState) {
	t.Helper()
	require.Eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.states[number] == s
	}, 10*time.Second, time.Millisecond)
}

func TestNobodyWaitsForWhoHasNotAsked(t *testing.T) {
	c := newClaims([]int{1, 2, 3}, func() {})
	inPlace, err := c.acquire(t.Context(), 2, false)
	require.NoError(t, err)
	require.False(t, inPlace, "two others may still want the tree")
	c.copied()
	c.set(2, gone)
	inPlace, err = c.acquire(t.Context(), 0, false)
	require.NoError(t, err)
	require.False(t, inPlace)
	c.copied()
	c.set(0, gone)
	inPlace, err = c.acquire(t.Context(), 1, false)
	require.NoError(t, err)
	require.True(t, inPlace, "nobody else is left")
}

func TestBranchesAreMadeOneAfterAnotherTheLowestFirst(t *testing.T) {
	c := newClaims([]int{1, 2, 3, 4}, func() {})
	out := make(chan asked)
	inPlace, err := c.acquire(t.Context(), 1, false)
	require.NoError(t, err)
	require.False(t, inPlace)
	for _, i := range []int{2, 0} { // while 1 is copying
		ask(t.Context(), c, i, out)
		c.waitFor(t, i, asking)
	}
	c.copied()
	c.set(1, gone)
	require.Equal(t, asked{number: 0}, <-out, "the lowest comes first")
	c.copied()
	c.set(0, gone)
	require.Equal(t, asked{number: 2}, <-out)
}

func TestTheLastOneWaitsForThoseAtWorkAndChangesInPlace(t *testing.T) {
	empty := false
	c := newClaims([]int{1, 2}, func() { empty = true })
	c.set(0, viewing)
	out := make(chan asked)
	ask(t.Context(), c, 1, out)
	c.waitFor(t, 1, asking)
	select {
	case a := <-out:
		t.Fatalf("did not wait for the one who looks: %+v", a)
	case <-time.After(20 * time.Millisecond):
	}
	c.set(0, gone)
	require.Equal(t, asked{number: 1, inPlace: true}, <-out)
	require.False(t, empty)
	c.set(1, gone)
	require.True(t, empty)
}

// Each looks at what the other one wants to change.
func TestTwoStatesInACircleDoNotWaitForEachOther(t *testing.T) {
	one, two := newClaims([]int{1, 2}, func() {}), newClaims([]int{1, 2}, func() {})
	one.set(0, viewing)
	two.set(1, viewing)
	out := make(chan asked, 2)
	ask(t.Context(), two, 0, out) // 1 changes two, which 2 looks at
	require.Equal(t, asked{number: 0}, <-out, "a branch: 2 is not waited for")
	two.copied()
	two.set(0, gone)
	ask(t.Context(), one, 1, out) // 2 changes one, which 1 looks at: it waits
	one.set(0, gone)
	require.Equal(t, asked{number: 1, inPlace: true}, <-out)
}

// Two trees are unpacked at once where two will be changed: no copy is made.
func TestALayerIsUnpackedForTwoBranchesAtOnce(t *testing.T) {
	needs.Root(t)
	s, err := NewFlat(filepath.Join(t.TempDir(), "s"), Options{})
	require.NoError(t, err)
	opened := 0
	state := s.FromLayers([]v1.Layer{&counted{tarLayer(t, "d/", "d/a=1", "d/b=22", "l -> d/a", "h >> d/a"), &opened}})
	state.Expect(Use{Changers: 2})
	claims := state.Claims([]int{1, 2})
	first, err := claims[0].Mutate(t.Context())
	require.NoError(t, err)
	write(t, first.Dir()+"/d/a", "changed")
	second, err := claims[1].Mutate(t.Context())
	require.NoError(t, err)
	got, err := os.ReadFile(second.Dir() + "/d/a")
	require.NoError(t, err)
	require.Equal(t, "1", string(got))
	require.Equal(t, 1, opened, "the layer was read more than once")
	capture, tar := capturing(t)
	_, err = first.Commit(t.Context(), Changes{}, capture)
	require.NoError(t, err)
	require.Contains(t, string(tar()), "d/a")
	require.NotContains(t, string(tar()), "d/b", "the index of the tree does not know its files")
	require.NoError(t, second.Discard())
	require.NoError(t, s.Close())
}

// counted counts how often a layer is read.
type counted struct {
	v1.Layer
	opened *int
}

func (c *counted) Uncompressed() (io.ReadCloser, error) {
	*c.opened++
	return c.Layer.Uncompressed()
}
