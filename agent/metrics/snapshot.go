package metrics

import "time"

// Source makes snapshots. It is called at each scrape, by several goroutines at once.
type Source interface {
	Snapshot() Snapshot
}

// Keeper tells what the keeper counted while the agent could not answer.
type Keeper interface {
	Keeper() KeeperCounts
}

// KeeperCounts is the keeper's account.
type KeeperCounts struct {
	Bypassed uint64 // questions that the keeper answered with the operator's default
	Restarts uint64 // of the agent, by the keeper
	Bypass   bool   // the keeper answers now
}

// Brakes tells which products are braked. A product that never was need not be listed.
type Brakes interface {
	Brakes() []Brake
}

// Brake is one product's brake.
type Brake struct {
	Product string
	Engaged bool   // now
	Denies  uint64 // that did not count since then, or since the agent's start
}

// Snapshot is what the agent counted so far.
type Snapshot struct {
	Version, Revision string
	Started           time.Time

	Asked     map[string]uint64 // questions by kind
	Verdicts  []Verdict
	InFlight  uint64
	Products  []Product
	Cache     Cache
	Lost      []Loss
	Files     Files
	Processes Processes
	Published uint64         // events
	Health    map[string]int // entries by status
	Unwell    []Unwell
	Journal   Journal
}

// Verdict counts questions by what decided them.
type Verdict struct {
	Reason string
	Allow  bool
	Count  uint64
}

// Product is the account of one installed product.
type Product struct {
	Name, Release, State, Authority string

	Restarts     uint64
	Memory       uint64        // bytes
	CPU          time.Duration // of the present run
	Live, Shadow uint64        // questions that waited for it, and that did not
	Outcomes     map[string]uint64
	Denies       uint64
	Late         uint64
	Degradations uint64
	Latency      map[string]Latency // of its answers, by what they said: allow, deny, overridden

	Events        uint64 // sent to it
	EventsLost    uint64
	EventsQueued  int
	QueuedBytes   int
	EventsUnacked int
	Findings      uint64
	FindingsLost  uint64
	Faults        uint64
}

// Latency counts answers by how long they took: Below[i] those that took less than 2^i µs and not less than half of that, the
// last one all that took longer.
type Latency struct {
	Below []uint64
	Sum   time.Duration
}

// Cache is the verdict cache.
type Cache struct {
	Entries, Hits, Misses, Marks uint64
	Cleared                      map[string]uint64
}

// Loss counts what was lost for one cause.
type Loss struct {
	What, Cause string
	Count       uint64
}

// Files is the file sensor's account.
type Files struct {
	Counts      map[string]uint64
	FileSystems int // watched
	Uncovered   int // could not be marked
	Pending     uint64
}

// Processes is the process sensor's account.
type Processes struct {
	Counts                 map[string]uint64
	RingWaiting, RingBytes int
}

// Unwell is a health entry that is not ok.
type Unwell struct{ Component, Status string }

// Journal is the journal's account.
type Journal struct {
	Seq, Lines, SummedUp uint64
	Failing              bool
}
