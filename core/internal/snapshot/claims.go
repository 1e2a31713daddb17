package snapshot

import (
	"context"
	"sync"
)

// claims keeps who still holds a state. It is shared by both drivers.
type claims struct {
	mu sync.Mutex
	// left counts the claims that are not released; changed is closed and
	// made anew whenever one is.
	left    int
	changed chan struct{}
	// exclusive is the index of the one claim that may change the tree in
	// place, -1 if there is none.
	exclusive int
	// onEmpty runs when the last claim has gone.
	onEmpty func()
}

func newClaims(owners []int, onEmpty func()) *claims {
	c := &claims{left: len(owners), changed: make(chan struct{}), exclusive: -1, onEmpty: onEmpty}
	if n := len(owners); n == 1 || n > 1 && owners[n-1] != owners[n-2] {
		c.exclusive = n - 1
	}
	return c
}

// release gives one claim back.
func (c *claims) release() {
	c.mu.Lock()
	c.left--
	last := c.left == 0
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	if last {
		c.onEmpty()
	}
}

// awaitOthers waits until just one claim is left: the caller's.
func (c *claims) awaitOthers(ctx context.Context) error {
	for {
		c.mu.Lock()
		left, changed := c.left, c.changed
		c.mu.Unlock()
		if left <= 1 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
