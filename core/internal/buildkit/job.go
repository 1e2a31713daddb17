package buildkit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/util/entitlements"
	"github.com/moby/buildkit/util/staticfs"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/frontend"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// Job is one call of the Dockerfile frontend. The same Job may be given to one engine
// after another.
type Job struct {
	// Attrs are the frontend's options.
	Attrs map[string]string
	// Locals maps a local source's name to a directory. Dockerfile, when not nil,
	// is the file DockerfileName of the local source "dockerfile".
	Locals         map[string]string
	DockerfileName string
	Dockerfile     []byte
	// Archive is a file that is sent as the build context, in place of the option
	// "context".
	Archive string
	// Layouts are directories of OCI layouts by the id that named contexts have.
	Layouts map[string]string

	Secrets map[string][]byte
	// SSH may be nil. Web reaches token services of registries.
	SSH    Agents
	Logins Logins
	Web    *http.Client
	// HostNetwork asks for the right to give steps the engine's own network.
	HostNetwork bool

	// Text is the Dockerfile as far as it is known here, under the name File: it tells
	// the place of errors to which BuildKit gives none.
	File string
	Text []byte

	Exports            []Export
	CacheFrom, CacheTo []CacheRef
	// Label comes before the names of steps, to tell jobs apart; may be empty.
	Label string
}

// Export is what is made of the result: exactly one of the places is used.
type Export struct {
	// Push is a repository that gets the image by digest.
	Push string
	// Layout is a tar of an OCI image layout.
	Layout string
	// RootDir and RootTar, a tar, get the root file system.
	RootDir, RootTar string
	// Attrs are the exporter's further options.
	Attrs map[string]string
}

// CacheRef is a reference in a registry that holds BuildKit's own cache.
type CacheRef struct {
	Ref      string
	Insecure bool
}

// Build carries out a job and gives the digest of the image, or of the index where
// several platforms were asked for. An error of the engine itself is a *LostError,
// and the job may be given to another one; a step's, a registry's and the
// Dockerfile's are classified as far as BuildKit tells them apart.
func (e *Engine) Build(ctx context.Context, j Job, sink progress.Sink) (digest string, err error) {
	opt, err := j.options()
	if err != nil {
		return "", err
	}
	view := newView(sink, j.Label)
	statuses := make(chan *client.SolveStatus)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := range statuses {
			view.show(s)
		}
	}()
	resp, err := e.client.Solve(ctx, nil, *opt, statuses)
	<-done
	if err != nil {
		if ctx.Err() != nil {
			view.end(context.Cause(ctx))
			return "", context.Cause(ctx)
		}
		err = fault.At(e.classify(ctx, err, view), frontend.Place(err, j.File, j.Text))
		view.end(err)
		return "", err
	}
	view.end(nil)
	return resp.ExporterResponse["containerimage.digest"], nil
}

func (j *Job) options() (*client.SolveOpt, error) {
	attached, archive, err := j.attachables()
	if err != nil {
		return nil, err
	}
	opt := &client.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: maps.Clone(j.Attrs), LocalMounts: map[string]fsutil.FS{}, Session: attached,
		// A key that only this build has: with one that is used again an engine
		// compares files with those of an earlier build by size and time alone.
		SharedKey: identity.NewID(),
	}
	if archive != "" {
		opt.FrontendAttrs["context"] = archive
	}
	for name, dir := range j.Locals {
		if opt.LocalMounts[name], err = fsutil.NewFS(dir); err != nil {
			return nil, fmt.Errorf("read context %s: %w", name, err)
		}
	}
	if j.Dockerfile != nil {
		fs := staticfs.NewFS()
		fs.Add(j.DockerfileName, &fstypes.Stat{Mode: 0o644}, j.Dockerfile)
		opt.LocalMounts["dockerfile"] = fs
	}
	for id, dir := range j.Layouts {
		if opt.OCIStores == nil {
			opt.OCIStores = map[string]content.Store{}
		}
		opt.OCIStores[id] = layoutStore(dir)
	}
	if j.HostNetwork {
		opt.AllowedEntitlements = append(opt.AllowedEntitlements, string(entitlements.EntitlementNetworkHost))
	}
	for _, x := range j.Exports {
		entry, err := x.entry()
		if err != nil {
			return nil, err
		}
		opt.Exports = append(opt.Exports, entry)
	}
	for _, c := range j.CacheFrom {
		opt.CacheImports = append(opt.CacheImports, c.entry())
	}
	for _, c := range j.CacheTo {
		entry := c.entry()
		// A cache never fails a build.
		maps.Copy(entry.Attrs, map[string]string{"mode": "max", "image-manifest": "true", "oci-mediatypes": "true", "ignore-error": "true"})
		opt.CacheExports = append(opt.CacheExports, entry)
	}
	return opt, nil
}

func (c CacheRef) entry() client.CacheOptionsEntry {
	e := client.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": c.Ref}}
	if c.Insecure {
		e.Attrs["registry.insecure"] = "true"
	}
	return e
}

func (x Export) entry() (client.ExportEntry, error) {
	e := client.ExportEntry{Attrs: map[string]string{}}
	maps.Copy(e.Attrs, x.Attrs)
	switch {
	case x.Push != "":
		e.Type = client.ExporterImage
		maps.Copy(e.Attrs, map[string]string{"name": x.Push, "push": "true", "push-by-digest": "true", "name-canonical": "true"})
	case x.Layout != "":
		e.Type, e.Output = client.ExporterOCI, toFile(x.Layout)
	case x.RootDir != "":
		e.Type, e.OutputDir = client.ExporterLocal, x.RootDir
	case x.RootTar != "":
		e.Type, e.Output = client.ExporterTar, toFile(x.RootTar)
	default:
		return e, errors.New("an export without a place")
	}
	return e, nil
}

// toFile makes a file of what an engine sends.
func toFile(path string) func(map[string]string) (io.WriteCloser, error) {
	return func(map[string]string) (io.WriteCloser, error) { return os.Create(path) }
}
