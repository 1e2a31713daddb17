package snapshot

import (
	"context"
	"slices"
	"sync"
)

// claims keeps who still holds a state that is one directory, and decides who
// may change it in place: the last one that is left. It is driver flat's.
//
// Who wants to change the tree while others hold it waits only for those of a
// lower index that are at work, which end; whoever has not asked yet may depend
// on what the waiting one is to make, or be long in coming: then the tree is
// branched. So no cycle is possible, and nobody is held up by a stranger.
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

// acquire waits until claim i may have a tree to change: the state's own
// (inPlace), or a branch, whose making ends with copied. keep demands a branch.
func (c *claims) acquire(ctx context.Context, i int, keep bool) (inPlace bool, err error) {
	c.mu.Lock()
	for {
		if c.states[i] == pending {
			c.states[i] = asking
			c.signal()
		}
		others, early, lower := c.others(i)
		switch {
		case others == 0 && !keep:
			c.mu.Unlock()
			return true, nil
		case early || keep:
			if !c.copying && !lower {
				c.copying = true
				c.mu.Unlock()
				return false, nil
			}
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
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
	left, _, _ := c.others(i)
	return left == 0
}

// viewed says that somebody looks at the tree.
func (c *claims) viewed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.states, viewing)
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

// others says how many other claims there are; whether one of them is not to be
// waited for; and whether one of a lower index asks as well, and comes first.
func (c *claims) others(i int) (left int, early, lower bool) {
	for j, s := range c.states {
		if j == i || s == gone {
			continue
		}
		left++
		below := c.owners[j] < c.owners[i]
		early = early || s == pending || !below
		lower = lower || s == asking && below
	}
	return left, early, lower
}
