package plugin

import (
	"errors"
	"fmt"
	"slices"

	"github.com/layerwright/layerwright/core"
)

// Problem is one mistake in the settings.
type Problem struct {
	// Setting is its neutral name, Spelled the host's.
	Setting, Spelled string
	Err              error
}

// Error is "input build-args: write KEY=VALUE".
func (p *Problem) Error() string { return p.Spelled + ": " + p.Err.Error() }

// Unwrap gives the cause.
func (p *Problem) Unwrap() error { return p.Err }

// Problems takes the single mistakes out of an error of Prepare.
func Problems(err error) []*Problem {
	var list *problems
	if errors.As(err, &list) {
		return list.list
	}
	return nil
}

type problems struct{ list []*Problem }

func (p *problems) Error() string {
	all := make([]error, len(p.list))
	for i, one := range p.list {
		all[i] = one
	}
	text := errors.Join(all...).Error()
	if len(all) > 1 {
		text = fmt.Sprintf("%d problems with the settings:\n%s", len(all), text)
	}
	return text
}

// checker collects everything that is wrong, so that it is said at once. The
// texts never contain values that may be secret.
type checker struct {
	host  Host
	found []*Problem
}

func (c *checker) add(setting, format string, args ...any) {
	spelled := setting
	if c.host.Spell != nil {
		spelled = c.host.Spell(setting)
	}
	c.found = append(c.found, &Problem{Setting: setting, Spelled: spelled, Err: fmt.Errorf(format, args...)})
}

// has says whether something is wrong with one of these settings, so that its
// consequences are no problems of their own.
func (c *checker) has(settings ...string) bool {
	return slices.ContainsFunc(c.found, func(p *Problem) bool { return slices.Contains(settings, p.Setting) })
}

// err is nil, or a usage error with all problems.
func (c *checker) err() error {
	if len(c.found) == 0 {
		return nil
	}
	return &core.Error{Kind: core.KindUsage, Err: &problems{c.found}, Remedy: "Correct the settings; nothing was built."}
}
