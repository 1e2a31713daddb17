package plugin

import (
	"context"
	"io"
	"time"

	"github.com/layerwright/layerwright/core"
)

// Job is what the program hands an adapter. Adapters read nothing else of their
// surroundings.
type Job struct {
	Env    map[string]string
	Stdout io.Writer
	// ReadFile is os.ReadFile; Exists says whether there is a file, or a
	// directory that is not empty.
	ReadFile func(path string) ([]byte, error)
	// Glob is filepath.Glob.
	Glob   func(pattern string) ([]string, error)
	Exists func(path string) bool
	// Append adds to the end of a file that the host reads, WriteFile writes
	// one anew.
	Append, WriteFile func(path string, data []byte) error
	Now               func() time.Time
}

// CI is one host: the only thing that the program knows of it.
type CI struct {
	// Name is that of the subcommand and of LAYERWRIGHT_HOST.
	Name string
	// Detect says whether this environment is the host's.
	Detect func(env map[string]string) bool
	New    func(Job) Adapter
	// StartsShell says that the host's runner runs scripts by a shell behind the
	// image's entry point: layerwright sh -c SCRIPT.
	StartsShell bool
}

// Adapter translates between one host and the plugin. It holds no policy: what a
// setting means, and what follows of it, is decided here.
type Adapter interface {
	// Sink takes the build's events, for what the host shows of them.
	core.Sink
	// Read is what the host hands over.
	Read() (Values, Facts, Host)
	// Hide tells the host to mask values. It comes before anything that could
	// contain them is printed: Read prints nothing.
	Hide(secrets [][]byte)
	// Report hands the end over to the host, and before the build what is
	// wrong with the settings.
	Report(Report) error
}

// Report is how it ended.
type Report struct {
	// Plan is never nil. Result is nil where nothing was built: with an Err,
	// or where Plan.Skip says why.
	Plan   *Plan
	Result *core.Result
	Err    error
	Took   time.Duration
}

// Enter prepares the environment of a build, as core.Enter does; done says that
// the build has run elsewhere and has been reported there.
type Enter func(context.Context, core.Request) (chosen string, done bool, err error)

// Execute reads, checks, builds and reports. The error is that of the build; it
// has been shown when shown is true.
func Execute(ctx context.Context, a Adapter, proc Process, enter Enter) (shown bool, err error) {
	values, facts, host := a.Read()
	plan, err := Prepare(values, facts, host)
	a.Hide(plan.Secrets)
	if err != nil {
		plan.tell(proc)
		return false, orReport(err, a.Report(Report{Plan: plan, Err: err}))
	}
	steps := plan.Merge == nil && plan.PushFrom == "" // the others run none: they need nothing of the environment
	if steps && plan.Skip() == "" {
		// First, since what follows is for the process that builds.
		var done bool
		if proc.Chosen, done, err = enter(ctx, plan.Request); done {
			return true, err
		}
	}
	if err == nil {
		err = plan.federate(ctx, host, a.Hide)
	}
	if err == nil {
		err = plan.skipExisting(ctx)
	}
	if err != nil || plan.Skip() != "" {
		plan.tell(proc)
		return false, orReport(err, a.Report(Report{Plan: plan, Err: err}))
	}
	if steps {
		proc.Watch = a
	}
	out := plan.Run(ctx, proc)
	return out.Err != nil, orReport(out.Err, a.Report(Report{Plan: plan, Result: out.Result, Err: out.Err, Took: out.Took}))
}

// orReport is the build's error; that the report did not work counts only when
// there is none.
func orReport(err, report error) error {
	if err != nil {
		return err
	}
	return report
}
