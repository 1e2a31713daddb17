package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerwright/layerwright/core/internal/commit"
	"github.com/layerwright/layerwright/core/internal/export"
	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/frontend"
	"github.com/layerwright/layerwright/core/internal/hostview"
	"github.com/layerwright/layerwright/core/internal/image"
	"github.com/layerwright/layerwright/core/internal/snapshot"
	"github.com/layerwright/layerwright/core/internal/solve"
)

// outputs are the paths of what is written at the end, valid whatever "/" is
// then; "-" is the request's Stdout.
type outputs struct{ layout, ociTar, dockerTar, rootDir, rootTar, digest, imageID, metadata, names, tagged string }

// openOutputs opens the directories that outputs go to.
func (b *build) openOutputs() error {
	r, o := &b.req.Outputs, &b.outputs
	for _, out := range []struct {
		name string
		path *string
		dir  bool
	}{
		{r.OCILayout, &o.layout, true}, {r.OCITar, &o.ociTar, false}, {r.DockerTar, &o.dockerTar, false}, {r.RootDir, &o.rootDir, true},
		{r.RootTar, &o.rootTar, false}, {r.DigestFile, &o.digest, false}, {r.ImageIDFile, &o.imageID, false}, {r.MetadataFile, &o.metadata, false},
		{r.NameDigestFile, &o.names, false}, {r.NameTagDigestFile, &o.tagged, false},
	} {
		if out.name == "" || out.name == "-" {
			*out.path = out.name
			continue
		}
		if isURL(out.name) && (out.path == &o.digest || out.path == &o.names || out.path == &o.tagged) {
			*out.path = out.name
			continue
		}
		if fi, err := os.Stat(out.name); err == nil && fi.IsDir() != out.dir && (out.dir || fi.IsDir()) {
			return fault.New(fault.Usage, "output %s: it is a %s", out.name, map[bool]string{true: "file", false: "directory"}[out.dir]).
				With("Name a " + map[bool]string{true: "directory", false: "file"}[out.dir] + ".")
		}
		path, parent, err := hostview.Output(out.name)
		if err != nil {
			return fault.New(fault.Usage, "output %s: %w", out.name, err).With("Name a place that can be written.")
		}
		b.hold(parent)
		*out.path = path
	}
	return nil
}

// stdout is where the output at path goes, nil for a file.
func (b *build) stdout(path string) io.Writer {
	if path == "-" {
		return b.req.Outputs.Stdout
	}
	return nil
}

// reproducible sets the build argument that --reproducible implies.
func (r *Request) reproducible() {
	if !r.Outputs.Reproducible {
		return
	}
	r.Outputs.RewriteTimestamp = true
	if _, ok := r.BuildArgs[epochArgument]; !ok {
		args := map[string]string{epochArgument: "0"}
		for k, v := range r.BuildArgs {
			args[k] = v
		}
		r.BuildArgs = args
	}
}

const epochArgument = "SOURCE_DATE_EPOCH"

// blobOptions say how layers are stored.
func (b *build) blobOptions(res *frontend.Result) (commit.Options, error) {
	o := b.req.Outputs
	compression, err := commit.ParseCompression(o.Compression)
	if err == nil && o.CompressionLevel != nil {
		err = commit.CheckLevel(compression, *o.CompressionLevel)
	}
	if err != nil {
		return commit.Options{}, fault.Wrap(fault.Usage, err, "compression")
	}
	out := commit.Options{Compression: compression, Level: o.CompressionLevel, Docker: b.docker()}
	if o.RewriteTimestamp {
		if len(res.Images) == 0 || res.Images[0].Epoch == nil {
			return out, fault.New(fault.Usage, "timestamps cannot be rewritten: there is no SOURCE_DATE_EPOCH").
				With("Give --build-arg SOURCE_DATE_EPOCH=SECONDS, set the variable, or use --reproducible.")
		}
		out.Latest = res.Images[0].Epoch
	}
	return out, nil
}

// assemble makes a platform's image of its layers.
func (b *build) assemble(img frontend.Image, layers []v1.Layer) (v1.Image, error) {
	list := make([]image.Layer, len(layers))
	b.mu.Lock()
	for i, l := range layers {
		m := b.made[l]
		list[i] = image.Layer{Layer: l, Created: m.created, Description: m.description}
	}
	b.mu.Unlock()
	base, err := baseHistory(img)
	if err != nil {
		return nil, err
	}
	return image.Assemble(img.Config, list, image.Options{Docker: b.docker(), Annotations: b.annotations(false, false, &img.Platform),
		Descriptor: b.annotations(false, true, &img.Platform), Epoch: img.Epoch, BaseHistory: base})
}

// baseHistory counts the entries of the history that are the base image's.
func baseHistory(img frontend.Image) (n int, err error) {
	if img.Epoch == nil || len(img.BaseConfig) == 0 {
		return 0, nil
	}
	var own, base ocispecs.Image
	if err := json.Unmarshal(img.Config, &own); err != nil {
		return 0, fmt.Errorf("decode image configuration: %w", err)
	}
	if err := json.Unmarshal(img.BaseConfig, &base); err != nil {
		return 0, fmt.Errorf("decode the base image's configuration: %w", err)
	}
	for n < len(own.History) && n < len(base.History) && reflect.DeepEqual(own.History[n], base.History[n]) {
		n++
	}
	return n, nil
}

// annotations are those of the index, or of the manifest for a platform, or of
// the descriptors that point at them.
func (b *build) annotations(index, descriptor bool, p *ocispecs.Platform) map[string]string {
	var out map[string]string
	for _, a := range b.req.Outputs.Annotations {
		if a.Index != index || a.Descriptor != descriptor || a.Platform != "" && p != nil && !isPlatform(a.Platform, *p) {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[a.Key] = a.Value
	}
	return out
}

func isPlatform(text string, p ocispecs.Platform) bool {
	want, err := platforms.Parse(text)
	return err == nil && platforms.Format(platforms.Normalize(want)) == platforms.Format(platforms.Normalize(p))
}

// checkAnnotations refuses what no image or index of the build could carry,
// before anything runs.
func (b *build) checkAnnotations(res *frontend.Result) error {
	for _, a := range b.req.Outputs.Annotations {
		if b.docker() {
			return fault.New(fault.Usage, "annotations need an OCI image: leave --image-format at oci").
				With("Docker's own format has no annotations; labels are in both.")
		}
		if a.Index && len(res.Images) == 1 && !b.alwaysIndex() {
			return fault.New(fault.Usage, "annotations of an index are not possible for a single platform").
				With("Write --annotation KEY=VALUE, without index:, to annotate the image.")
		}
		built := func(i frontend.Image) bool { return isPlatform(a.Platform, i.Platform) }
		if a.Platform != "" && !slices.ContainsFunc(res.Images, built) {
			return fault.New(fault.Usage, "annotation %s: the platform %s is not built", a.Key, a.Platform).With("Name it with --platform, too.")
		}
	}
	return nil
}

// artifact is the image, or the index of several.
func (b *build) artifact(images []solved) (export.Artifact, error) {
	if len(images) == 1 && !b.alwaysIndex() {
		return images[0].image, nil
	}
	var list []v1.Image
	var ps []ocispecs.Platform
	for _, i := range images {
		list, ps = append(list, i.image), append(ps, i.platform)
	}
	return image.Index(list, ps, image.Options{Docker: b.docker(), Annotations: b.annotations(true, false, nil), Descriptor: b.annotations(true, true, nil)})
}

// export writes the outputs.
func (b *build) export(ctx context.Context, images []solved) (*Result, error) {
	artifact, err := b.artifact(images)
	if err != nil {
		return nil, err
	}
	out, err := describeArtifact(artifact, images[0].image)
	if err != nil {
		return nil, err
	}
	if out.Layers, err = b.stepLayers(images); err != nil {
		return nil, err
	}
	if err := b.exportFiles(ctx, artifact, images); err != nil {
		return nil, err
	}
	if b.push != nil {
		b.awaitCache(ctx, images)
		out.Destinations, err = b.push.Finish(ctx, artifact)
		if err := b.settle(len(out.Destinations), err); err != nil {
			return out, err
		}
	}
	return out, b.exportNames(ctx, artifact, out)
}

// stepLayers says how large the steps of the images have become.
func (b *build) stepLayers(images []solved) (out []StepLayer, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, img := range images {
		for _, l := range img.layers {
			m, ok := b.made[l]
			if !ok || m.description == "" {
				continue
			}
			size, err := l.Size()
			if err != nil {
				return nil, fmt.Errorf("size of the layer of %s: %w", m.description, err)
			}
			out = append(out, StepLayer{Name: m.description, Size: size})
		}
	}
	return out, nil
}

func describeArtifact(a export.Artifact, first v1.Image) (*Result, error) {
	digest, err := a.Digest()
	if err != nil {
		return nil, err
	}
	id, err := first.ConfigName()
	if err != nil {
		return nil, err
	}
	raw, err := a.RawManifest()
	if err != nil {
		return nil, err
	}
	mt, err := a.MediaType()
	if err != nil {
		return nil, err
	}
	return &Result{Digest: digest.String(), ImageID: id.String(), MediaType: string(mt), Size: int64(len(raw))}, nil
}

// exportFiles writes images and root file systems to this machine.
func (b *build) exportFiles(ctx context.Context, a export.Artifact, images []solved) error {
	o, names := b.outputs, b.req.Outputs.Destinations
	if o.layout != "" {
		if err := export.OCILayout(ctx, o.layout, a, names...); err != nil {
			return err
		}
	}
	if o.ociTar != "" {
		if err := export.OCITar(ctx, o.ociTar, b.stdout(o.ociTar), a, names...); err != nil {
			return err
		}
	}
	if o.dockerTar != "" {
		if err := export.DockerTar(ctx, o.dockerTar, b.stdout(o.dockerTar), a, names...); err != nil {
			return err
		}
	}
	return b.exportRoots(ctx, images)
}

// wantsRoots says whether an output is made of the images' trees and not of their
// layers.
func (b *build) wantsRoots() bool { return b.outputs.rootDir != "" || b.outputs.rootTar != "" }

// exportRoots writes root file systems, which are made for that if they are not
// there.
func (b *build) exportRoots(ctx context.Context, images []solved) (err error) {
	o := b.outputs
	if !b.wantsRoots() || len(b.req.Engines) > 0 {
		return nil // engines write them themselves
	}
	roots := make([]export.Root, len(images))
	for i, img := range images {
		if len(images) > 1 {
			roots[i].Name = strings.ReplaceAll(platforms.Format(platforms.Normalize(img.platform)), "/", "_")
		}
		roots[i].Epoch = img.epoch
		if img.tree == nil {
			continue
		}
		view, viewErr := img.tree.View(ctx)
		if viewErr != nil {
			return viewErr
		}
		defer func() { err = errors.Join(err, view.Close()) }()
		roots[i].Dir = view.Dir()
	}
	if o.rootDir != "" {
		if err := export.RootDir(ctx, o.rootDir, roots); err != nil {
			return err
		}
	}
	if o.rootTar != "" {
		return export.RootTar(ctx, o.rootTar, b.stdout(o.rootTar), roots)
	}
	return nil
}

// exportNames writes what tells other programs what was built; it comes last.
func (b *build) exportNames(ctx context.Context, a export.Artifact, r *Result) error {
	if p := b.outputs.digest; isURL(p) {
		if err := b.put(ctx, p, r.Digest); err != nil {
			return err
		}
	} else if p != "" {
		if err := export.Digest(p, a); err != nil {
			return err
		}
	}
	if p := b.outputs.imageID; p != "" {
		if err := export.File(p, []byte(r.ImageID)); err != nil {
			return err
		}
	}
	for i, p := range []string{b.outputs.names, b.outputs.tagged} {
		if p == "" {
			continue
		}
		names := b.req.Outputs.Destinations
		if len(r.Destinations) > 0 { // not those that failed
			names = r.Destinations
		}
		text, err := namesWithDigest(names, r.Digest, i == 1)
		switch {
		case err != nil:
		case isURL(p):
			err = b.put(ctx, p, text)
		default:
			err = export.File(p, []byte(text))
		}
		if err != nil {
			return err
		}
	}
	if p := b.outputs.metadata; p != "" {
		// docker's names (buildx, --metadata-file).
		m := map[string]any{
			"containerimage.digest": r.Digest, "containerimage.config.digest": r.ImageID,
			"containerimage.descriptor": map[string]any{"mediaType": r.MediaType, "digest": r.Digest, "size": r.Size},
		}
		if names := b.req.Outputs.Destinations; len(names) > 0 {
			m["image.name"] = strings.Join(names, ",")
		}
		raw, err := json.MarshalIndent(m, "", "  ")
		if err != nil {
			return fmt.Errorf("encode metadata: %w", err)
		}
		return export.File(p, append(raw, '\n'))
	}
	return nil
}

// put sends a digest or names to a URL, as Kaniko does.
func (b *build) put(ctx context.Context, to, text string) error {
	failed := func(err error) error {
		return fault.New(fault.Registry, "put the digest to %s: %w", withoutSecrets(to), err).
			With("The image itself is complete. Check the URL, or name a file.")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, to, strings.NewReader(text))
	if err != nil {
		return failed(errors.New("it is no URL"))
	}
	req.Header.Set("Content-Type", "text/plain")
	resp, err := (&http.Client{Transport: b.web, Timeout: time.Minute}).Do(req)
	if err != nil {
		var ue *url.Error // its text has the whole URL
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return failed(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return failed(fmt.Errorf("the server answered %s", resp.Status))
	}
	return nil
}

// solved is one platform's finished image.
type solved struct {
	image    v1.Image
	platform ocispecs.Platform
	// tree is the root file system; nil for an empty one.
	tree snapshot.Claim
	// layers are the image's, with those of its base.
	layers []v1.Layer
	// epoch is SOURCE_DATE_EPOCH; nil if there is none.
	epoch *time.Time
}

// release gives the trees back.
func release(claims []solve.Claim) {
	for _, c := range claims {
		if c != nil {
			c.Release()
		}
	}
}

// CheckCompression says what is wrong with a compression level.
func CheckCompression(compression string, level int) error {
	c, err := commit.ParseCompression(compression)
	if err != nil {
		return err
	}
	return commit.CheckLevel(c, level)
}
