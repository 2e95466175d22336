package file

import (
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// To read a question is to have the kernel open its file for us. On a stacked file system (overlayfs) that open opens the
// file below, which can be a question again, asked in the reader's own name and waiting for the reader: a deadlock, seen on
// 6.18 with an overlay and its lower file system both marked in one group. So stacked file systems are marked in a group of
// their own, with a reader of its own; the questions it makes below are read, and allowed as the platform's, by the other
// reader. Each superblock is marked in one group only, so no question is asked by both and neither hides one from the other.
//
// That leaves stacks upon stacks, and whatever else may one day block the kernel's open (a server, a driver): a reader that
// stays inside one read is noticed, and substitutes read on until it comes back.

var stackedTypes = map[string]struct{}{"overlay": {}, "ecryptfs": {}, "aufs": {}, "unionfs": {}, "shiftfs": {}, "wrapfs": {}}

// groupOf returns the group in which file systems of this type are marked.
func (s *Sensor) groupOf(fsType string) int {
	if _, ok := stackedTypes[fsType]; ok {
		return s.stacked
	}
	return s.questions
}

// How long a reader may stay in one read while questions wait. A read that does not wait takes microseconds; looking costs
// a wake-up, so it is done as often as the file systems that are asked about make it likely, and not at all without any.
const (
	stuckAfter     = 250 * time.Millisecond
	stuckStacked   = 25 * time.Millisecond // where a stacked file system is asked about
	maxSubstitutes = 16
)

// setPace says what is asked about: how often watchReaders has to look.
func (s *Sensor) setPace(asked, stacked bool) {
	pace := time.Duration(0)
	switch {
	case stacked:
		pace = stuckStacked
	case asked:
		pace = stuckAfter
	}
	if s.pace.Swap(int64(pace)) == int64(pace) {
		return
	}
	select {
	case s.paced <- struct{}{}:
	default:
	}
}

// watchReaders looks for stuck readers until the channel is closed.
func (s *Sensor) watchReaders(readers []*reader, ended <-chan struct{}) {
	var substitutes sync.WaitGroup
	defer substitutes.Wait()
	slots := make(chan struct{}, maxSubstitutes)
	last := make([]uint64, len(readers))
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-ended:
			return
		case <-look.C:
		case <-s.paced:
		}
		if pace := time.Duration(s.pace.Load()); pace > 0 {
			look.Reset(pace)
		}
		for i, r := range readers {
			turn := r.turn.Load()
			stuck := turn == last[i] && turn%2 == 1 && readable(r.group)
			last[i] = turn
			if !stuck {
				// No substitute can be left to wait in a read: only this goroutine starts them. Nor can the keeper.
				if r.outside && len(slots) == 0 && !s.stopping.Load() {
					r.outside = !s.wait(r.group, true)
				}
				continue
			}
			s.wait(r.group, false)
			r.outside = true
			select {
			case slots <- struct{}{}:
				substitutes.Go(func() {
					s.substitute(r.group)
					<-slots
				})
			default:
			}
		}
	}
}

// readable reports whether questions wait in the group: a reader that waits for one is not stuck.
func readable(group int) bool {
	fds := []unix.PollFd{{Fd: int32(group), Events: unix.POLLIN}}
	_ = sysPoll(fds, 0)
	return fds[0].Revents&unix.POLLIN != 0
}

// substitute reads what is waiting in the group, once.
func (s *Sensor) substitute(group int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := newReader(s, group)
	for first := true; r.drain(); first = false {
		if first {
			s.count.rescues.Add(1)
			s.alarm(alarmStuck)
		}
	}
}
