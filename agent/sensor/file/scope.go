package file

import (
	"fmt"
	"path/filepath"

	"bailey/internal/pathname"
)

// scope is a set of path prefixes, each ending at a path component. The zero value contains nothing. Immutable.
type scope struct{ prefixes []string } // without a trailing slash; "" is the root

func newScope(paths []string) (*scope, error) {
	s := &scope{}
	for _, p := range paths {
		if !filepath.IsAbs(p) {
			return nil, fmt.Errorf("open scope %q is not an absolute path: write the path from the root", p)
		}
		p = filepath.Clean(p)
		if p == "/" {
			p = ""
		}
		s.prefixes = append(s.prefixes, p)
	}
	return s, nil
}

// contains reports whether path is a prefix of the scope or lies below one.
func (s *scope) contains(path string) bool {
	for _, p := range s.prefixes {
		if pathname.Below(path, p) {
			return true
		}
	}
	return false
}

// touches reports whether a file below mountPoint can be in the scope: a prefix lies below it, or it below a prefix.
func (s *scope) touches(mountPoint string) bool {
	if mountPoint == "/" {
		mountPoint = ""
	}
	for _, p := range s.prefixes {
		if pathname.Below(p, mountPoint) || pathname.Below(mountPoint, p) {
			return true
		}
	}
	return false
}

// whole reports whether the scope is everything.
func (s *scope) whole() bool {
	for _, p := range s.prefixes {
		if p == "" {
			return true
		}
	}
	return false
}

// strings keeps the last string seen for each of a fixed number of slots, so that a path which comes again needs no new
// allocation. Not safe for concurrent use: each reader has its own.
type interner struct{ slots [4096]string }

func (t *interner) intern(b []byte) string {
	h := uint32(2166136261)
	for _, c := range b {
		h = (h ^ uint32(c)) * 16777619
	}
	slot := &t.slots[(h^h>>16)%uint32(len(t.slots))]
	if *slot == string(b) {
		return *slot
	}
	*slot = string(b)
	return *slot
}
