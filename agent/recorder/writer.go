package recorder

import (
	"context"
	"time"

	"bailey/agent/event"
)

// writer moves events from the tap to the ring. It belongs to one goroutine.
type writer struct {
	*Recorder
	block  *block
	ring   *ring
	syncer *syncer
	loaded bool

	index   uint64 // of the next block
	oldest  uint64 // when the block's first record came, nanoseconds since boot
	failing bool
	retry   time.Duration
	failure uint64 // when it failed last
	checked uint64
	synced  uint64
	dirty   bool // written and not synced

	told  uint64 // losses of the tap that were recorded
	ahead uint64 // of them, those that the next event will tell again
}

// wait returns when there may be something to do. While events come they are taken in batches, so that nobody who publishes
// has to wake this goroutine; while none come it sleeps.
func (w *writer) wait(ctx context.Context) error {
	if w.block.empty() && !w.dirty {
		idle, cancel := context.WithTimeout(ctx, checkEvery)
		e, lost, err := w.cfg.Tap.Next(idle)
		cancel()
		if err == nil {
			w.take(e, lost)
		} else if idle.Err() == nil {
			return err // the tap is closed
		}
	}
	pause := time.NewTimer(pollEvery)
	defer pause.Stop()
	select {
	case <-ctx.Done():
	case <-pause.C:
	}
	return nil
}

// drain takes what is in the tap.
func (w *writer) drain() {
	for {
		e, lost, ok := w.cfg.Tap.Poll()
		if !ok {
			break
		}
		w.take(e, lost)
	}
	// Losses that no event followed.
	if n := w.cfg.Tap.Dropped() - w.told; int64(n) > 0 {
		w.tapLost(n, w.cfg.Now())
		w.ahead += n
	}
}

// take records one event and what was dropped before it.
func (w *writer) take(e *event.Event, lost uint64) {
	known := min(w.ahead, lost)
	w.ahead -= known
	if lost > known {
		w.tapLost(lost-known, e.Time)
	}
	if !w.room() {
		w.lost.add(CauseDisk, e.Time, 1)
		w.stats.lostDisk.Add(1)
		return
	}
	if !w.block.event(w.cfg.Encoder, e) {
		w.stats.lostOversized.Add(1)
		w.block.loss(e.Time, 1, CauseOversized)
	}
	w.added()
}

func (w *writer) tapLost(n, at uint64) {
	w.told += n
	w.stats.lostSlow.Add(n)
	w.state.slow(w.cfg.Now())
	if !w.room() {
		w.lost.add(CauseSlow, at, n)
		return
	}
	w.block.loss(at, n, CauseSlow)
	w.added()
}

// note records something about the recorder itself.
func (w *writer) note(t Type, text string) {
	if w.room() {
		w.block.note(t, w.cfg.Now(), text)
		w.added()
	}
}

// room reports whether the block takes another record: a full block that cannot be written is kept, and nothing is added.
func (w *writer) room() bool {
	if w.block.full() {
		w.write()
		if w.block.full() {
			return false
		}
	}
	if w.block.empty() {
		// First what could not be said earlier.
		for _, l := range w.lost.take() {
			w.block.loss(l.at, l.n, l.cause)
			w.added()
		}
	}
	return true
}

func (w *writer) added() {
	if w.block.records == 1 {
		w.oldest = w.cfg.Now()
	}
}

// tend writes what has waited long enough and looks after the rest.
func (w *writer) tend() {
	now := w.cfg.Now()
	if w.block.full() || !w.block.empty() && passed(now, w.oldest, flushEvery) {
		w.write()
	}
	if w.dirty && passed(now, w.synced, syncEvery) && w.ring.open != nil && w.syncer.sync(w.ring.open) {
		w.synced, w.dirty = now, false
	}
	if err := w.syncer.fault(); err != nil {
		w.failed(err)
	}
	if passed(now, w.checked, checkEvery) {
		w.checked = now
		if err := w.ring.check(); err != nil {
			w.failed(err)
		}
		w.stats.ring(w.ring)
	}
	w.state.tell(now)
}

// passed reports whether d has passed since then.
func passed(now, then uint64, d time.Duration) bool { return now-min(now, then) >= uint64(d) }

// write tries to write the block, not too often while that fails.
func (w *writer) write() {
	if w.block.empty() || w.failing && !passed(w.cfg.Now(), w.failure, w.retry) {
		return
	}
	if err := w.attempt(); err != nil {
		w.failed(err)
		return
	}
	w.failing, w.retry = false, 0
	w.stats.wrote(w.block)
	w.stats.ring(w.ring)
	w.state.wrote(w.ring.tight)
	w.index++
	w.block.reset()
	w.dirty = true
}

func (w *writer) attempt() error {
	if !w.loaded {
		if err := w.ring.load(); err != nil {
			return err
		}
		w.loaded = true
	}
	return w.ring.append(func(m marker) []byte {
		return w.block.seal(blockHeader{
			marker: m, boot: w.boot, run: w.cfg.Started, index: w.index,
			zero: w.cfg.Wall().UnixNano() - int64(w.cfg.Now()),
		})
	})
}

// failed notes that the disk did not do what it was asked.
func (w *writer) failed(err error) {
	w.stats.errors.Add(1)
	w.failing, w.failure = true, w.cfg.Now()
	w.retry = min(max(2*w.retry, firstRetry), lastRetry)
	w.state.failed(err, w.failure)
}

// finish writes what is left; there will be no other try.
func (w *writer) finish() {
	w.failing = false
	w.write()
	if !w.block.empty() {
		w.stats.lostDisk.Add(w.block.events)
	}
	w.ring.close()
}
