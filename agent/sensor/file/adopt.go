package file

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// The groups outlive the sensor when there is a keeper: their marks stay, what they ask waits or is answered by the keeper,
// and what they tell waits in their queues. A successor takes them over with all that is in them, and asks the kernel what
// is marked. Verdicts that were cached by a predecessor are dropped: it may have known other products.

// Names of the groups with the keeper. It answers the first, lets the second go, and only holds the others.
const (
	keptQuestions = "answer/file.questions"
	keptStacked   = "release/file.stacked"
	keptEvents    = "file.events"
	keptLedger    = "file.ledger"
)

// What Pulse.Serving says.
const (
	serving     = 1
	handingOver = 2
)

// take returns a group of an earlier agent, or a new one that the keeper holds from now on.
func (s *Sensor) take(name string, make func() (int, error)) (fd int, adopted bool, err error) {
	k := s.cfg.Keeper
	if k == nil {
		fd, err = make()
		return fd, false, err
	}
	if fd, ok := k.Take(name); ok {
		return fd, true, nil
	}
	if fd, err = make(); err != nil {
		return -1, false, err
	}
	if err := k.Keep(name, fd); err != nil {
		_ = unix.Close(fd)
		return -1, false, fmt.Errorf("give a fanotify group to the keeper: %w", err)
	}
	return fd, false, nil
}

// openGroups makes or takes over the groups of questions and the ledger.
func (s *Sensor) openGroups() (err error) {
	if s.questions, s.adopted, err = s.take(keptQuestions, openQuestions); err != nil {
		return err
	}
	if s.stacked, _, err = s.take(keptStacked, openQuestions); err != nil {
		return err
	}
	s.ledger, _, err = s.take(keptLedger, openLedger)
	return err
}

// openEventGroup makes or takes over the group of file events.
func (s *Sensor) openEventGroup() error {
	var made eventsSupport
	fd, adopted, err := s.take(keptEvents, func() (int, error) {
		var err error
		made, err = openEvents()
		return made.fd, err
	})
	if err != nil {
		s.events = eventsSupport{fd: -1}
		return err
	}
	if !adopted {
		s.events = made
		return nil
	}
	s.events, err = eventsOf(fd)
	return err
}

// eventsOf says what an existing group of events reports.
func eventsOf(fd int) (eventsSupport, error) {
	data, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return eventsSupport{fd: fd}, fmt.Errorf("look at the group of file events: %w", err)
	}
	flags, ok := hexField(data, "fanotify flags:")
	if !ok {
		return eventsSupport{fd: fd}, fmt.Errorf("look at the group of file events: the kernel does not tell its flags")
	}
	return eventsSupport{fd: fd, pidfd: flags&unix.FAN_REPORT_PIDFD != 0, target: flags&unix.FAN_REPORT_TARGET_FID != 0}, nil
}

// newBell tries the doorbell on a group in which nothing waits: reading must not take a question.
func (s *Sensor) newBell() doorbell {
	if !s.adopted {
		return newDoorbell(s.questions)
	}
	group, err := openQuestions()
	if err != nil {
		return doorbell{dir: -1}
	}
	defer func() { _ = unix.Close(group) }()
	return newDoorbell(group)
}

// adoptMarks learns from the kernel what is marked, and drops the verdicts that it has cached. The cached ones come first:
// they are as many as there are files, and would all be read.
func (s *Sensor) adoptMarks() {
	_ = s.cache.flush()
	masks := make(map[uint64]*superblock)
	at := func(dev uint64) *superblock {
		if masks[dev] == nil {
			masks[dev] = &superblock{adopted: true}
		}
		return masks[dev]
	}
	for _, group := range []int{s.questions, s.stacked} {
		found, err := markedIn(group)
		if err != nil {
			s.cfg.Log.Warn("marks of an earlier agent are not known", "err", err)
		}
		for dev, mask := range found {
			at(dev).question |= mask & questionBits
		}
	}
	if s.events.fd >= 0 {
		found, err := markedIn(s.events.fd)
		if err != nil {
			s.cfg.Log.Warn("marks of an earlier agent are not known", "err", err)
		}
		for dev, mask := range found {
			at(dev).notify |= mask
		}
	}
	s.mounts.mu.Lock()
	s.mounts.blocks = masks
	s.mounts.mu.Unlock()
}

// Leave makes the end of Run leave the groups, their marks and what waits in them to a successor. Questions that were read
// are still answered, within leavePatience.
func (s *Sensor) Leave() { s.leaving.Store(true) }

// leavePatience is how long products have for what they were asked before their agent left.
const leavePatience = time.Second

// readOut takes what is left in the groups' queues: the doorbell's events, and the questions that came with them. A
// successor would find the bells and nothing else.
func (s *Sensor) readOut() {
	for _, group := range []int{s.questions, s.stacked} {
		s.bell.unhang(group)
		r := newReader(s, group)
		for range maxReadOut {
			if !r.drain() {
				break
			}
		}
	}
}

// maxReadOut bounds the reads of readOut: more come all the time.
const maxReadOut = 64

// awaitAnswers waits until what was read is answered.
func (s *Sensor) awaitAnswers() {
	for end := time.Now().Add(leavePatience); s.count.unanswered.Load() > 0 && time.Now().Before(end); {
		time.Sleep(200 * time.Microsecond) //nolint:forbidigo // answers come from other processes
	}
}

// arm says whether anything is asked about.
func (s *Sensor) arm(asked bool) {
	v := uint32(0)
	if asked {
		v = 1
	}
	s.pulse.Armed.Store(v)
}
