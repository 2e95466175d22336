package process

// Counters are totals since the sensor was made.
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
	k, err := s.kernel.counts()
	if err != nil {
		return c, err
	}
	c.Execs, c.Forks, c.Exits, c.Outside = k.Execs, k.Forks, k.Exits, k.Outside
	c.Unwanted = k.Unwanted
	c.LostExecs, c.LostForks, c.LostExits, c.LostScratch = k.LostExecs, k.LostForks, k.LostExits, k.LostScratch
	c.ArgvUnread, c.Recursions = k.ArgvUnread, s.kernel.recursions()
	return c, nil
}
