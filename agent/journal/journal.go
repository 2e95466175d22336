package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/internal/boottime"
)

// Config is what a Journal needs. Dir, Health and Log have no default.
type Config struct {
	Dir    string // made if it is not there
	BootID string // names the machine's uptime
	Health *health.Registry
	Log    *slog.Logger

	MaxBytes     int64         // of all segments; default 64 MiB, at least 1 MiB
	SegmentBytes int64         // of one; default an eighth of MaxBytes
	Queue        int           // lines that wait to be written; default 4,096
	Sync         time.Duration // how long a line may be written and not synced, if nobody waits for it; default 500 ms
	Retry        time.Duration // how long to wait after the disk refused; default 1 s
	SumUp        time.Duration // how often losses are written down; default 1 min
	Patience     time.Duration // how long Commit waits; default 2 s

	Now  func() time.Time // default time.Now
	Boot func() uint64    // nanoseconds since boot; default boottime.Now
}

// DirName is the journal's directory in the agent's state.
const DirName = "journal"

// Component is the journal's entry in the health registry: whether it can be written. ChainComponent is there when somebody
// changed it.
const (
	Component      = "journal"
	ChainComponent = "journal.chain"
)

const (
	maxPending = 4096 // lines that wait for a disk that refuses
	maxBatch   = 256  // lines written at once
)

// What Commit may return besides the disk's error: the line may still be written.
var (
	ErrLate  = errors.New("the journal's disk is too slow")
	ErrEnded = errors.New("the journal has ended")
)

// Journal writes lines. Safe for concurrent use.
type Journal struct {
	cfg    Config
	start  time.Time
	queue  chan *item
	ended  chan struct{}
	losses losses
	head   atomic.Pointer[Head]
	lines  atomic.Uint64
	refuse atomic.Bool

	// Of Run's goroutine.
	chain   *chain
	pace    *pace
	pending []*item
	err     error     // why the disk refused
	retry   time.Time // when it is asked again
	written time.Time // the first write that is not synced
	summed  time.Time // when losses were written down last
	path    string    // the segment whose head was logged
}

// Head is the end of the chain.
type Head struct {
	Seq  uint64
	Hash Hash
	Time time.Time
}

// Stats is the journal's account since the agent's start.
type Stats struct {
	Head     Head   // zero while nothing could be written
	Lines    uint64 // written
	Lost     uint64 // not written, for want of room in the queue or on the disk; summed up in a line of the kind lost
	SummedUp uint64 // not written on purpose: a flood
	Failing  bool   // the disk refuses
}

// item is one line to be.
type item struct {
	kind    Kind
	wall    time.Time
	boot    uint64
	fields  any          // made into text on the journal's own goroutine
	event   *event.Event // or this
	text    []byte
	product string
	done    chan error // has room for one; nil if nobody waits
}

// New returns a journal. It touches no disk before Run.
func New(cfg Config) (*Journal, error) {
	if cfg.Dir == "" || cfg.Health == nil || cfg.Log == nil {
		return nil, errors.New("make journal: Dir, Health and Log are required")
	}
	setDefault(&cfg.MaxBytes, 64<<20)
	setDefault(&cfg.SegmentBytes, cfg.MaxBytes/8)
	setDefault(&cfg.Queue, 4096)
	setDefault(&cfg.Sync, 500*time.Millisecond)
	setDefault(&cfg.Retry, time.Second)
	setDefault(&cfg.SumUp, time.Minute)
	setDefault(&cfg.Patience, 2*time.Second)
	if cfg.MaxBytes < 1<<20 || cfg.SegmentBytes < 2*maxLine || cfg.SegmentBytes > cfg.MaxBytes/2 {
		return nil, fmt.Errorf("make journal: segments of %d bytes in %d: at least 1 MiB in all, %d bytes a segment, and two segments", cfg.SegmentBytes, cfg.MaxBytes, 2*maxLine)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Boot == nil {
		cfg.Boot = boottime.Now
	}
	j := &Journal{cfg: cfg, start: time.Now(), queue: make(chan *item, cfg.Queue), ended: make(chan struct{}), pace: newPace(cfg.MaxBytes)}
	j.chain = &chain{
		dir: cfg.Dir, total: cfg.MaxBytes, perSegment: cfg.SegmentBytes, bootID: cfg.BootID,
		now: cfg.Now, boot: cfg.Boot, tampered: j.tampered,
	}
	return j, nil
}

func setDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Note writes a line soon. It never waits: what there is no room for is counted, and that is written down. Nobody may change
// fields, which become a JSON object, after the call; the same holds for Commit.
func (j *Journal) Note(k Kind, fields any) {
	j.offer(&item{kind: k, wall: j.cfg.Now(), boot: j.cfg.Boot(), fields: fields})
}

func (j *Journal) offer(it *item) {
	select {
	case j.queue <- it:
	default:
		j.losses.add(lossKey{it.kind, causeQueue, it.product}, 1, it.boot)
	}
}

// Commit writes a line and returns when it is on the disk. When the disk refuses, or does not answer in time, it says so, and
// the line is written later if it can be.
func (j *Journal) Commit(k Kind, fields any) error {
	done := make(chan error, 1)
	it := &item{kind: k, wall: j.cfg.Now(), boot: j.cfg.Boot(), fields: fields, done: done}
	patience := time.NewTimer(j.cfg.Patience)
	defer patience.Stop()
	select {
	case j.queue <- it:
	case <-j.ended:
		return ErrEnded
	case <-patience.C:
		j.losses.add(lossKey{k, causeQueue, ""}, 1, it.boot)
		return ErrLate
	}
	select {
	case err := <-done:
		return err
	case <-j.ended:
		return ErrEnded
	case <-patience.C:
		return ErrLate
	}
}

// Head returns the end of the chain, zero while nothing could be written.
func (j *Journal) Head() Head {
	if h := j.head.Load(); h != nil {
		return *h
	}
	return Head{}
}

// Stats returns the account.
func (j *Journal) Stats() Stats {
	s := Stats{Head: j.Head(), Lines: j.lines.Load(), Failing: j.refuse.Load()}
	s.Lost, s.SummedUp = j.losses.totals()
	return s
}

// Run writes until ctx ends, and then what is left. It never fails: a disk that refuses is a health entry, and asked again.
func (j *Journal) Run(ctx context.Context) error {
	defer close(j.ended)
	defer lock(ctx, j.cfg.Dir)()
	j.summed = time.Now()
	j.write(true)
	for {
		var due <-chan time.Time
		wait := time.NewTimer(time.Hour)
		if d, any := j.due(); any {
			wait.Reset(d)
			due = wait.C
		}
		select {
		case <-ctx.Done():
			wait.Stop()
			j.finish()
			return nil
		case it := <-j.queue:
			j.take(it)
			j.drain(maxBatch)
		case <-due:
		}
		wait.Stop()
		j.sumUp(false)
		j.write(false)
	}
}

// due says when there is something to do if nothing comes.
func (j *Journal) due() (time.Duration, bool) {
	some, real := j.losses.some()
	switch {
	case j.err != nil:
		return max(time.Until(j.retry), 0), true
	case real:
		return max(time.Until(j.summed.Add(min(j.cfg.SumUp, time.Second))), 0), true
	case j.chain.unsynced:
		return max(time.Until(j.written.Add(j.cfg.Sync)), 0), true
	case some:
		return max(time.Until(j.summed.Add(j.cfg.SumUp)), 0), true
	}
	return 0, false
}

func (j *Journal) drain(n int) {
	for range n {
		select {
		case it := <-j.queue:
			j.take(it)
		default:
			return
		}
	}
}

// finish writes what is left.
func (j *Journal) finish() {
	j.drain(cap(j.queue))
	j.write(true)
	j.sumUp(true)
	j.write(true)
	if err := j.chain.close(); err != nil {
		j.cfg.Log.Warn("the journal's end may be missing", "err", err)
	}
	h := j.Head()
	j.cfg.Log.Info("journal ends", "seq", h.Seq, "hash", h.Hash.String())
}
