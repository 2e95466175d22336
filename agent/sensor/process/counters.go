package process

// Counters are totals since the sensor was made; of pinned programs since a sensor before it last dealt with their records
// or reported their losses.
type Counters struct {
	// In the kernel, in the agent's pid namespace, while wanted. Exits counts a process twice when its last two threads end at
	// once.
	Execs, Forks, Exits uint64
	// In the kernel: forks and execs there while nobody wanted them.
	Unwanted uint64
	// In the kernel: what happened in processes that the agent's pid namespace does not show.
	Outside uint64
	// In the kernel: no record was sent, by cause.
	LostExecs, LostForks, LostExits uint64 // the ring buffer was full
	LostScratch                     uint64 // no memory to make the record in
	Recursions                      uint64 // a program interrupted itself
	ArgvUnread                      uint64 // sent without arguments: they were swapped out

	// Emitted.
	EmittedExecs, EmittedForks, EmittedExits uint64
	DuplicateExits                           uint64 // the second of two: not emitted
	ForksFromOutside                         uint64 // the parent is outside of the agent's pid namespace: in the tree, not emitted
	Overlap                                  uint64 // sent by replaced programs and by those that replaced them: counted twice, emitted once
	Malformed, UnknownKinds                  uint64 // records that could not be read
	UnknownProcesses                         uint64 // processes first seen by an event that is not their fork
	Rescans                                  uint64 // how often all processes were read anew after a loss
}

// Counters returns the counters.
func (s *Sensor) Counters() (Counters, error) {
	c := Counters{
		EmittedExecs: s.emitted.execs.Load(), EmittedForks: s.emitted.forks.Load(), EmittedExits: s.emitted.exits.Load(),
		DuplicateExits: s.emitted.duplicates.Load(), ForksFromOutside: s.emitted.outside.Load(),
		Malformed: s.emitted.malformed.Load(), UnknownKinds: s.emitted.unknownKinds.Load(),
		UnknownProcesses: s.emitted.unknownProcesses.Load(), Rescans: s.emitted.rescans.Load(),
	}
	if s.kernel == nil {
		return c, nil
	}
	k, base := s.kernel.vars.totals(), &s.base
	c.Execs = k.Execs - base.taken.execs - base.known.execs + s.emitted.oldExecs.Load()
	c.Forks = k.Forks - base.taken.forks - base.known.forks + s.emitted.oldForks.Load()
	c.Exits = k.Exits - base.taken.exits - base.known.exits + s.emitted.oldExits.Load()
	c.Outside, c.Unwanted, c.ArgvUnread = k.Outside-base.totals.Outside, k.Unwanted-base.totals.Unwanted, k.ArgvUnread-base.totals.ArgvUnread
	lost := s.kernel.lost().minus(base.known)
	c.LostExecs, c.LostForks, c.LostExits, c.LostScratch, c.Recursions = lost.execs, lost.forks, lost.exits, lost.scratch, lost.recursion
	c.Overlap = s.emitted.overlap.Load()
	return c, nil
}

// Ring returns how many bytes of the ring buffer wait to be read, and how many it holds; zeros without BPF.
func (s *Sensor) Ring() (waiting, size int) {
	if s.kernel == nil {
		return 0, 0
	}
	return int(s.kernel.ring.end() - s.kernel.ring.at()), int(s.cfg.RingBytes)
}

// baseline is what was counted before the sensor.
type baseline struct {
	taken  taken
	known  losses
	totals kernelCounts
}
