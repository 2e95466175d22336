package file

import (
	"sync/atomic"

	"bailey/agent/event"
)

// Stats counts what the sensor did since New. Answered sums to Read minus Pending at every moment in which no question is
// between the kernel and its object.
type Stats struct {
	Read     uint64 // permission events taken from the kernel
	Execs    uint64 // of them, about an exec; the rest is about an open
	Asked    uint64 // of them, handed to Ask
	Exempt   uint64 // answered at once for the platform, an exempt daemon or a kernel thread
	Unscoped uint64 // opens outside the open scope, and opens of what is not a regular file
	Loaded   uint64 // questions whose process had to be read from /proc
	Unloaded uint64 // questions whose process could not be read: allowed
	Pending  int64  // read, not yet released

	Allowed, Denied uint64
	Answered        map[event.Reason]uint64
	LateAnswers     uint64 // verdicts that the kernel no longer waited for
	AnswerErrors    uint64 // verdicts that the kernel refused for another reason

	Overflow    uint64 // the kernel's question queue overflowed: openers were let through unasked
	EMFILE      uint64 // reads that failed for want of descriptors: the kernel refused each opener
	ReadErrors  uint64 // reads that failed because the file could not be opened for us: the kernel refused each opener
	NearlyFull  uint64 // questions allowed at once because descriptors ran low
	Overloaded  uint64 // questions allowed at once because too many were in flight
	Rescues     uint64 // times a reader was stuck in the kernel and another took over
	UnknownKind uint64 // events of a kind that was not asked for

	CacheSet       uint64 // ignore marks that the kernel accepted (it silently skips files that are open for writing)
	CacheTakenBack uint64 // of them, removed at once because the file, or the cache's validity, had changed meanwhile
	CacheSkipped   uint64 // cacheable verdicts not cached: changed too recently, or a file system that cannot tell of writes
	CacheErrors    uint64 // refused by the kernel
	CacheDropped   uint64 // marks removed because a writer closed the file or it moved into the scope
	CacheFlushes   uint64
	Ignored        uint64 // ignore marks for files outside the open scope

	Events         uint64 // notify events emitted
	EventsOwn      uint64 // notify events of the platform itself, not emitted
	EventsLost     uint64 // overflows of the notify queue; how many events each lost the kernel does not say
	EventsUnparsed uint64 // records that could not be understood
	EventsUnnamed  uint64 // without a path because the directory was gone or unreachable; not emitted if the object was gone too

	Superblocks int // file systems marked for questions or events now
	Uncovered   int // local file systems that could not be marked
	Scans       uint64
}

const reasonCount = 16

type counters struct {
	read, execs, asked, exempt, unscoped, loaded, unloaded                              atomic.Uint64
	allowed, denied, late, answerErrors                                                 atomic.Uint64
	overflow, emfile, readErrors, nearlyFull, overloaded, unknownKind, rescues          atomic.Uint64
	cacheSet, cacheTakenBack, cacheSkipped, cacheErrors, cacheDropped, flushes, ignored atomic.Uint64
	events, eventsOwn, eventsLost, eventsUnparsed, eventsUnnamed, scans                 atomic.Uint64
	answered                                                                            [reasonCount]atomic.Uint64
	pending                                                                             atomic.Int64
	unanswered                                                                          atomic.Int64
	superblocks, uncovered                                                              atomic.Int64
}

// Stats returns the present counts. Safe for concurrent use.
func (s *Sensor) Stats() Stats {
	c := &s.count
	out := Stats{
		Read: c.read.Load(), Execs: c.execs.Load(), Asked: c.asked.Load(), Exempt: c.exempt.Load(), Unscoped: c.unscoped.Load(),
		Loaded: c.loaded.Load(), Unloaded: c.unloaded.Load(), Pending: c.pending.Load(),
		Allowed: c.allowed.Load(), Denied: c.denied.Load(), LateAnswers: c.late.Load(), AnswerErrors: c.answerErrors.Load(),
		Overflow: c.overflow.Load(), EMFILE: c.emfile.Load(), ReadErrors: c.readErrors.Load(),
		NearlyFull: c.nearlyFull.Load(), Overloaded: c.overloaded.Load(), UnknownKind: c.unknownKind.Load(), Rescues: c.rescues.Load(),
		CacheSet: c.cacheSet.Load(), CacheTakenBack: c.cacheTakenBack.Load(), CacheSkipped: c.cacheSkipped.Load(),
		CacheErrors: c.cacheErrors.Load(), CacheDropped: c.cacheDropped.Load(), CacheFlushes: c.flushes.Load(),
		Ignored: c.ignored.Load(),
		Events:  c.events.Load(), EventsOwn: c.eventsOwn.Load(), EventsLost: c.eventsLost.Load(),
		EventsUnparsed: c.eventsUnparsed.Load(), EventsUnnamed: c.eventsUnnamed.Load(),
		Superblocks: int(c.superblocks.Load()), Uncovered: int(c.uncovered.Load()), Scans: c.scans.Load(),
		Answered: make(map[event.Reason]uint64),
	}
	for _, r := range event.Reasons() {
		if n := c.answered[r].Load(); n != 0 {
			out.Answered[r] = n
		}
	}
	return out
}
