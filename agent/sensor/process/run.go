package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"bailey/agent/health"
	"bailey/internal/boottime"
)

const (
	// quietInterval is how long records may lie in the ring while nobody needs them: 10 ms of them fill a thousandth of it.
	quietInterval = 10 * time.Millisecond
	// lookAgain must be longer: a record that did not wake the reader came at most quietInterval after one that did.
	lookAgain = quietInterval + time.Millisecond
	// checkInterval is how often the kernel's loss counters are looked at, and whether somebody missed a process.
	checkInterval = time.Second
	// promptFor is how long the kernel wakes the reader for each record after somebody missed a process.
	promptFor = 10 * time.Second
	// forgiveLoss is how long after the last loss the sensor counts as whole again.
	forgiveLoss = 10 * time.Minute
	// checkEvery is the number of records after which it is seen whether a check is due, if they never pause.
	checkEvery = 1024
)

// Run emits events until ctx ends. It may be called once. While another sensor reads the pinned ring it waits.
func (s *Sensor) Run(ctx context.Context) error {
	if s.kernel == nil {
		return s.runPolling(ctx)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s.gate.Lock()
	s.running = true
	s.gate.Unlock()
	defer s.park()
	defer s.dismiss()
	reads, err := s.begin(ctx)
	if err != nil {
		return fmt.Errorf("take over from the sensor before: %w", err)
	}
	if !reads {
		s.dismiss()
		s.park()
		<-ctx.Done()
		return nil
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_ = s.kernel.ring.flush()
	})
	defer func() {
		if !stop() {
			<-woken
		}
	}()
	s.serve(true)
	defer s.serve(false)
	r := reader{Sensor: s}
	return r.run(ctx)
}

// dismiss ends the waiting of who asks a sensor that does not read.
func (s *Sensor) dismiss() {
	s.gate.Lock()
	defer s.gate.Unlock()
	s.over = true
	if s.request != nil {
		close(s.request.done)
		s.request = nil
	}
}

// park says that Run reads no more.
func (s *Sensor) park() { s.parking.Do(func() { close(s.parked) }) }

// Leave stops the reading and lets the next sensor read what is pinned; until then it stays in the ring. From then on the
// sensor changes nothing in the kernel: Run goes on until its context ends and emits nothing, SetWanted does nothing, and Close
// leaves the pins. It must not be called from Emit or NeverAsk.
func (s *Sensor) Leave() {
	s.gate.Lock()
	s.left.Store(true)
	running := s.running
	s.gate.Unlock()
	if s.kernel == nil {
		return
	}
	if !running {
		s.dismiss()
	} else {
		_ = s.kernel.ring.flush() // wakes it
		<-s.parked
	}
	if s.pins != nil {
		s.pins.close()
	}
}

// reader is the state of the goroutine that empties the ring.
type reader struct {
	*Sensor
	record  record
	records int
	busy    bool      // records came since the last pause
	checked time.Time // the last check
	prompt  time.Time // until then each record wakes the reader
	emptied uint64    // when the ring was last found empty
}

func (r *reader) run(ctx context.Context) error {
	r.heed(ctx)
	if r.failed != nil {
		return r.failed
	}
	if err := r.check(time.Now()); err != nil {
		return err
	}
	if err := r.pause(lookAgain); err != nil { // an exit may be there that woke nobody
		return err
	}
	for ctx.Err() == nil {
		if r.left.Load() {
			r.park()
			<-ctx.Done()
			return nil
		}
		sample, behind, err := r.kernel.ring.read()
		switch {
		case err == nil:
			r.deal(r.kernel, &r.record, sample, behind)
			if r.records++; !r.busy || r.records%checkEvery == 0 {
				r.busy = true
				err = r.pause(lookAgain)
			}
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, errFlushed):
			wait := checkInterval
			if r.serve(true) || r.busy { // what woke the reader may have been taken by the activation
				wait = lookAgain
			}
			r.busy, r.emptied = false, boottime.Now()
			err = r.pause(wait)
		default:
			err = fmt.Errorf("read the ring buffer: %w", err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// heed waits until it is decided what becomes of the records that were sent while nobody read.
func (r *reader) heed(ctx context.Context) {
	for until := time.Now().Add(inheritPatience); ctx.Err() == nil && !r.left.Load(); {
		r.gate.Lock()
		if !r.inheriting {
			r.gate.Unlock()
			return
		}
		decided := r.cfg.Wanted || r.declined || !r.Restored().Sending || time.Now().After(until)
		if decided {
			r.settle(r.cfg.Wanted && !r.declined)
		}
		r.gate.Unlock()
		if !decided {
			r.kernel.ring.pause(checkInterval)
			r.serve(true)
		}
	}
}

// pause sets when to look again if nothing wakes the reader, and does what is due.
func (r *reader) pause(wait time.Duration) error {
	if !r.wanted.Load() && len(r.older) == 0 {
		r.kernel.ring.deadline = time.Time{} // SetWanted wakes it
		return nil
	}
	now := time.Now()
	r.kernel.ring.deadline = now.Add(wait)
	if now.Sub(r.checked) < checkInterval {
		return nil
	}
	return r.check(now)
}

// check repairs the tree after losses, and lets the kernel wake this goroutine for each record while somebody needs the
// tree at once.
func (r *reader) check(now time.Time) error {
	r.checked = now
	interval := uint64(quietInterval)
	if r.missed.Swap(false) {
		r.prompt = now.Add(promptFor)
	}
	if now.Before(r.prompt) {
		interval = 0
	}
	r.kernel.vars.wakeAfter(interval)
	r.repair()
	r.retire(r.emptied)
	if r.unread && r.wanted.Load() {
		r.readAgain()
	}
	return nil
}

// readAgain tries once more what failed when the sensor was activated.
func (s *Sensor) readAgain() {
	s.unreadable(s.rescan())
	if !s.unread {
		s.whole()
	}
}

// deal gives one record to Emit and lets go of it: killed in between, it is the next reader's, which is told.
func (s *Sensor) deal(k *kernel, r *record, sample []byte, behind uint64) {
	k.ledger.begin(behind)
	s.take(r, sample)
	k.ledger.done(r.kind, behind)
	k.ring.commit(behind)
	if k == s.kernel {
		return
	}
	switch r.kind {
	case recordExec:
		s.emitted.oldExecs.Add(1)
	case recordFork:
		s.emitted.oldForks.Add(1)
	case recordExit:
		s.emitted.oldExits.Add(1)
	}
}

// take decodes one record and applies it; what cannot be read is counted and skipped.
func (s *Sensor) take(r *record, raw []byte) {
	switch err := r.decode(raw); {
	case errors.Is(err, errUnknownKind):
		s.emitted.unknownKinds.Add(1)
	case err != nil:
		s.emitted.malformed.Add(1)
	case s.overlap.has(r):
		s.emitted.overlap.Add(1)
	default:
		if e := s.apply(r); e != nil {
			s.cfg.Emit(e)
		}
	}
}

// repair reads all processes anew when the kernel had to drop records: the tree would stay wrong otherwise.
func (s *Sensor) repair() {
	losses := s.kernel.lost()
	lost := losses.sum()
	if lost == s.lost {
		if !s.lostAt.IsZero() && time.Since(s.lostAt) > forgiveLoss {
			s.lostAt = time.Time{}
			s.whole()
		}
		return
	}
	s.cfg.Health.Set(health.Entry{
		Component: Component, Status: health.Degraded,
		Summary: fmt.Sprintf("%d process events were lost since the agent started: the ring buffer was full", lost-s.base.known.sum()),
		Remedy:  "give the agent more processor time, or a larger ring buffer",
	})
	s.lost, s.lostAt = lost, time.Now()
	s.kernel.ledger.known = losses // reported: not the next sensor's to report
	s.emitted.rescans.Add(1)
	if err := s.rescan(); err != nil {
		s.cfg.Log.Error("process sensor cannot repair its tree", "err", err)
	}
}
