package snapshot

import (
	"context"
	"slices"
	"sync"
	"time"
)

// claims keeps who still holds a state that is one directory, and decides who
// may change it in place: the last one that is left. It is driver flat's.
//
// Who wants to change the tree while others hold it waits only for those that end
// without it: of a lower index and at work, or settled. Whoever has not asked yet may
// depend on what the waiting one is to make, or be long in coming: then the tree is
// branched, at once or, where that is a copy, after a time that is short beside it. So
// no cycle is possible, and nobody is held up by a stranger.
type claims struct {
	mu sync.Mutex
	// owners are the consumers' indexes, ascending, states what they do.
	owners []int
	states []claimState
	// ahead are those who are likely to ask.
	ahead []bool
	// changed is closed, and made anew, whenever a state changes.
	changed chan struct{}
	// copying says that somebody branches the tree: one after another, the lowest
	// first, so that the first step has not to wait for the copies of all.
	copying bool
	// onEmpty runs when the last claim has gone.
	onEmpty func()
}

// claimState is what an owner does with its claim.
type claimState int

const (
	// pending has not asked for anything yet.
	pending claimState = iota
	// viewing looks at the tree until it gives the claim back.
	viewing
	// keeping is viewing by somebody who asks for a branch.
	keeping
	// settled is viewing by somebody who will ask for no tree to change meanwhile.
	settled
	// asking waits for a tree to change.
	asking
	// gone has given the claim back.
	gone
)

func newClaims(owners []int, onEmpty func()) *claims {
	return &claims{owners: slices.Clone(owners), states: make([]claimState, len(owners)), ahead: make([]bool, len(owners)), changed: make(chan struct{}), onEmpty: onEmpty}
}

// set moves a claim to a state.
func (c *claims) set(i int, s claimState) {
	c.mu.Lock()
	c.states[i] = s
	empty := s == gone && !slices.ContainsFunc(c.states, func(s claimState) bool { return s != gone })
	c.signal()
	c.mu.Unlock()
	if empty {
		c.onEmpty()
	}
}

// settle moves a claim that looks on; one that is gone stays so.
func (c *claims) settle(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.states[i] == viewing || c.states[i] == keeping {
		c.states[i] = settled
		c.signal()
	}
}

// signal wakes who waits; mu is held.
func (c *claims) signal() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// copied ends the branching that acquire has allowed.
func (c *claims) copied() {
	c.mu.Lock()
	c.copying = false
	c.signal()
	c.mu.Unlock()
}

// aMoment is how long whoever would have to copy a tree waits for others to ask for it
// that may be about to.
const aMoment = 10 * time.Millisecond

// demand is how a claim wants a tree to change.
type demand struct {
	// keep says that the state's own must stay.
	keep bool
	// patience is how long to wait for those who look at the tree, and may yet settle
	// or go: with all of them settled there is nothing to copy.
	patience time.Duration
}

// wait is how long from now on to wait for others, since so long after begin.
func (d demand) wait(r rest, since time.Duration) time.Duration {
	switch {
	case d.keep || r.early || d.patience == 0:
		return 0
	case r.pending:
		return min(aMoment, d.patience) - since
	default:
		return d.patience - since
	}
}

// acquire waits until claim i may have a tree to change: the state's own
// (inPlace), or a branch, whose making ends with copied.
func (c *claims) acquire(ctx context.Context, i int, want demand) (inPlace bool, err error) {
	begin := time.Now()
	c.mu.Lock()
	for {
		switch c.states[i] {
		case pending:
			c.states[i] = asking
			c.signal()
		case viewing:
			c.states[i] = keeping
			c.signal()
		}
		others := c.others(i)
		var patient <-chan time.Time
		switch wait := want.wait(others, time.Since(begin)); {
		case others.left == 0 && !want.keep:
			c.mu.Unlock()
			return true, nil
		case (others.pending || others.viewing) && wait > 0:
			patient = time.After(wait)
		case others.pending || others.viewing || others.early || want.keep:
			if !c.copying && !others.lower {
				c.copying = true
				c.mu.Unlock()
				return false, nil
			}
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-patient:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
		c.mu.Lock()
	}
}

// only says that there is no claim but i any more, and so never will be.
func (c *claims) only(i int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.others(i).left == 0
}

// viewed says that somebody looks at the tree.
func (c *claims) viewed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.states, func(s claimState) bool { return s == viewing || s == keeping || s == settled })
}

// announce says that a claim is likely to ask.
func (c *claims) announce(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead[i] = true
}

// announced says that somebody is likely to ask, and has not yet.
func (c *claims) announced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, s := range c.states {
		if s == pending && c.ahead[i] {
			return true
		}
	}
	return false
}

// announces says that a claim is one of those.
func (c *claims) announces(i int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.states[i] == pending && c.ahead[i]
}

// rest is what the claims but one are at.
type rest struct {
	// left is how many there are.
	left int
	// early says that one of them is not to be waited for, pending that one has not
	// asked yet; viewing that one looks who has not settled, and has a higher index.
	early, pending, viewing bool
	// lower says that one of a lower index asks as well, and comes first.
	lower bool
}

func (c *claims) others(i int) (r rest) {
	for j, s := range c.states {
		if j == i || s == gone {
			continue
		}
		r.left++
		below := c.owners[j] < c.owners[i]
		r.pending = r.pending || s == pending
		r.viewing = r.viewing || s == viewing && !below
		r.early = r.early || (s == asking || s == keeping) && !below
		r.lower = r.lower || s == asking && below
	}
	return r
}
