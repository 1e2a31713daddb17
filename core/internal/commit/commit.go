// Package commit owns turning a layer's tar stream into a compressed blob file,
// once: diffID, compression, digest and file in one pass, with constant memory
// and output that depends on nothing but the input. It does not know where the
// tar comes from or where the blob goes.
package commit

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	"golang.org/x/sys/unix"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/follow"
	"github.com/layerwright/layerwright/core/internal/layer"
)

// Compression is how a blob is compressed. A sealed choice.
type Compression int

const (
	// Gzip is the default, understood everywhere.
	Gzip Compression = iota
	// Zstd is smaller and faster, for OCI images only.
	Zstd
	// None leaves the tar as it is.
	None
)

// ParseCompression reads "gzip", "zstd", "none" or "" (gzip).
func ParseCompression(s string) (Compression, error) {
	switch s {
	case "", "gzip":
		return Gzip, nil
	case "zstd":
		return Zstd, nil
	case "none", "uncompressed":
		return None, nil
	}
	return 0, fmt.Errorf("unknown compression %q: gzip, zstd or none", s)
}

// gzipBlock is the size of the blocks that are compressed side by side. It is
// part of the output's bytes: a golden digest in the tests pins it.
const gzipBlock = 1 << 20

// Options are the choices of a Writer; the zero value is gzip, OCI.
type Options struct {
	Compression Compression
	// Level is the compression level, 0 to 9 for gzip and 1 to 22 for zstd as
	// BuildKit counts them; the fastest good one when nil.
	Level *int
	// Docker gives layers Docker's media types instead of OCI's.
	Docker bool
	// Latest is the time that no file of a layer may be later than
	// (SOURCE_DATE_EPOCH with rewritten timestamps); nil leaves times alone.
	Latest *time.Time
	// Share finds layers that repeat one this writer has stored, before they are
	// compressed: what a stage made and COPY --from puts where it was, and what a
	// build for several platforms copies for each. It costs a fast hash of all that
	// is stored.
	Share bool
}

// CheckLevel says what is wrong with a level for a compression.
func CheckLevel(c Compression, level int) error {
	name, least, most := "gzip", 0, 9
	switch c {
	case Zstd:
		name, least, most = "zstd", 1, 22
	case None:
		return errors.New("there is no level without compression")
	}
	if level < least || level > most {
		return fmt.Errorf("level %d: %s has levels from %d to %d", level, name, least, most)
	}
	return nil
}

// Writer stores layers as blob files in a directory.
type Writer struct {
	dir  string
	opts Options
	// stored is what later layers may repeat; nil without Share.
	stored *stored
}

// New makes a writer that stores in dir, an existing directory.
func New(dir string, opts Options) *Writer {
	w := &Writer{dir: dir, opts: opts}
	if opts.Share {
		w.stored = &stored{layers: map[blockSum]*original{}}
	}
	return w
}

// Layer stores what write writes, which is asked for it a second time where it seemed
// to be a layer that is stored already, and was not (Options.Share). A disk that is
// full is a fault of the environment. growing, if not nil, is told of a blob that is
// worth sending before it is complete, once; it must return at once.
func (w *Writer) Layer(ctx context.Context, write func(ctx context.Context, w io.Writer) error, growing func(context.Context, *Growing)) (v1.Layer, error) {
	t := &target{w: w, ctx: ctx, growing: growing, looks: w.stored != nil}
	b, err := t.take(write)
	if errors.Is(err, errDiffers) {
		t = &target{w: w, ctx: ctx, growing: growing}
		b, err = t.take(write)
	}
	if err != nil {
		return nil, space(w.dir, err)
	}
	return b, nil
}

// making is a blob that is being written.
type making struct {
	w              *Writer
	file           *os.File
	growing        *Growing
	digest, diffID hash.Hash
	out            *counter
	z              io.WriteCloser
	// blocks gets the tar: the two hashes and the compression of different blocks
	// go on side by side.
	blocks io.Writer
}

func (w *Writer) begin(ctx context.Context, growing func(context.Context, *Growing)) (*making, error) {
	f, err := os.CreateTemp(w.dir, ".tmp-")
	if err != nil {
		return nil, err
	}
	m := &making{w: w, file: f, growing: &Growing{path: f.Name(), file: follow.New()}, digest: sha256.New(), diffID: sha256.New()}
	m.out = &counter{w: io.MultiWriter(f, m.digest), wrote: func(before, now int64) {
		m.growing.file.Grow(now)
		if growing != nil && before < grownEnough && now >= grownEnough {
			m.growing.head = fmt.Sprintf("%d %x", now, m.digest.Sum(nil))
			growing(ctx, m.growing)
		}
	}}
	if m.z, err = w.compressor(m.out); err != nil {
		m.abandon(err)
		return nil, err
	}
	m.blocks = io.MultiWriter(m.z, m.diffID)
	return m, nil
}

func (m *making) finish() (*blob, error) {
	if err := m.z.Close(); err != nil {
		return nil, err
	}
	if err := m.file.Close(); err != nil {
		return nil, err
	}
	w := m.w
	b := &blob{digest: hashOf(m.digest), diffID: hashOf(m.diffID), size: m.out.n, mediaType: w.mediaType(), compression: w.opts.Compression}
	b.path = filepath.Join(w.dir, b.digest.Hex)
	if err := os.Rename(m.file.Name(), b.path); err != nil {
		return nil, fmt.Errorf("store blob: %w", err)
	}
	m.growing.end(b.digest, nil)
	return b, nil
}

// abandon leaves nothing of the blob, and lets its readers know why.
func (m *making) abandon(err error) {
	if m.z != nil {
		_ = m.z.Close() // ends what compresses, and with it all writing
	}
	m.growing.end(v1.Hash{}, err)
	_ = m.file.Close()
	_ = os.Remove(m.file.Name())
}

// write runs write, with times clamped where that is asked for.
func (w *Writer) write(ctx context.Context, to io.Writer, write func(ctx context.Context, w io.Writer) error) error {
	if w.opts.Latest == nil {
		return write(ctx, to)
	}
	c := layer.Clamp(to, *w.opts.Latest)
	return errors.Join(write(ctx, c), c.Close())
}

// space says in words what ENOSPC means.
func space(dir string, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &fault.Error{Kind: fault.Environment, Err: fmt.Errorf("no space left in %s: %w", dir, err),
			Remedy: "Free some space, or put the store on a larger file system with --store."}
	}
	return err
}

func hashOf(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}

type counter struct {
	w io.Writer
	n int64
	// wrote is told of the count before and after each write.
	wrote func(before, now int64)
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	before := c.n
	c.n += int64(n)
	c.wrote(before, c.n)
	return n, err
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func (w *Writer) compressor(out io.Writer) (io.WriteCloser, error) {
	switch w.opts.Compression {
	case Zstd:
		level := zstd.SpeedDefault
		if w.opts.Level != nil {
			level = zstd.EncoderLevelFromZstd(*w.opts.Level)
		}
		return zstd.NewWriter(out, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(2))
	case None:
		return nopCloser{out}, nil
	}
	level := pgzip.BestSpeed
	if w.opts.Level != nil {
		level = *w.opts.Level
	}
	z, err := pgzip.NewWriterLevel(out, level)
	if err != nil {
		return nil, err
	}
	// The output does not depend on how many blocks are under way.
	return z, z.SetConcurrency(gzipBlock, max(2, runtime.GOMAXPROCS(0)))
}

func (w *Writer) mediaType() types.MediaType {
	switch {
	case w.opts.Compression == Zstd:
		return types.OCILayerZStd
	case w.opts.Compression == None && w.opts.Docker:
		return types.DockerUncompressedLayer
	case w.opts.Compression == None:
		return types.OCIUncompressedLayer
	case w.opts.Docker:
		return types.DockerLayer
	}
	return types.OCILayer
}

// blob is a stored layer.
type blob struct {
	path           string
	digest, diffID v1.Hash
	size           int64
	mediaType      types.MediaType
	compression    Compression
}

func (b *blob) Digest() (v1.Hash, error)            { return b.digest, nil }
func (b *blob) DiffID() (v1.Hash, error)            { return b.diffID, nil }
func (b *blob) Size() (int64, error)                { return b.size, nil }
func (b *blob) MediaType() (types.MediaType, error) { return b.mediaType, nil }
func (b *blob) Compressed() (io.ReadCloser, error)  { return os.Open(b.path) }

func (b *blob) Uncompressed() (io.ReadCloser, error) {
	f, err := os.Open(b.path)
	if err != nil || b.compression == None {
		return f, err
	}
	if b.compression == Zstd {
		z, err := zstd.NewReader(f)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return &stacked{Reader: z, close: func() error { z.Close(); return f.Close() }}, nil
	}
	z, err := gzip.NewReader(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &stacked{Reader: z, close: func() error { return errors.Join(z.Close(), f.Close()) }}, nil
}

type stacked struct {
	io.Reader
	close func() error
}

func (s *stacked) Close() error { return s.close() }
