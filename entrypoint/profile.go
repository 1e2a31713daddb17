package main

import (
	"errors"

	"github.com/layerwright/layerwright/core"
	"github.com/layerwright/layerwright/plugin/display"
	"github.com/layerwright/layerwright/plugin/profile"
)

// profiled runs a build and records it in dir; only runs it where dir is empty.
// Nothing that hide knows is recorded.
func profiled(dir string, hide *display.Redactor, req *core.Request, run func() (*core.Result, error)) (*core.Result, error) {
	if dir == "" {
		return run()
	}
	p, err := profile.Start(dir)
	if err != nil {
		return nil, err
	}
	req.Progress = display.Both(req.Progress, p, hide)
	res, err := run()
	return res, errors.Join(err, p.Stop())
}
