package recorder

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
)

// syncer makes what was written safe from a power cut, on a goroutine of its own, because a busy disk can take seconds.
type syncer struct {
	jobs   chan syncJob
	done   chan struct{}
	failed atomic.Pointer[error]
}

type syncJob struct {
	f     file
	close bool
}

func startSyncer() *syncer {
	s := &syncer{jobs: make(chan syncJob, 2), done: make(chan struct{})}
	go s.run()
	return s
}

func (s *syncer) run() {
	defer close(s.done)
	for j := range s.jobs {
		err := j.f.Sync()
		if errors.Is(err, os.ErrClosed) {
			err = nil // it was retired meanwhile, and synced or not by the kernel's own pace
		}
		if j.close {
			err = errors.Join(err, j.f.Close())
		}
		if err != nil {
			err = fmt.Errorf("sync a segment: %w", err)
			s.failed.Store(&err)
		}
	}
}

// sync asks for f to be synced and reports whether there was room to ask.
func (s *syncer) sync(f file) bool {
	select {
	case s.jobs <- syncJob{f, false}:
		return true
	default:
		return false
	}
}

// retire syncs and closes f, or, when the disk is far behind, only closes it.
func (s *syncer) retire(f file) {
	select {
	case s.jobs <- syncJob{f, true}:
	default:
		_ = f.Close() // what it could not write, the kernel tells nobody either
	}
}

// fault returns the last error, once.
func (s *syncer) fault() error {
	if p := s.failed.Swap(nil); p != nil {
		return *p
	}
	return nil
}

// stop waits until everything asked for is done.
func (s *syncer) stop() {
	close(s.jobs)
	<-s.done
}
