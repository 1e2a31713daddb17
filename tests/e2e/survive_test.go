package e2e_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

// listing prints every file of the container that is its own, with type, mode,
// owner, size, link target and content, so that two of them can be compared.
const listing = `listing() { find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /layerwright/store -o -path /workspace -o -path /tmp/lists \) -prune -o ! -path / -print | sort | while read -r f; do
 printf '%s ' "$f"; stat -c '%F %a %u:%g %N' "$f" | tr '\n' ' '; [ -f "$f" ] && [ ! -L "$f" ] && case $f in /etc/hosts|/etc/resolv.conf|/etc/hostname) echo;; *) md5sum < "$f";; esac || echo; done; }
mkdir -p /tmp/lists; echo mine > /mine; mkdir -p /opt/own/deep; echo x > /opt/own/deep/f; ln -s /mine /etc/own-link
`

func exists(t *testing.T, ref string) bool {
	t.Helper()
	r, err := name.ParseReference(ref, name.Insecure)
	require.NoError(t, err)
	_, err = remote.Head(r, remote.WithContext(t.Context()))
	return err == nil
}

// TestJobGoesOn: with a shell as PID 1 the job's own files are all there after
// a build, a failing step, a cancelled build, and a SIGKILL of the builder; and
// the job can build again.
func TestJobGoesOn(t *testing.T) {
	base := smallBase(t)
	reg := parts.SharedRegistry(t)
	dir := buildContext(t, map[string]string{
		"ok/Dockerfile":   "FROM " + base + "\nRUN echo built > /file && rm -r /home && mv /root /root2\n",
		"fail/Dockerfile": "FROM " + base + "\nRUN rm -r /etc/motd && exit 3\n",
		"slow/Dockerfile": "FROM " + base + "\nRUN touch /started && sleep 300\n",
	})
	cases := map[string]string{
		"success": "layerwright build -c /workspace/ok -d " + reg.Addr + "/on:ok || exit 91",
		"failing": "layerwright build -c /workspace/fail --no-push; [ $? = 1 ] || exit 92",
		"cancelled": `layerwright build --log-format plain -c /workspace/slow --no-push > /tmp/lists/log 2>&1 & p=$!
			while [ ! -e /started ]; do /layerwright/busybox/usleep 10000; done; kill -TERM $p; wait $p; [ $? = 143 ] || exit 93`,
		"killed": `layerwright build --log-format plain -c /workspace/slow --no-push > /tmp/lists/log 2>&1 & p=$!
			while [ ! -e /started ]; do /layerwright/busybox/usleep 10000; done; kill -KILL $p; wait $p
			n=0; while [ ! -e /mine ]; do n=$((n+1)); [ $n -lt 300 ] || exit 94; /layerwright/busybox/usleep 10000; done; /layerwright/busybox/sleep 1`,
	}
	for what, command := range cases {
		t.Run(what, func(t *testing.T) {
			ref := reg.Addr + "/again:" + what
			// Commands are given by absolute paths where the step's root may
			// be in place; the shell's own functions do the rest.
			script := strings.Join([]string{listing, "listing > /tmp/lists/before", command, "listing > /tmp/lists/after",
				"diff /tmp/lists/before /tmp/lists/after || exit 95",
				"layerwright build -c /workspace/ok -d " + ref + " || exit 96", "listing > /tmp/lists/after",
				"diff /tmp/lists/before /tmp/lists/after || exit 97",
				"ps -o pid,args | grep -v -e 'ps -o' -e grep | grep -e sleep -e layerwright-; [ $? = 1 ] || exit 98"}, "\n")
			got := inShell(t, dir, script)
			require.Equal(t, 0, got.code, got.output)
			require.True(t, exists(t, ref))
		})
	}
}

// TestSignalToFirstProcess: the builder as PID 1 ends in time, with the
// signal's exit code, and no tag is pushed.
func TestSignalToFirstProcess(t *testing.T) {
	base := smallBase(t)
	reg := parts.SharedRegistry(t)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nRUN echo step-is-running && sleep 300\n"})
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			d := parts.Engine(t)
			box := fmt.Sprintf("signal-%d", int(signal))
			ref := reg.Addr + "/signal:" + fmt.Sprint(int(signal))
			done := make(chan outcome, 1)
			go func() {
				done <- run(t, jobCommand(context.Background(), t, []string{"--name", box}, dir,
					"build", "--log-format", "plain", "-c", "/workspace", "-d", ref))
			}()
			eventually(t, "the step", func() bool {
				out, _ := d.Command(t.Context(), "logs", box).CombinedOutput()
				return strings.Contains(string(out), " step-is-running")
			})
			began := time.Now()
			d.Must(t, "kill", "-s", fmt.Sprint(int(signal)), box)
			got := <-done
			require.Equal(t, 128+int(signal), got.code, got.output)
			require.Less(t, time.Since(began), 10*time.Second)
			require.False(t, exists(t, ref))
		})
	}
}

// TestRestartedContainer: a container whose builder was PID 1 and was killed
// has its files back when it is started again and builds.
func TestRestartedContainer(t *testing.T) {
	base := smallBase(t)
	reg := parts.SharedRegistry(t)
	d := parts.Engine(t)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nRUN echo step-is-running && [ -e /flag ] || sleep 300\n"})
	box, ref := "restarted", reg.Addr+"/restarted:1"
	d.Must(t, "create", "--name", box, "--network", "host", "-v", dir+":/workspace", parts.JobImage(t, d),
		"build", "--log-format", "plain", "-c", "/workspace", "-d", ref)
	t.Cleanup(func() { _ = d.Command(context.Background(), "rm", "-f", box).Run() })
	d.Must(t, "start", box)
	eventually(t, "the step", func() bool {
		out, _ := d.Command(t.Context(), "logs", box).CombinedOutput()
		return strings.Contains(string(out), " step-is-running")
	})
	d.Must(t, "kill", "-s", "KILL", box)
	require.False(t, exists(t, ref))
	require.NoError(t, writeFile(dir+"/Dockerfile", "FROM "+base+"\nRUN echo second > /second\n"))
	got := run(t, d.Command(t.Context(), "start", "-a", box))
	require.Equal(t, 0, got.code, got.output)
	require.True(t, exists(t, ref))
	// The first build's tree is not at "/" of the container any more.
	left := d.Must(t, "diff", box)
	for _, image := range []string{"/etc/motd", "/home", "/bin/busybox"} {
		require.NotContains(t, left, image+"\n")
	}
}

// TestSecretsAreErased: two seconds after the builder has got a signal, and
// after a SIGKILL, no file of the container holds the secret of a running step.
func TestSecretsAreErased(t *testing.T) {
	base := smallBase(t)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nRUN --mount=type=secret,id=tok touch /started && sleep 300\n"})
	for _, signal := range []string{"TERM", "KILL"} {
		t.Run(signal, func(t *testing.T) {
			got := inShell(t, dir, `layerwright build --log-format plain -c /workspace --no-push --secret id=tok,env=TOKEN > /layerwright/log 2>&1 & p=$!
while [ ! -e /started ]; do /layerwright/busybox/usleep 10000; done
/layerwright/busybox/grep -qs planted-secret-3 /run/secrets/tok || exit 80
unset TOKEN; kill -`+signal+` $p; /layerwright/busybox/sleep 2
find / -xdev -type f -exec grep -ls planted-secret-3 {} + && exit 81
[ ! -e /started ] || exit 82; ps -o args | grep -v grep | grep 'sleep 300' && exit 83; exit 0`, "-e", "TOKEN=planted-secret-3")
			require.Equal(t, 0, got.code, got.output)
		})
	}
}

// TestFiveAtOnce: five builds of one context disturb each other neither in one
// container nor on one machine.
func TestFiveAtOnce(t *testing.T) {
	base := smallBase(t)
	reg := parts.SharedRegistry(t)
	dir := buildContext(t, map[string]string{
		"Dockerfile": "FROM " + base + " AS a\nARG N\nRUN echo $N > /n && sleep 1\nFROM " + base + "\nCOPY --from=a /n /n\nCOPY f /f\nRUN cat /n /f > /both && test ! -e /mine\n",
		"f":          "file\n",
	})
	t.Run("container", func(t *testing.T) {
		got := inShell(t, dir, `echo mine > /mine
for i in 1 2 3 4 5; do layerwright build --log-format plain -c /workspace --build-arg N=$i -d `+reg.Addr+`/five:c$i > /layerwright/log$i 2>&1 & eval p$i=$!; done
for i in 1 2 3 4 5; do eval wait \$p$i || { r=$?; while [ ! -e /mine ]; do :; done; cat /layerwright/log$i; exit $r; }; done; [ -e /mine ]`)
		require.Equal(t, 0, got.code, got.output)
		checkFive(t, reg.Addr+"/five:c")
	})
	t.Run("machine", func(t *testing.T) {
		var wg sync.WaitGroup
		store := filepath.Join(t.TempDir(), "store")
		for i := range 5 {
			wg.Go(func() {
				got := onHostIn(t, store, "build", "--log-format", "plain", "-c", dir, "--build-arg", fmt.Sprintf("N=%d", i+1), "-d", fmt.Sprintf("%s/five:m%d", reg.Addr, i+1))
				if got.code != 0 {
					t.Error(got.output)
				}
			})
		}
		wg.Wait()
		checkFive(t, reg.Addr+"/five:m")
	})
}

func checkFive(t *testing.T, prefix string) {
	t.Helper()
	d := parts.Engine(t)
	for i := 1; i <= 5; i++ {
		ref := fmt.Sprintf("%s%d", prefix, i)
		d.Must(t, "pull", ref)
		require.Equal(t, fmt.Sprintf("%d\nfile\n", i), d.Must(t, "run", "--rm", "--network", "none", ref, "cat", "/both"))
	}
}

// TestCredentialsOutOfReach: a root step cannot read the environment, memory
// or root of the builder or of the shell that is PID 1.
func TestCredentialsOutOfReach(t *testing.T) {
	base := smallBase(t)
	// Opening is what the kernel refuses: reading the start of a process's
	// memory fails for everybody.
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nCOPY search.sh /search.sh\nRUN sh /search.sh\n", "search.sh": `
for p in /proc/[0-9]*; do
  c="$(tr '\0' ' ' < $p/cmdline 2>/dev/null)"
  case "$c" in *search.sh*) continue;; *layerwright*|*busybox*) ;; *) continue;; esac
  echo "SAW $p $c"
  for f in environ mem maps; do (exec 3< $p/$f) 2>/dev/null && echo "REACHED $p/$f"; done
  for d in root cwd; do ls $p/$d/ > /dev/null 2>&1 && echo "REACHED $p/$d"; done
done
(exec 3< /proc/self/environ) && (exec 3< /proc/self/mem) && echo CAN-READ-ITSELF
cat /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' | grep PLANTED
echo searched-all
`})
	for what, script := range map[string]string{
		"shell":   "layerwright build --log-format plain --isolation inplace -c /workspace --no-push",
		"builder": "exec layerwright build --log-format plain --isolation inplace -c /workspace --no-push",
	} {
		t.Run(what, func(t *testing.T) {
			got := inShell(t, dir, script, "-e", "PLANTED_TOKEN=planted-secret-2")
			require.Equal(t, 0, got.code, got.output)
			require.Contains(t, got.output, " searched-all")
			require.Contains(t, got.output, " CAN-READ-ITSELF", "the search can find something")
			require.Contains(t, got.output, " SAW /proc/1 ", "PID 1 was looked at")
			require.NotContains(t, got.output, "REACHED")
			require.NotContains(t, got.output, "planted-secret-2")
		})
	}
}

// TestAWaitIsSaid: a build that starts while another one's step holds "/" says
// what it waits for.
func TestAWaitIsSaid(t *testing.T) {
	base := smallBase(t)
	dir := buildContext(t, map[string]string{"slow/Dockerfile": "FROM " + base + "\nRUN touch /started && sleep 4\n", "next/Dockerfile": "FROM " + base + "\nRUN true\n"})
	got := inShell(t, dir, `layerwright build --log-format plain -c /workspace/slow --no-push > /layerwright/log 2>&1 & p=$!
while [ ! -e /started ]; do /layerwright/busybox/usleep 10000; done
layerwright build --log-format plain -c /workspace/next --no-push; r=$?; wait $p || exit 85; exit $r`)
	require.Equal(t, 0, got.code, got.output)
	require.Contains(t, got.output, "NOTE: waiting until / is the job's own again")
}

// TestMountOnImagePath: a mount that cannot be set aside, on a path that the
// image uses, is never seen by a step.
func TestMountOnImagePath(t *testing.T) {
	base := smallBase(t)
	reg := parts.SharedRegistry(t)
	dir := buildContext(t, map[string]string{
		"Dockerfile": "FROM " + base + "\nWORKDIR /workspace\nCOPY go.mod go.mod\nRUN ls -A > /list && touch made-by-step\n",
		"go.mod":     "module x\n", "secret-of-the-checkout": "x\n",
	})
	ref := reg.Addr + "/collide:1"
	got := inJob(t, dir, "build", "--log-format", "plain", "--context", "/workspace", "--destination", ref)
	require.Equal(t, 0, got.code, got.output)
	require.Contains(t, got.output, "/workspace")
	d := parts.Engine(t)
	d.Must(t, "pull", ref)
	require.Equal(t, "go.mod\n", d.Must(t, "run", "--rm", "--network", "none", ref, "cat", "/list"))
	require.NoFileExists(t, dir+"/made-by-step")

	got = inJob(t, dir, "build", "--log-format", "plain", "--isolation", "inplace", "--context", "/workspace", "--no-push")
	require.Equal(t, 4, got.code, got.output)
	require.Contains(t, got.output, "/workspace")
}
