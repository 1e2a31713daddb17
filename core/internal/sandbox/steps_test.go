package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/needs"
)

// busyboxRoot makes a tree of busybox and its links.
func busyboxRoot(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		needs.Missing(t, "root")
	}
	bin, err := os.ReadFile("/bin/busybox")
	if err != nil {
		needs.Missing(t, "Debian's busybox-static")
	}
	root := t.TempDir()
	require.NoError(t, os.Chmod(root, 0o755))
	require.NoError(t, os.MkdirAll(root+"/bin", 0o755))
	require.NoError(t, os.WriteFile(root+"/bin/busybox", bin, 0o755))
	for _, name := range strings.Fields("sh ls cat id stat sleep env mkdir rm touch echo hostname ps mount ip true kill chmod setsid nohup readlink grep nc df test") {
		require.NoError(t, os.Symlink("busybox", root+"/bin/"+name))
	}
	for _, d := range []string{"etc", "proc", "dev", "sys", "tmp", "root"} {
		require.NoError(t, os.Mkdir(root+"/"+d, 0o755))
	}
	require.NoError(t, os.Chmod(root+"/root", 0o700))
	require.NoError(t, os.WriteFile(root+"/etc/passwd", []byte("root:x:0:0:r:/root:/bin/sh\nann:x:1000:1001:a:/home/ann:/bin/sh\n"), 0o644))
	require.NoError(t, os.WriteFile(root+"/etc/group", []byte("root:x:0:\nann:x:1001:\naudio:x:29:ann\nvideo:x:44:ann,root\n"), 0o644))
	return root
}

// eachMode runs a test in every mode of this file that works here.
func eachMode(t *testing.T, test func(t *testing.T, sb Sandbox)) {
	t.Helper()
	t.Run("namespaces", func(t *testing.T) {
		sb, err := NewNamespaces(NamespacesOptions{})
		if err != nil {
			needs.Missing(t, err.Error())
		}
		test(t, sb)
	})
	t.Run("chroot", func(t *testing.T) {
		sb, err := NewChroot(ChrootOptions{})
		if err != nil {
			needs.Missing(t, err.Error())
		}
		test(t, sb)
	})
}

var testEnv = []string{"PATH=/bin"}

// sh is a step that runs a script.
func sh(t *testing.T, root, script string) Step {
	return Step{Root: root, Scratch: t.TempDir(), Args: []string{"/bin/sh", "-c", script}, Env: testEnv, Stdout: io.Discard, Stderr: io.Discard}
}

// output runs a step that must succeed.
func output(t *testing.T, sb Sandbox, step Step) string {
	t.Helper()
	var out, errs bytes.Buffer
	step.Stdout, step.Stderr = &out, &errs
	_, err := sb.Run(t.Context(), step)
	require.NoError(t, err, "stdout %q stderr %q", out.String(), errs.String())
	return out.String()
}

func TestExitCodesAndSignals(t *testing.T) {
	eachMode(t, func(t *testing.T, sb Sandbox) {
		root := busyboxRoot(t)
		for _, tc := range []struct {
			name, script string
			want         *ExitError
		}{
			{"success", "exit 0", nil},
			{"a code is passed on", "exit 42", &ExitError{Code: 42}},
			{"a signal is 128 and its number", "kill -9 $$", &ExitError{Code: 137, Signal: 9}},
			{"code of the command, not of what it leaves", "(sleep 100; exit 3) & exit 7", &ExitError{Code: 7}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				_, err := sb.Run(t.Context(), sh(t, root, tc.script))
				if tc.want == nil {
					require.NoError(t, err)
					return
				}
				var exit *ExitError
				require.ErrorAs(t, err, &exit)
				require.Equal(t, tc.want, exit)
			})
		}
	})
}

func TestOutputStreamsAreKeptApart(t *testing.T) {
	eachMode(t, func(t *testing.T, sb Sandbox) {
		step := sh(t, busyboxRoot(t), "echo out; echo err >&2; cat")
		var out, errs bytes.Buffer
		step.Stdout, step.Stderr = &out, &errs
		_, err := sb.Run(t.Context(), step)
		require.NoError(t, err)
		require.Equal(t, "out\n", out.String())
		require.Equal(t, "err\n", errs.String())
	})
}

func TestUsers(t *testing.T) {
	eachMode(t, func(t *testing.T, sb Sandbox) {
		root := busyboxRoot(t)
		for _, tc := range []struct{ user, uid, gid, groups, home, err string }{
			{user: "", uid: "0", gid: "0", groups: "0 44", home: "/root"},
			{user: "ann", uid: "1000", gid: "1001", groups: "1001 29 44", home: "/home/ann"},
			{user: "1000", uid: "1000", gid: "1001", groups: "1001 29 44", home: "/home/ann"},
			{user: "ann:audio", uid: "1000", gid: "29", groups: "29", home: "/home/ann"},
			{user: "1000:5", uid: "1000", gid: "5", groups: "5", home: "/home/ann"},
			{user: "4242", uid: "4242", gid: "0", groups: "0", home: "/"},
			{user: "nope", err: "unable to find user nope: no matching entries in passwd file"},
			{user: "ann:nope", err: "unable to find group nope: no matching entries in group file"},
		} {
			t.Run("user "+tc.user, func(t *testing.T) {
				step := sh(t, root, "id -u; id -g; id -G; echo $HOME; umask")
				step.User = tc.user
				if tc.err != "" {
					_, err := sb.Run(t.Context(), step)
					require.EqualError(t, err, tc.err)
					f, ok := fault.As(err)
					require.True(t, ok)
					require.Equal(t, fault.User, f.Kind)
					return
				}
				require.Equal(t, fmt.Sprintf("%s\n%s\n%s\n%s\n0022\n", tc.uid, tc.gid, tc.groups, tc.home), output(t, sb, step))
			})
		}
	})
}

func TestWorkingDirectory(t *testing.T) {
	eachMode(t, func(t *testing.T, sb Sandbox) {
		root := busyboxRoot(t)
		step := sh(t, root, "pwd; stat -c '%u:%g %a' . ..")
		step.User, step.Cwd = "ann", "/srv/app"
		require.Equal(t, "/srv/app\n1000:1001 755\n1000:1001 755\n", output(t, sb, step))

		step.Cwd, step.Args = "/root", []string{"/bin/sh", "-c", "pwd"}
		require.Equal(t, "/root\n", output(t, sb, step), "a directory that only root can enter")

		step.Cwd = "/etc/passwd"
		_, err := sb.Run(t.Context(), step)
		require.ErrorContains(t, err, "not a directory")
	})
}

func TestCommandThatCannotStart(t *testing.T) {
	eachMode(t, func(t *testing.T, sb Sandbox) {
		root := busyboxRoot(t)
		require.NoError(t, os.WriteFile(root+"/bin/plain", []byte("x"), 0o644))
		for _, tc := range []struct {
			args []string
			code int
			msg  string
		}{
			{[]string{"/bin/bash", "-c", "true"}, 127, `exec: "/bin/bash": stat /bin/bash: no such file or directory`},
			{[]string{"frob"}, 127, `exec: "frob": executable file not found in $PATH`},
			{[]string{"/bin/plain"}, 126, `exec: "/bin/plain": permission denied`},
			{[]string{"/bin"}, 126, `exec: "/bin": is a directory`},
		} {
			step := sh(t, root, "")
			step.Args = tc.args
			_, err := sb.Run(t.Context(), step)
			var start *StartError
			require.ErrorAs(t, err, &start)
			require.Equal(t, tc.msg, start.Error())
			require.Equal(t, tc.code, start.Code)
		}
	})
}

func TestEnvironmentIsExactlyTheSteps(t *testing.T) {
	eachMode(t, func(t *testing.T, sb Sandbox) {
		t.Setenv("PLANTED", "secret")
		step := sh(t, busyboxRoot(t), "")
		step.Args, step.Env = []string{"env"}, []string{"PATH=/bin", "A=1", "HOME=/x"}
		require.Equal(t, "PATH=/bin\nA=1\nHOME=/x\n", output(t, sb, step))
	})
}

func TestNoInheritedDescriptors(t *testing.T) {
	var fds [2]int
	require.NoError(t, syscall.Pipe(fds[:])) // not close-on-exec, as a CI may leave it
	defer syscall.Close(fds[0])
	defer syscall.Close(fds[1])
	sb, err := NewNamespaces(NamespacesOptions{})
	if err != nil {
		needs.Missing(t, err.Error())
	}
	// 3 is ls's own.
	require.Equal(t, "0\n1\n2\n3\n", output(t, sb, sh(t, busyboxRoot(t), "exec ls /proc/self/fd")))
}

func TestCapabilitiesLackSetpcap(t *testing.T) {
	sb, err := NewNamespaces(NamespacesOptions{})
	if err != nil {
		needs.Missing(t, err.Error())
	}
	root := busyboxRoot(t)
	const show = "grep ^Cap /proc/self/status"
	require.Equal(t, "CapInh:\t0000000000000000\nCapPrm:\t00000000a80424fb\nCapEff:\t00000000a80424fb\nCapBnd:\t00000000a80424fb\nCapAmb:\t0000000000000000\n", output(t, sb, sh(t, root, show)))
	step := sh(t, root, show)
	step.User = "ann"
	require.Equal(t, "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t00000000a80424fb\nCapAmb:\t0000000000000000\n", output(t, sb, step))
}

func TestUlimits(t *testing.T) {
	eachMode(t, func(t *testing.T, sb Sandbox) {
		step := sh(t, busyboxRoot(t), "ulimit -Sn; ulimit -Hn; ulimit -Sc")
		step.Ulimits = []Ulimit{{"nofile", 100, 200}, {"core", 0, 0}}
		require.Equal(t, "100\n200\n0\n", output(t, sb, step))
		step.Ulimits = []Ulimit{{"bogus", 1, 1}}
		_, err := sb.Run(t.Context(), step)
		require.ErrorContains(t, err, `unknown ulimit "bogus"`)
	})
}

func TestMountsOfEachKind(t *testing.T) {
	eachMode(t, func(t *testing.T, sb Sandbox) {
		root := busyboxRoot(t)
		require.NoError(t, os.MkdirAll(root+"/opt/covered", 0o755))
		require.NoError(t, os.WriteFile(root+"/opt/covered/old", []byte("old"), 0o644))
		src := t.TempDir()
		bind, cache := filepath.Join(src, "bind"), filepath.Join(src, "cache")
		require.NoError(t, os.Mkdir(bind, 0o755))
		require.NoError(t, os.WriteFile(bind+"/f", []byte("bound"), 0o644))
		require.NoError(t, os.Mkdir(cache, 0o755))
		file := filepath.Join(src, "file")
		require.NoError(t, os.WriteFile(file, []byte("one file"), 0o644))
		sock := filepath.Join(src, "sock")
		l, err := net.Listen("unix", sock)
		require.NoError(t, err)
		defer l.Close()
		before := walk(t, root)
		step := sh(t, root, `set -e
cat /opt/covered/f; echo; test ! -e /opt/covered/old
echo kept > /var/cache/x/new
cat /run/secrets/s; echo; stat -c '%u:%g %a' /run/secrets/s
test -S /run/agent; stat -c '%u %a' /run/agent
touch /scratch/t; stat -c %a /scratch
cat /etc/one; echo
cat /opt/covered/in/s2; echo; cat /etc/hosts; test -e /dev/null; echo x > /dev/null
`)
		step.ExtraHosts = []HostIP{{"db", "10.0.0.9"}}
		step.Mounts = []Mount{
			{Kind: Bind, Target: "/opt/covered", Source: bind},
			{Kind: Cache, Target: "/var/cache/x", Source: cache},
			{Kind: Secret, Target: "/run/secrets/s", Data: []byte("s3cret"), UID: 7, GID: 8, Mode: 0o440},
			{Kind: Secret, Target: "/opt/covered/in/s2", Data: []byte("nested"), Mode: 0o400},
			{Kind: SSHAgent, Target: "/run/agent", Source: sock, UID: 7, Mode: 0o600},
			{Kind: Tmpfs, Target: "/scratch"},
			{Kind: Bind, Target: "/etc/one", Source: file, ReadOnly: true},
		}
		require.Equal(t, "bound\ns3cret\n7:8 440\n7 600\n1777\none file\nnested\n127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.9\tdb\n", output(t, sb, step))
		require.Equal(t, before, walk(t, root), "the tree is as it was, with times")
		require.FileExists(t, cache+"/new")
		require.FileExists(t, bind+"/f")
		require.FileExists(t, file)
		left, err := os.ReadDir(step.Scratch)
		require.NoError(t, err)
		require.Empty(t, left)
	})
}

func TestStubsStayWhereTheStepWroteIntoThem(t *testing.T) {
	eachMode(t, func(t *testing.T, sb Sandbox) {
		root := busyboxRoot(t)
		step := sh(t, root, "echo x > /a/b/own")
		step.Mounts = []Mount{{Kind: Secret, Target: "/a/b/s", Data: []byte("1"), Mode: 0o400}, {Kind: Tmpfs, Target: "/c/d"}}
		output(t, sb, step)
		require.FileExists(t, root+"/a/b/own")
		require.NoFileExists(t, root+"/a/b/s")
		require.NoDirExists(t, root+"/c")
		require.NoFileExists(t, root+"/etc/hosts")
	})
}

func TestRuntimeDirectoriesStay(t *testing.T) {
	eachMode(t, func(t *testing.T, sb Sandbox) {
		root := busyboxRoot(t)
		for _, d := range []string{"proc", "dev", "sys", "etc/passwd", "etc/group", "etc"} {
			require.NoError(t, os.Remove(filepath.Join(root, d)))
		}
		output(t, sb, sh(t, root, "true"))
		for _, d := range []string{"proc", "dev", "sys"} {
			entries, err := os.ReadDir(filepath.Join(root, d))
			require.NoError(t, err)
			require.Empty(t, entries)
		}
		require.NoDirExists(t, root+"/etc", "as with BuildKit")
	})
}

func TestReadOnlyBindCannotBeWritten(t *testing.T) {
	sb, err := NewNamespaces(NamespacesOptions{})
	if err != nil {
		needs.Missing(t, err.Error())
	}
	src := t.TempDir()
	step := sh(t, busyboxRoot(t), "touch /m/x")
	step.Mounts = []Mount{{Kind: Bind, Target: "/m", Source: src, ReadOnly: true}}
	var stderr bytes.Buffer
	step.Stderr = &stderr
	_, err = sb.Run(t.Context(), step)
	require.Error(t, err)
	require.Contains(t, stderr.String(), "Read-only file system")
}

func TestShmSizeAndHostname(t *testing.T) {
	sb, err := NewNamespaces(NamespacesOptions{})
	if err != nil {
		needs.Missing(t, err.Error())
	}
	step := sh(t, busyboxRoot(t), "hostname; df -k /dev/shm | grep shm; ls /dev")
	step.Mounts = []Mount{{Kind: Tmpfs, Target: "/dev/shm", Size: 8 << 20}}
	step.Hostname = "box"
	out := output(t, sb, step)
	require.Regexp(t, `^box\ntmpfs +8192 `, out)
	require.Contains(t, out, "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n")
}

func TestNoNetwork(t *testing.T) {
	eachMode(t, func(t *testing.T, sb Sandbox) {
		step := sh(t, busyboxRoot(t), "ip -o link | grep -c .; ip -o addr show lo")
		step.Network = NetworkNone
		if !hasCap(21) || !hasCap(12) {
			_, err := sb.Run(t.Context(), step)
			f, ok := fault.As(err)
			require.True(t, ok)
			require.Equal(t, fault.Environment, f.Kind)
			require.NotEmpty(t, f.Remedy)
			return
		}
		out := output(t, sb, step)
		require.True(t, strings.HasPrefix(out, "1\n"), out)
		require.Contains(t, out, "127.0.0.1/8")
	})
}

func TestLeftoverDaemonsAreEnded(t *testing.T) {
	eachMode(t, func(t *testing.T, sb Sandbox) {
		output(t, sb, sh(t, busyboxRoot(t), "for i in 1 2 3; do setsid nohup sleep 7654 >/dev/null 2>&1 & done"))
		require.Empty(t, pidsOf(t, "7654"))
	})
}

func TestCancellationEndsEverythingWithinTwoSeconds(t *testing.T) {
	eachMode(t, func(t *testing.T, sb Sandbox) {
		root := busyboxRoot(t)
		before := walk(t, root)
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("enough")
		r, w := io.Pipe()
		step := sh(t, root, "trap '' TERM INT; setsid sleep 8765 & echo up; sleep 8765")
		step.Mounts = []Mount{{Kind: Secret, Target: "/run/s", Data: []byte("x"), Mode: 0o400}}
		step.Stdout = w
		done := make(chan error, 1)
		go func() {
			_, err := sb.Run(ctx, step)
			done <- err
		}()
		_, err := io.ReadFull(r, make([]byte, 3))
		require.NoError(t, err)
		start := time.Now()
		cancel(why)
		require.ErrorIs(t, <-done, why)
		require.Less(t, time.Since(start), 2*time.Second)
		require.Empty(t, pidsOf(t, "8765"))
		require.Equal(t, before, walk(t, root))
	})
}

func TestTwentyStepsAtOnce(t *testing.T) {
	eachMode(t, func(t *testing.T, sb Sandbox) {
		var eg errgroup.Group
		var mu sync.Mutex
		seen := map[string]bool{}
		for i := range 20 {
			root := busyboxRoot(t)
			step := sh(t, root, fmt.Sprintf("sleep 0.2; cat /run/s; exit %d", i))
			step.Mounts = []Mount{{Kind: Secret, Target: "/run/s", Data: fmt.Append(nil, i), Mode: 0o400}}
			var out bytes.Buffer
			step.Stdout = &out
			eg.Go(func() error {
				_, err := sb.Run(t.Context(), step)
				var exit *ExitError
				if i != 0 && (!errors.As(err, &exit) || exit.Code != i) {
					return fmt.Errorf("step %d: %w", i, err)
				}
				mu.Lock()
				defer mu.Unlock()
				seen[out.String()] = true
				return nil
			})
		}
		require.NoError(t, eg.Wait())
		require.Len(t, seen, 20)
	})
}

// The step is root; what it may not read belongs to this process and to its
// supervising process.
func TestCredentialsAreOutOfReach(t *testing.T) {
	sb, err := NewNamespaces(NamespacesOptions{})
	if err != nil {
		needs.Missing(t, err.Error())
	}
	require.Equal(t, "no\nno\n", output(t, sb, sh(t, busyboxRoot(t), "cat /proc/1/environ 2>/dev/null | grep -q . && echo yes || echo no; ls /proc/1/fd/3 >/dev/null 2>&1 && echo yes || echo no")))
}

// A chroot step with the outer /proc bound into it, as inplace steps have it.
func TestCapabilityGuardsOuterProcesses(t *testing.T) {
	outer := exec.Command("/bin/sleep", "60")
	outer.Env = []string{"PLANTED=secret"}
	require.NoError(t, outer.Start())
	defer func() { _ = outer.Process.Kill(); _ = outer.Wait() }()
	root := busyboxRoot(t)
	spec := childSpec{Args: []string{"/bin/sh", "-c", fmt.Sprintf("cat /proc/%d/environ", outer.Process.Pid)}, Env: testEnv, Cwd: "/", Groups: []uint32{0}}
	_ = root
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	require.NoError(t, err)
	defer null.Close()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	c, err := newChild(null, w, w)
	require.NoError(t, err)
	w.Close()
	require.NoError(t, c.run(spec))
	out, err := io.ReadAll(r)
	require.NoError(t, err)
	var ws syscall.WaitStatus
	_, err = syscall.Wait4(c.pid, &ws, 0, nil)
	require.NoError(t, err)
	require.NotContains(t, string(out), "secret")
	require.Contains(t, string(out), "Permission denied")
}

// The builder is killed outright: its supervising process puts the tree back.
func TestKilledBuilderLeavesNothing(t *testing.T) {
	for _, mode := range []string{"namespaces", "chroot"} {
		t.Run(mode, func(t *testing.T) {
			if mode == "namespaces" && !hasCap(21) {
				needs.Missing(t, "CAP_SYS_ADMIN")
			}
			root := busyboxRoot(t)
			before := walk(t, root)
			self, err := os.Executable()
			require.NoError(t, err)
			scratch := t.TempDir()
			cmd := exec.CommandContext(t.Context(), self, "helper", "steps", mode, root, scratch, "cat /run/secrets/s; setsid sleep 6543 & sleep 6543")
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			_, err = io.ReadFull(out, make([]byte, 3))
			require.NoError(t, err)
			require.NoError(t, cmd.Process.Kill())
			_ = cmd.Wait()
			require.Eventually(t, func() bool { return len(pidsOf(t, "6543")) == 0 && len(pidsOf(t, scratch)) == 0 }, 2*time.Second, 10*time.Millisecond)
			if mode == "namespaces" {
				// Empty mount points are all that is left of it; the tree is
				// not going to be used.
				require.NoError(t, filepath.WalkDir(root+"/run", func(_ string, d os.DirEntry, err error) error {
					if err == nil && !d.IsDir() {
						fi, _ := d.Info()
						require.Zero(t, fi.Size())
					}
					return err
				}))
				return
			}
			require.Eventually(t, func() bool { return !exists(root + "/run") }, 2*time.Second, 10*time.Millisecond)
			time.Sleep(100 * time.Millisecond)
			require.Equal(t, before, walk(t, root))
		})
	}
}

// walk lists a tree with everything that must not change.
func walk(t *testing.T, root string) []string {
	t.Helper()
	var list []string
	require.NoError(t, filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		list = append(list, fmt.Sprintf("%s %v %d %v", rel, fi.Mode(), fi.Sys().(*syscall.Stat_t).Ino, fi.ModTime()))
		return nil
	}))
	return list
}

// pidsOf finds processes by an argument.
func pidsOf(t *testing.T, arg string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	var pids []string
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil && strings.Contains(string(data), "\x00"+arg+"\x00") {
			pids = append(pids, f)
		}
	}
	return pids
}
