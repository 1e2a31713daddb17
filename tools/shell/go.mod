// A shell in pure Go: the demo makes its base image of it where the machine has
// no static busybox.
module github.com/layerwright/layerwright/tools/shell

go 1.26.8

tool mvdan.cc/sh/v3/cmd/gosh

require (
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/term v0.45.0 // indirect
	mvdan.cc/sh/v3 v3.14.1 // indirect
)
