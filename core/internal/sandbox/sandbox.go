// Package sandbox owns running a command of a Dockerfile with a file tree as
// its root, in one of three isolation modes: namespaces, inplace, chroot. It
// finds out by trying which the environment allows. It does not know
// Dockerfiles, and does not keep trees.
package sandbox

import (
	"context"
	"fmt"
	"io"
	"io/fs"
)

// Isolation is a way to give a command its root. A sealed choice.
type Isolation int

const (
	// Auto takes the first of namespaces, inplace, chroot that works.
	Auto Isolation = iota
	// Namespaces: new mount, PID, IPC, UTS and, without privilege, user
	// namespaces; pivot_root.
	Namespaces
	// Inplace: the tree's entries are renamed onto "/" while the command runs.
	Inplace
	// Chroot: chroot(2) into the tree, without /proc.
	Chroot
)

// Sandbox runs steps in one isolation mode.
type Sandbox interface {
	Isolation() Isolation
	// Exclusive is true where only one step can run at a time (inplace);
	// Run waits for its turn by itself.
	Exclusive() bool
	// MovesBinds is true where a Bind's source is moved or copied into the
	// tree instead of mounted (inplace, chroot): the caller must then hand
	// over a private tree even for a read-only bind.
	MovesBinds() bool
	// Prepare makes ready what Run needs and a build without steps does not.
	// reopen is called where handles on directories of the job are void after
	// that: nobody may use one meanwhile.
	Prepare(ctx context.Context, reopen func() error) error
	// Run runs one step to its end. On return no process of it is left,
	// every mount and everything that it moved is undone, also when ctx was
	// cancelled. A command that failed is an *ExitError.
	Run(ctx context.Context, step Step) (Outcome, error)
	// Close ends what the sandbox still holds.
	Close() error
}

// Step is one command.
type Step struct {
	// Root is the tree's absolute path.
	Root string
	// Scratch is an empty private directory on Root's filesystem for what
	// must be kept aside; removed by the caller after Run.
	Scratch string
	Args    []string
	// Env is complete: nothing of our own environment is added.
	Env []string
	// Cwd is created, owned by the user, where it is missing.
	Cwd string
	// User is USER's argument: "", "name", "uid", "name:group", "uid:gid".
	User       string
	Hostname   string
	ExtraHosts []HostIP
	Network    Network
	Ulimits    []Ulimit
	Mounts     []Mount
	Stdout     io.Writer
	Stderr     io.Writer
}

// HostIP is one line of /etc/hosts.
type HostIP struct{ Host, IP string }

// Ulimit is a resource limit by the name that ulimits have in Docker ("nofile").
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// Network is what a step sees of it.
type Network int

const (
	// NetworkHost is the outer network.
	NetworkHost Network = iota
	// NetworkNone is a loopback only; an error where the kernel refuses it.
	NetworkNone
)

// MountKind is what a Mount puts at its target.
type MountKind int

const (
	// Bind is a directory or file from elsewhere (Source).
	Bind MountKind = iota
	// Cache is a directory (Source) that keeps what the step writes.
	Cache
	// Secret is a file with Data.
	Secret
	// SSHAgent is a socket (Source).
	SSHAgent
	// Tmpfs is an empty directory that is thrown away.
	Tmpfs
)

// Mount is a RUN --mount.
type Mount struct {
	Kind MountKind
	// Target is absolute in the step's view, cleaned.
	Target string
	// Source is an absolute path of ours: the thing itself, selector applied.
	Source   string
	ReadOnly bool
	// Data, UID, GID, Mode belong to Secret (UID, GID, Mode to SSHAgent too).
	Data     []byte
	UID, GID int
	Mode     fs.FileMode
	// Size is a Tmpfs' limit in bytes; 0 is the kernel's default.
	Size int64
}

// Outcome is what a finished step leaves to be known.
type Outcome struct {
	// Suspect are paths, relative to the root, whose ctime the sandbox has
	// changed by itself (snapshot.Changes.Suspect).
	Suspect []string
	// Notices are sentences for the user: what could only be done nearly.
	Notices []string
	// Mounts are the job's own mounts, absolute, that the step could see,
	// because the kernel does not let them be set aside.
	Mounts []string
}

// ExitError is a command that ran and failed.
type ExitError struct {
	// Code is the exit code; 128+n where signal n ended it.
	Code   int
	Signal int
}

func (e *ExitError) Error() string {
	if e.Signal != 0 {
		return fmt.Sprintf("command ended by signal %d", e.Signal)
	}
	return fmt.Sprintf("command exited with code %d", e.Code)
}
