package ops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/solver/pb"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/sandbox"
	"github.com/layerwright/layerwright/core/internal/snapshot"
	"github.com/layerwright/layerwright/core/internal/solve"
)

// defaultPath is what a step has as PATH when nobody says otherwise (BuildKit).
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// execOp is RUN.
type execOp struct {
	env  *Env
	v    *graph.Vertex
	op   *pb.ExecOp
	root *pb.Mount
}

// exec refuses what cannot be done, before anything runs.
func (e *Env) exec(v *graph.Vertex, op *pb.ExecOp) (solve.Op, error) {
	if op.Meta == nil {
		return nil, fault.New(fault.Internal, "command without settings")
	}
	o := &execOp{env: e, v: v, op: op}
	if op.Security == pb.SecurityMode_INSECURE {
		return nil, fault.New(fault.Environment, "RUN --security=insecure needs a privileged builder").
			With("Leave --security=insecure out: no isolation of Layerwright gives a step more rights than the job has.")
	}
	for _, d := range op.CdiDevices {
		if !d.Optional {
			return nil, fault.New(fault.User, "RUN --device: required device %q is not registered, as Layerwright has no devices for steps", d.Name).
				With("Leave out required, so that the step runs without the device, or build this Dockerfile with BuildKit on a machine that has it.")
		}
		e.notice(v, "device %q is not registered: the step runs without it", d.Name)
	}
	if op.Network == pb.NetMode_NONE {
		if err := e.NetworkNone(); err != nil {
			return nil, err
		}
	}
	if n := op.Meta.CgroupParent; n != "" {
		e.notice(v, "the cgroup parent %q is ignored: steps run in the job's own cgroup", n)
	}
	for _, m := range op.Mounts {
		switch {
		case m.Dest == pb.RootMount:
			o.root = m
		case m.MountType == pb.MountType_BIND && m.Output >= 0:
			return nil, unsupported("a mount at %s whose changes are kept", m.Dest)
		}
		switch m.MountType {
		case pb.MountType_BIND, pb.MountType_CACHE, pb.MountType_TMPFS:
		case pb.MountType_SECRET:
			if err := e.checkSecret(m.SecretOpt.GetID(), m.SecretOpt.GetOptional()); err != nil {
				return nil, err
			}
		case pb.MountType_SSH:
			if err := e.checkSSH(m.SSHOpt); err != nil {
				return nil, err
			}
		default:
			return nil, unsupported("a mount of type %s", m.MountType)
		}
	}
	if o.root == nil {
		return nil, fault.New(fault.Internal, "command without a root")
	}
	for _, s := range op.Secretenv {
		if err := e.checkSecret(s.ID, s.Optional); err != nil {
			return nil, err
		}
	}
	return o, o.checkCaches()
}

// checkCaches refuses one cache at two places where it would have to be moved
// to both.
func (o *execOp) checkCaches() error {
	if !o.env.Sandbox.MovesBinds() {
		return nil
	}
	at := map[string]string{}
	for _, m := range o.op.Mounts {
		if m.MountType != pb.MountType_CACHE {
			continue
		}
		name := cacheName(o, m)
		if first, ok := at[name]; ok {
			return fault.New(fault.Environment, "one cache is mounted at both %s and %s, which this isolation cannot do", first, m.Dest).
				With("Give the two mounts different ids, or build with --isolation namespaces.")
		}
		at[name] = m.Dest
	}
	return nil
}

func (e *Env) checkSecret(id string, optional bool) error {
	if _, ok := e.Secrets[id]; ok || optional {
		return nil
	}
	return fault.New(fault.User, "secret %s: not found", id).
		With(fmt.Sprintf("Give it with --secret id=%s,src=FILE or --secret id=%s,env=VARIABLE.", id, id))
}

func (e *Env) notice(v *graph.Vertex, format string, args ...any) {
	e.Progress.Emit(progress.Notice{Level: progress.Info, Text: fmt.Sprintf(format, args...), Location: v.Location, Time: time.Now()})
}

// Run implements solve.Op.
func (o *execOp) Run(ctx context.Context, in []solve.Claim) (_ []solve.Result, err error) {
	mounts := &mountSet{env: o.env, in: in}
	defer func() { err = errors.Join(err, mounts.close()) }()
	if err := mounts.keepShared(ctx, o); err != nil {
		return nil, err
	}
	end := o.env.timed(ctx, "prepare mounts")
	list, err := mounts.prepare(ctx, o)
	end()
	if err != nil {
		return nil, err
	}
	root := o.env.scratch()
	if o.root.Input >= 0 {
		root = claimOf(in[o.root.Input])
	}
	end = o.env.timed(ctx, "prepare tree")
	tree, err := root.Mutate(ctx)
	end()
	if err != nil {
		return nil, err
	}
	// Locks come last: Mutate waits for other readers of the base, which may
	// be steps that wait for the same cache.
	if err := mounts.lockCaches(ctx, o, list); err != nil {
		return nil, discard(tree, err)
	}
	end = o.env.timed(ctx, "command")
	outcome, err := o.command(ctx, tree.Dir(), mounted(list))
	end()
	if unset := mounts.endRun(); unset != nil {
		err = errors.Join(err, unset)
	}
	if err != nil {
		return nil, discard(tree, err)
	}
	end = o.env.timed(ctx, "capture changes")
	s, err := tree.Commit(o.env.lasting(ctx), snapshot.Changes{Suspect: outcome.Suspect, Ignore: o.env.Ignore}, o.env.capture(o.v))
	end()
	if err != nil {
		return nil, discard(tree, err)
	}
	o.env.made(o.v, s)
	return o.results(s), nil
}

// results puts the root's state where the vertex says.
func (o *execOp) results(s snapshot.State) []solve.Result {
	out := make([]solve.Result, max(0, o.root.Output)+1)
	for i := range out {
		out[i] = result{s}
	}
	return out
}

func (o *execOp) command(ctx context.Context, root string, mounts []sandbox.Mount) (sandbox.Outcome, error) {
	scratch, err := os.MkdirTemp(o.env.Scratch, "step-")
	if err != nil {
		return sandbox.Outcome{}, err
	}
	defer os.RemoveAll(scratch)
	log := newStepLog(o.env.Progress, solve.StepOf(ctx))
	step := o.step(root, scratch, mounts)
	step.Stdout, step.Stderr = log.stream(1), log.stream(2)
	outcome, err := o.env.Sandbox.Run(ctx, step)
	var collision *sandbox.CollisionError
	if errors.As(err, &collision) && o.env.Fallback != nil {
		o.env.notice(o.v, "this step runs in isolation chroot: %v", collision)
		outcome, err = o.env.Fallback.Run(ctx, step)
	}
	for _, n := range outcome.Notices {
		o.env.notice(o.v, "%s", n)
	}
	if o.env.Seen != nil && len(outcome.Mounts) > 0 {
		o.env.Seen(outcome.Mounts)
	}
	return outcome, o.explain(ctx, err, log)
}

// explain gives a failed command its words.
func (o *execOp) explain(ctx context.Context, err error, log *stepLog) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var exit *sandbox.ExitError
	if errors.As(err, &exit) {
		return &fault.Error{Kind: fault.Step, ExitCode: exit.Code, Output: log.tail(),
			Err: fmt.Errorf("process %q did not complete successfully: exit code: %d", strings.Join(o.op.Meta.Args, " "), exit.Code)}
	}
	var collision *sandbox.CollisionError
	if errors.As(err, &collision) {
		return &fault.Error{Kind: fault.Environment, Err: err,
			Remedy: "Mount it at a path that the image does not use, or use --isolation auto or chroot."}
	}
	return err
}

func (o *execOp) step(root, scratch string, mounts []sandbox.Mount) sandbox.Step {
	m := o.op.Meta
	s := sandbox.Step{Root: root, Scratch: scratch, Args: m.Args, Env: o.environment(), Cwd: m.Cwd, User: m.User, Hostname: m.Hostname, Mounts: mounts}
	for _, h := range m.ExtraHosts {
		s.ExtraHosts = append(s.ExtraHosts, sandbox.HostIP{Host: h.Host, IP: h.IP})
	}
	for _, u := range m.Ulimit {
		s.Ulimits = append(s.Ulimits, sandbox.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	if o.op.Network == pb.NetMode_NONE {
		s.Network = sandbox.NetworkNone
	}
	return s
}

// environment is the step's own, then PATH, proxies and secrets.
func (o *execOp) environment() []string {
	env := slices.Clone(o.op.Meta.Env)
	if !slices.ContainsFunc(env, func(s string) bool { return strings.HasPrefix(s, "PATH=") }) {
		env = append(env, "PATH="+defaultPath)
	}
	if p := o.op.Meta.ProxyEnv; p != nil {
		for _, kv := range [][2]string{{"HTTP_PROXY", p.HttpProxy}, {"HTTPS_PROXY", p.HttpsProxy}, {"FTP_PROXY", p.FtpProxy}, {"NO_PROXY", p.NoProxy}, {"ALL_PROXY", p.AllProxy}} {
			if kv[1] != "" {
				env = append(env, kv[0]+"="+kv[1], strings.ToLower(kv[0])+"="+kv[1])
			}
		}
	}
	for _, s := range o.op.Secretenv {
		env = append(env, s.Name+"="+string(o.env.Secrets[s.ID]))
	}
	return env
}
