package snapshot

import (
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// future is a layer in the making: its methods wait until it is complete.
type future struct {
	done  chan struct{}
	layer v1.Layer
	err   error
}

// newFuture starts make in a goroutine of its own.
func newFuture(make func() (v1.Layer, error)) *future {
	f := &future{done: newChan()}
	go func() {
		defer close(f.done)
		f.layer, f.err = make()
	}()
	return f
}

func newChan() chan struct{} { return make(chan struct{}) }

func (f *future) wait() (v1.Layer, error) {
	<-f.done
	return f.layer, f.err
}

func get[T any](f *future, zero T, of func(v1.Layer) (T, error)) (T, error) {
	l, err := f.wait()
	if err != nil {
		return zero, err
	}
	return of(l)
}

func (f *future) Digest() (v1.Hash, error) { return get(f, v1.Hash{}, v1.Layer.Digest) }
func (f *future) DiffID() (v1.Hash, error) { return get(f, v1.Hash{}, v1.Layer.DiffID) }
func (f *future) Size() (int64, error)     { return get(f, 0, v1.Layer.Size) }
func (f *future) MediaType() (types.MediaType, error) {
	return get(f, "", v1.Layer.MediaType)
}
func (f *future) Compressed() (io.ReadCloser, error) {
	return get(f, nil, v1.Layer.Compressed)
}
func (f *future) Uncompressed() (io.ReadCloser, error) {
	return get(f, nil, v1.Layer.Uncompressed)
}
