package file

import (
	"strconv"
	"testing"
	"time"

	"bailey/agent/event"

	"golang.org/x/sys/unix"
)

// Readers wait inside read(2) where the doorbell works, else in a poll; both ways questions are answered, a busy sensor is
// not taken for a stuck one, and an idle one stops at once.
func TestReadersWaitAndEnd(t *testing.T) {
	for _, polls := range []bool{false, true} {
		t.Run("polls="+strconv.FormatBool(polls), func(t *testing.T) {
			r := newRig(t, "", func(c *Config) { c.polls = polls })
			for _, group := range []int{r.s.questions, r.s.stacked} {
				flags, err := unix.FcntlInt(uintptr(group), unix.F_GETFL, 0)
				if err != nil {
					t.Fatal(err)
				}
				if got := flags&unix.O_NONBLOCK != 0; got != polls {
					t.Errorf("the group does not block: %t, want %t", got, polls)
				}
			}
			path := r.file("f")
			r.answer(allow)
			r.s.SetOpenScope([]string{r.dir})
			r.s.SetQuestions(false, true)
			sub := startSubject(t)
			sub.do("openmany", path, "500")
			<-time.After(4 * stuckAfter) // idle for so long that a reader could be taken for a stuck one
			sub.do("openmany", path, "500")
			if n := r.asked(event.Open); n != 1000 {
				t.Errorf("1,000 opens, %d questions", n)
			}
			if n := r.s.Stats().Rescues; n != 0 {
				t.Errorf("idle readers were rescued %d times", n)
			}
			start := time.Now()
			r.stop()
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("stopping took %v", took)
			}
		})
	}
}
