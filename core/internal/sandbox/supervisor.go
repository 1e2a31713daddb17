package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// inplaceSpec is what the supervisor of an inplace step must know besides.
type inplaceSpec struct {
	Store string
	// Keep are the paths, relative to "/", that stay.
	Keep []string
	// Durable is for a container that is not thrown away.
	Durable bool
	// ExtraHosts are lines for a mounted /etc/hosts.
	ExtraHosts []byte
}

// supervisorMain is the process that supervises a step of isolation inplace: it
// holds "/" while the step runs, and puts it back also when the builder has died.
func supervisorMain() int {
	return supervise(func(s *supervision) *startFault {
		// A step may send us anything. Only SIGKILL and SIGSTOP get through.
		signal.Notify(make(chan os.Signal, 1))
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return faultOf(fmt.Errorf("become subreaper: %w", err))
		}
		if s.spec.Loopback {
			if err := loopbackUp(); err != nil {
				return faultOf(loopbackFault(err))
			}
		}
		go s.awaitBuilder()
		lock, err := s.lockRoot()
		if err != nil {
			s.child.abandon()
			endDescendants()
			return faultOf(err)
		}
		defer lock.Close()
		f, err := s.holdRoot()
		endDescendants()
		var collision *CollisionError
		if errors.As(err, &collision) {
			s.result.Collision = collision
		}
		if f == nil && err != nil {
			f = faultOf(err)
		}
		return f
	})
}

// lockRoot waits for "/", unless the builder ends first.
func (s *supervision) lockRoot() (*os.File, error) {
	type answer struct {
		file *os.File
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		f, err := lockFile(s.spec.Inplace.Store, unix.LOCK_EX)
		got <- answer{f, err}
	}()
	for {
		select {
		case a := <-got:
			return a.file, a.err
		case <-time.After(5 * time.Millisecond):
			if s.ended.Load() {
				return nil, errors.New("the builder has ended")
			}
		}
	}
}

// holdRoot places the step's mounts, exchanges "/", runs the command, and undoes
// all of it. What the step itself came to is the fault; the error is ours.
func (s *supervision) holdRoot() (f *startFault, err error) {
	abandoned := true
	defer func() {
		if abandoned {
			s.child.abandon()
		}
	}()
	// Another builder's supervisor may have died.
	if err := repairLocked(s.spec.Inplace.Store, "/"); err != nil {
		return nil, err
	}
	placed, err := place(s.spec.Root, s.spec.Scratch, s.inplaceMounts())
	if err != nil {
		return nil, err
	}
	defer func() {
		s.result.Suspect = append(s.result.Suspect, placed.Suspect()...)
		err = errors.Join(err, placed.Undo())
	}()
	if err := s.child.awaitBegun(); err != nil {
		return nil, err
	}
	x, err := s.beginExchange()
	if err != nil {
		return nil, err
	}
	keep := holdKept(x)
	defer func() {
		err = errors.Join(err, keep.bringHome(), finishExchange(x))
		for p := range x.suspect {
			s.result.Suspect = append(s.result.Suspect, p)
		}
	}()
	if err := x.forth(); err != nil {
		return nil, exchangeFault(err)
	}
	s.result.Mounts = x.visible()
	if err := openMountedFiles(x, s.spec.Inplace.ExtraHosts); err != nil {
		return nil, err
	}
	if err := noteDevices(x); err != nil {
		return nil, err
	}
	if err := placeInDev(s.spec.Mounts); err != nil {
		return nil, err
	}
	abandoned = false
	stop := make(chan struct{})
	go s.killWhenEnded(stop)
	f = s.runCommand()
	endDescendants()
	close(stop)
	// See chrootMain.
	awaitDrained(&s.ended, 1, 2)
	return f, nil
}

// killWhenEnded ends the step when the builder has died or has cancelled.
func (s *supervision) killWhenEnded(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(2 * time.Millisecond):
			if s.ended.Load() {
				killDescendants()
			}
		}
	}
}

func (s *supervision) beginExchange() (*exchange, error) {
	dir := inplaceDir(s.spec.Inplace.Store)
	begin := journalBegin{Root: "/", Tree: s.spec.Root, Aside: filepath.Join(dir, "aside"),
		Scratch: s.spec.Scratch, Keep: s.spec.Inplace.Keep, Life: currentLife(), Durable: s.spec.Inplace.Durable}
	for _, pid := range []int{os.Getpid(), s.child.pid} {
		if ref, ok := refProcess(pid); ok {
			begin.Processes = append(begin.Processes, ref)
		}
	}
	j, err := createJournal(journalPath(s.spec.Inplace.Store))
	if err != nil {
		return nil, err
	}
	x, err := newExchange(begin, j, realOps("/"))
	if err != nil {
		return nil, errors.Join(err, j.remove())
	}
	return x, nil
}

// finishExchange puts "/", the mounted files and the devices back and ends the journal. When
// it fails the journal stays, for Repair.
func finishExchange(x *exchange) error {
	err := errors.Join(restoreMountedFiles(x), restoreDevices(x))
	if backErr := x.back(); backErr != nil {
		return errors.Join(err, fmt.Errorf("put / back: %w", backErr))
	}
	return errors.Join(err, x.journal.remove())
}

// exchangeFault classifies why the exchange was impossible.
func exchangeFault(err error) error {
	var c *CollisionError
	if errors.As(err, &c) {
		return collisionFault(c)
	}
	return fault.Wrap(fault.Environment, err, "exchange /")
}

func collisionFault(c *CollisionError) error {
	return &fault.Error{Kind: fault.Environment, Op: "isolation inplace", Err: c,
		Remedy: "Mount " + c.Mount + " elsewhere in the job's container, or use --isolation auto or chroot."}
}

// inplaceMounts are what goes into the tree before the exchange.
func (s *supervision) inplaceMounts() []placedMount {
	mounts, _ := mountsBeneath("/")
	var list []placedMount
	for _, f := range []struct {
		target string
		data   []byte
	}{{"/etc/hosts", s.spec.Hosts}, {"/etc/resolv.conf", s.spec.Resolv}} {
		// Mostly the container's own are mounted, and stay.
		if mountAt(mounts, f.target[1:]) == 0 && !hasTarget(s.spec.Mounts, f.target) {
			list = append(list, placedMount{Mount: Mount{Target: f.target}, make: func(target string) error {
				return writeOwned(target, f.data, 0, 0, 0o644)
			}})
		}
	}
	for _, m := range s.spec.Mounts {
		if m.Kind == Tmpfs && under(m.Target, "/dev/shm") {
			continue // the container's own; NewInplace's Run has said so
		}
		if inDev(m) {
			continue
		}
		list = append(list, placedMount{Mount: m})
	}
	return list
}

// openMountedFiles notes the content of the files that are mounted into the
// container and stay, and adds the step's hosts.
func openMountedFiles(x *exchange, hosts []byte) error {
	for _, rel := range mountedFiles {
		if _, ok := x.fixed[rel]; !ok {
			continue
		}
		data, err := os.ReadFile(in(x.Root, rel))
		if err != nil {
			return fmt.Errorf("read /%s: %w", rel, cause(err))
		}
		own, err := readAttrs(in(x.Root, rel))
		if err != nil {
			return err
		}
		if err := x.note(journalRecord{Content: &mountedContent{Path: rel, Data: data, Own: own}}); err != nil {
			return err
		}
		if rel == "etc/hosts" && len(hosts) > 0 {
			if len(data) > 0 && !bytes.HasSuffix(data, []byte("\n")) {
				hosts = append([]byte("\n"), hosts...)
			}
			if err := appendFile(in(x.Root, rel), hosts); err != nil {
				return fault.New(fault.Environment, "add hosts to /etc/hosts: %w", cause(err)).
					With("The container's /etc/hosts is read-only: leave out --add-host, or use another isolation.")
			}
		}
	}
	return nil
}

func appendFile(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// restoreMountedFiles gives them the content from before the step. It comes
// after all processes of the step have ended and before "/" is put back, when
// /etc may be elsewhere: so it finds them by their mounts.
func restoreMountedFiles(x *exchange) error {
	if len(x.content) == 0 {
		return nil
	}
	mounts, err := x.ops.mounts()
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range x.content {
		name := c.Path
		for _, m := range mounts {
			if id := x.fixed[c.Path].Mount; id != 0 && m.ID == id {
				name = m.Path
			}
		}
		name = in(x.Root, name)
		if err := c.putBack(name); err != nil {
			errs = append(errs, fmt.Errorf("restore /%s: %w", c.Path, cause(err)))
		}
	}
	return errors.Join(errs...)
}

// putBack writes in place, since the file is a mount point.
func (c mountedContent) putBack(name string) error {
	now, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(now, c.Data) {
		if err := os.WriteFile(name, c.Data, 0o644); err != nil {
			return err
		}
	}
	// A read-only mount cannot be changed by the step either.
	if err := c.Own.apply(name); err != nil && !errors.Is(err, unix.EROFS) {
		return err
	}
	return nil
}

// keptDirs are handles on what is ours, so that it is found again when a step
// has renamed it.
type keptDirs map[string]int

func holdKept(x *exchange) keptDirs {
	k := keptDirs{}
	for _, rel := range x.Keep {
		if fd, err := unix.Open(in(x.Root, rel), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err == nil {
			k[in(x.Root, rel)] = fd
		}
	}
	return k
}

// bringHome renames what a step has renamed.
func (k keptDirs) bringHome() error {
	var errs []error
	for home, fd := range k {
		now, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err == nil && now != home && exists(now) {
			if err := os.MkdirAll(filepath.Dir(home), 0o755); err != nil {
				errs = append(errs, err)
			}
			if exists(home) {
				errs = append(errs, os.Rename(home, now+".step"))
			}
			errs = append(errs, os.Rename(now, home))
		}
		_ = unix.Close(fd)
	}
	return errors.Join(errs...)
}
