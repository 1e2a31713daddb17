// Package fault owns the kinds of errors that a build can end with and the
// place in the Dockerfile that an error belongs to. It knows nothing about what
// failed and prints nothing: whoever shows an error asks As and formats.
package fault

import (
	"errors"
	"fmt"
)

// Kind says whose problem an error is. The exit code of the program depends on
// it alone (the table is in package entrypoint).
type Kind int

const (
	// Internal is a defect of Layerwright. It is the zero value: an error
	// that nobody classified is ours.
	Internal Kind = iota
	// User is a Dockerfile or build context that is wrong.
	User
	// Usage is a wrong flag or setting.
	Usage
	// Registry is a failed pull, push, login or other network access.
	Registry
	// Step is a RUN whose command failed.
	Step
	// Environment is a machine or container that cannot do what was asked:
	// isolation, permission, a full disk.
	Environment
)

// String names the kind, for logs and JSON output.
func (k Kind) String() string {
	switch k {
	case User:
		return "user"
	case Usage:
		return "usage"
	case Registry:
		return "registry"
	case Step:
		return "step"
	case Environment:
		return "environment"
	default:
		return "internal"
	}
}

// Location is a range of lines in a Dockerfile.
type Location struct {
	// File is the Dockerfile's name as the user gave it.
	File string
	// Start and End are line numbers from 1, both included.
	Start, End int
	// Source is the whole text of the file, for showing the lines around.
	Source []byte
}

// String is "Dockerfile:12".
func (l *Location) String() string { return fmt.Sprintf("%s:%d", l.File, l.Start) }

// Error is an error that a person can act on.
type Error struct {
	Kind Kind
	// Op is what was being done and to what: "pull 127.0.0.1:5000/base:1".
	// May be empty.
	Op string
	// Err is what went wrong. Never nil.
	Err error
	// Remedy is what to do, one or two sentences. May be empty.
	Remedy string
	// Location is the instruction at fault; nil where there is none.
	Location *Location
	// ExitCode and Output belong to Kind Step: the command's exit code
	// (128+n for a signal) and the last lines that it printed.
	ExitCode int
	Output   []byte
}

// Error is one line: location, operation, cause. The remedy and the output are
// left to whoever shows the error.
func (e *Error) Error() string {
	s := e.Err.Error()
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	if e.Location != nil {
		s = e.Location.String() + ": " + s
	}
	return s
}

// Unwrap gives errors.Is and errors.As access to the cause.
func (e *Error) Unwrap() error { return e.Err }

// New makes an Error of a kind from a format, which may wrap with %w.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Err: fmt.Errorf(format, args...)}
}

// Wrap classifies err unless something below has classified it already; nil
// stays nil.
func Wrap(kind Kind, err error, op string) error {
	if err == nil {
		return nil
	}
	if _, ok := As(err); ok {
		if op == "" {
			return err
		}
		return fmt.Errorf("%s: %w", op, err)
	}
	return &Error{Kind: kind, Op: op, Err: err}
}

// With returns a copy of e with the remedy set.
func (e *Error) With(remedy string) *Error {
	c := *e
	c.Remedy = remedy
	return &c
}

// At gives err the location loc where it has none yet. The kind is kept; an
// unclassified error stays internal. nil stays nil.
func At(err error, loc *Location) error {
	if err == nil || loc == nil {
		return err
	}
	e, ok := As(err)
	if !ok {
		return &Error{Kind: Internal, Err: err, Location: loc}
	}
	if e.Location != nil {
		return err
	}
	c := *e
	c.Location = loc
	if error(e) != err { // keep the words that were wrapped around it
		c.Op, c.Err = "", err
	}
	return &c
}

// As finds the outermost classified error in err's chain.
func As(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}
