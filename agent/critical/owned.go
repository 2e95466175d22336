package critical

import (
	"strings"
	"sync"
	"time"

	"bailey/agent/event"
	"bailey/sdk/packagedb"
)

// packaged are the places where packages put files.
var packaged = [...]string{"/usr/", "/bin/", "/sbin/", "/lib", "/etc/", "/boot/", "/opt/", "/var/lib/"}

// Owned reports whether a package of this system owns f, judging by its name and by its being root's alone: a name alone
// may be anybody's file in a container. known is false while that cannot be said, because there is no package database (yet)
// or a package manager is installing files that it does not list yet. It may read the database's files and must not be
// called where a question waits.
func (s *Set) Owned(f *event.File) (owned, known bool) {
	if f.Path == "" {
		return false, false
	}
	if !packagedb.RootOnly(f.UID, f.Mode) {
		return false, true
	}
	packages := s.packages.Snapshot()
	if packages == nil {
		return false, false
	}
	if _, ok := packages.Lookup(f.Path); ok {
		return true, true
	}
	for _, place := range packaged {
		if strings.HasPrefix(f.Path, place) {
			return false, !s.installing()
		}
	}
	return false, true
}

// transaction remembers for a moment whether a package manager is at work: finding out takes system calls.
type transaction struct {
	mu     sync.Mutex
	until  time.Time
	active bool
}

// rememberInstalling is how long an answer about the package manager is good for.
const rememberInstalling = 100 * time.Millisecond

func (s *Set) installing() bool {
	t := &s.transaction
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); now.After(t.until) {
		t.active, t.until = s.packages.InTransaction(), now.Add(rememberInstalling)
	}
	return t.active
}
