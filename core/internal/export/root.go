package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tonistiigi/fsutil"
	copy "github.com/tonistiigi/fsutil/copy"

	"github.com/layerwright/layerwright/core/internal/layer"
)

// Root is a finished root file system.
type Root struct {
	// Dir is where it is; "" for an empty one.
	Dir string
	// Name is the directory that it gets in the output; "" for the output
	// itself, as with a single platform.
	Name string
	// Epoch is the time of every file (SOURCE_DATE_EPOCH, as in BuildKit);
	// nil leaves times alone.
	Epoch *time.Time
}

// RootDir writes root file systems into a directory, as BuildKit's exporter
// "local": what is there and not in the image stays, what is there and in the
// image is replaced, and everything belongs to the user who builds. Not atomic:
// the error of a failure says that the directory is incomplete.
func RootDir(ctx context.Context, dir string, roots []Root) error {
	for _, r := range roots {
		to := filepath.Join(dir, r.Name)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return onDisk("make directory", err)
		}
		if r.Dir == "" {
			continue
		}
		uid, gid := os.Getuid(), os.Getgid()
		err := copy.Copy(ctx, r.Dir, "/", to, "/", func(ci *copy.CopyInfo) {
			ci.Utime = r.Epoch
			ci.CopyDirContents, ci.AlwaysReplaceExistingDestPaths = true, true
			ci.Chown = func(*copy.User) (*copy.User, error) { return &copy.User{UID: uid, GID: gid}, nil }
			ci.XAttrErrorHandler = func(_, _, _ string, _ error) error { return nil }
			ci.ChangeFunc = func(fsutil.ChangeKind, string, os.FileInfo, error) error { return nil }
		})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			var pe *fs.PathError
			if errors.As(err, &pe) {
				pe.Path = strings.TrimPrefix(strings.TrimPrefix(pe.Path, to), r.Dir)
			}
			return onDisk("write the root file system (the directory is incomplete now)", err)
		}
	}
	return nil
}

// RootTar writes root file systems as one tar, owners and times as they are, as
// BuildKit's exporter "tar". A file appears when it is complete.
func RootTar(ctx context.Context, path string, to io.Writer, roots []Root) error {
	return toFile(path, to, func(w io.Writer) error {
		if len(roots) == 1 && roots[0].Name == "" && roots[0].Epoch == nil {
			return rootTar(ctx, w, roots[0])
		}
		return platformsTar(ctx, w, roots)
	})
}

func rootTar(ctx context.Context, w io.Writer, r Root) error {
	var all []layer.Change
	if r.Dir != "" {
		err := filepath.WalkDir(r.Dir, func(p string, _ fs.DirEntry, err error) error {
			if err == nil && p != r.Dir {
				all = append(all, layer.Change{Path: strings.TrimPrefix(p, r.Dir+"/")})
			}
			return err
		})
		if err != nil {
			return readError{fmt.Errorf("walk root file system: %w", err)}
		}
		return layer.Write(ctx, w, r.Dir, all, layer.WriteOptions{})
	}
	_, err := w.Write(make([]byte, 1024)) // an empty tar
	return err
}

// platformsTar puts every platform's files below a directory of its own.
func platformsTar(ctx context.Context, w io.Writer, roots []Root) error {
	t := newPrefixer(w, roots[0].Epoch)
	for _, r := range roots {
		if err := t.under(r.Name, func(w io.Writer) error { return rootTar(ctx, w, r) }); err != nil {
			return err
		}
	}
	return t.close()
}

// Copy writes what is read to a file, which appears when it is complete, or to a
// stream that is already open.
func Copy(ctx context.Context, path string, to io.Writer, from io.Reader) error {
	return toFile(path, to, func(w io.Writer) error {
		_, err := io.Copy(ctxWriter(ctx, w), from)
		return err
	})
}

// toFile writes a file atomically, or to a stream that is already open.
func toFile(path string, to io.Writer, write func(io.Writer) error) error {
	if to != nil {
		return writeErr("standard output", write(to))
	}
	return writeAtomic(path, 0o644, write)
}
