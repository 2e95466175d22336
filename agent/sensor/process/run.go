package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"bailey/agent/health"
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

// Run emits events until ctx ends. It may be called once.
func (s *Sensor) Run(ctx context.Context) error {
	if s.kernel == nil {
		return s.runPolling(ctx)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stop := context.AfterFunc(ctx, func() { _ = s.kernel.ring.Flush() })
	defer stop()
	s.serve(true)
	defer s.serve(false)
	r := reader{Sensor: s}
	return r.run(ctx)
}

// reader is the state of the goroutine that empties the ring.
type reader struct {
	*Sensor
	raw     ringbuf.Record
	record  record
	records int
	busy    bool      // records came since the last pause
	checked time.Time // the last check
	prompt  time.Time // until then each record wakes the reader
}

func (r *reader) run(ctx context.Context) error {
	if err := r.check(time.Now()); err != nil {
		return err
	}
	if err := r.pause(lookAgain); err != nil { // an exit may be there that woke nobody
		return err
	}
	for ctx.Err() == nil {
		err := r.kernel.ring.ReadInto(&r.raw)
		switch {
		case err == nil:
			r.take(&r.record, r.raw.RawSample)
			if r.records++; !r.busy || r.records%checkEvery == 0 {
				r.busy = true
				err = r.pause(lookAgain)
			}
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, ringbuf.ErrFlushed):
			wait := checkInterval
			if r.serve(true) || r.busy { // what woke the reader may have been taken by the activation
				wait = lookAgain
			}
			r.busy = false
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

// pause sets when to look again if nothing wakes the reader, and does what is due.
func (r *reader) pause(wait time.Duration) error {
	if !r.wanted.Load() {
		r.kernel.ring.SetDeadline(time.Time{}) // SetWanted wakes it
		return nil
	}
	now := time.Now()
	r.kernel.ring.SetDeadline(now.Add(wait))
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
	if err := r.kernel.objects.Quiet.Set(interval); err != nil {
		return fmt.Errorf("tell the BPF programs when to wake the reader: %w", err)
	}
	r.repair()
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

// take decodes one record and applies it; what cannot be read is counted and skipped.
func (s *Sensor) take(r *record, raw []byte) {
	switch err := r.decode(raw); {
	case errors.Is(err, errUnknownKind):
		s.emitted.unknownKinds.Add(1)
	case err != nil:
		s.emitted.malformed.Add(1)
	default:
		if e := s.apply(r); e != nil {
			s.cfg.Emit(e)
		}
	}
}

// repair reads all processes anew when the kernel had to drop records: the tree would stay wrong otherwise.
func (s *Sensor) repair() {
	counts, err := s.kernel.counts()
	if err != nil {
		s.cfg.Log.Error("process sensor cannot read its counters", "err", err)
		return
	}
	lost := counts.LostExecs + counts.LostForks + counts.LostExits + counts.LostScratch + s.kernel.recursions()
	if lost == s.lost {
		if !s.lostAt.IsZero() && time.Since(s.lostAt) > forgiveLoss {
			s.lostAt = time.Time{}
			s.whole()
		}
		return
	}
	s.cfg.Health.Set(health.Entry{
		Component: Component, Status: health.Degraded,
		Summary: fmt.Sprintf("%d process events were lost since the agent started: the ring buffer was full", lost),
		Remedy:  "give the agent more processor time, or a larger ring buffer",
	})
	s.lost, s.lostAt = lost, time.Now()
	s.emitted.rescans.Add(1)
	if err := s.rescan(); err != nil {
		s.cfg.Log.Error("process sensor cannot repair its tree", "err", err)
	}
}
