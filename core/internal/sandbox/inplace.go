package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// InplaceOptions are for NewInplace. Store must be set.
type InplaceOptions struct {
	// Store is our absolute directory on the filesystem of "/". It stays at
	// its place while "/" is exchanged. All builds of a container must share
	// it: the lock on "/" is in it.
	Store string
	// Keep are further absolute paths that are ours and stay.
	Keep []string
	// Force leaves out the question whether the container is one that is
	// thrown away. Where it is not asked, "/" is put back also after a crash of
	// the machine.
	Force bool
	// Notice gets sentences for the user; may be nil.
	Notice func(string)
}

// NewInplace makes the sandbox that renames a tree's entries onto "/" for the
// time of a step. Call Repair first. Directories that are opened by handle, to be
// read while steps run, are to be opened after it, and again by Prepare.
func NewInplace(ctx context.Context, opts InplaceOptions) (Sandbox, error) {
	store, keep, err := keptPaths(opts.Store, opts.Keep)
	if err != nil {
		return nil, err
	}
	if opts.Notice == nil {
		opts.Notice = func(string) {}
	}
	opts.Store = store
	if err := os.MkdirAll(inplaceDir(store), 0o700); err != nil {
		return nil, fault.New(fault.Environment, "create directory in the store: %w", err)
	}
	s := &inplace{opts: opts, keep: keep, turn: make(chan struct{}, 1)}
	if s.handles, err = s.handlesLock(ctx, unix.LOCK_SH); err != nil {
		return nil, err
	}
	return s, nil
}

// keptPaths resolves what stays, relative to "/", without what lies in another.
func keptPaths(store string, keep []string) (string, []string, error) {
	if !filepath.IsAbs(store) {
		return "", nil, fault.New(fault.Internal, "isolation inplace: store %q is not absolute", store)
	}
	resolved, err := filepath.EvalSymlinks(store)
	if err != nil {
		return "", nil, fault.New(fault.Environment, "isolation inplace: find the store: %w", err)
	}
	if resolved == "/" {
		return "", nil, fault.New(fault.Usage, "isolation inplace: the store cannot be /")
	}
	var list []string
	for _, p := range append([]string{resolved}, keep...) {
		p = strings.TrimPrefix(filepath.Clean("/"+p), "/")
		if p != "" && !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	all := slices.Clone(list)
	list = slices.DeleteFunc(list, func(p string) bool {
		return slices.ContainsFunc(all, func(o string) bool { return strings.HasPrefix(p, o+"/") })
	})
	return resolved, list, nil
}

type inplace struct {
	opts InplaceOptions
	keep []string
	// resolv is the job's /etc/resolv.conf.
	resolv []byte
	// turn is held by the step that waits for "/" or has it.
	turn chan struct{}
	// handles is a lock that says that handles are open that Prepare of another
	// build would make void; nil when Prepare has been called.
	handles *os.File
	// told are the notices that have been given: each is given once.
	told sync.Map
}

func (*inplace) Isolation() Isolation { return Inplace }
func (*inplace) Exclusive() bool      { return true }
func (*inplace) MovesBinds() bool     { return true }

// Close implements Sandbox.
func (s *inplace) Close() error {
	if s.handles == nil {
		return nil
	}
	return s.handles.Close()
}

// Run implements Sandbox. A mount of the container that is in the image's way
// is a *CollisionError, found before anything runs.
func (s *inplace) Run(ctx context.Context, step Step) (_ Outcome, err error) {
	if s.handles != nil {
		return Outcome{}, fault.New(fault.Internal, "isolation inplace: a step before Prepare")
	}
	if err := checkStep(ctx, step); err != nil {
		return Outcome{}, err
	}
	if err := s.checkMounts(step); err != nil {
		return Outcome{}, err
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return Outcome{}, fmt.Errorf("wait for /: %w", context.Cause(ctx))
	}
	spec, err := newChildSpec(step)
	if err != nil {
		return Outcome{}, err
	}
	if err := makeRuntimeDirs(step.Root); err != nil {
		return Outcome{}, err
	}
	cmd := reexec(ctx, supervisorName)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if step.Network == NetworkNone {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNET
	}
	res, err := runSupervised(ctx, cmd, step, supervisedSpec{
		Child: spec, Root: step.Root, Scratch: step.Scratch, Mounts: sortMounts(step.Mounts),
		Hosts: hostsFile(step), Resolv: s.resolv, Loopback: step.Network == NetworkNone,
		Inplace: &inplaceSpec{Store: s.opts.Store, Keep: s.keep, Durable: s.opts.Force, ExtraHosts: hostLines(step.ExtraHosts)},
	})
	if res.Collision != nil {
		return Outcome{}, collisionFault(res.Collision)
	}
	// Where the supervisor was killed, its journals are still there.
	if err != nil {
		if repairErr := errors.Join(Repair(s.opts.Store), recoverPlacement(step.Scratch)); repairErr != nil {
			err = errors.Join(err, repairErr)
		}
	}
	s.notices(step)
	slices.Sort(res.Suspect)
	return Outcome{Suspect: slices.Compact(res.Suspect), Mounts: res.Mounts}, err
}

// checkMounts refuses what cannot be given to the step, before anything runs.
func (s *inplace) checkMounts(step Step) error {
	mounts, err := mountsBeneath("/")
	if err != nil {
		return err
	}
	x := emptyExchange(nil, realOps("/"))
	x.journalBegin = journalBegin{Root: "/", Tree: step.Root, Keep: s.keep}
	if err := x.foresee(mounts); err != nil {
		return exchangeFault(err)
	}
	for _, m := range step.Mounts {
		if m.Kind == Tmpfs && m.Target == "/dev/shm" {
			continue
		}
		if inDev(m) && !exists(m.Target) {
			continue // a heredoc's script is in /dev/pipes: placeInDev
		}
		for _, dir := range append([]string{"/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}, absolute(s.keep)...) {
			if under(filepath.Join("/", m.Target), dir) {
				return fault.New(fault.Environment, "mount %s: %s is the container's own with isolation inplace", m.Target, dir).
					With("Choose another target for the mount, or another isolation (--isolation).")
			}
		}
	}
	return nil
}

func absolute(rels []string) []string {
	list := make([]string, len(rels))
	for i, rel := range rels {
		list[i] = "/" + rel
	}
	return list
}

// notices says, once each, what could only be done nearly.
func (s *inplace) notices(step Step) {
	if step.Hostname != "" {
		s.notice("The hostname " + strconv.Quote(step.Hostname) + " cannot be set with isolation inplace: steps see the container's.")
	}
	for _, m := range step.Mounts {
		switch {
		case m.Kind == Tmpfs && m.Target == "/dev/shm":
			s.notice("The size of /dev/shm cannot be set with isolation inplace: it is the container's own (docker run --shm-size).")
		case m.Kind == Tmpfs && m.Size > 0:
			s.notice("The size of the tmpfs at " + m.Target + " is not limited with isolation inplace.")
		}
	}
}

func (s *inplace) notice(text string) {
	if _, again := s.told.LoadOrStore(text, true); !again {
		s.opts.Notice(text)
	}
}

// hostLines are the lines that --add-host adds.
func hostLines(hosts []HostIP) []byte {
	var b bytes.Buffer
	for _, h := range hosts {
		fmt.Fprintf(&b, "%s\t%s\n", h.IP, h.Host)
	}
	return b.Bytes()
}

// Harden makes this process non-dumpable: no other process without
// CAP_SYS_PTRACE can read its memory or environment. The program calls it at its
// start, before it has any secret.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make process non-dumpable: %w", err)
	}
	return nil
}
