package file

import (
	"fmt"
	"time"

	"bailey/agent/health"
)

// What the readers must not report themselves. Bits.
const (
	alarmOverflow uint32 = 1 << iota
	alarmDescriptors
	alarmEvents
	alarmStuck
)

// alarmLinger is how long trouble with the questions stays in the health registry after it was last seen.
const alarmLinger = 10 * time.Minute

// alarm records that something must be reported, without waiting; the mark manager's goroutine reports it.
func (s *Sensor) alarm(bit uint32) {
	if s.alarms.Or(bit)&bit == 0 {
		s.mounts.wakeUp()
	}
}

// raise reports the alarms and looks after the descriptors. The mark manager calls it at every turn.
func (s *Sensor) raise() {
	alarms := s.alarms.Swap(0)
	low := s.head.check(s.wake)
	if alarms&alarmOverflow != 0 {
		s.report(componentQuestions, health.Failed,
			fmt.Sprintf("The kernel's queue of questions overflowed %d times: openers were let through unasked.", s.count.overflow.Load()),
			"Lower the load or the number of products; report it, for the queue has no limit.")
	}
	if alarms&alarmStuck != 0 {
		s.report(componentQuestions, health.Degraded,
			fmt.Sprintf("Opening a file for a question blocked its reader; others took over %d times.", s.count.rescues.Load()),
			"Look for file systems stacked on stacked ones (findmnt -t overlay), or served by a process that hangs, in the watched set.")
	}
	if alarms&(alarmOverflow|alarmStuck) != 0 {
		s.troubled = time.Now()
	} else if time.Since(s.troubled) > alarmLinger {
		s.report(componentQuestions, health.OK, "Questions are read as they come.", "")
	}
	if alarms&alarmEvents != 0 {
		s.report(componentEvents, health.Degraded,
			fmt.Sprintf("The kernel's queue of file events overflowed %d times: events were lost.", s.count.eventsLost.Load()),
			"Raise fs.fanotify.max_queued_events, or subscribe to fewer kinds.")
	}
	switch {
	case alarms&alarmDescriptors != 0 || low:
		s.report(componentFiles, health.Degraded,
			fmt.Sprintf("File descriptors run short: %d questions were allowed unasked, %d openers were refused by the kernel.", s.count.nearlyFull.Load(), s.count.emfile.Load()),
			fmt.Sprintf("Raise the limit of open files (LimitNOFILE, now %d).", s.head.limit))
	default:
		s.report(componentFiles, health.OK, "There are enough file descriptors for questions.", "")
	}
}
