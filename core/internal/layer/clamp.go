package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"time"
)

// Clamp gives a writer for a layer's tar that hands the tar on to w with the
// times of all entries cut to at most latest, as BuildKit's rewrite-timestamp
// does it: what is older stays as it is. Content streams through, and nothing
// else of an entry changes. Close ends the tar, does not close w, and says what
// went wrong; an error of w also ends writing.
func Clamp(w io.Writer, latest time.Time) io.WriteCloser {
	r, pipe := io.Pipe()
	c := &clamper{PipeWriter: pipe, done: make(chan error, 1)}
	go func() {
		err := clamp(w, r, latest)
		// nil, after the end of the tar, is io.ErrClosedPipe for a writer.
		_ = r.CloseWithError(err)
		c.done <- err
	}()
	return c
}

type clamper struct {
	*io.PipeWriter
	done chan error
}

// Close implements io.Closer.
func (c *clamper) Close() error {
	_ = c.PipeWriter.Close() // never fails
	return <-c.done
}

func clamp(w io.Writer, r io.Reader, latest time.Time) error {
	tr, tw := tar.NewReader(r), tar.NewWriter(w)
	buf := make([]byte, 256<<10)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
		if h.ModTime.After(latest) {
			h.ModTime = latest
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("write layer: %s: %w", h.Name, err)
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{tw}, struct{ io.Reader }{tr}, buf); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	// What follows the end marker, so that the writer can end.
	_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buf)
	return err
}
