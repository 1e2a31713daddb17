package parts

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// LockedUser and LockedPassword open a LockedRegistry.
const (
	LockedUser     = "user"
	LockedPassword = "planted-password"
)

// LockedRegistry starts a registry that demands a login.
func LockedRegistry(t testing.TB) *Registry {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(LockedPassword), bcrypt.MinCost)
	Need(t, err)
	path := filepath.Join(t.TempDir(), "htpasswd")
	Need(t, os.WriteFile(path, append([]byte(LockedUser+":"), hash...), 0o600))
	return NewRegistry(t, "auth: {htpasswd: {realm: r, path: "+path+"}}\n")
}
