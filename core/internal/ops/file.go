package ops

import (
	"context"
	"errors"

	"github.com/moby/buildkit/solver/pb"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/fileop"
	"github.com/layerwright/layerwright/core/internal/graph"
	"github.com/layerwright/layerwright/core/internal/snapshot"
	"github.com/layerwright/layerwright/core/internal/solve"
)

// fileOp is COPY, ADD, WORKDIR and heredocs: actions on trees, chained by
// index. An action's input below the number of the vertex's inputs is one of
// those, above it the result of an earlier action, -1 an empty tree.
type fileOp struct {
	env     *Env
	v       *graph.Vertex
	actions []*pb.FileAction
}

func newFileOp(e *Env, v *graph.Vertex, op *pb.FileOp) (solve.Op, error) {
	n := int64(len(v.Inputs))
	for i, a := range op.Actions {
		limit := n + int64(i)
		if a.Input >= limit || a.SecondaryInput >= limit {
			return nil, fault.New(fault.Internal, "file action %d refers to a later one", i)
		}
		if name, ok := nameless(a); ok {
			return nil, fault.New(fault.User, "owner %q: invalid user index -1: an empty tree (FROM scratch) has no names of users and groups", name).
				With("Give numbers: --chown=1000:1000.")
		}
		if c, ok := a.Action.(*pb.FileAction_Copy); ok && a.SecondaryInput < 0 {
			return nil, unsupported("copying %q from nothing", c.Copy.Src)
		}
	}
	return &fileOp{env: e, v: v, actions: op.Actions}, nil
}

// nameless is the name of an owner that cannot be looked up, because the tree
// with /etc/passwd and /etc/group is an empty one.
func nameless(a *pb.FileAction) (string, bool) {
	o := ownerOf(a)
	for _, u := range []*pb.UserOpt{o.GetUser(), o.GetGroup()} {
		if n := u.GetByName(); n != nil && n.Input < 0 {
			return n.Name, true
		}
	}
	return "", false
}

// ownerOf is the owner that an action gives to files, nil if it does not say.
func ownerOf(a *pb.FileAction) *pb.ChownOpt {
	switch x := a.Action.(type) {
	case *pb.FileAction_Copy:
		return x.Copy.Owner
	case *pb.FileAction_Mkdir:
		return x.Mkdir.Owner
	case *pb.FileAction_Mkfile:
		return x.Mkfile.Owner
	}
	return nil
}

// work is a tree that actions change, with what they have changed.
type work struct {
	snapshot.Mutable
	changed []string
}

// fileRun is one run of a fileOp.
type fileRun struct {
	*fileOp
	in []solve.Claim
	// works are the trees by index, as actions count.
	works map[int64]*work
	views map[int64]snapshot.View
}

// Run implements solve.Op.
func (o *fileOp) Run(ctx context.Context, in []solve.Claim) (_ []solve.Result, err error) {
	r := &fileRun{fileOp: o, in: in, works: map[int64]*work{}, views: map[int64]snapshot.View{}}
	defer func() {
		err = errors.Join(err, r.endViews())
		done := map[*work]bool{}
		for _, w := range r.works {
			if !done[w] {
				done[w] = true
				err = errors.Join(err, w.Discard()) // nothing after Commit
			}
		}
	}()
	if err := r.keepShared(ctx); err != nil {
		return nil, err
	}
	outputs := map[int64]*work{}
	for i, a := range o.actions {
		w, err := r.action(ctx, int64(i), a)
		if err != nil {
			return nil, err
		}
		if a.Output >= 0 {
			outputs[a.Output] = w
		}
	}
	if err := r.endViews(); err != nil {
		return nil, err
	}
	results := make([]solve.Result, len(outputs))
	for i, w := range outputs {
		if i >= int64(len(results)) {
			return nil, fault.New(fault.Internal, "file operation has output %d of %d", i, len(results))
		}
		changes := snapshot.Changes{Known: w.changed, Ignore: o.env.Ignore}
		if changes.Known == nil {
			changes.Known = []string{}
		}
		end := o.env.timed(ctx, "capture changes")
		s, err := w.Commit(o.env.lasting(ctx), changes, o.env.capture(o.v))
		end()
		if err != nil {
			return nil, err
		}
		o.env.made(o.v, s)
		results[i] = result{s}
	}
	return results, nil
}

func (r *fileRun) action(ctx context.Context, i int64, a *pb.FileAction) (*work, error) {
	source, taken := "", false
	if _, ok := a.Action.(*pb.FileAction_Copy); ok {
		var err error
		if taken, err = r.take(ctx, i); err != nil {
			return nil, err
		}
		if source, err = r.read(ctx, a.SecondaryInput); err != nil {
			return nil, err
		}
	}
	if err := notAPage(r.v, a, source); err != nil {
		return nil, err
	}
	w, err := r.write(ctx, a.Input)
	if err != nil {
		return nil, err
	}
	r.works[int64(len(r.in))+i] = w
	r.settle(r.actions[i+1:])
	end := r.env.timed(ctx, "copy files")
	changed, err := fileop.Run(ctx, fileop.Op{Root: w.Dir(), Action: a, Source: source, Taken: taken,
		Names: func(input int64) (string, error) { return r.read(ctx, input) }})
	end()
	if err != nil {
		if _, ok := fault.As(err); !ok {
			err = &fault.Error{Kind: fault.User, Err: err}
		}
		return nil, err
	}
	w.changed = append(w.changed, changed...)
	return w, nil
}

// settle lets others wait for what is looked at, where no action that is left needs
// another tree to change.
func (r *fileRun) settle(left []*pb.FileAction) {
	for _, a := range left {
		if _, ok := r.works[a.Input]; !ok && a.Input >= 0 && a.Input < int64(len(r.in)) {
			return
		}
	}
	for i := range r.views {
		claimOf(r.in[i]).Settle()
	}
}

// endViews gives back what was only looked at: its layer need not be made first.
func (r *fileRun) endViews() error {
	var errs []error
	for i, v := range r.views {
		errs = append(errs, v.Close())
		claimOf(r.in[i]).Release()
	}
	clear(r.views)
	return errors.Join(errs...)
}

// keepShared looks at every input that is used more than once and changed: LLB
// has equal inputs once, so the uses share one claim, and what has been looked
// at is not changed in place.
func (r *fileRun) keepShared(ctx context.Context) error {
	uses, changed := map[int64]int{}, map[int64]bool{}
	for _, a := range r.actions {
		uses[a.Input]++
		changed[a.Input] = true
		if _, ok := a.Action.(*pb.FileAction_Copy); ok {
			uses[a.SecondaryInput]++
		}
	}
	for i := range int64(len(r.in)) {
		if changed[i] && uses[i] > 1 {
			if _, err := r.read(ctx, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// take says whether what action i copies may be moved instead: its source is an input
// that no later action looks at, nor anybody else.
func (r *fileRun) take(ctx context.Context, i int64) (bool, error) {
	input := r.actions[i].SecondaryInput
	if input < 0 || input >= int64(len(r.in)) {
		return false, nil
	}
	for _, a := range r.actions {
		if a.Input == input {
			return false, nil
		}
	}
	for _, a := range r.actions[i:] {
		if namesFrom(a, input) {
			return false, nil
		}
	}
	for _, a := range r.actions[i+1:] {
		if a.SecondaryInput == input {
			return false, nil
		}
	}
	before, looked := r.views[input]
	v, ok, err := claimOf(r.in[input]).Take(ctx)
	if !ok || err != nil {
		return false, err
	}
	r.views[input] = v
	if looked {
		err = before.Close()
	}
	return true, err
}

// namesFrom says whether an action looks up a user or group in an input.
func namesFrom(a *pb.FileAction, input int64) bool {
	o := ownerOf(a)
	for _, u := range []*pb.UserOpt{o.GetUser(), o.GetGroup()} {
		if n := u.GetByName(); n != nil && n.Input == input {
			return true
		}
	}
	return false
}

// read gives the directory of a tree that is only looked at.
func (r *fileRun) read(ctx context.Context, i int64) (string, error) {
	if i < 0 {
		return "", nil
	}
	if v, ok := r.views[i]; ok {
		return v.Dir(), nil
	}
	if w, ok := r.works[i]; ok {
		return w.Dir(), nil
	}
	end := r.env.timed(ctx, "prepare tree")
	v, err := claimOf(r.in[i]).View(ctx)
	end()
	if err != nil {
		return "", err
	}
	r.views[i] = v
	return v.Dir(), nil
}

// write gives a tree to change.
func (r *fileRun) write(ctx context.Context, i int64) (*work, error) {
	_, kept := r.views[i]
	if w, ok := r.works[i]; ok && !kept {
		return w, nil
	}
	claim := r.env.scratch
	if i >= 0 {
		claim = func() snapshot.Claim { return claimOf(r.in[i]) }
	}
	end := r.env.timed(ctx, "prepare tree")
	m, err := claim().Mutate(ctx)
	end()
	if err != nil {
		return nil, err
	}
	w := &work{Mutable: m}
	if i >= 0 && !kept {
		r.works[i] = w // names are looked up here from now on
	}
	return w, nil
}
