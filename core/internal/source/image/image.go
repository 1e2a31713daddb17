// Package image owns the layers of images that a build starts from: each is
// downloaded at most once, and only if somebody reads it, into a directory of
// blobs, while readers already follow. Content is verified on the way. It
// refuses to resolve names (package registry does) and to extract (package
// snapshot does).
package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/follow"
	"github.com/layerwright/layerwright/core/internal/progress"
)

// Remote is a blob that can be fetched: *registry.Layer is one.
type Remote interface {
	v1.Layer
	// Open streams the compressed blob; io.EOF comes only when digest and
	// size were right.
	Open(ctx context.Context) (io.ReadCloser, error)
	// Fault puts an error about the content into words that name the layer,
	// the image and the registry.
	Fault(err error) error
	// Image is the reference that the layer belongs to.
	Image() string
	// MountSource is the repository that has the blob.
	MountSource() (host, path string)
}

// Options of a Source.
type Options struct {
	// Dir is an existing directory for blobs; files are named by their hex
	// digest. Blobs stay when the Source is closed.
	Dir string
	// Kept are OCI layouts whose blobs are used in place of a download where
	// they are what they should be. They are only read.
	Kept []string
	// Parallel bounds simultaneous downloads; 4 when 0.
	Parallel int
	// Progress takes Transfer events; nil drops them.
	Progress progress.Sink
}

// Source downloads layers. Safe for concurrent use.
type Source struct {
	opts  Options
	slots chan struct{}
	// start runs a download; it holds the life of the Source.
	start func(*download)
	close func()

	mu    sync.Mutex
	blobs map[v1.Hash]*download
}

// New makes a Source whose downloads end with ctx (a build's, not a step's) or
// with Close.
func New(ctx context.Context, opts Options) *Source {
	if opts.Parallel <= 0 {
		opts.Parallel = 4
	}
	if opts.Progress == nil {
		opts.Progress = progress.Discard
	}
	s := &Source{opts: opts, slots: make(chan struct{}, opts.Parallel), blobs: map[v1.Hash]*download{}}
	ctx, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	s.start = func(d *download) { running.Go(func() { d.finish(s.fetch(ctx, d)) }) }
	s.close = func() {
		cancel(errors.New("image source closed"))
		running.Wait()
	}
	return s
}

// Close ends running downloads and waits for them.
func (s *Source) Close() { s.close() }

// Layers wraps an image's layers (registry.Image.Layers), base first. Layers
// that are not Remote are returned as they are. Nothing is fetched.
func (s *Source) Layers(layers []v1.Layer) ([]v1.Layer, error) {
	out := make([]v1.Layer, len(layers))
	for i, l := range layers {
		r, ok := l.(Remote)
		if !ok {
			out[i] = l
			continue
		}
		digest, err := r.Digest()
		if err != nil {
			return nil, fmt.Errorf("digest of layer: %w", err)
		}
		diffID, err := r.DiffID()
		if err != nil {
			return nil, fmt.Errorf("diffID of layer: %w", err)
		}
		s.mu.Lock()
		d, ok := s.blobs[digest]
		if !ok {
			d = newDownload(r, filepath.Join(s.opts.Dir, digest.Hex))
			s.blobs[digest] = d
		}
		s.mu.Unlock()
		out[i] = &Layer{Remote: r, s: s, d: d, diffID: diffID}
	}
	return out, nil
}

// Prefetch downloads layers of this Source, a bounded number at a time, and
// returns when all are there. Others are ignored.
func (s *Source) Prefetch(ctx context.Context, layers []v1.Layer) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range layers {
		if l, ok := l.(*Layer); ok {
			g.Go(func() error { return l.fetch(ctx) })
		}
	}
	return g.Wait()
}

// Layer is a layer whose blob is kept in a file once somebody reads it. It is
// a v1.Layer, and remembers its registry for mounting (MountSource).
type Layer struct {
	Remote
	s        *Source
	d        *download
	diffID   v1.Hash
	verified atomic.Bool
}

func (l *Layer) fetch(ctx context.Context) error {
	d := l.begin()
	select {
	case <-d.done:
		return d.result()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// begin starts the download unless it has been.
func (l *Layer) begin() *download {
	l.d.once.Do(func() { l.s.start(l.d) })
	return l.d
}

// Compressed is the blob as it is in the registry: from the file if somebody
// has begun to download it, else straight from the registry, without keeping
// it.
func (l *Layer) Compressed() (io.ReadCloser, error) {
	if l.d.begun() {
		return l.d.open(context.Background())
	}
	return l.Remote.Open(context.Background())
}

// Path is the blob's file once it is complete, "" before.
func (l *Layer) Path() string {
	select {
	case <-l.d.done:
		if l.d.result() == nil {
			return l.d.path
		}
	default:
	}
	return ""
}

// Uncompressed is the layer's tar stream. It begins the download if nobody
// has; readers follow the growing file. io.EOF comes only after the blob's
// digest and size and the tar's diffID were right. gzip, zstd and plain tar
// are told apart by content, as containerd does: media types lie.
func (l *Layer) Uncompressed() (io.ReadCloser, error) {
	return l.UncompressedContext(context.Background())
}

// UncompressedContext is Uncompressed until ctx ends: a registry that does not go on
// holds nobody up then. The download itself does go on.
func (l *Layer) UncompressedContext(ctx context.Context) (io.ReadCloser, error) {
	raw, err := l.begin().open(ctx)
	if err != nil {
		return nil, err
	}
	ended := context.AfterFunc(ctx, func() { raw.Stop(context.Cause(ctx)) })
	dec, err := decompress(raw)
	if err != nil {
		ended()
		_ = raw.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, l.blame(err)
	}
	r := &tarReader{l: l, ctx: ctx, ended: ended, raw: raw, dec: readAhead(dec)}
	if !l.verified.Load() {
		r.sum = sha256.New()
	}
	return r, nil
}

// blame classifies an error of decompression; one of the download has its
// words already.
func (l *Layer) blame(err error) error {
	if _, ok := fault.As(err); ok || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return l.Remote.Fault(err)
}

// tarReader verifies the diffID.
type tarReader struct {
	l   *Layer
	ctx context.Context //nolint:containedctx // lives as long as one reading
	// ended lets go of ctx.
	ended func() bool
	raw   *follow.Reader
	dec   io.ReadCloser
	sum   hash.Hash // nil when a reader before has verified
	err   error
}

func (r *tarReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.dec.Read(p)
	if r.sum != nil {
		r.sum.Write(p[:n])
	}
	switch {
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF) && r.ctx.Err() != nil:
		r.err = context.Cause(r.ctx) // nobody's fault
	case !errors.Is(err, io.EOF):
		r.err = r.l.blame(fmt.Errorf("decompress: %w", err))
	default:
		r.err = r.end()
	}
	return n, r.err
}

func (r *tarReader) end() error {
	// A decompressor may stop before the end of the blob, and so before the
	// blob's digest is known to be right.
	if _, err := io.Copy(io.Discard, r.raw); err != nil {
		return r.l.blame(err)
	}
	if r.sum == nil {
		return io.EOF
	}
	if got := hex.EncodeToString(r.sum.Sum(nil)); got != r.l.diffID.Hex {
		return r.l.Remote.Fault(fmt.Errorf("uncompressed content has digest sha256:%s, the image's config promises %s", got, r.l.diffID))
	}
	r.l.verified.Store(true)
	return io.EOF
}

func (r *tarReader) Close() error {
	r.ended()
	err := r.raw.Close() // first: it ends a reader that waits for data
	return errors.Join(r.dec.Close(), err)
}

// fetch downloads a blob into its file.
func (s *Source) fetch(ctx context.Context, d *download) (err error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	size, err := d.remote.Size()
	if err != nil {
		return fmt.Errorf("size of layer: %w", err)
	}
	digest, err := d.remote.Digest()
	if err != nil {
		return fmt.Errorf("digest of layer: %w", err)
	}
	if err := os.Remove(d.part); err != nil && !errors.Is(err, os.ErrNotExist) {
		return onDisk("remove partial blob", err) // of a build that was killed
	}
	if sound(d.path, digest, size) {
		d.file.Grow(size)
		return nil
	}
	for _, dir := range s.opts.Kept {
		if at := filepath.Join(dir, "blobs", digest.Algorithm, digest.Hex); sound(at, digest, size) {
			d.path = at // nobody opens it before this has ended
			d.file.Grow(size)
			return nil
		}
	}
	if err := os.Remove(d.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return onDisk("remove broken blob", err)
	}
	f, err := os.OpenFile(d.part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return onDisk("create blob", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = onDisk("close blob", cerr)
		}
		if err == nil {
			err = onDisk("rename blob", os.Rename(d.part, d.path))
		}
		if err != nil {
			_ = os.Remove(d.part)
		}
	}()
	rc, err := d.remote.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = rc.Close() }()
	d.ready()
	w := &growing{f: f, d: d, sink: s.opts.Progress, event: progress.Transfer{
		Name: fmt.Sprintf("pull %s sha256:%s", d.remote.Image(), digest.Hex[:min(12, len(digest.Hex))]), Total: size,
	}}
	w.event.ID = w.event.Name
	if _, err := io.CopyBuffer(w, struct{ io.Reader }{rc}, make([]byte, 256<<10)); err != nil {
		return err
	}
	w.emit(true)
	return nil
}

// sound says whether a file already holds the blob. Its name alone is not
// believed: the directory may come from a build that was killed.
func sound(path string, digest v1.Hash, size int64) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() != size {
		return false
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return false
	}
	return hex.EncodeToString(h.Sum(nil)) == digest.Hex
}

// onDisk classifies an error of the blob directory; nil stays nil.
func onDisk(op string, err error) error {
	if err == nil {
		return nil
	}
	f := fault.New(fault.Environment, "%s: %w", op, err)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return f.With("The disk of the store is full: free space, or put the store elsewhere (--store).")
	}
	return f
}

// growing writes the file and tells readers and people about it.
type growing struct {
	f     *os.File
	d     *download
	n     int64
	sink  progress.Sink
	event progress.Transfer
	last  time.Time
}

func (w *growing) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.n += int64(n)
	w.d.file.Grow(w.n)
	if time.Since(w.last) >= 100*time.Millisecond {
		w.emit(false)
	}
	return n, onDisk("write blob", err)
}

func (w *growing) emit(finished bool) {
	w.last = time.Now()
	e := w.event
	e.Current, e.Finished, e.Time = w.n, finished, w.last
	w.sink.Emit(e)
}

var _ v1.Layer = (*Layer)(nil)

// MediaType is what the manifest says.
func (l *Layer) MediaType() (types.MediaType, error) { return l.Remote.MediaType() }
