// Package needs is for tests: it skips one whose needs the machine does not
// meet, and fails it where tests may not be skipped
// (LAYERWRIGHT_TEST_NO_SKIP=1, continuous integration). Nothing but tests
// imports it.
package needs

import (
	"os"
	"testing"
)

// Root is for tests that make devices, give files to others or mount.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "root")
	}
}

// Missing skips or fails a test for lack of something.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("LAYERWRIGHT_TEST_NO_SKIP") == "1" {
		t.Fatal("may not be skipped, and needs " + what)
	}
	t.Skip("needs " + what)
}
