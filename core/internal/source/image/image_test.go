package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/progress"
	"github.com/layerwright/layerwright/core/internal/registry"
)

var _ Remote = (*registry.Layer)(nil)

// fake is a remote layer; open produces what the registry sends.
type fake struct {
	digest, diffID v1.Hash
	size           int64
	opens          atomic.Int32
	open           func() io.Reader
}

func (f *fake) Digest() (v1.Hash, error)             { return f.digest, nil }
func (f *fake) DiffID() (v1.Hash, error)             { return f.diffID, nil }
func (f *fake) Size() (int64, error)                 { return f.size, nil }
func (f *fake) MediaType() (types.MediaType, error)  { return types.OCILayer, nil }
func (f *fake) Compressed() (io.ReadCloser, error)   { return f.Open(context.Background()) }
func (f *fake) Uncompressed() (io.ReadCloser, error) { return nil, errors.New("not here") }
func (f *fake) Image() string                        { return "example.com/base:1" }
func (f *fake) MountSource() (string, string)        { return "example.com", "base" }
func (f *fake) Fault(err error) error {
	return fault.New(fault.Registry, "registry example.com: layer %s: %w", f.digest, err).With("Try again.")
}

func (f *fake) Open(context.Context) (io.ReadCloser, error) {
	f.opens.Add(1)
	return io.NopCloser(f.open()), nil
}

func hashOf(b []byte) v1.Hash {
	s := sha256.Sum256(b)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(s[:])}
}

func newFake(blob, content []byte) *fake {
	return &fake{digest: hashOf(blob), diffID: hashOf(content), size: int64(len(blob)), open: func() io.Reader { return bytes.NewReader(blob) }}
}

func content(t *testing.T, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	data := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test's data
	for i := range data {
		data[i] = byte(r.IntN(40))
	}
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "f", Size: int64(n), Mode: 0o644}))
	_, err := w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func gz(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

func zst(t *testing.T, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return w.EncodeAll(b, nil)
}

func wrap(t *testing.T, opts Options, r Remote) (*Source, *Layer) {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	s := New(t.Context(), opts)
	t.Cleanup(s.Close)
	ls, err := s.Layers([]v1.Layer{r})
	require.NoError(t, err)
	return s, ls[0].(*Layer)
}

func read(l *Layer) ([]byte, error) {
	rc, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer func() { _ = rc.Close() }()
	return io.ReadAll(rc)
}

func TestFormatsAreKnownByContent(t *testing.T) {
	c := content(t, 1_000_000)
	for name, blob := range map[string][]byte{
		"gzip": gz(t, c), "zstd": zst(t, c), "plain": c,
		"two gzip members":     append(gz(t, c[:500]), gz(t, c[500:])...),
		"zstd skippable frame": append([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9}, zst(t, c)...),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(blob, c)
			_, l := wrap(t, Options{}, f)
			for range 2 {
				got, err := read(l)
				require.NoError(t, err)
				require.True(t, bytes.Equal(c, got))
			}
			require.Equal(t, int32(1), f.opens.Load())
			rc, err := l.Compressed()
			require.NoError(t, err)
			raw, err := io.ReadAll(rc)
			require.NoError(t, err)
			require.NoError(t, rc.Close())
			require.True(t, bytes.Equal(blob, raw))
			require.Equal(t, int32(1), f.opens.Load(), "Compressed reads the file")
			require.FileExists(t, l.Path())
		})
	}
}

func TestEmptyLayer(t *testing.T) {
	_, l := wrap(t, Options{}, newFake(nil, nil))
	got, err := read(l)
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestConcurrentReadersShareOneDownload(t *testing.T) {
	c := content(t, 3_000_000)
	f := newFake(gz(t, c), c)
	blob := f.open()
	slow, pw := io.Pipe()
	f.open = func() io.Reader { return slow }
	_, l := wrap(t, Options{}, f)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{pw}, struct{ io.Reader }{blob}, make([]byte, 10_000))
		_ = pw.CloseWithError(err)
	}()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got, err := read(l)
			require.NoError(t, err)
			require.True(t, bytes.Equal(c, got))
		})
	}
	wg.Wait()
	require.Equal(t, int32(1), f.opens.Load())
}

func TestALayerNobodyReadsIsNeverDownloaded(t *testing.T) {
	c := content(t, 1000)
	f := newFake(gz(t, c), c)
	_, l := wrap(t, Options{}, f)
	_, err := l.Digest()
	require.NoError(t, err)
	require.Zero(t, f.opens.Load())
	rc, err := l.Compressed()
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, rc)
	require.NoError(t, err)
	require.Empty(t, l.Path(), "a push straight from the registry keeps nothing")
}

func TestLiesAndDamageAreErrorsThatNameLayerAndRegistry(t *testing.T) {
	c := content(t, 500_000)
	whole := gz(t, c)
	other := newFake(whole, []byte("something else"))
	truncated := newFake(whole[:len(whole)/2], c)
	garbage := newFake(append(append([]byte{}, whole...), "garbage"...), c)
	bomb := newFake([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0, 0, 0}, c)
	cut := newFake(whole, c)
	cut.open = func() io.Reader {
		return io.MultiReader(bytes.NewReader(whole[:1000]), errReader{cut.Fault(errors.New("cut"))})
	}
	for name, f := range map[string]*fake{"wrong diffID": other, "truncated": truncated, "trailing garbage": garbage, "absurd zstd window": bomb, "failed download": cut} {
		t.Run(name, func(t *testing.T) {
			_, l := wrap(t, Options{}, f)
			_, err := read(l)
			require.ErrorContains(t, err, f.digest.String())
			require.ErrorContains(t, err, "example.com")
			k, ok := fault.As(err)
			require.True(t, ok)
			require.Equal(t, fault.Registry, k.Kind)
		})
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func TestLeftoversOfAKilledBuildAreNotBelieved(t *testing.T) {
	c := content(t, 100_000)
	f := newFake(gz(t, c), c)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, f.digest.Hex), make([]byte, f.size), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, f.digest.Hex+".part"), []byte("x"), 0o600))
	_, l := wrap(t, Options{Dir: dir}, f)
	got, err := read(l)
	require.NoError(t, err)
	require.True(t, bytes.Equal(c, got))
	require.Equal(t, int32(1), f.opens.Load())

	g := newFake(gz(t, c), c)
	_, l = wrap(t, Options{Dir: dir}, g)
	_, err = read(l)
	require.NoError(t, err)
	require.Zero(t, g.opens.Load(), "a sound blob is used")
}

func TestCloseAndCancelEndWaitingReaders(t *testing.T) {
	c := content(t, 1000)
	stuck := func() *fake {
		f := newFake(gz(t, c), c)
		r, w := io.Pipe()
		t.Cleanup(func() { _ = w.Close() })
		f.open = func() io.Reader { return io.MultiReader(bytes.NewReader(gz(t, c)[:20]), r) }
		return f
	}
	s := New(t.Context(), Options{Dir: t.TempDir()})
	t.Cleanup(s.Close) // before the directory goes, after the download is let go
	ls, err := s.Layers([]v1.Layer{stuck()})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.Prefetch(ctx, ls), context.DeadlineExceeded)
	rc, err := ls[0].Compressed()
	require.NoError(t, err)
	go func() { time.Sleep(50 * time.Millisecond); _ = rc.Close() }()
	_, err = io.Copy(io.Discard, rc)
	require.Error(t, err)
}

type events struct {
	mu   sync.Mutex
	list []progress.Event
}

func (e *events) Emit(x progress.Event) { e.mu.Lock(); e.list = append(e.list, x); e.mu.Unlock() }

func TestPrefetchDownloadsAllAndReports(t *testing.T) {
	sink := &events{}
	s := New(t.Context(), Options{Dir: t.TempDir(), Parallel: 2, Progress: sink})
	defer s.Close()
	var in []v1.Layer
	for i := range 6 {
		c := content(t, 10_000+i)
		in = append(in, newFake(gz(t, c), c))
	}
	ls, err := s.Layers(in)
	require.NoError(t, err)
	require.NoError(t, s.Prefetch(t.Context(), ls))
	finished := 0
	for _, e := range sink.list {
		if tr := e.(progress.Transfer); tr.Finished {
			require.Equal(t, tr.Total, tr.Current)
			require.Contains(t, tr.Name, "pull example.com/base:1 sha256:")
			finished++
		}
	}
	require.Equal(t, 6, finished)
}

// pattern is an endless cheap stream.
type pattern struct{ n int64 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte((p.n + int64(i)) >> 9)
	}
	p.n += int64(len(b))
	return len(b), nil
}

func TestMemoryDoesNotGrowWithTheLayer(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 2 GB")
	}
	const size = 2 << 30
	gen := func() io.Reader {
		r, w := io.Pipe()
		go func() {
			z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
			_, err := io.Copy(z, io.LimitReader(&pattern{}, size))
			_ = w.CloseWithError(errors.Join(err, z.Close()))
		}()
		return r
	}
	blob, tarSum := sha256.New(), sha256.New()
	n, err := io.Copy(blob, gen())
	require.NoError(t, err)
	_, err = io.Copy(tarSum, io.LimitReader(&pattern{}, size))
	require.NoError(t, err)
	f := &fake{
		digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(blob.Sum(nil))},
		diffID: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(tarSum.Sum(nil))}, size: n, open: gen,
	}
	_, l := wrap(t, Options{}, f)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	rc, err := l.Uncompressed()
	require.NoError(t, err)
	var peak uint64
	got, err := io.Copy(&sampler{&peak, 0}, rc)
	require.NoError(t, err)
	require.Equal(t, int64(size), got)
	runtime.ReadMemStats(&after)
	require.Less(t, peak, before.HeapAlloc+64<<20)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(256<<20))
}

// sampler looks at the heap every 128 MB.
type sampler struct {
	peak *uint64
	n    int
}

func (s *sampler) Write(p []byte) (int, error) {
	if s.n += len(p); s.n > 128<<20 {
		s.n = 0
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		*s.peak = max(*s.peak, m.HeapAlloc)
	}
	return len(p), nil
}

// TestARegistryThatDoesNotGoOnHoldsNobodyUp whose context has ended, neither before it
// has answered nor in the middle of a blob; who has patience gets the layer.
func TestARegistryThatDoesNotGoOnHoldsNobodyUp(t *testing.T) {
	tar := content(t, 500_000)
	blob := gz(t, tar)
	for name, some := range map[string]int{"no answer": 0, "in the middle": len(blob) / 2} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			f := newFake(blob, tar)
			f.open = func() io.Reader {
				if some == 0 {
					<-release
				}
				return io.MultiReader(bytes.NewReader(blob[:some]), waiting(release), bytes.NewReader(blob[some:]))
			}
			_, l := wrap(t, Options{}, f)
			letGo := sync.OnceFunc(func() { close(release) })
			t.Cleanup(letGo)
			enough := errors.New("another step failed")
			ctx, cancel := context.WithCancelCause(t.Context())
			ended := make(chan error, 1)
			go func() {
				rc, err := l.UncompressedContext(ctx)
				if err == nil {
					_, err = io.Copy(io.Discard, rc)
					err = errors.Join(err, rc.Close())
				}
				ended <- err
			}()
			require.Eventually(t, func() bool { return f.opens.Load() == 1 }, 10*time.Second, time.Millisecond)
			cancel(enough)
			require.ErrorIs(t, <-ended, enough)
			letGo()
			got, err := read(l)
			require.NoError(t, err)
			require.Equal(t, tar, got)
			require.EqualValues(t, 1, f.opens.Load(), "the download went on")
		})
	}
}

// waiting is an empty reader that ends when the channel is closed.
type waiting chan struct{}

func (w waiting) Read([]byte) (int, error) {
	<-w
	return 0, io.EOF
}
