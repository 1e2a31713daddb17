package snapshot

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
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
		inPlace, err := c.acquire(ctx, number, demand{})
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
	inPlace, err := c.acquire(t.Context(), 2, demand{})
	require.NoError(t, err)
	require.False(t, inPlace, "two others may still want the tree")
	c.copied()
	c.set(2, gone)
	inPlace, err = c.acquire(t.Context(), 0, demand{})
	require.NoError(t, err)
	require.False(t, inPlace)
	c.copied()
	c.set(0, gone)
	inPlace, err = c.acquire(t.Context(), 1, demand{})
	require.NoError(t, err)
	require.True(t, inPlace, "nobody else is left")
}

func TestBranchesAreMadeOneAfterAnotherTheLowestFirst(t *testing.T) {
	c := newClaims([]int{1, 2, 3, 4}, func() {})
	out := make(chan asked)
	inPlace, err := c.acquire(t.Context(), 1, demand{})
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

// Who looks and needs nothing more is waited for, whatever its index is: to copy the
// tree takes longer. So is, for a moment, who may come to that.
func TestWhoHasSettledIsWaitedFor(t *testing.T) {
	c := newClaims([]int{1, 2}, func() {})
	c.set(1, viewing)
	out := make(chan asked)
	go func() {
		inPlace, err := c.acquire(t.Context(), 0, demand{patience: time.Minute})
		out <- asked{0, inPlace, err}
	}()
	c.waitFor(t, 0, asking)
	time.Sleep(2 * aMoment)
	c.settle(1)
	select {
	case a := <-out:
		t.Fatalf("did not wait for the one who looks: %+v", a)
	case <-time.After(5 * aMoment):
	}
	c.set(1, gone)
	c.settle(1) // too late to matter
	require.Equal(t, asked{number: 0, inPlace: true}, <-out)

	// Neither one who does not settle is waited for, nor one who does not ask.
	for _, s := range []claimState{viewing, pending} {
		c = newClaims([]int{1, 2}, func() {})
		c.set(1, s)
		patience := 2 * aMoment
		if s == pending {
			patience = time.Hour
		}
		inPlace, err := c.acquire(t.Context(), 0, demand{patience: patience})
		require.NoError(t, err)
		require.False(t, inPlace)
	}
}

// Who looks and asks for a branch waits for those of a lower index: they do not wait
// for him.
func TestWhoKeepsWhatHeLooksAtIsNotWaitedFor(t *testing.T) {
	c := newClaims([]int{1, 2}, func() {})
	c.set(1, viewing)
	out := make(chan asked, 2)
	for i, d := range []demand{{patience: time.Minute}, {keep: true}} {
		go func() {
			inPlace, err := c.acquire(t.Context(), i, d)
			c.copied()
			if i == 0 {
				c.set(0, gone)
			}
			out <- asked{i, inPlace, err}
		}()
	}
	got := map[asked]bool{<-out: true, <-out: true}
	require.Equal(t, map[asked]bool{{number: 0}: true, {number: 1}: true}, got)
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

// Who changes a base first gets its tree at once, and the next one has it unpacked
// again: the first step waits for no copy.
func TestABaseIsUnpackedAgainForTheNextBranch(t *testing.T) {
	s, state, opened := countedState(t)
	claims := state.Claims([]int{1, 2, 3})
	first, err := claims[0].Mutate(t.Context())
	require.NoError(t, err)
	write(t, first.Dir()+"/d/a", "changed")
	require.EqualValues(t, 1, opened.Load())
	for i, inPlace := range []bool{false, true} {
		next, err := claims[1+i].Mutate(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 2+i, opened.Load(), "in place: %v", inPlace)
		require.NotEqual(t, first.Dir(), next.Dir())
		got, err := os.ReadFile(next.Dir() + "/d/a")
		require.NoError(t, err)
		require.Equal(t, "1", string(got))
		require.NoError(t, next.Discard())
	}
	capture, tar := capturing(t)
	_, err = first.Commit(t.Context(), Changes{}, capture)
	require.NoError(t, err)
	require.Contains(t, string(tar()), "d/a")
	require.NotContains(t, string(tar()), "d/b", "the index of the tree does not know its files")
	require.NoError(t, s.Close())
}

// Where somebody looks at the tree it stays, and a branch is a copy.
func TestABaseThatIsLookedAtIsCopied(t *testing.T) {
	s, state, opened := countedState(t)
	claims := state.Claims([]int{1, 2})
	v, err := claims[1].View(t.Context())
	require.NoError(t, err)
	first, err := claims[0].Mutate(t.Context())
	require.NoError(t, err)
	require.NotEqual(t, v.Dir(), first.Dir())
	write(t, first.Dir()+"/d/a", "changed")
	got, err := os.ReadFile(v.Dir() + "/d/a")
	require.NoError(t, err)
	require.Equal(t, "1", string(got))
	require.EqualValues(t, 1, opened.Load(), "it was read again")
	require.NoError(t, v.Close())
	require.NoError(t, first.Discard())
	require.NoError(t, s.Close())
}

// Where another one has announced itself, its tree is made anew before it asks.
func TestAGivenTreeIsMadeAgainForWhoWillAsk(t *testing.T) {
	s, state, opened := countedState(t)
	claims := state.Claims([]int{1, 2})
	claims[1].Prepare(t.Context(), false)
	require.Zero(t, opened.Load(), "it may not be needed")
	first, err := claims[0].Mutate(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return opened.Load() == 2 }, 10*time.Second, time.Millisecond, "not before it is asked for")
	second, err := claims[1].Mutate(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, opened.Load(), "it was read once more")
	require.NoError(t, first.Discard())
	require.NoError(t, second.Discard())
	require.NoError(t, s.Close())
}

// Whoever waits for a tree that another one makes leaves with his context; what is made
// ahead ends with the store.
func TestNobodyWaitsForATreeAfterHisEnd(t *testing.T) {
	needs.Root(t)
	s, err := NewFlat(filepath.Join(t.TempDir(), "s"), Options{})
	require.NoError(t, err)
	opened, hold := new(atomic.Int32), make(chan struct{})
	state := s.FromLayers([]v1.Layer{&held{counted{tarLayer(t, "d/", "d/a=1"), opened}, hold}})
	claims := state.Claims([]int{1, 2, 3})
	claims[1].Prepare(t.Context(), false)
	go func() { hold <- struct{}{} }()
	first, err := claims[0].Mutate(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return opened.Load() == 2 }, 10*time.Second, time.Millisecond, "it is made again")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = claims[2].View(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	close(hold)
	require.NoError(t, first.Discard())
	require.NoError(t, s.Close())
}

// held is a layer whose reading waits.
type held struct {
	counted
	hold chan struct{}
}

func (h *held) Uncompressed() (io.ReadCloser, error) {
	rc, err := h.counted.Uncompressed()
	<-h.hold
	return rc, err
}

// A tree that has been given away is not made for who has asked, or gone.
func TestAPreparationThatComesTooLateMakesNothing(t *testing.T) {
	s, state, opened := countedState(t)
	claims := state.Claims([]int{1})
	m, err := claims[0].Mutate(t.Context())
	require.NoError(t, err)
	claims[0].Prepare(t.Context(), true)
	require.EqualValues(t, 1, opened.Load())
	require.NoError(t, m.Discard())
	require.NoError(t, s.Close())
}

// The same where it announces itself when the tree has been given away.
func TestAGivenTreeIsMadeAgainForALateOne(t *testing.T) {
	s, state, opened := countedState(t)
	claims := state.Claims([]int{1, 2})
	first, err := claims[0].Mutate(t.Context())
	require.NoError(t, err)
	claims[1].Prepare(t.Context(), false)
	require.EqualValues(t, 2, opened.Load())
	require.NoError(t, first.Discard())
	require.NoError(t, s.Close())
}

// A tree that a command has made is not only what its layers say (times, ignored
// paths): it is copied.
func TestACommandsTreeIsCopied(t *testing.T) {
	s, base, _ := countedState(t)
	m, err := base.Claims([]int{1})[0].Mutate(t.Context())
	require.NoError(t, err)
	write(t, m.Dir()+"/d/ignored", "x")
	capture, _ := capturing(t)
	state, err := m.Commit(t.Context(), Changes{Ignore: []string{"/d/ignored"}}, capture)
	require.NoError(t, err)
	claims := state.Claims([]int{2, 3})
	for _, c := range claims {
		next, err := c.Mutate(t.Context())
		require.NoError(t, err)
		require.FileExists(t, next.Dir()+"/d/ignored")
		require.NoError(t, next.Discard())
	}
	require.NoError(t, s.Close())
}

// Nothing but a directory was made (WORKDIR): the next tree comes out of the layers.
func TestATreeWithANewDirectoryIsUnpackedAgain(t *testing.T) {
	for _, path := range []string{"d/new", "d/b"} {
		s, base, opened := countedState(t)
		m, err := base.Claims([]int{1})[0].Mutate(t.Context())
		require.NoError(t, err)
		if path == "d/new" {
			require.NoError(t, os.Mkdir(m.Dir()+"/d/new", 0o700))
		} else {
			require.NoError(t, os.Remove(m.Dir()+"/d/b"))
		}
		capture, _ := capturing(t)
		state, err := m.Commit(t.Context(), Changes{Known: []string{path}}, capture)
		require.NoError(t, err)
		claims := state.Claims([]int{2, 3})
		dirs := map[string]bool{m.Dir(): true}
		for _, c := range claims {
			next, err := c.Mutate(t.Context())
			require.NoError(t, err)
			dirs[next.Dir()] = true
			st, err := os.Stat(next.Dir() + "/d/new")
			require.Equal(t, path == "d/new", err == nil)
			require.True(t, err != nil || st.Mode().Perm() == 0o700)
			require.NoError(t, next.Discard())
		}
		require.Len(t, dirs, 2)
		if path == "d/new" {
			require.EqualValues(t, 2, opened.Load(), "unpacked again")
		} else {
			require.EqualValues(t, 1, opened.Load(), "copied")
		}
		require.NoError(t, s.Close())
	}
}

// countedState is a state of driver flat, and how often its layer has been read.
func countedState(t *testing.T) (Store, State, *atomic.Int32) {
	t.Helper()
	needs.Root(t)
	s, err := NewFlat(filepath.Join(t.TempDir(), "s"), Options{})
	require.NoError(t, err)
	opened := new(atomic.Int32)
	return s, s.FromLayers([]v1.Layer{&counted{tarLayer(t, "d/", "d/a=1", "d/b=22", "l -> d/a", "h >> d/a"), opened}}), opened
}

// counted counts how often a layer is read.
type counted struct {
	v1.Layer
	opened *atomic.Int32
}

func (c *counted) Uncompressed() (io.ReadCloser, error) {
	c.opened.Add(1)
	return c.Layer.Uncompressed()
}
