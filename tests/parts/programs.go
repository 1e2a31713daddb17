package parts

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
)

// Registry is the Set's registry.
func (s *Set) Registry() (*Registry, error) {
	return s.registry.get(func() (*Registry, error) { return s.newRegistry("registry", "") })
}

// AccessLog is the file to which the Set's registry writes a line for each
// request that it has answered, in Apache's combined format.
func (s *Set) AccessLog() string { return filepath.Join(s.dir, "registry.log") }

// PushDebian pushes the Debian base image, which DebianTar describes.
func (s *Set) PushDebian(ctx context.Context, ref string) error {
	path, err := s.debian.get(newDebian)
	if err != nil {
		return err
	}
	return pushBase(ctx, ref, func() (io.ReadCloser, error) { return os.Open(path) }, nil)
}

// PushSmall pushes the small base image of SmallBase.
func (s *Set) PushSmall(ctx context.Context, ref string) error {
	layer, err := newSmallBase()
	if err != nil {
		return err
	}
	return pushBase(ctx, ref, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil }, nil)
}
