package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// requests are what one build asked of the registry.
type requests struct {
	// Counted are all but the following.
	Counted int `json:"requests"`
	// Pings are GET /v2/, Permissions the beginnings and ends of uploads without
	// data, by which a builder asks early whether it may push.
	Pings       int `json:"pings"`
	Permissions int `json:"permission_requests"`
	// Mounts are blobs taken over from another repository. They are counted.
	Mounts int `json:"mounts"`
	// Received are the bytes of all answers' bodies.
	Received int64 `json:"received_bytes"`
	// each is every request, for messages.
	each []string
}

// accessLog is a registry's access log, read from where the last reading ended.
// Nothing stands between builder and registry, so counting costs no time.
type accessLog struct {
	path string
	at   int64
}

var (
	logLine = regexp.MustCompile(`"([A-Z]+) (/v2/\S*) HTTP/[0-9.]+" (\d{3}) (\d+)`)
	upload  = regexp.MustCompile(`/blobs/uploads/[^/?]+`)
)

// next is what came since the last call.
func (l *accessLog) next() (requests, error) {
	// The line of a request follows its answer.
	time.Sleep(30 * time.Millisecond)
	f, err := os.Open(l.path)
	if err != nil {
		return requests{}, err
	}
	defer f.Close()
	if _, err := f.Seek(l.at, io.SeekStart); err != nil {
		return requests{}, err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return requests{}, err
	}
	l.at += int64(len(b))
	return count(string(b)), nil
}

func count(log string) requests {
	var r requests
	for _, m := range logLine.FindAllStringSubmatch(log, -1) {
		method, path, status := m[1], m[2], m[3]
		// HEAD has a length but no body.
		if n, err := strconv.ParseInt(m[4], 10, 64); err == nil && method != "HEAD" {
			r.Received += n
		}
		r.each = append(r.each, fmt.Sprintf("%s %s %s", status, method, path))
		switch {
		case path == "/v2/":
			r.Pings++
			continue
		case method == "DELETE" && upload.MatchString(path):
			// And the POST that began it, counted below.
			r.Permissions += 2
			r.Counted--
			continue
		case method == "POST" && status == "201" && strings.Contains(path, "mount="):
			r.Mounts++
		}
		r.Counted++
	}
	return r
}

// storage is a registry's storage, from which everything but the base image is
// removed between workloads: blobs of random bytes would fill the disk.
type storage struct {
	dir  string
	keep map[string]bool
}

func newStorage(dir string) (*storage, error) {
	s := &storage{dir: filepath.Join(dir, "docker", "registry", "v2"), keep: map[string]bool{}}
	found, err := s.list()
	for _, f := range found {
		s.keep[f] = true
	}
	return s, err
}

func (s *storage) list() ([]string, error) {
	blobs, err := filepath.Glob(filepath.Join(s.dir, "blobs", "sha256", "*", "*"))
	if err != nil {
		return nil, err
	}
	repos, err := filepath.Glob(filepath.Join(s.dir, "repositories", "*"))
	return append(blobs, repos...), err
}

// uncache has the kernel forget the blobs that builds have sent. With those of all
// rounds in memory a build gets pages that nobody has used before, which cost a virtual
// machine ten times as much as others: seen as 1.5 s more for whoever came late in a round.
func (s *storage) uncache() error {
	blobs, err := filepath.Glob(filepath.Join(s.dir, "blobs", "sha256", "*", "*"))
	if err != nil {
		return err
	}
	for _, b := range blobs {
		if s.keep[b] {
			continue
		}
		f, err := os.Open(filepath.Join(b, "data"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // not yet, or no longer
		}
		if err != nil {
			return err
		}
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (s *storage) clean() error {
	found, err := s.list()
	if err != nil {
		return err
	}
	for _, f := range found {
		if s.keep[f] {
			continue
		}
		if err := os.RemoveAll(f); err != nil {
			return err
		}
	}
	return nil
}
