package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// The names of attempts. Choose goes by them; doctor shows them.
const (
	TryNamespaces = "namespaces"
	TryPrivate    = "private mounts"
	TryIDs        = "user ids"
	TryTmpfs      = "tmpfs"
	TryBind       = "bind mount"
	TryOverlay    = "overlay in the store"
	TryUserXattr  = "overlay with userxattr"
	TryProc       = "fresh /proc"
	TryProcBind   = "bind of /proc"
	TryNetwork    = "network of its own"
	TryPivot      = "pivot_root"
	TryChroot     = "chroot"
	TryDevices    = "device nodes"
	TryUlimits    = "raising limits"
	TryInplace    = "exchanging /"
)

// Attempt is one thing that the probe has really tried.
type Attempt struct {
	// Name is one of the Try constants.
	Name string
	// Tried says how, in the kernel's terms.
	Tried string
	OK    bool
	// Answer is what the kernel said: "ok", or the error's text.
	Answer string
	// Meaning is what follows for a build.
	Meaning string
}

// ProbeOptions are for Probe.
type ProbeOptions struct {
	// Store is the directory for trees; it must exist and be writable.
	Store string
	// Namespaces and Chroot say what to try: each starts a process or two.
	Namespaces, Chroot bool
	// Inplace tries whether "/" can be exchanged with a tree in the store
	// (ProbeInplace); nil leaves it out. It disturbs everything else that runs on
	// "/", so it is for when it matters.
	Inplace func(ctx context.Context, store string) error
}

// Report is what the environment allows.
type Report struct {
	Attempts []Attempt
	// MappedIDs is how many user ids steps have; 0 where unknown.
	MappedIDs int
	// UserNamespace is true where namespaces need a user namespace.
	UserNamespace bool
	// UserXattr is true where overlay only works with the option userxattr.
	UserXattr bool
	// Store is the directory; StoreError why it cannot be used, else empty.
	Store, StoreError string
}

// Probe finds out by trying, in processes of its own, what the kernel and the
// container allow. It leaves nothing behind in the store.
func Probe(ctx context.Context, opts ProbeOptions) Report {
	r := Report{UserNamespace: !hasCap(unix.CAP_SYS_ADMIN), Store: opts.Store}
	r.Try(ctx, opts)
	return r
}

// Try makes further attempts; opts.Store does not matter.
func (r *Report) Try(ctx context.Context, opts ProbeOptions) {
	if r.StoreError != "" {
		return
	}
	dir, err := os.MkdirTemp(r.Store, "probe-")
	if err != nil {
		r.StoreError = cause(err).Error()
		return
	}
	defer func() { _ = removeAll(dir) }()
	var spaces, plain []Attempt
	var inplace error
	var eg errgroup.Group // none of them fails: failing is their result
	if opts.Namespaces {
		eg.Go(func() error { spaces, r.MappedIDs = probeSpaces(ctx, filepath.Join(dir, "n")); return nil })
	}
	if opts.Chroot {
		eg.Go(func() error { plain = probePlain(ctx, filepath.Join(dir, "c")); return nil })
	}
	if opts.Inplace != nil {
		eg.Go(func() error { inplace = opts.Inplace(ctx, r.Store); return nil })
	}
	_ = eg.Wait()
	r.Attempts = append(r.Attempts, append(spaces, plain...)...)
	if opts.Inplace != nil {
		r.add(TryInplace, "rename the entries of /", inplace)
	}
	r.UserXattr = r.ok(TryUserXattr)
	for i, a := range r.Attempts {
		r.Attempts[i].Meaning = meaning(a)
	}
}

func (r *Report) add(name, tried string, err error) {
	r.Attempts = append(r.Attempts, attempt(name, tried, err))
}

func attempt(name, tried string, err error) Attempt {
	a := Attempt{Name: name, Tried: tried, OK: err == nil, Answer: "ok"}
	if err != nil {
		a.Answer = cause(err).Error()
	}
	return a
}

// Get is the attempt with a name; false where it was not made.
func (r Report) Get(name string) (Attempt, bool) {
	for _, a := range r.Attempts {
		if a.Name == name {
			return a, true
		}
	}
	return Attempt{}, false
}

func (r Report) ok(name string) bool {
	a, found := r.Get(name)
	return found && a.OK
}

// meaning is what an attempt's result means for a build.
func meaning(a Attempt) string {
	m, ok := map[string][2]string{
		TryNamespaces: {"steps can have namespaces of their own", "isolation namespaces is not possible"},
		TryIDs:        {"files can have every owner that images use", "files cannot be given to other users; most images cannot be built"},
		TryPrivate:    {"mounts of steps stay their own", "isolation namespaces is not possible"},
		TryTmpfs:      {"secrets stay in memory", "isolation namespaces is not possible"},
		TryBind:       {"RUN --mount is a real mount", "isolation namespaces is not possible"},
		TryOverlay:    {"snapshots are overlay", "snapshots are flat directories, unless overlay works with userxattr"},
		TryUserXattr:  {"snapshots are overlay", "snapshots are flat directories"},
		TryProc:       {"steps have a /proc of their own", "steps see the container's /proc"},
		TryProcBind:   {"the container's /proc can stand in", "steps need a fresh /proc"},
		TryNetwork:    {"--network=none is possible", "--network=none is refused"},
		TryPivot:      {"a tree can become the root", "isolation namespaces is not possible"},
		TryChroot:     {"isolation chroot is possible", "isolation chroot is not possible"},
		TryDevices:    {"chroot steps have /dev/null and its like", "chroot steps have no device nodes"},
		TryUlimits:    {"--ulimit can raise hard limits", "--ulimit can only lower hard limits"},
		TryInplace:    {"isolation inplace is possible", "isolation inplace is not possible"},
	}[a.Name]
	switch {
	case !ok:
		return ""
	case a.OK:
		return m[0]
	default:
		return m[1]
	}
}

// Choose gives the isolation to use and whether overlay snapshots work with it.
// An isolation that was asked for and does not work is a fault.Environment.
func (r Report) Choose(want Isolation) (Isolation, bool, error) {
	if r.StoreError != "" {
		return want, false, fault.New(fault.Environment, "store %s: %s", r.Store, r.StoreError).
			With("Choose a directory for the store that can be written and has room.")
	}
	order := []Isolation{want}
	if want == Auto {
		order = []Isolation{Namespaces, Inplace, Chroot}
	}
	var first error
	for _, i := range order {
		err := r.check(i)
		if err == nil {
			return i, i == Namespaces && (r.ok(TryOverlay) || r.UserXattr), nil
		}
		if first == nil {
			first = err
		}
	}
	if want != Auto {
		return want, false, first
	}
	if r.MappedIDs == 1 {
		return want, false, first
	}
	var why []string
	for _, i := range order {
		why = append(why, r.check(i).Error())
	}
	return want, false, fault.New(fault.Environment, "no isolation works here: %s", strings.Join(why, "; ")).
		With("Run as root in a container with the default capabilities, or where user namespaces are allowed; layerwright doctor shows what was tried.")
}

// check says why an isolation does not work; nil where it does.
func (r Report) check(i Isolation) error {
	switch i {
	case Namespaces:
		for _, name := range []string{TryNamespaces, TryPrivate, TryTmpfs, TryBind, TryPivot} {
			if a, found := r.Get(name); found && !a.OK {
				return fault.New(fault.Environment, "isolation namespaces: %s: %s", a.Tried, a.Answer).
					With("Use --isolation auto, or a container whose seccomp and AppArmor profiles allow user namespaces and mounts.")
			}
		}
		if !r.ok(TryNamespaces) {
			return fault.New(fault.Environment, "isolation namespaces: was not tried")
		}
		if !r.ok(TryProc) && !r.ok(TryProcBind) {
			return fault.New(fault.Environment, "isolation namespaces: neither a fresh /proc nor that of the container can be mounted").
				With("Use --isolation auto, or a container with an unmasked /proc.")
		}
		if r.MappedIDs == 1 {
			return fault.New(fault.Environment, "isolation namespaces: only one user id is mapped, so files cannot be given to other users").
				With("Add ranges for the user to /etc/subuid and /etc/subgid and install newuidmap (package uidmap), or run as root in the container.")
		}
	case Inplace:
		if a, found := r.Get(TryInplace); !found || !a.OK {
			return fault.New(fault.Environment, "isolation inplace: %s", orNotTried(a)).
				With("It needs a container meant to be thrown away, a writable root, and the store on the same filesystem as /.")
		}
	case Chroot:
		if a, found := r.Get(TryChroot); !found || !a.OK {
			return fault.New(fault.Environment, "isolation chroot: %s", orNotTried(a)).
				With("Run as root with CAP_SYS_CHROOT, which a container has by default.")
		}
	default:
		return fault.New(fault.Internal, "no such isolation: %d", i)
	}
	return nil
}

func orNotTried(a Attempt) string {
	if a.Name == "" {
		return "was not tried"
	}
	return a.Tried + ": " + a.Answer
}

// probeSpaces starts the probe in new namespaces, as EnterNamespaces would.
func probeSpaces(ctx context.Context, dir string) ([]Attempt, int) {
	tried := "clone with new mount, PID, IPC and UTS namespaces"
	if !hasCap(unix.CAP_SYS_ADMIN) {
		tried = "clone with new user, mount, PID, IPC and UTS namespaces"
	}
	answers, err := runProbe(ctx, probeNamespacesName, dir, true)
	if err != nil {
		return []Attempt{attempt(TryNamespaces, tried, unwrapFault(err))}, 0
	}
	ids := 0
	for _, a := range answers {
		if a.Name == TryIDs {
			ids, _ = strconv.Atoi(a.Answer)
		}
	}
	return append([]Attempt{attempt(TryNamespaces, tried, nil)}, answers...), ids
}

// probePlain starts the probe without namespaces.
func probePlain(ctx context.Context, dir string) []Attempt {
	answers, err := runProbe(ctx, probeName, dir, false)
	if err != nil {
		return []Attempt{attempt(TryChroot, "start a process", unwrapFault(err))}
	}
	return answers
}

// unwrapFault takes the classification and the operation off an error.
func unwrapFault(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// runProbe starts ourselves as name and reads its attempts from its output;
// the directory goes to its standard input.
func runProbe(ctx context.Context, name, dir string, spaces bool) ([]Attempt, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := reexec(ctx, name)
	cmd.Stdin = strings.NewReader(dir)
	if spaces {
		cmd.Stdout = w
		alive, err := startMapped(ctx, cmd, unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS)
		w.Close()
		if err != nil {
			return nil, err
		}
		defer alive.Close()
	} else {
		cmd.Stdout = w
		err := cmd.Start()
		w.Close()
		if err != nil {
			return nil, err
		}
	}
	var list []Attempt
	dec := json.NewDecoder(r)
	for {
		var a Attempt
		if err = dec.Decode(&a); err != nil {
			break
		}
		list = append(list, a)
	}
	waitErr := cmd.Wait()
	if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read probe's answer: %w", err)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("probe gave no answer: %w", orEOF(waitErr))
	}
	return list, nil
}
