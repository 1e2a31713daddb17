package core

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/sandbox"
	"github.com/layerwright/layerwright/core/internal/snapshot"
)

// Main runs what a re-executed child of the engine does. The program calls it
// before anything else with os.Args and exits with code when handled is true.
func Main(args []string) (handled bool, code int) { return sandbox.Main(args) }

// Inside says whether this process is the one that Enter has started. To be
// asked before Main, which takes the mark off args.
func Inside(args []string) bool { return sandbox.Inside(args) }

// Harden keeps other processes from reading this one's memory and environment.
// To be called at the start, before secrets are there.
func Harden() error { return sandbox.Harden() }

// StoreVariable is how Enter tells the program inside which store was chosen: it
// is Request.Store where the user has named none.
const StoreVariable = "LAYERWRIGHT_STORE"

// EnterOptions say what a build will want of the environment.
type EnterOptions struct {
	// Isolation, Store and Force are Request's.
	Isolation, Store string
	Force            bool
	// Args and Env are the program's own.
	Args, Env []string
	// Notice takes a sentence when the user has to wait; may be nil.
	Notice func(string)
}

// Entered is what Enter has come to.
type Entered struct {
	// Done says that the build has run inside, in another process, which
	// ended with Code.
	Done bool
	Code int
	// Chosen is the isolation for a build in this process: Request.Chosen.
	Chosen string
}

// Enter prepares the environment of a build: where isolation namespaces is the
// choice it runs the program again inside. Not to be called when Inside.
func Enter(ctx context.Context, opts EnterOptions) (Entered, error) {
	want, err := parseIsolation(opts.Isolation)
	if err != nil {
		return Entered{}, err
	}
	waited := patience(opts.Notice, waitsForRoot)
	store, report, err := probe(ctx, opts.Store, want, opts.Force, false)
	waited()
	if err != nil {
		return Entered{}, err
	}
	chosen, _, err := report.Choose(want)
	if err != nil || chosen != sandbox.Namespaces {
		return Entered{Chosen: isolationName(chosen)}, err
	}
	// Inside, a user may look like root: the store must not be chosen anew.
	env := append(slices.Clone(opts.Env), StoreVariable+"="+store)
	code, err := sandbox.EnterNamespaces(context.WithoutCancel(ctx), opts.Args, env)
	return Entered{Done: err == nil, Code: code}, err
}

// waitsForRoot is said when "/" is not to be had at once.
const waitsForRoot = "waiting until / is the job's own again: a step holds it (isolation inplace)"

// patience says text when stop is not called within a second.
func patience(notice func(string), text string) (stop func()) {
	if notice == nil {
		return func() {}
	}
	t := time.AfterFunc(time.Second, func() { notice(text) })
	return func() { t.Stop() }
}

// DoctorOptions are Doctor's settings, as Request's.
type DoctorOptions struct {
	Store string
	Force bool
}

// DoctorReport is what the environment allows.
type DoctorReport struct {
	// Attempts are what was really tried.
	Attempts []struct {
		What, Answer, Meaning string
		OK                    bool
	}
	// Store is where trees would be kept; Chosen and Snapshots what a build
	// would use, Err why none would work.
	Store, Chosen, Snapshots string
	Err                      error
}

// Doctor tries what the environment allows and says what a build would use.
func Doctor(ctx context.Context, opts DoctorOptions) DoctorReport {
	var out DoctorReport
	store, report, err := probe(ctx, opts.Store, sandbox.Auto, opts.Force, true)
	out.Store, out.Err = store, err
	if err != nil {
		return out
	}
	for _, a := range report.Attempts {
		out.Attempts = append(out.Attempts, struct {
			What, Answer, Meaning string
			OK                    bool
		}{a.Name + " (" + a.Tried + ")", a.Answer, a.Meaning, a.OK})
	}
	chosen, overlay, err := report.Choose(sandbox.Auto)
	if out.Err = err; err != nil {
		return out
	}
	out.Chosen, out.Snapshots = isolationName(chosen), "flat"
	if overlay {
		out.Snapshots = "overlay"
	}
	return out
}

// probe makes the store, puts right what a killed build has left, and tries
// what works: the isolations in the order in which they are chosen, and no more
// than is needed to choose, or everything. "/" is touched only where inplace may
// be the choice.
func probe(ctx context.Context, store string, want sandbox.Isolation, force, everything bool) (string, sandbox.Report, error) {
	store, err := makeStore(store)
	if err != nil {
		return store, sandbox.Report{}, err
	}
	if err := sandbox.Repair(store); err != nil {
		return store, sandbox.Report{}, err
	}
	may := func(i sandbox.Isolation) bool { return want == sandbox.Auto || want == i }
	chosen := func(r sandbox.Report, i sandbox.Isolation) bool {
		_, _, err := r.Choose(i)
		return err == nil
	}
	report := sandbox.Probe(ctx, sandbox.ProbeOptions{Store: store, Namespaces: everything || may(sandbox.Namespaces), Chroot: everything})
	if may(sandbox.Inplace) && !chosen(report, sandbox.Namespaces) {
		try := sandbox.ProbeInplace
		if force {
			try = sandbox.ProbeInplaceForced
		}
		report.Try(ctx, sandbox.ProbeOptions{Inplace: try})
	}
	if !everything && may(sandbox.Chroot) && !chosen(report, sandbox.Namespaces) && !chosen(report, sandbox.Inplace) {
		report.Try(ctx, sandbox.ProbeOptions{Chroot: true})
	}
	return store, report, nil
}

// ours is the directory that everything of Layerwright's is in, in our images
// and in other containers; it stays in place while "/" is exchanged.
const ours = "/layerwright"

// makeStore chooses the store's directory, where none was given, and makes it.
func makeStore(dir string) (string, error) {
	if dir == "" {
		dir = defaultStore()
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return dir, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return dir, (&fault.Error{Kind: fault.Environment, Op: "make the store", Err: err}).
			With("Name a directory that can be written with --store.")
	}
	return dir, nil
}

func defaultStore() string {
	switch {
	case os.Geteuid() != 0:
		return "/var/tmp/layerwright-" + strconv.Itoa(os.Geteuid())
	case isDir(ours) || sandbox.Disposable():
		return ours + "/store"
	default:
		return "/var/lib/layerwright"
	}
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

func parseIsolation(s string) (sandbox.Isolation, error) {
	for _, i := range []sandbox.Isolation{sandbox.Auto, sandbox.Namespaces, sandbox.Inplace, sandbox.Chroot} {
		if s == isolationName(i) || s == "" {
			return i, nil
		}
	}
	return 0, fault.New(fault.Usage, "unknown isolation %q", s).With("Use auto, namespaces, inplace or chroot.")
}

func isolationName(i sandbox.Isolation) string {
	return [...]string{"auto", "namespaces", "inplace", "chroot"}[i]
}

// machine is what a build runs steps and keeps trees with.
type machine struct {
	store    string
	sandbox  sandbox.Sandbox
	fallback sandbox.Sandbox
	// driver says which snapshots work, and tries it when it is asked first; nil
	// means flat.
	driver func() (driver, error)
	// outside runs a function while "/" is the job's own.
	outside func(func() error) error
}

// driver is what trees are kept by; the zero value is flat.
type driver struct {
	overlay bool
	// userXattr is an option of overlay.
	userXattr bool
}

func (d driver) String() string {
	if d.overlay {
		return "overlay"
	}
	return "flat"
}

// newMachine chooses isolation and snapshots for a request.
func newMachine(ctx context.Context, req *Request, notice func(string)) (*machine, error) {
	want, err := parseIsolation(req.Isolation)
	if err != nil {
		return nil, err
	}
	m := &machine{outside: func(f func() error) error { return f() }}
	chosen, err := m.choose(ctx, req, want)
	if err != nil {
		return nil, err
	}
	if want == sandbox.Auto && chosen == sandbox.Inplace {
		// Without it a step that inplace refuses is an error.
		if f, err := sandbox.NewChroot(sandbox.ChrootOptions{}); err == nil {
			m.fallback = f
		}
	}
	switch chosen {
	case sandbox.Namespaces:
		m.sandbox, err = sandbox.NewNamespaces(sandbox.NamespacesOptions{})
	case sandbox.Chroot:
		m.sandbox, err = sandbox.NewChroot(sandbox.ChrootOptions{})
	default:
		opts := sandbox.InplaceOptions{Store: m.store, Force: req.Force, Notice: notice}
		if isDir(ours) {
			opts.Keep = []string{ours}
		}
		m.sandbox, err = sandbox.NewInplace(ctx, opts)
		m.outside = func(f func() error) error {
			waited := patience(notice, waitsForRoot)
			return sandbox.Outside(m.store, func() error { waited(); return f() })
		}
	}
	if err != nil {
		return nil, err
	}
	return m, m.chooseSnapshots(req.Snapshots)
}

// choose finds the store and the isolation: what Enter has found, or by trying.
func (m *machine) choose(ctx context.Context, req *Request, want sandbox.Isolation) (sandbox.Isolation, error) {
	var err error
	if req.Inside || req.Chosen != "" {
		if m.store, err = makeStore(req.Store); err != nil {
			return 0, err
		}
		if req.Inside {
			return sandbox.Namespaces, nil
		}
		return parseIsolation(req.Chosen)
	}
	var report sandbox.Report
	if m.store, report, err = probe(ctx, req.Store, want, req.Force, false); err != nil {
		return 0, err
	}
	chosen, _, err := report.Choose(want)
	if err == nil && chosen == sandbox.Namespaces {
		err = fault.New(fault.Internal, "isolation namespaces outside of its namespaces: Enter comes first")
	}
	return chosen, err
}

func (m *machine) chooseSnapshots(want string) error {
	switch want {
	case "flat":
		return nil
	case "", "auto", "overlay":
	default:
		return fault.New(fault.Usage, "unknown snapshots %q", want).With("Use auto, overlay or flat.")
	}
	if m.sandbox.Isolation() != sandbox.Namespaces {
		if want == "overlay" {
			return fault.New(fault.Environment, "overlay snapshots need isolation namespaces, and this is %s", isolationName(m.sandbox.Isolation())).
				With("Leave --snapshots at auto.")
		}
		return nil
	}
	m.driver = sync.OnceValues(func() (driver, error) {
		userXattr, err := snapshot.ProbeOverlay(m.store)
		if err != nil && want == "overlay" {
			return driver{}, fault.New(fault.Environment, "overlay snapshots do not work in %s: %w", m.store, err).
				With("Put the store on a volume or tmpfs with --store, or use --snapshots flat.")
		}
		return driver{overlay: err == nil, userXattr: userXattr}, nil
	})
	return nil
}

// snapshots says which driver there is.
func (m *machine) snapshots() (driver, error) {
	if m.driver == nil {
		return driver{}, nil
	}
	return m.driver()
}

// newStore makes the store of trees in dir.
func (m *machine) newStore(dir string) (snapshot.Store, error) {
	d, err := m.snapshots()
	if err != nil {
		return nil, err
	}
	opts := snapshot.Options{UserXattr: d.userXattr}
	if d.overlay {
		return snapshot.NewOverlay(dir, opts)
	}
	return snapshot.NewFlat(dir, opts)
}

// describe tells in one line what was chosen, as soon as it is known. Overlay is tried
// beside what comes next: to unmount it takes the kernel a while, which a build whose
// steps are all known would only wait for. wait returns when it has been told.
func (m *machine) describe(notice func(string)) (wait func()) {
	tell := func() {
		if d, err := m.snapshots(); err == nil { // else the build says so when it needs them
			notice(fmt.Sprintf("isolation %s, snapshots %s, store %s", isolationName(m.sandbox.Isolation()), d, m.store))
		}
	}
	if m.driver == nil {
		tell()
		return func() {}
	}
	var wg sync.WaitGroup
	wg.Go(tell)
	return wg.Wait
}
