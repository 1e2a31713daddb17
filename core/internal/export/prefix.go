package export

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"time"
)

// prefixer joins several tars into one, each below a directory.
type prefixer struct {
	tw *tar.Writer
	// epoch is every entry's time; nil leaves times alone.
	epoch *time.Time
}

func newPrefixer(w io.Writer, epoch *time.Time) *prefixer { return &prefixer{tar.NewWriter(w), epoch} }

// under adds what write writes, a tar, below dir; "" is the root.
func (p *prefixer) under(dir string, write func(io.Writer) error) error {
	if dir != "" {
		if err := p.tw.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: p.time(time.Unix(0, 0))}); err != nil {
			return err
		}
	}
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := write(w)
		_ = w.CloseWithError(err)
		done <- err
	}()
	err := p.copy(dir, tar.NewReader(r), r)
	_ = r.CloseWithError(err)
	return errors.Join(err, <-done)
}

func (p *prefixer) time(t time.Time) time.Time {
	if p.epoch != nil {
		return *p.epoch
	}
	return t
}

func (p *prefixer) copy(dir string, tr *tar.Reader, rest io.Reader) error {
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, rest)
			return err
		}
		if err != nil {
			return fmt.Errorf("join tars: %w", err)
		}
		h.Name, h.ModTime = path.Join(dir, h.Name), p.time(h.ModTime)
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if h.Typeflag == tar.TypeLink {
			h.Linkname = path.Join(dir, h.Linkname)
		}
		if err := p.tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(p.tw, tr); err != nil {
			return err
		}
	}
}

func (p *prefixer) close() error { return p.tw.Close() }
