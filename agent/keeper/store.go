package keeper

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Names of kept descriptors tell what the keeper does with them besides keeping them.
const (
	// AnswerPrefix begins the name of a fanotify group whose questions the keeper answers when the agent cannot.
	AnswerPrefix = "answer/"
	// ReleasePrefix begins the name of a fanotify group that the keeper lets go then: the kernel allows all that waits in it.
	// It is for file systems that stand on others, where reading a question can need the answer to another.
	ReleasePrefix = "release/"
)

// maxKept bounds what an agent can make the keeper hold.
const maxKept = 4096

// storeFrom is the lowest number that a kept descriptor gets, above those that the answerer reads into.
const storeFrom = 64

// store holds descriptors by name. Of one goroutine.
type store struct {
	kept  map[string]kept
	count uint64 // of what was ever kept
	a     *answerer
}

// kept is one descriptor and its number among all that were ever kept.
type kept struct {
	fd     int
	number uint64
}

func newStore(a *answerer) *store { return &store{kept: make(map[string]kept), a: a} }

// keep takes fd over under name, in place of what had it.
func (s *store) keep(name string, fd int) error {
	defer func() { _ = unix.Close(fd) }()
	if name == "" || len(name) > MaxName {
		return ErrName
	}
	if _, ok := s.kept[name]; !ok && len(s.kept) >= maxKept {
		return fmt.Errorf("keep %q: %d descriptors are kept already", name, maxKept)
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, storeFrom)
	if err != nil {
		return fmt.Errorf("keep %q: %w", name, err)
	}
	s.drop(name)
	s.count++
	s.kept[name] = kept{own, s.count}
	switch {
	case strings.HasPrefix(name, AnswerPrefix):
		s.a.answers(own)
	case strings.HasPrefix(name, ReleasePrefix):
		s.a.releases(own)
	}
	return nil
}

// drop forgets name.
func (s *store) drop(name string) {
	old, ok := s.kept[name]
	if !ok {
		return
	}
	delete(s.kept, name)
	switch {
	case strings.HasPrefix(name, AnswerPrefix):
		s.a.answers(-1)
	case strings.HasPrefix(name, ReleasePrefix):
		s.a.releases(-1) // closes it
		return
	}
	_ = unix.Close(old.fd)
}

// letGo closes the groups whose questions nobody can answer without the agent, and returns how many there were.
func (s *store) letGo() int {
	n := 0
	for _, name := range s.names() {
		if strings.HasPrefix(name, ReleasePrefix) {
			s.drop(name)
			n++
		}
	}
	return n
}

// giveUp lets go everything but what is answered: products whose agent does not come back end with what they hang on.
func (s *store) giveUp() {
	for _, name := range s.names() {
		if !strings.HasPrefix(name, AnswerPrefix) {
			s.drop(name)
		}
	}
}

// names returns what is kept, in order.
func (s *store) names() []string {
	out := make([]string, 0, len(s.kept))
	for n := range s.kept {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// close lets everything go.
func (s *store) close() {
	for _, n := range s.names() {
		s.drop(n)
	}
}
