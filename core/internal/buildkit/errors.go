package buildkit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/frontend"
)

// LostError says that an engine went away while it built.
type LostError struct {
	Name string
	Err  error
}

// Error implements error.
func (e *LostError) Error() string {
	return fmt.Sprintf("engine %s went away: %s", e.Name, said(e.Err))
}

// Unwrap gives the cause.
func (e *LostError) Unwrap() error { return e.Err }

// classify turns BuildKit's error into one with kind, place and remedy.
func (e *Engine) classify(ctx context.Context, err error, v *view) error {
	var exit *gatewaypb.ExitError
	switch {
	case errors.As(err, &exit):
		return failed(err, exit, v)
	case e.lost(ctx, err):
		return &LostError{Name: e.Name, Err: err}
	}
	text := short(err.Error())
	var kind fault.Kind
	remedy := ""
	switch {
	case containsAny(text, "failed to push", "failed to authorize", "insufficient_scope", "no basic auth credentials") && containsAny(text, "push", "pull,push"):
		kind, remedy = fault.Registry, "The engine pushes, with this job's logins: layerwright doctor --registry HOST says which. Can the engine reach the registry by this name?"
	case containsAny(text, "failed to resolve source metadata", "failed to fetch oauth token", "failed to authorize", "failed to copy", "failed to do request", "invalid response status", "dial tcp"):
		kind, remedy = fault.Registry, "The engine pulls, with this job's logins: check the image's name, and that the engine can reach its registry."
	case containsAny(text, "network.host is not allowed", "granting entitlement network.host"):
		kind, remedy = fault.Environment, "Allow it here (--network host), and in the engine's configuration (insecure-entitlements)."
	case containsAny(text, "security.insecure is not allowed", "granting entitlement security.insecure"):
		kind, remedy = fault.Environment, "Steps run without --security=insecure here, as without an engine: take it out."
	case containsAny(text, "no space left on device"):
		kind, remedy = fault.Environment, "Free some space where the engine keeps its state (buildctl prune)."
	case strings.Contains(text, "exec format error"):
		kind, remedy = fault.Environment, "The engine has no emulator for this platform: build it by an engine of that platform, --engine buildkit=ADDRESS,platforms=OS/ARCH."
	case strings.HasPrefix(text, `"`) && strings.HasSuffix(text, `": not found`):
		return &fault.Error{Kind: fault.User, Err: errors.New(text),
			Remedy: "Check the path: it is relative to the build context (or to the stage or image of --from), and .dockerignore may exclude it."}
	default:
		return plain(frontend.Explain(err))
	}
	return &fault.Error{Kind: kind, Op: "", Err: fmt.Errorf("engine %s: %s", e.Name, text), Remedy: remedy}
}

// failed is a step's command that ended with an error, in the words that it has without
// an engine, too.
func failed(err error, exit *gatewaypb.ExitError, v *view) error {
	out := &fault.Error{Kind: fault.Step, ExitCode: int(exit.ExitCode), Err: fmt.Errorf("exit code: %d", exit.ExitCode)}
	if text := process.FindString(err.Error()); text != "" {
		out.Err = errors.New(text)
	}
	var ve *errdefs.VertexError
	if errors.As(err, &ve) {
		if n := v.vertices[digest.Digest(ve.Digest)]; n != nil {
			out.Output = n.output
		}
	}
	return out
}

var process = regexp.MustCompile(`process "(?s:.*)" did not complete successfully: exit code: \d+`)

// lost says whether it is the engine that is gone: the connection broke, and it does
// not answer a new question.
func (e *Engine) lost(ctx context.Context, err error) bool {
	broke := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "no active session") ||
		containsAny(err.Error(), "transport is closing", "error reading from server", "connection reset", "broken pipe", "closing transport", "client connection is closing")
	if code := grpcerrors.Code(err); !broke && code != codes.Unavailable && code != codes.Canceled && code != codes.Unknown {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, asked := e.client.Info(ctx)
	return asked != nil && ctx.Err() == nil || asked != nil && broke
}

// plain leaves out of an error's words what BuildKit's layers put before them.
func plain(err error) error {
	e, ok := fault.As(err)
	if !ok || error(e) != err {
		return err
	}
	c := *e
	c.Err = errors.New(short(e.Err.Error()))
	return &c
}

func short(text string) string { return layers.ReplaceAllString(text, "") }

var layers = regexp.MustCompile(`^((failed to solve|rpc error: code = \w+ desc =|failed to compute cache key|failed to calculate checksum of ref [^ ]+|failed to load cache key|failed to load LLB):? )+`)

func containsAny(text string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(text, p) {
			return true
		}
	}
	return false
}
