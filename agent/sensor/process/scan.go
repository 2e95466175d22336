package process

import (
	"errors"

	"bailey/agent/event"
	"bailey/internal/boottime"
)

// rescan makes the tree that of the processes that are there now: at the start, after a time in which nobody wanted it,
// after records were lost. Older records still in the ring say nothing new about a process that was read.
func (s *Sensor) rescan() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	begin := boottime.Now()
	there, err := s.readTasks()
	if err != nil {
		return err
	}
	for _, n := range s.tree.living() {
		if key := n.proc.Load().Key; there[key.PID] != key && key.Start < begin {
			s.tree.end(n, begin)
		}
	}
	return nil
}

// readTasks puts all living processes into the tree and returns their keys.
func (s *Sensor) readTasks() (map[uint32]event.ProcessKey, error) {
	begin := boottime.Now()
	all := newFound()
	if err := s.kernel.tasks(func(r *record) { s.found(r, all, news{}) }); err != nil {
		return nil, err
	}
	if err := s.complete(all.there, all.parents, begin); err != nil {
		return nil, err
	}
	s.link()
	return all.there, nil
}

// found are the keys of processes that were read, and those that they have of their parents, by pid.
type found struct {
	there, parents map[uint32]event.ProcessKey
}

func newFound() found {
	return found{make(map[uint32]event.ProcessKey), make(map[uint32]event.ProcessKey)}
}

// found puts one task of the iterator into the tree, as far as records that were not applied yet do not tell more of it.
func (s *Sensor) found(r *record, all found, told news) {
	all.there[r.who.key.PID] = r.who.key
	all.parents[r.who.parent.PID] = r.who.parent
	p := s.process(&r.who, r)
	p.Executable = s.executable(r)
	s.markNeverAsk(p)
	if told.born[p.Key] {
		return
	}
	if n := s.tree.find(p.Key); n != nil {
		p.Parent = n.proc.Load().Parent
	}
	if told.executed[p.Key] {
		before := *p
		before.Executable = event.File{}
		s.tree.put(&before, r.who.cell, r.time)
		return
	}
	n := s.tree.put(p, r.who.cell, r.time)
	n.settled = r.time
}

// complete adds the processes that /proc shows and the iterator left out; kernels were seen that hide pid 1 from it.
// Their exact start is what their children say of their parent.
func (s *Sensor) complete(there, parents map[uint32]event.ProcessKey, begin uint64) error {
	pids, err := listPIDs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if _, ok := there[pid]; ok {
			continue
		}
		cell := s.cells.get(pid)
		p, err := readLiving(pid)
		if err != nil || p.Key.Start >= boottime.FromTicks(boottime.ToTicks(begin)) {
			continue // ended, or started since: the ring has it
		}
		if exact := parents[pid]; sameTick(exact, p.Key) {
			p.Key = exact
		}
		if n := s.tree.newest(pid); n != nil && sameTick(n.proc.Load().Key, p.Key) {
			p.Key = n.proc.Load().Key
		}
		if exact := parents[p.Parent.PID]; sameTick(exact, p.Parent) {
			p.Parent = exact
		}
		there[pid] = p.Key
		s.tree.put(p, cell, begin)
		s.markNeverAsk(p)
	}
	return nil
}

// readLiving reads a process that is not on its way to its end: one that is may have said so before the attaching, and
// would stay in the tree for ever. After this look its exit is in the ring.
func readLiving(pid uint32) (*event.Process, error) {
	d, err := openProc(pid)
	if err != nil {
		return nil, err
	}
	defer d.close()
	data, err := d.read("stat")
	if err != nil {
		return nil, err
	}
	if stat, err := parseStat(data); err != nil || stat.flags&flagExiting != 0 {
		return nil, errors.Join(errEnded, err)
	}
	return d.process()
}

// link gives every process that has none its parent, when all are in the tree.
func (s *Sensor) link() {
	for _, n := range s.tree.living() {
		if n.parent.Load() == nil {
			s.tree.adopt(n, s.tree.find(n.proc.Load().Parent))
		}
	}
}
