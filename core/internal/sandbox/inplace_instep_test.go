package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inStep is this binary as the command of a step.
func inStep(args []string) int {
	must := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	switch args[0] {
	case "exists":
		var words []string
		for _, p := range args[1:] {
			words = append(words, map[bool]string{true: "yes", false: "no"}[exists(p)])
		}
		fmt.Println(strings.Join(words, " "))
	case "exit":
		code, _ := strconv.Atoi(args[1])
		return code
	case "signal":
		n, _ := strconv.Atoi(args[1])
		_ = unix.Kill(os.Getpid(), unix.Signal(n))
		time.Sleep(time.Minute)
	case "daemon":
		cmd := exec.Command("/proc/self/exe", "helper", "instep", "sleep")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		must(cmd.Start())
	case "sleep":
		time.Sleep(time.Minute)
	case "change":
		must(os.WriteFile("/made", []byte("m"), 0o644))
		must(os.WriteFile("/etc/made", []byte("m"), 0o644))
		must(os.RemoveAll("/tmp"))
		must(os.Rename("/usr", "/usr2"))
		must(os.Remove("/link"))
		must(os.MkdirAll("/link/inside", 0o755))
		must(os.Chmod("/", 0o700))
	case "remove":
		must(os.RemoveAll(args[1]))
	case "kill-parent":
		cmd := exec.Command("/proc/self/exe", "helper", "instep", "sleep")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		must(cmd.Start())
		must(unix.Kill(os.Getppid(), unix.SIGKILL))
		time.Sleep(time.Minute)
	case "cat":
		data, err := os.ReadFile(args[1])
		must(err)
		fmt.Print(string(data))
	case "spy":
		spy()
	}
	return 0
}

// spy prints what can be read of processes other than this one.
func spy() {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		fmt.Println(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		for _, name := range []string{"environ", "mem", "maps", "auxv"} {
			if f, err := os.Open("/proc/" + e.Name() + "/" + name); err == nil {
				// That of a process that has ended opens, and is empty.
				if n, _ := f.Read(make([]byte, 1)); n > 0 {
					fmt.Println("read", f.Name())
				}
				f.Close()
			}
		}
		for _, name := range []string{"root", "cwd", "fd/0", "exe"} {
			if to, err := os.Readlink("/proc/" + e.Name() + "/" + name); err == nil {
				fmt.Println("link", e.Name(), name, to)
			}
		}
	}
}
