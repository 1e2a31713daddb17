package web

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"sync"
)

// Cache keeps what was fetched, so that one build asks for each file once: the
// frontend looks into a remote build context before the build itself needs it.
// Safe for concurrent use.
type Cache struct {
	dir string

	mu    sync.Mutex
	files map[string]*kept
	put   map[string]*kept
}

// NewCache makes a cache of files in dir, an existing directory that nobody
// else uses and that the build removes.
func NewCache(dir string) *Cache {
	return &Cache{dir: dir, files: map[string]*kept{}, put: map[string]*kept{}}
}

// kept is one file of the cache; mu is held while it is fetched.
type kept struct {
	mu   sync.Mutex
	path string
	// header and sum (sha256, hex) are set once the file is complete.
	header http.Header
	sum    string
}

// entry is the place for what one request answers.
func (c *Cache) entry(key string) *kept {
	sum := sha256.Sum256([]byte(key)) // a URL may hold a password: it is no file name
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.files[key]
	if !ok {
		k = &kept{path: filepath.Join(c.dir, hex.EncodeToString(sum[:]))}
		c.files[key] = k
	}
	return k
}

// Put has the file at path answer for url, as long as the build runs: a stream
// that was read, or a file of the job. sum is its sha256 in hex.
func (c *Cache) Put(url, path, sum string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put[url] = &kept{path: path, header: http.Header{}, sum: sum}
}

// given is what was Put for a URL; nil if nothing was.
func (c *Cache) given(url string) *kept {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.put[url]
}

// drop removes what a failed request has left.
func (k *kept) drop() { _ = os.Remove(k.path) }
