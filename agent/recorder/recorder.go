package recorder

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
)

// Tap is where the recorder hears of events. It never makes whoever publishes wait: it drops, and counts. Used by one goroutine.
type Tap interface {
	// Next waits for an event; lost is how many were dropped just before it.
	Next(ctx context.Context) (e *event.Event, lost uint64, err error)
	// Poll is Next for what is there already.
	Poll() (e *event.Event, lost uint64, ok bool)
	// Dropped returns how many were dropped so far.
	Dropped() uint64
	Close()
}

// Encoder makes the payload of a record. It appends to dst like append.
type Encoder interface {
	AppendEvent(dst []byte, e *event.Event) []byte
}

// Config configures a Recorder. Dir, Tap, Encoder, Now and Wall are required.
type Config struct {
	Dir     string // of the segments; it and its parents are made
	Size    int64  // the most that they take; default 64 MiB
	Tap     Tap
	Encoder Encoder
	Now     func() uint64    // nanoseconds since boot (CLOCK_BOOTTIME)
	Wall    func() time.Time // the clock on the wall
	Boot    string           // the boot, as /proc/sys/kernel/random/boot_id says it; empty when unknown
	Started uint64           // when the agent started, nanoseconds since boot
	Version string           // the agent's

	Log    *slog.Logger
	Health *health.Registry
}

// DefaultSize is the default of Config.Size.
const DefaultSize = 64 << 20

// The recorder's clock.
const (
	pollEvery  = 100 * time.Millisecond // how long events may wait in the tap
	flushEvery = time.Second            // how long they may wait for their block to be written
	checkEvery = time.Minute            // how often the recorder looks after its directory
	syncEvery  = 10 * time.Second       // how much a power cut may cost
	firstRetry = time.Second
	lastRetry  = time.Minute
	endTakes   = 2 * time.Second // how long a disk that does not answer can hold up the agent's end
)

// Recorder keeps what its tap hears. Make it with New, then Run it.
type Recorder struct {
	cfg   Config
	boot  bootID
	disk  disk
	stats counters
	lost  losses
	state condition
	ended chan struct{} // closed when nothing is written any more, which may be after Run where the disk does not answer
}

// New returns a Recorder. It touches no file: a disk that is full or broken is Run's to live with.
func New(cfg Config) (*Recorder, error) {
	if cfg.Dir == "" || cfg.Tap == nil || cfg.Encoder == nil || cfg.Now == nil || cfg.Wall == nil {
		return nil, errors.New("make recorder: Dir, Tap, Encoder, Now and Wall are required")
	}
	if cfg.Size < 0 {
		return nil, fmt.Errorf("make recorder: a size of %d", cfg.Size)
	}
	if cfg.Size == 0 {
		cfg.Size = DefaultSize
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Health == nil {
		cfg.Health = health.NewRegistry()
	}
	r := &Recorder{cfg: cfg, boot: parseBoot(cfg.Boot), disk: realDisk{}, ended: make(chan struct{})}
	r.state = condition{dir: cfg.Dir, log: cfg.Log, health: cfg.Health}
	return r, nil
}

// parseBoot reads a boot's id; one that it cannot read is unknown.
func parseBoot(s string) (b bootID) {
	raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(s), "-", ""))
	if err == nil && len(raw) == len(b) {
		copy(b[:], raw)
	}
	return b
}

// String is the inverse of parseBoot.
func (b bootID) String() string {
	if b == (bootID{}) {
		return ""
	}
	x := hex.EncodeToString(b[:])
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}

// Run records until ctx ends. Nothing that a disk does makes it fail.
func (r *Recorder) Run(ctx context.Context) error {
	defer r.cfg.Tap.Close()
	// On a goroutine of its own: a disk that does not answer must not hold up the end of the agent.
	go func() {
		defer close(r.ended)
		r.work(ctx)
	}()
	select {
	case <-r.ended: // the tap was closed
		<-ctx.Done()
		return ctx.Err()
	case <-ctx.Done():
	}
	patience := time.NewTimer(endTakes)
	defer patience.Stop()
	select {
	case <-r.ended:
	case <-patience.C:
		r.cfg.Log.Warn("the recorder's disk does not answer: what was not written is lost", "path", r.cfg.Dir)
	}
	return ctx.Err()
}

// work is the recorder's goroutine: the only one that touches the ring.
func (r *Recorder) work(ctx context.Context) {
	b, err := newBlock()
	if err != nil {
		r.cfg.Log.Error("nothing is recorded", "err", err) // unreachable: the compressor's options are constants
		return
	}
	s := startSyncer()
	defer s.stop()
	checking := r.startCheck(ctx)
	defer checking.wait()
	w := &writer{
		Recorder: r, block: b, syncer: s,
		ring: &ring{
			dir: r.cfg.Dir, limit: r.cfg.Size, disk: r.disk, boot: r.boot, retire: s.retire,
			wall: func() int64 { return r.cfg.Wall().UnixNano() },
		},
	}
	w.note(Start, r.cfg.Version)
	w.write() // at once: what is wrong with the disk is known from the start
	w.tend()
	for ctx.Err() == nil {
		if err := w.wait(ctx); err != nil {
			break
		}
		w.drain()
		w.tend()
	}
	w.drain()
	w.note(End, "")
	w.finish()
}
