package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// pulse follows the signs of life of a guest, and what its QEMU gets from the host.
type pulse struct {
	dir    string
	tasks  string // schedstat of each thread
	size   int64
	seen   time.Time // of the last sign
	atSeen schedule
}

// schedule is how long QEMU's threads ran so far, and how long they were ready and waited for a processor.
type schedule struct{ ran, waited time.Duration }

func newPulse(pid int, dir string) *pulse {
	return &pulse{dir: dir, tasks: fmt.Sprintf("/proc/%d/task/*/schedstat", pid), seen: time.Now()}
}

// look takes the pulse. Output is none: a kernel that hangs may go on complaining.
func (p *pulse) look() {
	if info, err := os.Stat(filepath.Join(p.dir, "pulse")); err == nil && info.Size() != p.size {
		p.size, p.seen, p.atSeen = info.Size(), time.Now(), p.schedule()
	}
}

func (p *pulse) silent() time.Duration { return time.Since(p.seen) }

// share returns what QEMU got since then, and what it waited for, as shares of one processor.
func (p *pulse) share(then time.Time, at schedule) (got, waited float64) {
	now, span := p.schedule(), time.Since(then).Seconds()
	return (now.ran - at.ran).Seconds() / span, (now.waited - at.waited).Seconds() / span
}

func (p *pulse) schedule() (sum schedule) {
	files, _ := filepath.Glob(p.tasks)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // the thread is gone
		}
		var ran, waited int64
		if _, err := fmt.Sscan(string(text), &ran, &waited); err == nil {
			sum.ran += time.Duration(ran)
			sum.waited += time.Duration(waited)
		}
	}
	return sum
}
