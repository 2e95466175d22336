package process

import (
	"errors"
	"fmt"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/internal/boottime"
)

// inheritPatience is how long what was sent while nobody read waits for somebody who wants it.
const inheritPatience = time.Minute

// inherit deals with what the programs sent while nobody read: it is emitted in order, that of replaced programs first, and
// the tree is right afterwards, if it is wanted.
//
// The processes are read before the records. So each record is either older than what was read of its process, or is applied
// on top. A process that the records show being born is left to them; of one that executed in between, what it ran before is
// not known. Older records of all others change nothing.
func (s *Sensor) inherit(wanted bool) {
	chain := append(s.older[:len(s.older):len(s.older)], s.kernel)
	err := errors.Join(s.resumeHandOvers(chain), s.plant(chain))
	for i := range len(chain) - 1 {
		if e := s.handOver(chain[i], chain[i+1], wanted); e != nil {
			err = errors.Join(err, fmt.Errorf("replace BPF programs: %w", e))
			s.unreplaced(e)
			s.failed = err
			break
		}
		chain[i].ledger.known = chain[i].lost() // New reported them
	}
	s.overlap = s.kernel.overlap
	s.kernel.vars.want(wanted)
	err = errors.Join(err, s.drain())
	if s.unreadable(err); wanted {
		s.wanted.Store(true)
	}
	s.inheriting = false
}

// unreplaced says that a generation could not be replaced: it stays as it is.
func (s *Sensor) unreplaced(err error) {
	s.cfg.Health.Set(health.Entry{
		Component: PinsComponent, Status: health.Degraded,
		Summary: fmt.Sprintf("the BPF programs of the agent before could not be replaced: %v", err),
		Remedy:  "restart the agent; if it stays, see the agent's log and report it",
	})
}

// news is what records say happened to processes.
type news struct {
	born, executed map[event.ProcessKey]bool
}

// backlog reads the rings of generations and deals with nothing.
func backlog(chain []*kernel) (news, error) {
	n := news{make(map[event.ProcessKey]bool), make(map[event.ProcessKey]bool)}
	var r record
	for _, k := range chain {
		if k.ledger.records != recordFormat {
			continue
		}
		err := k.ring.walk(k.ring.at(), k.ring.end(), func(sample []byte) {
			if r.decode(sample) != nil {
				return
			}
			switch r.kind {
			case recordFork:
				n.born[r.child.key] = true
			case recordExec:
				n.executed[r.who.key] = true
			}
		})
		if err != nil {
			return n, fmt.Errorf("read what was sent while nobody read: %w", err)
		}
	}
	return n, nil
}

// plant makes the tree that of the processes that are there now, as far as the records in the rings do not say more.
func (s *Sensor) plant(chain []*kernel) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tree.clear()
	begin := boottime.Now()
	var tasks []record
	if err := s.kernel.tasks(func(r *record) { tasks = append(tasks, *r) }); err != nil {
		return err
	}
	told, err := backlog(chain) // after the processes: a process that was read and is not told of was there before
	if err != nil {
		return err
	}
	all := newFound()
	for i := range tasks {
		s.found(&tasks[i], all, told)
	}
	if err := s.complete(all.there, all.parents, begin); err != nil {
		return err
	}
	s.link()
	return nil
}
