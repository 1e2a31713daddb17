package sandbox

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// disposableEnv says that "/" may be exchanged: the tests run in a container of
// their own, as root, with nothing in it that matters.
const disposableEnv = "LAYERWRIGHT_TEST_DISPOSABLE_ROOT"

func TestKeptPaths(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(dir+"/ours/store", 0o755))
	require.NoError(t, os.Symlink("ours/store", dir+"/link"))
	store, keep, err := keptPaths(dir+"/link", []string{dir + "/ours", "/busybox/", "/busybox"})
	require.NoError(t, err)
	require.Equal(t, dir+"/ours/store", store, "the store's own path, whatever leads to it")
	require.Equal(t, []string{strings.TrimPrefix(dir, "/") + "/ours", "busybox"}, keep)
	for _, bad := range []string{"relative", "/", dir + "/missing"} {
		_, _, err := keptPaths(bad, nil)
		require.Error(t, err, bad)
	}
}

func TestJournalIgnoresALineThatWasNotCompleted(t *testing.T) {
	name := t.TempDir() + "/journal"
	j, err := createJournal(name)
	require.NoError(t, err)
	require.NoError(t, j.write(journalRecord{Begin: &journalBegin{Root: "/r"}}))
	require.NoError(t, j.write(journalRecord{Phase: inPhase}))
	_, err = j.file.WriteString(`{"Phase":"ba`)
	require.NoError(t, err)
	_, err = createJournal(name)
	require.Error(t, err, "one at a time")
	j, records, err := openJournal(name)
	require.NoError(t, err)
	require.Len(t, records, 2)
	require.NoError(t, j.write(journalRecord{Phase: outPhase}))
	_, records, err = openJournal(name)
	require.NoError(t, err)
	require.Equal(t, []phase{"", inPhase, outPhase}, []phase{records[0].Phase, records[1].Phase, records[2].Phase})
	require.NoError(t, j.remove())
	j, _, err = openJournal(name)
	require.NoError(t, err)
	require.Nil(t, j)
}

func TestAJournalThatIsContinuedIsAsDurableAsItWasBegun(t *testing.T) {
	for _, durable := range []bool{false, true} {
		name := t.TempDir() + "/journal"
		j, err := createJournal(name)
		require.NoError(t, err)
		require.NoError(t, j.write(journalRecord{Begin: &journalBegin{Root: "/r", Durable: durable}}))
		require.Equal(t, durable, j.durable)
		j, _, err = openJournal(name)
		require.NoError(t, err)
		require.Equal(t, durable, j.durable)
	}
}

func TestRepairEndsTheRecordedProcesses(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	require.NoError(t, cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	ref, ok := refProcess(cmd.Process.Pid)
	require.True(t, ok)
	other := ref
	other.Start++
	endProcesses([]processRef{other}, "")
	_, ok = refProcess(ref.PID)
	require.True(t, ok, "another process has that id now")
	endProcesses([]processRef{ref}, "")
	require.Error(t, <-done)
}

func TestRepairPutsBackWhatADeadSupervisorLeft(t *testing.T) {
	dir := t.TempDir()
	root, store := dir+"/root", dir+"/root/ours"
	for _, d := range []string{root + "/job", inplaceDir(store), store + "/tree/usr", store + "/scratch"} {
		require.NoError(t, os.MkdirAll(d, 0o755))
	}
	placed, err := placeMounts(store+"/tree", store+"/scratch", []Mount{{Kind: Secret, Target: "/run/s", Data: []byte("secret"), Mode: 0o400}})
	require.NoError(t, err)
	require.NotEmpty(t, placed.Entries)
	j, err := createJournal(journalPath(store))
	require.NoError(t, err)
	x, err := newExchange(journalBegin{Root: root, Tree: store + "/tree", Aside: inplaceDir(store) + "/aside", Scratch: store + "/scratch", Keep: []string{"ours"}}, j, realOps(root))
	require.NoError(t, err)
	require.NoError(t, x.forth())
	require.NoDirExists(t, root+"/job")
	require.FileExists(t, root+"/run/s")
	require.NoError(t, repairLocked(store, root))
	require.DirExists(t, root+"/job")
	require.NoDirExists(t, root+"/usr")
	require.DirExists(t, store+"/tree/usr")
	require.NoDirExists(t, store+"/tree/run", "the secret is gone")
	require.NoFileExists(t, journalPath(store))
	require.NoError(t, repairLocked(store, root), "nothing left to do")
}

func TestRepairAfterTheContainerWasStartedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*rootLife)
		hosts  string
	}{
		"the same life":           {change: func(*rootLife) {}, hosts: "job"},
		"another PID 1":           {change: func(l *rootLife) { l.Init.Start++ }, hosts: "runtime"},
		"another mount namespace": {change: func(l *rootLife) { l.MountNS = "mnt:[1]" }, hosts: "job"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newExchangeWorld(t)
			w.fill(t, w.root, "etc/hosts=runtime", "etc/passwd=job", "volume=precious")
			w.fill(t, w.tree, "app=a")
			x := w.begin(t)
			x.Life = currentLife()
			x.fixed["etc/hosts"] = fixedEntry{Path: "etc/hosts", Mount: 77}
			own, err := readAttrs(w.root + "/etc/hosts")
			require.NoError(t, err)
			x.content = []mountedContent{{Path: "etc/hosts", Data: []byte("job"), Own: own}}
			x.ops.mounts = func() ([]mountPoint, error) {
				if name == "the same life" {
					return []mountPoint{{ID: 77, Path: "etc/hosts"}}, nil
				}
				return []mountPoint{{ID: 77, Path: "volume"}}, nil
			}
			now := currentLife()
			c.change(&now)
			x.forgetLife(now)
			require.NoError(t, restoreMountedFiles(x))
			for file, want := range map[string]string{"volume": "precious", "etc/hosts": c.hosts} {
				data, err := os.ReadFile(in(w.root, file))
				require.NoError(t, err)
				require.Equal(t, want, string(data), file)
			}
			_, _, moved := x.displaced([]mountPoint{{ID: 77, Path: "proc/sys"}})
			require.Equal(t, name == "the same life", moved)
		})
	}
}

func TestOutsideWaitsForTheRoot(t *testing.T) {
	store := t.TempDir()
	ran := false
	require.NoError(t, Outside(store, func() error { ran = true; return nil }), "where nobody exchanges /")
	require.True(t, ran)
	require.NoError(t, os.Mkdir(inplaceDir(store), 0o700))
	lock, err := lockFile(store, unix.LOCK_EX)
	require.NoError(t, err)
	var inside atomic.Int32
	done := make(chan error, 2)
	both := make(chan struct{})
	for range 2 {
		go func() {
			done <- Outside(store, func() error {
				if inside.Add(1) == 2 {
					close(both)
				}
				<-both // several may run at once
				return nil
			})
		}()
	}
	time.Sleep(50 * time.Millisecond)
	require.Zero(t, inside.Load())
	require.NoError(t, lock.Close())
	require.NoError(t, <-done)
	require.NoError(t, <-done)
}

func TestMountsAreRefusedWhereTheContainersOwnAre(t *testing.T) {
	s := &inplace{keep: []string{"ours"}}
	for target, ok := range map[string]bool{
		"/proc/x": false, "/dev/null": false, "/sys": false, "/etc/hosts": false, "/ours/x": false,
		"/run/secrets/x": true, "/etc/secret": true, "/devices": true,
	} {
		err := s.checkMounts(Step{Root: t.TempDir(), Mounts: []Mount{{Kind: Secret, Target: target}, {Kind: Tmpfs, Target: "/dev/shm"}}})
		if ok {
			require.NoError(t, err, target)
			continue
		}
		e, is := fault.As(err)
		require.True(t, is, target)
		require.Equal(t, fault.Environment, e.Kind)
		require.NotEmpty(t, e.Remedy)
	}
}

// realRoot is a sandbox that really exchanges "/", and a tree whose only program
// is this test.
func realRoot(t *testing.T) (Sandbox, Step, *bytes.Buffer) {
	if os.Getenv(disposableEnv) != "1" {
		t.Skip("exchanges the real /: set " + disposableEnv + "=1 in a container that is thrown away")
	}
	store := "/layerwright-test/store"
	require.NoError(t, os.MkdirAll(store, 0o755))
	require.NoError(t, Repair(store))
	require.NoError(t, ProbeInplace(t.Context(), store))
	sb, err := NewInplace(t.Context(), InplaceOptions{Store: store, Keep: []string{"/layerwright-test"}, Notice: func(s string) { t.Log(s) }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sb.Close()) })
	require.NoError(t, sb.Prepare(t.Context(), func() error { return nil }))
	dir, err := os.MkdirTemp(store, "step-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	step := Step{Root: dir + "/tree", Scratch: dir + "/scratch", Env: testEnv, Cwd: "/"}
	for _, d := range []string{"/tree/bin", "/tree/usr/share", "/tree/tmp", "/tree/etc", "/scratch"} {
		require.NoError(t, os.MkdirAll(dir+d, 0o755))
	}
	require.NoError(t, os.Symlink("usr/share", step.Root+"/link"))
	exe, err := os.ReadFile(selfExe)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(step.Root+"/bin/step", exe, 0o755))
	var out bytes.Buffer
	step.Stdout, step.Stderr = &out, &out
	return sb, step, &out
}

// topLevel is what "/" holds, with types and attributes.
func topLevel(t *testing.T) map[string]string {
	m := map[string]string{}
	for _, dir := range []string{"/", "/etc"} {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			st, err := e.Info()
			require.NoError(t, err)
			if name := filepath.Join(dir, e.Name()); !strings.HasPrefix(name, "/layerwright-test") {
				m[name] = st.Mode().String() + " " + st.ModTime().String()
			}
		}
		st, err := os.Stat(dir)
		require.NoError(t, err)
		m[dir] = st.Mode().String() + " " + st.ModTime().String()
	}
	return m
}

func TestInplaceRuns(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		code int
		out  string
		// has and lacks are paths of the tree afterwards.
		has, lacks []string
	}{
		"at /, with the kernel's directories": {args: []string{"exists", "/proc/self/exe", "/dev/null", "/sys", "/usr/share"}, out: "yes yes yes yes"},
		"out of sight of the job's files":     {args: []string{"exists", "/.dockerenv", "/etc/passwd"}, out: "no no"},
		"fails":                               {args: []string{"exit", "7"}, code: 7},
		"ended by a signal":                   {args: []string{"signal", "15"}, code: 143},
		"daemonizes":                          {args: []string{"daemon"}},
		"makes and deletes":                   {args: []string{"change"}, has: []string{"made", "etc/made", "usr2/share", "link/inside"}, lacks: []string{"tmp", "usr", "etc/hosts"}},
		"deletes its own program":             {args: []string{"remove", "/bin"}, lacks: []string{"bin"}},
	} {
		t.Run(name, func(t *testing.T) {
			sb, step, out := realRoot(t)
			before := topLevel(t)
			step.Args = append([]string{"/bin/step", "helper", "instep"}, c.args...)
			outcome, err := sb.Run(t.Context(), step)
			if c.code != 0 {
				var exit *ExitError
				require.ErrorAs(t, err, &exit)
				require.Equal(t, c.code, exit.Code)
			} else {
				require.NoError(t, err, out.String())
			}
			require.Equal(t, c.out, strings.TrimSpace(out.String()))
			require.Equal(t, before, topLevel(t))
			for _, p := range c.has {
				require.True(t, exists(in(step.Root, p)), p)
				require.Contains(t, outcome.Suspect, strings.Split(p, "/")[0])
			}
			for _, p := range c.lacks {
				require.False(t, exists(in(step.Root, p)), p)
			}
			require.Empty(t, stepProcesses(0, currentLife().MountNS), "no process is left")
		})
	}
}

func TestInplaceCancelledIsBackAtOnce(t *testing.T) {
	sb, step, _ := realRoot(t)
	before := topLevel(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	step.Args = []string{"/bin/step", "helper", "instep", "sleep"}
	start := time.Now()
	_, err := sb.Run(ctx, step)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(start), 2*time.Second)
	require.Equal(t, before, topLevel(t))
	require.Empty(t, stepProcesses(0, currentLife().MountNS))
}

func TestInplaceSurvivesTheDeathOfItsSupervisor(t *testing.T) {
	sb, step, _ := realRoot(t)
	before := topLevel(t)
	step.Args = []string{"/bin/step", "helper", "instep", "kill-parent"}
	step.Mounts = []Mount{{Kind: Secret, Target: "/run/s", Data: []byte("s"), Mode: 0o400}}
	start := time.Now()
	_, err := sb.Run(t.Context(), step)
	require.ErrorContains(t, err, "supervising process ended")
	require.Less(t, time.Since(start), 2*time.Second)
	require.Equal(t, before, topLevel(t))
	require.Empty(t, stepProcesses(0, currentLife().MountNS))
	require.False(t, exists(step.Root+"/run/s"))
}

func TestInplaceAddsHostsForTheStepOnly(t *testing.T) {
	sb, step, out := realRoot(t)
	before, err := os.ReadFile("/etc/hosts")
	require.NoError(t, err)
	step.ExtraHosts = []HostIP{{Host: "added.test", IP: "127.9.9.9"}}
	step.Args = []string{"/bin/step", "helper", "instep", "cat", "/etc/hosts"}
	_, err = sb.Run(t.Context(), step)
	require.NoError(t, err)
	require.Contains(t, out.String(), "127.9.9.9\tadded.test\n")
	after, err := os.ReadFile("/etc/hosts")
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
}

func TestInplaceKeepsSecretsFromTheStep(t *testing.T) {
	sb, step, out := realRoot(t)
	require.NoError(t, Harden())
	step.Args = []string{"/bin/step", "helper", "instep", "spy"}
	_, err := sb.Run(t.Context(), step)
	require.NoError(t, err, out.String())
	require.Empty(t, out.String(), "nothing but its own processes could be read")
}

func TestInplaceRefusesNoNetwork(t *testing.T) {
	sb, step, out := realRoot(t)
	step.Network = NetworkNone
	step.Args = []string{"/bin/step", "helper", "instep", "exists", "/"}
	_, err := sb.Run(t.Context(), step)
	if err != nil { // where the kernel allows it, it is done
		e, ok := fault.As(err)
		require.True(t, ok)
		require.Equal(t, fault.Environment, e.Kind)
		require.Empty(t, out.String())
	}
}
