package random

import (
	"slices"
	"strings"
)

// Shrink looks for the smallest plan for which differs still says true, trying at
// most tries plans. differs(p) is taken to be true.
func Shrink(p Plan, tries int, differs func(Plan) bool) Plan {
	for {
		smaller := false
		for _, candidate := range candidates(p) {
			if tries == 0 {
				return p
			}
			tries--
			if differs(candidate) {
				p, smaller = candidate, true
				break
			}
		}
		if !smaller {
			return p
		}
	}
}

// candidates are plans with one thing less, the largest things first.
func candidates(p Plan) []Plan {
	var out []Plan
	for i := range p.Stages {
		if len(p.Stages) > 1 && !used(p, i) {
			out = append(out, p.with(func(c *Plan) { c.Stages = slices.Delete(c.Stages, i, i+1) }))
		}
	}
	for i, s := range p.Stages {
		if n := len(s.Steps); n > 2 {
			out = append(out, p.with(func(c *Plan) { c.Stages[i].Steps = c.Stages[i].Steps[n/2:] }), p.with(func(c *Plan) { c.Stages[i].Steps = c.Stages[i].Steps[:n/2] }))
		}
	}
	for i, s := range p.Stages {
		for j := range s.Steps {
			out = append(out, p.with(func(c *Plan) { c.Stages[i].Steps = slices.Delete(c.Stages[i].Steps, j, j+1) }))
		}
	}
	for i, s := range p.Stages {
		if s.From != "${BASE}" {
			out = append(out, p.with(func(c *Plan) { c.Stages[i].From = "${BASE}" }))
		}
	}
	for i, s := range p.Stages {
		for j, st := range s.Steps {
			if lines := strings.SplitAfter(st.Heredoc, "\n"); len(lines) > 2 {
				for k := range lines[:len(lines)-2] {
					out = append(out, p.with(func(c *Plan) {
						c.Stages[i].Steps[j].Heredoc = strings.Join(slices.Delete(slices.Clone(lines), k, k+1), "")
					}))
				}
			}
		}
	}
	if len(p.Ignore) > 0 {
		out = append(out, p.with(func(c *Plan) { c.Ignore = nil }))
	}
	for i := range p.Context {
		out = append(out, p.with(func(c *Plan) { c.Context = slices.Delete(c.Context, i, i+1) }))
	}
	for i, s := range p.Stages {
		for j, st := range s.Steps {
			for k := range st.Flags {
				out = append(out, p.with(func(c *Plan) { s := &c.Stages[i].Steps[j]; s.Flags = slices.Delete(s.Flags, k, k+1) }))
			}
			for k := range st.Parts {
				if (st.Instruction == "RUN" || st.Instruction == "COPY" || st.Instruction == "ADD") && len(st.Parts) > 1 && st.Heredoc == "" {
					out = append(out, p.with(func(c *Plan) { s := &c.Stages[i].Steps[j]; s.Parts = slices.Delete(s.Parts, k, k+1) }))
				}
			}
		}
	}
	return out
}

// used says whether a stage is the last one or named by a later one.
func used(p Plan, i int) bool {
	if i == len(p.Stages)-1 {
		return true
	}
	name := p.Stages[i].Name
	for _, s := range p.Stages[i+1:] {
		if s.From == name {
			return true
		}
		for _, st := range s.Steps {
			for _, f := range st.Flags {
				if f == "--from="+name || f == "--mount=type=bind,from="+name+",target=/mnt" {
					return true
				}
			}
		}
	}
	return false
}

// with is a copy that change has changed.
func (p Plan) with(change func(*Plan)) Plan {
	c := p
	c.Context, c.Ignore, c.Stages = slices.Clone(p.Context), slices.Clone(p.Ignore), slices.Clone(p.Stages)
	for i := range c.Stages {
		c.Stages[i].Steps = slices.Clone(c.Stages[i].Steps)
		for j := range c.Stages[i].Steps {
			s := &c.Stages[i].Steps[j]
			s.Flags, s.Parts = slices.Clone(s.Flags), slices.Clone(s.Parts)
		}
	}
	change(&c)
	return c
}
